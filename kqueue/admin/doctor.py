"""What an operator should look at, from the state of a store and its tubes: pure."""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from kqueue.contracts.broker import Stray
from kqueue.contracts.lookup import Backlog
from kqueue.contracts.operator import ALL_TYPES
from kqueue.contracts.stored_times import Misdated
from kqueue.contracts.workers import WorkerRecord, is_alive
from kqueue.model.job import State
from kqueue.model.wording import counted, span
from kqueue.upkeep.hanging import hanging_of

#: Seconds that a repair may be late before somebody should look: a few sweeps.
LATE_S = 60.0
#: Seconds that tubes are served by nobody before somebody should look.
UNSERVED_S = 86_400.0
#: Seconds that a ready job may wait before somebody should look.
LONG_WAIT_S = 600.0
#: Seconds between this host's clock and the store's.
CLOCKS_S = 2.0
#: Jobs that are counted of each kind of repair that is late, at most.
MOST_COUNTED = 1000
#: Failed runs of a job, after which somebody should look.
OFTEN = 3
#: Types that are named for one reason, the worst ones.
MOST_NAMED = 10


class Severity(StrEnum):
    """How soon to look. Each compares equal to its name."""

    #: Jobs do not run.
    PROBLEM = "problem"
    #: Nothing is lost and jobs run, but it is not as it should be.
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Symptom:
    """One thing that an operator should look at."""

    severity: Severity
    #: What it is about, in a word or two.
    about: str
    #: What it is and what to do, on one line.
    text: str


class Failing(NamedTuple):
    """Jobs of one type that fail again and again."""

    type: str
    jobs: int
    #: Why one of them failed last.
    reason: str | None


@dataclass(frozen=True, slots=True)
class Vitals:
    """What was read. Times by the store's clock, but for ``host_time``."""

    now: float
    host_time: float
    overview: Sequence[Backlog]
    workers: Sequence[WorkerRecord]
    paused: Mapping[str, float]
    #: Jobs, counted up to :data:`MOST_COUNTED`, that a sweep should have made ready, taken back or put long ago.
    overdue: int
    abandoned: int
    unput: int
    #: What the broker says of itself and of the tubes.
    broker_warnings: Sequence[str]
    #: Tubes that no store serves, for more than a day.
    strays: Sequence[Stray]
    #: What the names of this store's tubes begin with.
    beginning: str
    #: Why it does not answer.
    broker_error: str | None
    #: What holds a time that lies further ahead than it can, up to :data:`MOST_COUNTED` of each kind.
    misdated: Sequence[Misdated] = ()
    #: Of the first :data:`MOST_COUNTED` delayed jobs those that have failed :data:`OFTEN` times or more, by type.
    failing: Sequence[Failing] = ()


def diagnose(vitals: Vitals) -> list[Symptom]:
    """Problems first; empty if all is well."""
    found = [*_servers(vitals), *_workers(vitals), *_hanging(vitals), *_repairs(vitals), *_jobs(vitals)]
    return sorted(found, key=lambda symptom: symptom.severity is not Severity.PROBLEM)


def _servers(vitals: Vitals) -> Iterator[Symptom]:
    if vitals.broker_error is not None:
        yield Symptom(Severity.PROBLEM, "broker", f"{vitals.broker_error}. Workers ask the store until it is back")
    for warning in vitals.broker_warnings:
        yield Symptom(Severity.WARNING, "broker", warning)
    for stray in vitals.strays[:MOST_NAMED]:
        yield Symptom(Severity.WARNING, "tubes", _stray(stray, vitals))
    if len(vitals.strays) > MOST_NAMED:
        rest = len(vitals.strays) - MOST_NAMED
        yield Symptom(Severity.WARNING, "tubes", f"and those of {rest:,} more stores are served by nobody")
    apart = abs(vitals.now - vitals.host_time)
    if apart > CLOCKS_S:
        yield Symptom(
            Severity.WARNING,
            "clock",
            f"the store's clock and this host's are {span(apart)} apart: run NTP on both; leases and delays go by"
            " the store's",
        )
    kinds = Counter(one.what for one in vitals.misdated)
    if kinds:
        ahead = span(max(one.at for one in vitals.misdated) - vitals.now)
        counts = ", ".join(f"{_at_least(number)}{counted(number, kind)}" for kind, number in kinds.items())
        yield Symptom(
            Severity.WARNING,
            "clock",
            f"times in the future, up to {ahead} ahead: {counts}. The store's clock was wrong when they were"
            " written; the next sweep sets them right: start a worker, or run kqueue sweep; and run NTP there",
        )


def _at_least(number: int) -> str:
    return "at least " if number >= MOST_COUNTED else ""


