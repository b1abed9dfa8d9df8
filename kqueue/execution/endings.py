"""What ends the run of a row: pure. Whoever holds the job, a window or one in flight, goes by the same rules."""

from kqueue.contracts.settlements import Outcome, Settlement, Unget, outcome
from kqueue.execution.execute import Decision
from kqueue.execution.overtime import UNBEGUN
from kqueue.model import checks, times
from kqueue.model.errors import AlreadySettled, KQueueError
from kqueue.model.job import Priority, Row


def again(reason: object, delay: object) -> Decision:
    """Again in ``delay`` seconds; None: by the retry policy. Raises ``ValueError`` or ``TypeError``."""
    seconds = None if delay is None else times.seconds("delay", delay, 0)
    return Decision(Outcome.RETRIED, checks.text("reason", reason), seconds)


def back(priority: Priority | str | int | None, delay: object) -> Decision:
    """Back by its handler, at no try. Raises ``ValueError`` or ``TypeError``."""
    level = None if priority is None else checks.priority(priority)
    return Decision(Outcome.UNGOT, "given back by its handler", times.seconds("delay", delay, 0), priority=level)


def unbegun(row: Row, run_at: float, put_at: float | None, asked_at: float | None = None) -> Unget:
    """Back since its task was cancelled before its handler was called."""
    return Unget(row.id, row.fence, run_at, None, put_at, started=True, reason=UNBEGUN, asked_at=asked_at)


def check_repeated(row: Row, is_running: bool, before: Settlement | None, wanted: Settlement) -> None:
    """What has ended is asked to end once more. A second delete changes nothing; all else is refused.

    Raises ``AlreadySettled``.
    """
    if not is_running or before is None or {outcome(before), outcome(wanted)} != {Outcome.DELETED}:
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
