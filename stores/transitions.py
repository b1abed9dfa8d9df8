"""What the calls of the contract make of one row: pure, no I/O, no clock.

:mod:`kqueue.stores.memory.store` is built from these; a store whose server changes rows by itself says the same in
its own language.
"""

from typing import Final

from kqueue.contracts.admission import type_in_gates
from kqueue.contracts.operator import JobChange
from kqueue.contracts.repair import Abandoned
from kqueue.contracts.rules import recovery
from kqueue.contracts.settlements import Delete, Die, Finish, Retry, Settlement, Unget
from kqueue.contracts.stored_times import set_right, times_of
from kqueue.model import history
from kqueue.model.job import Row, State

#: In these states a job keeps its unique key.
UNFINISHED: Final = frozenset({State.DELAYED, State.READY, State.HELD, State.RUNNING})
#: Seconds after which a store forgets counted starts, and workers that were not heard of.
FORGET_AFTER_S: Final = 86_400.0


def claimed(row: Row, owner: str, now: float, alone: bool, *, gate: str | None = None, fence_floor: int = 0) -> Row:
    """The row under a new lease. ``gate``: what it counts with while it runs, if its type has limits. Its fence is
    above the floor.
    """
    return row._replace(
        gate=gate or row.gate,
        state=State.RUNNING,
        fence=max(row.fence, fence_floor) + 1,
        tries=row.tries + 1,
        alone=alone,
        lease_owner=owner,
        lease_until=now + row.ttr,
    )


def held(row: Row, gate: str) -> Row:
    """The row waits at a gate, and has no pointer."""
    return row._replace(state=State.HELD, gate=gate, put_at=None)


def admitted(row: Row, put_at: float | None, now: float) -> Row:
    """A held row that its gate lets through. The gate stays: its place there is its own. It was due before,
    whatever a clock said that was ahead.
    """
    return row._replace(state=State.READY, put_at=put_at, run_at=min(row.run_at, now))


def renewed(row: Row, until: float, alone: bool) -> Row:
    """The row under its holder's lease again. One that was taken from him had lost its place at its type's gate:
    it is counted again. Where its type has no limits nobody looks.
    """
    gate = row.gate if row.state == State.RUNNING else type_in_gates(row.type)
    return row._replace(state=State.RUNNING, lease_until=until, alone=alone, gate=gate)


def settled(row: Row, settlement: Settlement, now: float) -> Row | None:
    """The row after its run; None if it goes."""
    # It was added by then, whatever a clock said that was ahead.
    created_at = min(row.created_at, now)
    idle = row._replace(alone=False, lease_owner=None, lease_until=None, gate=None, created_at=created_at)
    match settlement:
        case Delete():
            return None
        case Finish(keep_until=keep_until, asked_at=asked_at, result=result, reason=reason):
            done = _cleared(idle)._replace(state=State.DONE, keep_until=keep_until, put_at=None)
            done = done._replace(asked_at=now if asked_at is None else asked_at, result=result)
            return done._replace(history=_with_run(row, now, reason))
        case Retry(run_at=run_at, reason=reason, put_at=put_at, asked_at=asked_at, traceback=told):
            back = _failed(row, idle, now, reason, told)._replace(asked_at=now if asked_at is None else asked_at)
            return back._replace(state=waiting(run_at, now), run_at=run_at, put_at=put_at)
        case Die(reason=reason, traceback=told):
            return _failed(row, idle, now, reason, told)._replace(state=State.DEAD, put_at=None, asked_at=now)
        case Unget(_, _, run_at, priority, put_at, started, reason, asked_at, _):
            back = _cleared(idle) if started else idle
            return back._replace(
                asked_at=now if asked_at is None else asked_at,
                state=waiting(run_at, now),
                run_at=run_at,
                put_at=put_at,
                priority=row.priority if priority is None else priority,
                tries=row.tries - 1,
                reason=row.reason if reason is None else reason,
            )


def revived(row: Row, reason: str, now: float, put_at: float | None) -> Row:
    """A dead row, ready once more. The fence stays: it only grows."""
    fresh = _cleared(row)._replace(lease_owner=None, tries=0, failures=0)
    return fresh._replace(state=State.READY, run_at=now, put_at=put_at, reason=reason, asked_at=now)


def hastened(row: Row, now: float, put_at: float | None) -> Row:
    """A delayed row, ready before its time."""
    return row._replace(state=State.READY, run_at=now, put_at=put_at, asked_at=now)


def changed(row: Row, change: JobChange, now: float, put_at: float | None, put_until: float) -> Row:
    """A row that waits, with another priority or time."""
    priority = row.priority if change.priority is None else change.priority
    row = row._replace(priority=priority)
    if change.run_at is not None:
        state = waiting(change.run_at, now)
        row = row._replace(run_at=change.run_at, asked_at=now)
        if state == State.DELAYED or row.state != State.HELD:
            row = row._replace(state=state, gate=None if state == State.DELAYED else row.gate)
    has_pointer = row.state != State.HELD and row.run_at <= put_until
    return row._replace(put_at=put_at if has_pointer else None)


def recovered(row: Row, max_crashes: int, now: float) -> Row:
    """An abandoned row. ``lease_owner`` and ``alone`` stay, for a late holder that settles or renews."""
    state, reason = recovery(row.alone, row.crashes, max_crashes)
    return row._replace(
        state=state,
        reason=reason,
        crashes=row.crashes + bool(row.alone),
        suspicion=row.suspicion + (not row.alone),
        lease_until=None,
        put_at=None,
        gate=None,
        history=_with_run(row, now, reason),
        # What ran was added and due by then, whatever a clock said that was ahead.
        created_at=min(row.created_at, now),
        run_at=min(row.run_at, now),
    )


def redated(row: Row, now: float) -> Row:
    """The row, its times as they can be: see :mod:`kqueue.contracts.stored_times`. Equal to ``row`` if they are."""
    return row._replace(**set_right(times_of(row), now)._asdict())


def waiting(run_at: float, now: float) -> State:
    """The state of a row that runs not before ``run_at``."""
    return State.DELAYED if run_at > now else State.READY


def abandoned(row: Row) -> Abandoned:
    """What a look at a running row tells whose lease is over."""
    return Abandoned(row.id, row.type, row.alone, row.crashes, row.lease_owner, row.lease_until or 0.0)


def _failed(row: Row, idle: Row, now: float, reason: str, traceback: str | None) -> Row:
    """``idle`` is ``row`` without its lease."""
    failed = _cleared(idle)._replace(failures=row.failures + 1, reason=reason)
    return failed._replace(history=_with_run(row, now, reason, traceback))


def _with_run(row: Row, now: float, reason: str | None, traceback: str | None = None) -> str:
    return history.extended(row.history, history.Run(row.lease_owner, now, reason, traceback))


def _cleared(row: Row) -> Row:
    return row._replace(crashes=0, suspicion=0)