def _stray(stray: Stray, vitals: Vitals) -> str:
    return (
        f"tubes beginning with {stray.beginning}: {stray.tubes}, with {stray.entries} entries, and no store has"
        f" served them for {span(vitals.now - stray.put_at)} (this one's begin with {vitals.beginning}); unless a"
        f" store of yours has that id, kqueue empty-tubes {stray.beginning} empties them. No job is lost by it"
    )


def _workers(vitals: Vitals) -> Iterator[Symptom]:
    alive = [worker for worker in vitals.workers if is_alive(worker, vitals.now)]
    served = {type for worker in alive for type in worker.types}
    waiting: defaultdict[str, int] = defaultdict(int)
    for standing in vitals.overview:
        if standing.state in {State.READY, State.HELD} and standing.type not in served:
            waiting[standing.type] += standing.rows
    who = "none of the live workers has a handler for them" if alive else "no worker waits for jobs"
    yield from _worst(
        "workers",
        {
            f"waiting jobs of type {type}: {rows}, and {who}: only cron would run them": rows
            for type, rows in waiting.items()
        },
        f"with waiting jobs, and {who}",
    )
    yield from _worst(
        "pause",
        {_paused(name, vitals.now - since): vitals.now - since for name, since in vitals.paused.items()},
        "are paused",
    )


def _paused(name: str, seconds: float) -> str:
    what = "the whole queue" if name == ALL_TYPES else f"type {name}"
    command = "kqueue resume --all" if name == ALL_TYPES else f"kqueue resume {name}"
    return f"{what} is paused for {span(seconds)}; {command} ends it"


def _hanging(vitals: Vitals) -> Iterator[Symptom]:
    for worker in vitals.workers:
        if not is_alive(worker, vitals.now):
            continue
        where, hanging = f"process {worker.pid} on {worker.host}", hanging_of(worker, vitals.now)
        for one in hanging.past_lease:
            runs = "has ended, and its handler still runs" if one.is_settled else "still runs"
            yield Symptom(
                Severity.PROBLEM,
                "hang",
                f"job {one.job_id} of type {one.type} {runs} in {where}, {span(one.seconds)} beyond its lease:"
                " its handler hangs, or its ttr is too short; it keeps a thread until it ends: restart the process",
            )
        if hanging.event_loop_s:
            yield Symptom(
                Severity.PROBLEM,
                "hang",
                f"the event loop of {where} has stood still for {span(hanging.event_loop_s)}: a coroutine does not"
                " give way, and no other gets on there: restart the process",
            )
        if hanging.abandoned:
            one = hanging.abandoned[0]
            yield Symptom(
                Severity.WARNING,
                "hang",
                f"coroutines in {where} that have not ended since they were cancelled, their time being over:"
                f" {hanging.abandoned_count}; one was of job {one.job_id} of type {one.type}",
            )


def _repairs(vitals: Vitals) -> Iterator[Symptom]:
    for rows, what in (
        (vitals.overdue, "due for more than a minute and not ready"),
        (vitals.abandoned, "without their worker for more than a minute and not taken back"),
        (vitals.unput, "without a pointer in their tube for more than a minute"),
    ):
        if rows:
            number = f"{rows} or more" if rows >= MOST_COUNTED else str(rows)
            yield Symptom(
                Severity.PROBLEM,
                "sweep",
                f"jobs {what}: {number}; nobody sweeps: start a worker, or run kqueue sweep",
            )


def _jobs(vitals: Vitals) -> Iterator[Symptom]:
    waits: dict[str, float] = {}
    dead: dict[str, float] = {}
    for standing in vitals.overview:
        seconds = vitals.now - standing.oldest_run_at
        if standing.state == State.READY and seconds > LONG_WAIT_S:
            waits[
                f"the oldest of {standing.rows} ready jobs of type {standing.type} waits for {span(seconds)}:"
                " more workers, or kqueue why"
            ] = seconds
        elif standing.state == State.DEAD:
            text = f"dead jobs of type {standing.type}: {standing.rows}; kqueue list --type {standing.type}"
            dead[text] = standing.rows
    failing = {
        f"failed {OFTEN} times or more: {counted(one.jobs, 'job')} of {one.type}, last: {one.reason}": float(
            one.jobs
        )
        for one in vitals.failing
    }
    yield from _worst("failing", failing, "whose jobs fail again and again; kqueue list --state delayed")
    yield from _worst("waiting", waits, f"with a ready job that waits for {span(LONG_WAIT_S)} or more")
    yield from _worst("dead", dead, "with dead jobs; kqueue list")


def _worst(about: str, found: Mapping[str, float], rest: str) -> Iterator[Symptom]:
    """A warning for each of the worst, and one that counts the others. ``found``: how bad, by what is said."""
    for text in heapq.nlargest(MOST_NAMED, found, key=found.__getitem__):
        yield Symptom(Severity.WARNING, about, text)
    if len(found) > MOST_NAMED:
        yield Symptom(Severity.WARNING, about, f"and {len(found) - MOST_NAMED:,} more types {rest}")
