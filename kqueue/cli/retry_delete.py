"""``kqueue retry``, ``delete``, ``purge`` and ``change``: what becomes of jobs: by ids, by a filter, of a type."""

import sys
from collections.abc import Callable, Sequence
from itertools import chain, islice
from typing import Any, NamedTuple

import click

from kqueue import Filter, Job, KQueue, State
from kqueue.cli.exits import OK, SOME_FAILED, complain
from kqueue.cli.filters import filter_of, filter_options
from kqueue.cli.looks.jobs import job_lines
from kqueue.cli.terminal import Command, find_queue, json_option, print_json, queue_options
from kqueue.cli.times import duration, instant
from kqueue.model import checks
from kqueue.model.job import row_of

#: Why dead jobs come back, where nothing else is said.
RETRIED = "retried by an operator"
#: Jobs that are shown before it is asked whether all that match are meant.
SHOWN = 5


def _choices(command: Command) -> Command:
    """Which jobs: ids, or a filter of the dead ones."""
    for option in (
        click.option("--yes", is_flag=True, help="Do not ask."),
        click.option("--limit", type=click.IntRange(min=1), metavar="N", help="With a filter: N jobs at most."),
        filter_options,
        click.option("--all-dead", is_flag=True, help="All dead jobs, or those that the filter leaves."),
        click.argument(
            "ids",
            metavar="[ID...]",
            nargs=-1,
            # An id that is given twice would count as missing the second time.
            callback=lambda context, parameter, ids: list(dict.fromkeys(ids)),
        ),
    ):
        command = option(command)
    return command


class _Choice(NamedTuple):
    """Which jobs are meant."""

    ids: Sequence[str]
    all_dead: bool
    #: Not the dead, but those that wait for their retry.
    delayed: bool
    wanted: Filter
    limit: int | None
    yes: bool

    @property
    def by_filter(self) -> bool:
        return self.all_dead or self.delayed or self.wanted != Filter()

    def check(self, command: str) -> None:
        """Raises ``ValueError`` where it is not clear what is meant, before anything is opened."""
        if self.all_dead and self.delayed:
            raise ValueError("--delayed: either that or --all-dead")
        if bool(self.ids) == self.by_filter:
            raise ValueError(f"{command}: give either IDs, or --all-dead or a filter of the dead jobs")
        if self.limit is not None and not self.by_filter:
            raise ValueError("--limit: only for --all-dead or a filter")


class _Act(NamedTuple):
    """What is done to the jobs."""

    name: str
    done: str
    refused: str
    one: Callable[[KQueue, str], bool]
    many: Callable[[KQueue, Filter, int | None], int]
    #: Whether it asks for jobs that are named, too.
    asks_for_ids: bool

    def say(self, number: int, refused: Sequence[str], as_json: bool) -> int:
        """How many it was done to, and what it was not; returns the exit status."""
        return _say(self.done, number, self.refused, refused, as_json)


@click.command()
@queue_options
@_choices
@click.option("--delayed", is_flag=True, help="Not the dead: run now those that wait for their retry.")
@click.option(
    "--reason",
    default=RETRIED,
    show_default=True,
    metavar="TEXT",
    help="Why dead ones come back; they tell it until a run of them gives another reason.",
)
@json_option
def retry(*, store: str | None, broker: str | None, reason: str, as_json: bool, **given: Any) -> int:
    """Bring dead jobs back, their tries cleared, and print how many. With --delayed, run now what waits for its
    retry, as after an outage.

    By their ids, or by a filter, in lots of 100: what was done before an interrupt stays done. Exit status 1 if
    some of those named were not dead.
    """
    choice = _choice(given)

    def many(queue: KQueue, wanted: Filter, limit: int | None) -> int:
        if choice.delayed:
            return queue.retry_delayed(wanted, limit=limit)
        return queue.retry_dead(reason, wanted, limit=limit)

    act = _Act(
        "Retry",
        "retried",
        "not dead",
        lambda queue, job_id: queue.retry_job(job_id, reason),
        many,
        asks_for_ids=False,
    )
    return _carry_out(act, store, broker, choice, as_json)


@click.command()
@queue_options
@_choices
@json_option
def delete(*, store: str | None, broker: str | None, as_json: bool, **given: Any) -> int:
    """Delete jobs, and print how many there were.

    By their ids, in whatever state, or dead ones by a filter, in lots of 100. Exit status 1 if some of those named
    were not there.
    """
    act = _Act(
        "Delete",
        "deleted",
        "not there",
        lambda queue, job_id: queue.delete_job(job_id),
        lambda queue, wanted, limit: queue.delete_dead(wanted, limit=limit),
        asks_for_ids=True,
    )
    return _carry_out(act, store, broker, _choice({**given, "delayed": False}), as_json)


