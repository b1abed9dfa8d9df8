"""Why is a job not running? Pure: from the facts to sentences, the one that decides first.

The facts are read by :meth:`kqueue.KQueue.why`. A job's state says which of them matter: one that is ready may be
held up by several things at once, and all of them are told.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from kqueue.contracts.admission import Limit, type_in_gates
from kqueue.contracts.operator import ALL_TYPES
from kqueue.contracts.repair import Head
from kqueue.contracts.rules import dated, is_lost
from kqueue.contracts.stored_times import furthest, is_misdated, times_of
from kqueue.contracts.workers import WorkerRecord, is_alive
from kqueue.model.ids import is_job_id, maker, origin
from kqueue.model.job import Row, State
from kqueue.model.wording import counted, moment, span
from kqueue.upkeep.hanging import hanging_of

#: Jobs that are counted before a waiting one at most.
MOST_AHEAD = 10_000


class Cause(StrEnum):
    """What keeps a job from running. Each compares equal to its name."""

    DEAD = "dead"
    DONE = "done"
    RUNNING = "running"
    #: It was running, and its lease is over.
    ABANDONED = "abandoned"
    DELAYED = "delayed"
    #: A limit of its type or key is reached.
    LIMIT = "limit"
    PAUSED = "paused"
    #: No worker that was heard of lately has a handler for its type.
    NO_HANDLER = "no handler"
    #: No worker was heard of lately that waits for jobs; cron may run them.
    NO_WORKER = "no worker"
    NO_POINTER = "no pointer"
    BROKER_DOWN = "broker down"
    #: One of its times lies in the future, since the store's clock was ahead.
    CLOCK = "clock"
    #: Others come first.
    WAITING = "waiting"
    #: Nothing keeps it.
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Answer:
    """One thing that keeps a job from running."""

    cause: Cause
    #: In plain words, on one line.
    text: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What was read about a job and what is around it. Times by the store's clock."""

    row: Row
    now: float
    paused: Mapping[str, float]
    workers: Sequence[WorkerRecord]
    #: Jobs of its type that come before it, counted up to :data:`MOST_AHEAD`.
    ahead: int
    #: Of its type, where this process knows them.
    limit: Limit | None
    #: Whether jobs have pointers in tubes.
    has_tubes: bool
    #: What its tube would serve next; None if nothing is ready there, or ``broker_error`` is there.
    head: Head | None
    #: Why the broker does not answer.
    broker_error: str | None
    #: Seconds after which a pointer may be lost, and between two sweeps.
    grace: float
    sweep_interval: float
    max_crashes: int


def why(facts: Facts) -> list[Answer]:
    """At least one answer."""
    return [*_clock(facts), *_by_state(facts)]


def _by_state(facts: Facts) -> list[Answer]:
    match facts.row.state:
        case State.DEAD:
            return [_dead(facts)]
        case State.DONE:
            return [_done(facts)]
        case State.RUNNING:
            return [_running(facts)]
        case State.HELD:
            return [_held(facts), *_everyone(facts)]
        case State.DELAYED if facts.row.run_at > facts.now:
            return [_delayed(facts), *_paused(facts)]
        case _:
            return list(_waiting(facts)) or [_next(facts)]


def _clock(facts: Facts) -> Iterator[Answer]:
    times = times_of(facts.row)
    if is_misdated(facts.row, facts.now):
        ahead = span(furthest(times, facts.now) - facts.now)
        yield Answer(
            Cause.CLOCK,
            f"the store's clock was ahead when it was written: one of its times lies {ahead} in the future;"
            f" the next sweep sets it right {_sweeps(facts)}",
        )


def _dead(facts: Facts) -> Answer:
    row = facts.row
    runs = counted(row.failures, "failed run") if row.failures else f"{counted(row.crashes, 'death')} of its worker"
    hangs = "".join(f"; its handler still {where}" for where in _where_it_hangs(facts))
    return Answer(
        Cause.DEAD,
        f"it is dead after {runs}: {row.reason or 'no reason'}; kqueue retry {row.id} brings it back{hangs}",
    )


def _done(facts: Facts) -> Answer:
    kept = "" if facts.row.keep_until is None else f"; kept until {moment(facts.row.keep_until)}"
    hangs = "".join(f"; its handler still {where}" for where in _where_it_hangs(facts))
    return Answer(Cause.DONE, f"it is finished{kept}{hangs}")


def _running(facts: Facts) -> Answer:
    row, until = facts.row, facts.row.lease_until or 0.0
    who = maker(row.lease_owner)
    if until > facts.now:
        return Answer(
            Cause.RUNNING,
            f"it runs, its lease held by {who} until {moment(until)} (for {span(until - facts.now)}){_age(facts)}",
        )
    blame = f"; it ran alone: crash {row.crashes + 1} of {facts.max_crashes}" if row.alone else ""
    blame += "".join(f"; it still {where}" for where in _where_it_hangs(facts))
    return Answer(
        Cause.ABANDONED,
        f"{who} had it, and its lease ran out {span(facts.now - until)} ago{blame}; the next sweep takes it back"
        f" {_sweeps(facts)}",
    )


