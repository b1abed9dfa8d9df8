"""What the sweep decides of one row: pure. The stores, the sweep and its dry run go by the same rules."""

from kqueue.contracts.repair import Due, Head
from kqueue.model.job import Row, State

#: Seconds that a put may take, before its row counts as one whose pointer may be lost.
GRACE_S = 5.0


def recovery(alone: bool, crashes: int, max_crashes: int) -> tuple[State, str]:
    """(state, reason) after a lease ran out. A death among others proves nothing about any one job."""
    if not alone:
        return State.READY, "its worker died, or its lease ran out"
    if crashes + 1 < max_crashes:
        return State.READY, "its worker died, or its lease ran out, while it ran alone"
    return State.DEAD, f"its worker died, or its lease ran out, while it ran alone, {crashes + 1} times"


def dated(head: Head | None, now: float, grace: float) -> Head | None:
    """The head as the rule may use it. One put in the future has its time from a wrong clock: beside it, rows of
    its own priority would seem to be lost at every sweep until that time has come.
    """
    return head._replace(put_at=0.0) if head is not None and head.put_at > now + grace else head


def is_lost(row: Row | Due, head: Head | None, now: float, grace: float) -> bool:
    """The head rule: whether a ready row has lost its pointer. A tube serves by (priority, order put)."""
    until = now - grace
    if row.put_at is None or row.put_at > until or row.run_at > until:
        return False
    if head is None or row.priority < head.priority:
        return True
    return row.priority == head.priority and row.put_at < head.put_at - grace