@click.command()
@queue_options
@click.argument("job_type", metavar="TYPE")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def purge(*, store: str | None, broker: str | None, job_type: str, yes: bool, as_json: bool) -> int:
    """Delete all jobs of TYPE that do not run, and print how many. Exit status 1 if you say no."""
    if not yes and not _is_terminal():
        raise ValueError("purge: there is no terminal to ask on; give --yes to go on without")
    with find_queue(store, broker) as queue:
        number = sum(rows for state, rows in queue.counts(job_type).items() if state != "running")
        if not yes and number and not click.confirm(f"Delete all {number} jobs of {job_type} that do not run?"):
            return SOME_FAILED
        purged = queue.purge_jobs(job_type)
    if as_json:
        print_json({"purged": purged})
    else:
        click.echo(f"purged {purged}")
    return OK


@click.command()
@queue_options
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@click.option("--priority", metavar="NAME|N", help="URGENT, HIGH, NORMAL, LOW, BULK, or 0..2**32-1.")
@click.option("--delay", callback=duration, metavar="TIME", help="Run it in so long: 90, or 10m, 2h, 3d; 0 is now.")
@click.option("--run-at", callback=instant, metavar="TIME", help="Run it not before then: 2026-05-01T12:00.")
@json_option
def change(*, store: str | None, broker: str | None, ids: Sequence[str], as_json: bool, **given: Any) -> int:
    """Give jobs that wait another priority, or another time to run at, and print how many. Exit status 1 if some of
    them run, have ended or are not there.
    """
    if str(given["priority"]).isdecimal():
        given["priority"] = int(given["priority"])
    wanted = [checks.job_id(job_id) for job_id in dict.fromkeys(ids)]
    with find_queue(store, broker) as queue:
        refused = [job_id for job_id in wanted if not queue.change_job(job_id, **given)]
    return _say("changed", len(wanted) - len(refused), "not waiting", refused, as_json)


def _choice(given: dict[str, Any]) -> _Choice:
    wanted = filter_of(given)
    return _Choice(given["ids"], given["all_dead"], given["delayed"], wanted, given["limit"], given["yes"])


def _carry_out(act: _Act, store: str | None, broker: str | None, choice: _Choice, as_json: bool) -> int:
    choice.check(act.name.lower())
    asks = not choice.yes and (choice.by_filter or act.asks_for_ids)
    if asks and not _is_terminal():
        raise ValueError(f"{act.name.lower()}: there is no terminal to ask on; give --yes to go on without")
    with find_queue(store, broker) as queue:
        if choice.by_filter:
            if asks and not _agreed_to_filter(queue, act, choice):
                return act.say(0, [], as_json) or SOME_FAILED
            return act.say(act.many(queue, choice.wanted, choice.limit), [], as_json)
        jobs = _known(queue, choice.ids)  # refuses a malformed id before the first job is touched
        if asks and jobs and not _agreed(act, jobs, "this job" if len(jobs) == 1 else f"these {len(jobs)} jobs"):
            return act.say(0, [], as_json) or SOME_FAILED
        refused = [job_id for job_id in choice.ids if not act.one(queue, job_id)]
        return act.say(len(choice.ids) - len(refused), refused, as_json)


def _agreed_to_filter(queue: KQueue, act: _Act, choice: _Choice) -> bool:
    state = State.DELAYED if choice.delayed else State.DEAD
    found = chain.from_iterable(queue.search(state, choice.wanted))
    shown = list(islice((job for job in found if not choice.delayed or row_of(job).failures), SHOWN))
    if not shown:
        return True
    most = f", {choice.limit} at most" if choice.limit else ""
    return _agreed(act, shown, f"all {state} jobs that match, such as these{most}")


def _agreed(act: _Act, jobs: Sequence[Job], what: str) -> bool:
    for line in job_lines(jobs):
        click.echo(line)
    return click.confirm(f"{act.name} {what}?")


def _known(queue: KQueue, ids: Sequence[str]) -> list[Job]:
    """Those that are there. Raises ``ValueError`` for a malformed id."""
    found = [queue.get_job(checks.job_id(job_id)) for job_id in ids]
    return [job for job in found if job is not None]


def _say(done: str, number: int, why: str, refused: Sequence[str], as_json: bool) -> int:
    if as_json:
        print_json({done: number, "refused": list(refused)})
    else:
        click.echo(f"{done} {number}")
    if refused:
        complain(f"{why}: {' '.join(refused)}")
    return SOME_FAILED if refused else OK


def _is_terminal() -> bool:
    # None where it is closed.
    return sys.stdin is not None and sys.stdin.isatty()