def _age(facts: Facts) -> str:
    """Of a run that has had more than one lease. A claim's owner is made as ids are, so it tells when it began."""
    row = facts.row
    if row.lease_owner is None or not is_job_id(row.lease_owner):
        return ""
    ran = facts.now - origin(row.lease_owner).made_at
    if ran < 2 * row.ttr:
        return ""
    return f"; it has run for {span(ran)}, its lease renewed: if its handler hangs, only max_runtime ends it"


def _where_it_hangs(facts: Facts) -> Iterator[str]:
    for worker in facts.workers:
        hung = hanging_of(worker, facts.now).find(facts.row.id) if is_alive(worker, facts.now) else None
        if hung is not None:
            late = f", {span(hung.seconds)} beyond its lease" if hung.seconds else ""
            yield f"runs in process {worker.pid} on {worker.host}{late}"


def _delayed(facts: Facts) -> Answer:
    row = facts.row
    after = f"; said last: {row.reason}" if row.reason else ""
    after += "".join(f"; its last run does not end: it still {where}" for where in _where_it_hangs(facts))
    return Answer(
        Cause.DELAYED, f"it is delayed until {moment(row.run_at)} (for {span(row.run_at - facts.now)}){after}"
    )


def _held(facts: Facts) -> Answer:
    row, limit = facts.row, facts.limit
    by_key = row.gate is not None and row.gate != type_in_gates(row.type)
    whose = f"limit key {row.limit_key!r} of its type" if by_key else "its type"
    numbers = "" if limit is None else f" ({_numbers(limit, by_key)})"
    or_period = "" if by_key or (limit is not None and limit.starts is None) else ", or of a period,"
    return Answer(
        Cause.LIMIT,
        f"the limit of {whose} is reached{numbers}: it waits for a place, which the end of a run{or_period} gives",
    )


def _next(facts: Facts) -> Answer:
    serving = sum(facts.row.type in worker.types for worker in facts.workers if is_alive(worker, facts.now))
    return Answer(
        Cause.NOTHING,
        "nothing keeps it: it is next of its type, and the first loop that is free of the workers that serve it"
        f" ({serving} alive) takes it, after what is more urgent",
    )


def _numbers(limit: Limit, by_key: bool) -> str:
    if by_key:
        return f"{limit.running_per_key} at once for each key"
    bounds = []
    if limit.running is not None:
        bounds.append(f"{limit.running} at once")
    if limit.starts is not None:
        bounds.append(f"{limit.starts} starts in {limit.period:g} s")
    return " and ".join(bounds) or "none here any more: the next look of a worker lets it in"


def _waiting(facts: Facts) -> Iterator[Answer]:
    yield from _everyone(facts)
    row = facts.row
    for where in _where_it_hangs(facts):
        yield Answer(Cause.WAITING, f"its last run does not end: it still {where}; another one is to come")
    if facts.has_tubes and row.put_at is None:
        yield Answer(
            Cause.NO_POINTER,
            "it has no pointer in its tube: who finds that empty takes it from the store, or else the next sweep"
            f" puts one {_sweeps(facts)}",
        )
    elif facts.has_tubes and facts.broker_error is None:
        head = dated(facts.head, facts.now, facts.grace)
        if is_lost(row, head, facts.now, facts.grace):
            yield Answer(
                Cause.NO_POINTER,
                "its pointer is lost from its tube: who finds that empty takes it from the store, or else the next"
                f" sweep puts a new one {_sweeps(facts)}",
            )
    if facts.broker_error is not None:
        yield Answer(
            Cause.BROKER_DOWN, f"the broker does not answer, and workers ask the store: {facts.broker_error}"
        )
    if facts.ahead:
        comes = "job of its type comes" if facts.ahead == 1 else "jobs of its type come"
        number = f"{facts.ahead} or more" if facts.ahead >= MOST_AHEAD else str(facts.ahead)
        yield Answer(Cause.WAITING, f"{number} {comes} before it")


def _everyone(facts: Facts) -> Iterator[Answer]:
    """What concerns its whole type."""
    yield from _paused(facts)
    alive = [worker for worker in facts.workers if is_alive(worker, facts.now)]
    if not alive:
        last = max((worker.seen_at for worker in facts.workers), default=None)
        heard = "" if last is None else f"; the last was heard of {span(facts.now - last)} ago"
        yield Answer(Cause.NO_WORKER, f"no worker waits for jobs{heard}: start one, or let cron run kqueue run")
    elif not any(facts.row.type in worker.types for worker in alive):
        yield Answer(
            Cause.NO_HANDLER,
            f"no live worker has a handler for its type {facts.row.type!r} ({len(alive)} alive)",
        )


def _paused(facts: Facts) -> Iterator[Answer]:
    for name, what, command in (
        (facts.row.type, f"its type {facts.row.type!r} is", f"kqueue resume {facts.row.type}"),
        (ALL_TYPES, "the whole queue is", "kqueue resume --all"),
    ):
        if name in facts.paused:
            since = span(facts.now - facts.paused[name])
            yield Answer(Cause.PAUSED, f"{what} paused for {since}; {command} lets it run")


def _sweeps(facts: Facts) -> str:
    return f"(every {facts.sweep_interval:g} s, by whoever runs jobs)"
