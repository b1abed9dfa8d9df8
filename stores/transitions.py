"""What the calls of the contract make of one row: pure, no I/O, no clock.

:mod:`kqueue.stores.memory` is built from these; a store whose server changes rows by itself says the same in
its own language.
"""

from kqueue.job import Row, State
from kqueue.rules import recovery
from kqueue.store import Abandoned, Delete, Die, Due, Retry, Settlement, Unget


def claimed(row: Row, owner: str, now: float, alone: bool) -> Row:
    """The row under a new lease."""
    return row._replace(
        state=State.RUNNING,
        fence=row.fence + 1,
        tries=row.tries + 1,
        alone=alone,
        lease_owner=owner,
        lease_until=now + row.ttr,
    )


def settled(row: Row, settlement: Settlement, now: float) -> Row | None:
    """The row after its run; None if it goes."""
    idle = row._replace(alone=False, lease_owner=None, lease_until=None)
    match settlement:
        case Delete():
            return None
        case Retry(run_at=run_at, reason=reason, put_at=put_at):
            return _failed(idle)._replace(state=waiting(run_at, now), run_at=run_at, reason=reason, put_at=put_at)
        case Die(reason=reason):
            return _failed(idle)._replace(state=State.DEAD, reason=reason, put_at=None)
        case Unget(run_at=run_at, priority=priority, put_at=put_at, started=started):
            back = _cleared(idle) if started else idle
            return back._replace(
                state=waiting(run_at, now),
                run_at=run_at,
                put_at=put_at,
                priority=row.priority if priority is None else priority,
                tries=row.tries - 1,
            )


def revived(row: Row, reason: str, now: float, put_at: float | None) -> Row:
    """A dead row, ready once more. The fence stays: it only grows."""
    fresh = _cleared(row)._replace(lease_owner=None, tries=0, failures=0)
    return fresh._replace(state=State.READY, run_at=now, put_at=put_at, reason=reason)


def recovered(row: Row, max_crashes: int) -> Row:
    """An abandoned row. ``lease_owner`` and ``alone`` stay, for a late holder that settles or renews."""
    state, reason = recovery(row.alone, row.crashes, max_crashes)
    return row._replace(
        state=state,
        reason=reason,
        crashes=row.crashes + bool(row.alone),
        suspicion=row.suspicion + (not row.alone),
        lease_until=None,
        put_at=None,
    )


def waiting(run_at: float, now: float) -> State:
    """The state of a row that runs not before ``run_at``."""
    return State.DELAYED if run_at > now else State.READY


def due(row: Row) -> Due:
    """What the sweep wants of a row."""
    return Due(row.id, row.type, row.priority, row.run_at, row.put_at)


def abandoned(row: Row) -> Abandoned:
    """What a look at a running row tells whose lease is over."""
    return Abandoned(row.id, row.type, row.alone, row.crashes, row.lease_owner, row.lease_until or 0.0)


def _failed(row: Row) -> Row:
    return _cleared(row)._replace(failures=row.failures + 1)


def _cleared(row: Row) -> Row:
    return row._replace(crashes=0, suspicion=0)
