"""What ends the run of a row: pure. Whoever holds the job, a window or a flight, goes by the same rules."""

from collections.abc import Callable
from typing import TypeAlias

from kqueue import arguments
from kqueue.errors import AlreadySettled, KQueueError
from kqueue.execution import outcome, reason_text
from kqueue.job import Priority, Row
from kqueue.retry import RetryPolicy
from kqueue.store import Delete, Die, Retry, Settlement, Unget

#: ``put_at`` for a row that is to run at the first of two times; the second is now.
PutAt: TypeAlias = Callable[[float, float], float | None]


def retried(
    row: Row, reason: str, delay: float | None, *, policy: RetryPolicy, now: Callable[[], float], put_at: PutAt
) -> Retry | Die:
    """Again in ``delay`` seconds, or by ``policy`` if that is None; dead if the tries are used up.

    Raises ``ValueError`` or ``TypeError`` for a bad reason or delay.
    """
    reason = reason_text(arguments.text("reason", reason))
    delay = None if delay is None else arguments.number("delay", delay, 0)
    after = policy.delay_after(row.failures + 1)
    if after is None:
        return Die(row.id, row.fence, reason)
    at = now()
    run_at = at + (after if delay is None else delay)
    return Retry(row.id, row.fence, run_at, reason, put_at(run_at, at))


def given_back(
    row: Row, priority: Priority | str | int | None, delay: float, *, now: Callable[[], float], put_at: PutAt
) -> Unget:
    """Back by its handler, at no try. Raises ``ValueError`` or ``TypeError`` for a bad priority or delay."""
    level = None if priority is None else arguments.priority(priority)
    delay = arguments.number("delay", delay, 0)
    at = now()
    return Unget(row.id, row.fence, at + delay, level, put_at(at + delay, at), started=True)


def unstarted(row: Row, run_at: float, put_at: float | None) -> Unget:
    """Back before its handler was called."""
    return Unget(row.id, row.fence, run_at, None, put_at, started=False)


def check_repeated(row: Row, is_running: bool, before: Settlement | None, wanted: Settlement) -> None:
    """What has ended is asked to end once more. A second delete changes nothing; all else is refused.

    Raises ``AlreadySettled``.
    """
    if not is_running or type(before) is not Delete or type(wanted) is not Delete:
        raise refusal(row, before if is_running else None)


def refusal(row: Row, before: Settlement | None) -> AlreadySettled:
    """Why the run of ``row`` cannot end, or be renewed: it was settled ``before``, or is over."""
    if before is None:
        return AlreadySettled(f"job {row.id}: its run is over, so nothing was changed")
    return AlreadySettled(f"job {row.id}: it was {outcome(before)} before; a run is settled once")


def in_parents_hand(parent: int, child: int) -> KQueueError:
    """Why a process that a handler forked cannot end or renew the job: it is in its parent's hand."""
    return KQueueError(
        f"the job is in hand in process {parent}, and this is its child {child}: settle and renew it in the parent"
    )
