"""``kqueue list``, ``show`` and ``why``: look at jobs."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import click

from kqueue import Filter, Job, KQueue, State
from kqueue.admin import views
from kqueue.cli.exits import OK, SOME_FAILED, complain
from kqueue.cli.filters import filter_of, filter_options
from kqueue.cli.looks.follow import follow, log_lines, progress_text
from kqueue.cli.looks.watching import show_each, watch_option
from kqueue.cli.terminal import (
    columns,
    find_queue,
    harmless,
    json_option,
    one_line,
    print_columns,
    print_json,
    queue_options,
)
from kqueue.contracts.reporting import MOST_LINES
from kqueue.model import checks
from kqueue.model.wording import moment

#: Jobs that are listed unless another number is given.
PAGE = 100
#: Lines of a log that are shown; all of them as JSON.
LOG_SHOWN = 20


@click.command("list")
@queue_options
@filter_options
@click.option(
    "--state", type=click.Choice([state.value for state in State]), default=State.DEAD.value, show_default=True
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help=f"Of so many at most. [default: {PAGE}]")
@click.option("--after", metavar="ID", help="Only jobs added after this one: the last one of the page before.")
@click.option("--count", "only_count", is_flag=True, help="How many they are, by type, instead of the jobs.")
@watch_option
@json_option
def list_command(
    *,
    store: str | None,
    broker: str | None,
    state: str,
    limit: int | None,
    after: str | None,
    only_count: bool,
    every: float | None,
    as_json: bool,
    **given: Any,
) -> None:
    """List jobs in one state, in the order added. The dead ones unless --state says otherwise.

    A TIME is 2026-05-01T12:00, or 90s, 10m, 2h, 3d: so long ago.
    """
    wanted = filter_of(given)
    with find_queue(store, broker, rings=False) as queue:

        def look() -> list[str]:
            if only_count:
                return _count_lines(_count(queue, state, wanted, limit, after), state, as_json=as_json)
            most = PAGE if limit is None else limit
            jobs = [*chain.from_iterable(queue.search(state, wanted, limit=most, after=after))]
            return _list_lines(jobs, state, jobs[-1].id if len(jobs) == most else None, as_json=as_json)

        show_each(look, every)


def _count(queue: KQueue, state: str, wanted: Filter, limit: int | None, after: str | None) -> Counter[str]:
    """Jobs by type. Without a need to look at each, the store counts them in an index."""
    if limit is None and after is None and wanted == Filter(wanted.type):
        if wanted.type is not None:
            return +Counter({wanted.type: queue.counts(wanted.type)[state]})
        return Counter({one.type: one.rows for one in queue.store.overview() if one.state == state})
    lots = queue.search(state, wanted, limit=limit, after=after)
    return Counter(job.type for lot in lots for job in lot)


def _count_lines(jobs: Counter[str], state: str, *, as_json: bool) -> list[str]:
    if as_json:
        return [json.dumps({"count": jobs.total(), "types": jobs})]
    if not jobs:
        return [f"no {state} jobs"]
    total = [["all types", jobs.total()]] if len(jobs) > 1 else []
    return [*columns(["type", state], [*jobs.most_common(), *total])]


def _list_lines(jobs: Sequence[Job], state: str, more_after: str | None, *, as_json: bool) -> list[str]:
    if as_json:
        listed = [views.summary(job) | {"scheduled_for": moment(job.scheduled_for)} for job in jobs]
        return [json.dumps({"jobs": listed, "more_after": more_after})]
    if not jobs:
        return [f"no {state} jobs"]
    more = [f"There may be more: the same with --after {more_after}"] if more_after else []
    return [*job_lines(jobs), *more]


@click.command()
@queue_options
@click.argument("job_id", metavar="ID")
@click.option("--payload", "with_payload", is_flag=True, help="Its payload too. Bytes are shown in base 64.")
@click.option(
    "--follow", "follows", is_flag=True, help="Its log and progress as they come, until its end or Ctrl-C."
)
@json_option
def show(
    *, store: str | None, broker: str | None, job_id: str, with_payload: bool, follows: bool, as_json: bool
) -> int:
    """Show one job, with the end of its log. Exit status 1 if it is not there, or with --follow if it ends dead."""
    if follows and as_json:
        raise click.UsageError("--follow: not together with --json; show --json again and again does it")
    with find_queue(store, broker, rings=False) as queue:
        job = queue.get_job(checks.job_id(job_id))
        log = [] if job is None or follows else queue.job_log(job_id, limit=MOST_LINES)
        if job is not None and follows:
            return follow(queue, job_id)
    if job is None:
        complain(f"there is no job {job_id}; it may have been deleted")
        return SOME_FAILED
    values = views.result(job) | (views.payload(job) if with_payload else {})
    if as_json:
        print_json(views.details(job) | {"runs": views.runs(job), "log": views.log(log)} | values)
        return OK
    details = {name: one_line(str(value)) for name, value in views.details(job).items() if value is not None}
    if job.progress is not None:
        details["progress"] = progress_text(job.progress)
    details |= {name: json.dumps(value) for name, value in values.items()}
    width = max(map(len, details))
    for name, text in details.items():
        click.echo(f"{name:{width}}  {text}")
    if job.runs:
        click.echo()
        heads = ["begun", "ended", "by", "reason"]
        lines = [[run[name] or "" for name in heads] for run in views.runs(job)]
        print_columns(heads, lines)
        _print_tracebacks(job)
    if log:
        click.echo()
        for line in log[-LOG_SHOWN:]:
            click.echo("\n".join(log_lines(line)))
    return OK


def _print_tracebacks(job: Job) -> None:
    """The last first; what several runs have alike once."""
    told: set[str] = set()
    for run in reversed(job.runs):
        if run.traceback is not None and run.traceback not in told:
            told.add(run.traceback)
            click.echo(f"\nof the run that ended {moment(run.ended_at)}:")
            click.echo("\n".join(map(harmless, run.traceback.split("\n"))))


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


def job_lines(jobs: Sequence[Job]) -> Iterator[str]:
    """A line for each job, under their heads."""
    rows = [list(views.summary(job).values()) for job in jobs]
    heads = list(views.summary(jobs[0]))
    return columns(heads, [["" if value is None else value for value in row] for row in rows])
