"""``kqueue list``, ``show``, ``retry`` and ``delete``: look at jobs, and decide what becomes of them."""

import base64
import json
import sys
from collections.abc import Callable, Sequence
from datetime import datetime

import click

from kqueue import Job, KQueue, State
from kqueue.commands.terminal import (
    OK,
    SOME_FAILED,
    complain,
    find_queue,
    json_option,
    one_line,
    print_columns,
    print_json,
    queue_options,
)

_ids_argument = click.argument(
    "ids",
    metavar="ID...",
    nargs=-1,
    required=True,
    # An id that is given twice would count as missing the second time.
    callback=lambda context, parameter, ids: list(dict.fromkeys(ids)),
)


@click.command("list")
@queue_options
@click.option("--type", "job_type", metavar="TYPE", help="Only jobs of this type.")
@click.option(
    "--state", type=click.Choice([state.value for state in State]), default=State.DEAD.value, show_default=True
)
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, metavar="N")
@click.option("--after", metavar="ID", help="Only jobs added after this one: the last one of the page before.")
@json_option
def list_command(
    *,
    store: str | None,
    broker: str | None,
    job_type: str | None,
    state: str,
    limit: int,
    after: str | None,
    as_json: bool,
) -> None:
    """List jobs in one state, in the order added. The dead ones unless --state says otherwise."""
    with find_queue(store, broker) as queue:
        jobs = queue.jobs(job_type, state=state, limit=limit, after=after)
    more_after = jobs[-1].id if len(jobs) == limit else None
    if as_json:
        print_json({"jobs": [_summary(job) for job in jobs], "more_after": more_after})
        return
    if not jobs:
        click.echo(f"no {state} jobs")
        return
    _print_jobs(jobs)
    if more_after:
        click.echo(f"There may be more: the same with --after {more_after}")


@click.command()
@queue_options
@click.argument("job_id", metavar="ID")
@click.option("--payload", "with_payload", is_flag=True, help="Its payload too. Bytes are shown in base 64.")
@json_option
def show(store: str | None, broker: str | None, job_id: str, with_payload: bool, as_json: bool) -> int:
    """Show one job. Exit status 1 if it is not there."""
    with find_queue(store, broker) as queue:
        job = queue.get_job(job_id)
    if job is None:
        complain(f"there is no job {job_id}; it may have been deleted")
        return SOME_FAILED
    if as_json:
        print_json(_details(job) | (_payload(job) if with_payload else {}))
        return OK
    details = {name: one_line(str(value)) for name, value in _details(job).items() if value is not None}
    if with_payload:
        details |= {name: json.dumps(value) for name, value in _payload(job).items()}
    width = max(map(len, details))
    for name, text in details.items():
        click.echo(f"{name:{width}}  {text}")
    return OK


@click.command()
@queue_options
@_ids_argument
@click.option("--reason", required=True, metavar="TEXT", help="Why; it stays with the job.")
def retry(store: str | None, broker: str | None, ids: Sequence[str], reason: str) -> int:
    """Bring dead jobs back, their tries cleared, and print how many. Exit status 1 if some were not dead."""
    with find_queue(store, broker) as queue:
        _known(queue, ids)  # for its refusal of malformed ids
        return _for_each(ids, lambda job_id: queue.retry_job(job_id, reason), done="retried", refused="not dead")


@click.command()
@queue_options
@_ids_argument
@click.option("--yes", is_flag=True, help="Do not ask.")
def delete(store: str | None, broker: str | None, ids: Sequence[str], yes: bool) -> int:
    """Delete jobs, in whatever state, and print how many there were. Exit status 1 if some were not there."""
    if not yes and not _is_terminal():
        raise ValueError("delete: there is no terminal to ask on; give --yes to delete without being asked")
    with find_queue(store, broker) as queue:
        jobs = _known(queue, ids)
        if jobs and not yes:
            _print_jobs(jobs)
            if not click.confirm(f"Delete {'this job' if len(jobs) == 1 else f'these {len(jobs)} jobs'}?"):
                click.echo("deleted 0")
                return SOME_FAILED
        return _for_each(ids, queue.delete_job, done="deleted", refused="not there")


def _known(queue: KQueue, ids: Sequence[str]) -> list[Job]:
    """Those that are there. Raises ``ValueError`` for a malformed id, before the first job is touched."""
    found = [queue.get_job(job_id) for job_id in ids]
    return [job for job in found if job is not None]


def _for_each(ids: Sequence[str], do: Callable[[str], bool], *, done: str, refused: str) -> int:
    left = [job_id for job_id in ids if not do(job_id)]
    click.echo(f"{done} {len(ids) - len(left)}")
    if left:
        complain(f"{refused}: {' '.join(left)}")
    return SOME_FAILED if left else OK


def _is_terminal() -> bool:
    # None where it is closed.
    return sys.stdin is not None and sys.stdin.isatty()


def _print_jobs(jobs: Sequence[Job]) -> None:
    rows = [list(_summary(job).values()) for job in jobs]
    print_columns(list(_summary(jobs[0])), [["" if value is None else value for value in row] for row in rows])


def _summary(job: Job) -> dict[str, str | int | None]:
    return {"id": job.id, "type": job.type, "state": job.state.value, "tries": job.tries, "reason": job.reason}


def _details(job: Job) -> dict[str, str | int | float | None]:
    return {
        "id": job.id,
        "type": job.type,
        "state": job.state.value,
        "priority": job.priority,
        "tries": job.tries,
        "fence": job.fence,
        "created_at": _local_time(job.created_at),
        "run_at": _local_time(job.run_at),
        "ttr": job.ttr,
        "reason": job.reason,
    }


def _payload(job: Job) -> dict[str, object]:
    """Two names, so that bytes are never taken for a text."""
    value = job.payload
    if isinstance(value, bytes):
        return {"payload_base64": base64.b64encode(value).decode("ascii")}
    return {"payload": value}


def _local_time(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        # A delay may be any finite number of seconds, and reach beyond the last year that a datetime has.
        return f"{seconds:g} s after 1970"
