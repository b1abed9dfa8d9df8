"""What a run and a sweep did, what a sweep would do, and how a queue does: frozen values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, NamedTuple


@dataclass(frozen=True, slots=True)
class RunReport:
    """What one ``run_jobs`` did."""

    #: Jobs that handlers were called with. Each ended as one of the next five, or in ``unknown``. Dead may be more,
    #: see there.
    count: int = 0
    deleted: int = 0
    #: Failed, and to run again.
    retried: int = 0
    #: Given back by their handler.
    ungot: int = 0
    #: Failed for the last time; and those that the run's own sweeps found to have killed their worker too often.
    dead: int = 0
    #: Ended after the lease was lost: what they settled changed nothing.
    lost_lease: int = 0
    #: Wall time of the run.
    seconds: float = 0.0
    #: Tube entries deleted because their jobs were gone or leased.
    stale_pointers: int = 0
    #: Tube entries buried because they are not ours or malformed.
    foreign_pointers: int = 0
    #: Ended with a settle whose reply was lost, and found nothing to settle when they tried again: it was done, or
    #: the lease was lost.
    unknown: int = 0


def total(reports: Sequence[RunReport], seconds: float) -> RunReport:
    """What several runs did together, in ``seconds`` of wall time."""
    sums = {one.name: sum(getattr(report, one.name) for report in reports) for one in fields(RunReport)}
    return RunReport(**{**sums, "seconds": seconds})


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What one ``sweep`` did."""

    #: Delayed jobs that fell due.
    promoted: int = 0
    #: Jobs whose lease had run out, ready again.
    recovered: int = 0
    #: Jobs that had killed their worker too often.
    dead: int = 0
    #: Jobs for which a new pointer was put.
    put: int = 0
    #: Tube entries buried because they are not ours or malformed.
    foreign_pointers: int = 0
    #: Finished jobs that were kept, and need not be any more: deleted.
    expired: int = 0
    #: Jobs, unique keys, counted starts, pauses and workers with a time that lay further ahead than it can, since a
    #: clock was wrong: set right.
    redated: int = 0
    seconds: float = 0.0


class Repair(StrEnum):
    """What a sweep does. Each compares equal to its name."""

    #: Of a delayed job that fell due. Counted as ``promoted``.
    MAKE_READY = "make ready"
    #: Of a job whose lease ran out: ready again. Counted as ``recovered``.
    TAKE_BACK = "take back"
    #: Of a job that has killed its worker too often. Counted as ``dead``.
    END_DEAD = "end dead"
    #: Of a job that has none in the tube. Counted as ``put``.
    PUT_POINTER = "put pointer"
    #: Of a tube's entry that is not ours or malformed. Counted as ``foreign_pointers``.
    BURY_ENTRY = "bury entry"
    #: Of a time that lies further ahead than it can. Counted as ``redated``.
    SET_TIME_RIGHT = "set time right"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a sweep would do now."""

    repair: Repair
    #: In plain words.
    why: str
    #: The job's; the tube's where it is about an entry; None where it is about more jobs than were asked for.
    type: str | None = None
    #: None where it is not about one job.
    job_id: str | None = None


@dataclass(frozen=True, slots=True)
class ScheduleReport:
    """A schedule: what it adds, when it did last, and when it does next. Times in seconds since 1970."""

    #: Under which the store keeps its last tick.
    name: str
    #: What it adds; None, as the next three are, for one that only the store knows: it is not in this program.
    type: str | None
    expression: str | None
    tz: str | None
    missed: str | None
    #: The last tick for which a job was added; None if there was none, or the store does not say.
    last: float | None
    #: Since when a tick is due for which no worker has added a job; None if none is.
    due_since: float | None
    #: Its next ticks, the earliest first. Empty for one that only the store knows.
    next: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class TypeStats:
    """How one job type does: what this process counted since it began, and what waits in the store now.

    A job that is not settled yet (at most ``settle_ms`` after its end) is in ``run`` or nowhere, and in none of
    ``finished failed given_back lost_lease unknown``.
    """

    #: By this process.
    added: int = 0
    #: Jobs with which handlers were called here, once these have ended. Counted when their window ends.
    run: int = 0
    #: Deleted by their run; see :class:`kqueue.Finished`.
    finished: int = 0
    #: Runs that failed, also those for the last time.
    failed: int = 0
    #: Of ``failed``: those after which the job was dead.
    died: int = 0
    #: By their handler or an interrupt, at no cost of a try.
    given_back: int = 0
    #: Runs that ended after the lease was lost: what they settled changed nothing.
    lost_lease: int = 0
    #: Runs of which nobody can tell whether they were settled: see :class:`RunReport`.
    unknown: int = 0
    #: That all of ``run`` took.
    seconds: float = 0.0
    #: Jobs in the store that are ready, or held back by a limit, or delayed until a time that has come (of those
    #: 10,000 are counted at most), whoever added them.
    waiting: int = 0
    #: Seconds since the longest waiting one fell due, also one that is delayed until then; None if none waits.
    oldest_age: float | None = None


@dataclass(frozen=True, slots=True)
class Stats:
    """How a queue does: one snapshot."""

    #: When: seconds since 1970, by the store's clock.
    at: float
    #: Since this process began to count: since its queue was made, or first used after a fork.
    seconds: float
    #: By job type, sorted: those that were used here or have a job in the store.
    types: Mapping[str, TypeStats]


class End(NamedTuple):
    """What ``queue.wait`` has seen of a job."""

    #: ``done`` or ``dead``; ``deleted``: by somebody, before it had ended; ``timeout``: it has not ended yet;
    #: ``unknown``: it was not there when the wait began, or nobody could look for longer than its end is kept.
    state: str
    #: Of one that is done: ``job.result``.
    result: Any = None
    #: Of one that is dead, or done without a result that it should have: ``job.reason``.
    reason: str | None = None
