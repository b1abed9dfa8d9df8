"""How long a coroutine may go on, and how its run ends if it takes longer: pure.

A plain function cannot be stopped; a coroutine can, so it has until the end of its lease, and where that follows
it, until the end of ``max_runtime``. It is cancelled a little before, so that its end is written while the job is
still its holder's. One that does not end then either is *abandoned*: its job is ended as a failed run and its place
is free, while the coroutine stays in its event loop and can change nothing any more.
"""

from typing import NamedTuple

from kqueue.contracts.settlements import Outcome
from kqueue.execution.execute import Decision
from kqueue.model.job import Row

#: The part of a lease, or of ``max_runtime``, that is left when a coroutine is cancelled, and its seconds at most.
MARGIN_PART = 0.1
MARGIN_S = 1.0
#: The part of this that it has to end, before it is abandoned.
ENDING_PART = 0.5
#: The part of a lease after which it is asked again whether somebody still renews it.
LOOK_PART = 1 / 3
#: Coroutines of a process that may be abandoned and not have ended, before it takes no more of them.
MOST_ABANDONED = 100

#: Of a task that was cancelled before the handler was called: it costs no try.
UNBEGUN = "its task was cancelled before its handler began"


class TimeLeft(NamedTuple):
    """What a coroutine still has."""

    #: Until it is to be cancelled, or to be looked at again; 0 or less: now.
    seconds: float
    #: Of those, what it has to end once it is cancelled.
    ending_s: float
    #: How its run ends then, if it has not ended.
    decision: Decision


def margin(seconds: float) -> float:
    """Seconds before the end of a lease, or of ``max_runtime``, of so many at which a coroutine is cancelled."""
    return min(MARGIN_PART * seconds, MARGIN_S)


def time_left(
    row: Row, now: float, *, leased_at: float, started_at: float, max_runtime: float | None, follows: bool
) -> TimeLeft:
    """``follows``: whether somebody renews the lease, which began ``leased_at``. Times in monotonic seconds."""
    if follows:
        left = TimeLeft(LOOK_PART * row.ttr, ENDING_PART * margin(row.ttr), _lease_over(row))
    else:
        spare = margin(row.ttr)
        left = TimeLeft(leased_at + row.ttr - spare - now, ENDING_PART * spare, _lease_over(row))
    if max_runtime is None:
        return left
    spare = margin(max_runtime)
    bound = TimeLeft(started_at + max_runtime - spare - now, ENDING_PART * spare, _too_long(max_runtime))
    return min(left, bound, key=lambda one: one.seconds)


def unended(decision: Decision) -> Decision:
    """Of a run whose coroutine did not end when it was cancelled."""
    return decision._replace(reason=f"{decision.reason} and did not end")


def kept_waiting(row: Row, is_guilty: bool | None) -> Decision:
    """Of a run that could not be cancelled, since a coroutine keeps the event loop: its own one, or another's.
    None: it is not known whose.
    """
    reason = f"its lease ran out after {row.ttr:g} s"
    if is_guilty is None:
        return Decision(Outcome.RETRIED, f"{reason}; the event loop did not come to cancel its coroutine")
    if is_guilty:
        return Decision(Outcome.RETRIED, f"{reason}; its coroutine keeps the event loop and cannot be cancelled")
    return Decision(Outcome.UNGOT, f"{reason} while another coroutine kept the event loop", seconds=0.0)


def _lease_over(row: Row) -> Decision:
    return Decision(Outcome.RETRIED, f"its lease ran out after {row.ttr:g} s; its coroutine was cancelled")


def _too_long(max_runtime: float) -> Decision:
    return Decision(
        Outcome.RETRIED, f"ran longer than max_runtime ({max_runtime:g} s); its coroutine was cancelled"
    )
