"""``kqueue list``, ``show`` and ``why``: look at jobs."""

import json
from collections.abc import Sequence
from itertools import chain
from typing import Any

import click

from kqueue import Job, State
from kqueue.admin import views
from kqueue.cli.exits import OK, SOME_FAILED, complain
from kqueue.cli.filters import filter_of, filter_options
from kqueue.cli.terminal import find_queue, json_option, one_line, print_columns, print_json, queue_options
from kqueue.model import checks
from kqueue.model.wording import moment


@click.command("list")
@queue_options
@filter_options
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
    state: str,
    limit: int,
    after: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """List jobs in one state, in the order added. The dead ones unless --state says otherwise."""
    wanted = filter_of(given)
    with find_queue(store, broker) as queue:
        jobs = [*chain.from_iterable(queue.search(state, wanted, limit=limit, after=after))]
    more_after = jobs[-1].id if len(jobs) == limit else None
    if as_json:
        listed = [views.summary(job) | {"scheduled_for": moment(job.scheduled_for)} for job in jobs]
        print_json({"jobs": listed, "more_after": more_after})
        return
    if not jobs:
        click.echo(f"no {state} jobs")
        return
    print_jobs(jobs)
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
        job = queue.get_job(checks.job_id(job_id))
    if job is None:
        complain(f"there is no job {job_id}; it may have been deleted")
        return SOME_FAILED
    if as_json:
        print_json(views.details(job) | {"runs": views.runs(job)} | (views.payload(job) if with_payload else {}))
        return OK
    details = {name: one_line(str(value)) for name, value in views.details(job).items() if value is not None}
    if with_payload:
        details |= {name: json.dumps(value) for name, value in views.payload(job).items()}
    width = max(map(len, details))
    for name, text in details.items():
        click.echo(f"{name:{width}}  {text}")
    if job.runs:
        click.echo()
        heads = ["begun", "ended", "by", "reason"]
        print_columns(
            heads, [["" if value is None else value for value in run.values()] for run in views.runs(job)]
        )
    return OK


@click.command()
@queue_options
@click.argument("job_id", metavar="ID")
@json_option
def why(store: str | None, broker: str | None, job_id: str, as_json: bool) -> int:
    """Say why a job does not run, what decides first. Exit status 1 if it is not there."""
    with find_queue(store, broker) as queue:
        answers = queue.why(job_id)
    if not answers:
        complain(f"there is no job {job_id}: it is finished, or was deleted, or never added to this store")
        return SOME_FAILED
    if as_json:
        print_json({"id": job_id, "answers": [views.answer(one) for one in answers]})
        return OK
    for answer in answers:
        click.echo(one_line(answer.text))
    return OK


def print_jobs(jobs: Sequence[Job]) -> None:
    """Print a line for each job."""
    rows = [list(views.summary(job).values()) for job in jobs]
    print_columns(list(views.summary(jobs[0])), [["" if value is None else value for value in row] for row in rows])
