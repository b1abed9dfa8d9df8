"""How a run ends, as a store writes it: values, and what they mean."""

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple, TypeAlias

from kqueue.contracts.reporting import Report
from kqueue.model.job import Row

#: Why a job went back that was in hand in a process which had to end.
STOPPED = "its worker was stopped meanwhile"
#: Why a finished job has no result for which its store has no room.
NO_ROOM = "its result is missing: there is no room for it beside its payload"


class Delete(NamedTuple):
    """Settle: the job is finished, its row goes."""

    id: str
    fence: int


class Finish(NamedTuple):
    """Settle: the job is finished, its row is kept as done until ``keep_until``. Clears crashes and suspicion."""

    id: str
    fence: int
    keep_until: float
    #: When that was reckoned; None: when it is settled.
    asked_at: float | None = None
    #: What came of it, as :func:`kqueue.model.payload.encode_result` made it; None if nothing did.
    result: bytes | None = None
    #: Why its result is missing.
    reason: str | None = None
    #: What the run has still to tell.
    report: Report | None = None


class Retry(NamedTuple):
    """Settle: the run failed; ready at ``run_at``. Adds a failure, clears crashes and suspicion."""

    id: str
    fence: int
    run_at: float
    reason: str
    put_at: float | None
    #: When ``run_at`` was reckoned; None: when it is settled.
    asked_at: float | None = None
    #: Of what the run has raised, at most :data:`kqueue.model.reasons.MAX_TRACEBACK` bytes.
    traceback: str | None = None
    #: As in :class:`Finish`.
    report: Report | None = None


class Unget(NamedTuple):
    """Settle: given back; the try of its claim is taken off. Clears crashes and suspicion if it was started."""

    id: str
    fence: int
    run_at: float
    #: None keeps the job's own.
    priority: int | None
    put_at: float | None
    started: bool
    #: Why, if there is more to say than before; None keeps the job's own.
    reason: str | None = None
    #: As in :class:`Retry`.
    asked_at: float | None = None
    #: As in :class:`Finish`.
    report: Report | None = None


class Die(NamedTuple):
    """Settle: the run failed for the last time; dead, and kept. Adds a failure, clears crashes and suspicion."""

    id: str
    fence: int
    reason: str
    #: As in :class:`Retry`.
    traceback: str | None = None
    #: As in :class:`Finish`.
    report: Report | None = None


Settlement: TypeAlias = Delete | Finish | Retry | Unget | Die


class Settled(NamedTuple):
    """What did not match its fence, so was not changed by a settle."""

    #: Their ids.
    lost: frozenset[str] = frozenset()
    #: Deletes that found no row where the store cannot tell which of the batch they were.
    unnamed: int = 0
    #: Ids of deletes that found no row, where the first sending of them, whose reply was lost, may have done it.
    unsure: frozenset[str] = frozenset()


class Outcome(StrEnum):
    """How a run ended."""

    DELETED = "deleted"
    RETRIED = "retried"
    UNGOT = "ungot"
    DEAD = "dead"
    LOST_LEASE = "lost_lease"
    UNKNOWN = "unknown"


def outcome(settlement: Settlement) -> Outcome:
    """The outcome that ``settlement`` makes where the lease still holds."""
    if isinstance(settlement, Delete | Finish):
        return Outcome.DELETED
    if isinstance(settlement, Unget):
        return Outcome.UNGOT
    return Outcome.DEAD if isinstance(settlement, Die) else Outcome.RETRIED


def reports_of(settlements: Iterable[Settlement]) -> list[Report]:
    """What they bring. Nearly all are deletes, whose jobs leave nothing."""
    return [one.report for one in settlements if not isinstance(one, Delete) and one.report is not None]


def has_run(settlement: Settlement) -> bool:
    """Whether its job was started by its handler, and not given back before."""
    return not isinstance(settlement, Unget) or settlement.started


def comes_back(settlement: Settlement) -> bool:
    """Whether its job waits again after a run, behind those that waited."""
    return isinstance(settlement, Retry | Unget) and has_run(settlement)


def unstarted(row: Row, run_at: float, put_at: float | None, asked_at: float | None = None) -> Unget:
    """Back before its handler was called. ``asked_at``: when ``run_at`` was reckoned."""
    return Unget(row.id, row.fence, run_at, None, put_at, started=False, asked_at=asked_at)


def unfinished(row: Row, run_at: float, put_at: float | None, asked_at: float | None = None) -> Unget:
    """Back although its handler goes on, in a process that is about to end. ``asked_at`` as above."""
    return Unget(row.id, row.fence, run_at, None, put_at, started=True, reason=STOPPED, asked_at=asked_at)
