"""One job through its handler, to one named outcome.

    call the handler, and await what it returns if that can be awaited
                      ->  what it settled itself wins
                          else: returned            -> retried, "not deleted" (or deleted, if that was asked for)
                                raised              -> retried, with the exception as its reason
                                KeyboardInterrupt   -> given back, and the loop ends
                                SystemExit          -> retried, and the loop ends

"Retried" is dead instead where the tries are used up. Nothing else that a handler does can end the loop.
"""

import inspect
from collections.abc import Awaitable, Callable
from enum import StrEnum
from functools import partial
from typing import Any, Protocol

from kqueue.errors import AlreadySettled, KQueueError, LeaseLost
from kqueue.handlers import Handler
from kqueue.job import Holder, JobInHand
from kqueue.store import Delete, Die, Settlement, Unget

#: Characters of a reason that are kept.
MAX_REASON = 1000
#: The reason of a job whose handler returned and settled nothing.
NOT_DELETED = "not deleted"


class Outcome(StrEnum):
    """How a run ended."""

    DELETED = "deleted"
    RETRIED = "retried"
    UNGOT = "ungot"
    DEAD = "dead"
    LOST_LEASE = "lost_lease"


class Hand(Holder, Protocol):
    """Who holds the job: where a run is settled."""

    def is_settled(self) -> bool:
        """Whether the run of the job in hand has an outcome."""


def execute(
    handler: Handler, job: JobInHand, hand: Hand, wait: Callable[[Awaitable[Any]], object]
) -> BaseException | None:
    """Run ``job``; when it returns the job has its outcome. Returns what is to end the loop, if anything.

    ``wait`` runs what can be awaited to its end. Raises ``StoreError`` if the outcome has to be stored at once and
    cannot be; it is then still to be stored.
    """
    try:
        returned = handler.function(job)
        if returned is not None and inspect.isawaitable(returned):
            wait(returned)
    except BaseException as error:
        return conclude(handler, job, hand, error)
    return None if hand.is_settled() else conclude(handler, job, hand)


async def execute_async(handler: Handler, job: JobInHand, hand: Hand) -> BaseException | None:
    """As :func:`execute`, for a coroutine function and inside its event loop."""
    try:
        await handler.function(job)
    except BaseException as error:
        return conclude(handler, job, hand, error)
    return conclude(handler, job, hand)


def conclude(
    handler: Handler, job: JobInHand, hand: Hand, error: BaseException | None = None
) -> BaseException | None:
    """The handler has returned, or raised ``error``: give the job its outcome. Returns and raises as
    :func:`execute`.
    """
    interrupt: BaseException | None = None
    settle: Callable[[], None]
    match error:
        case None:
            settle = job.delete if handler.delete_on_success else partial(job.retry, NOT_DELETED)
        case KeyboardInterrupt():
            interrupt, settle = error, job.unget
        case SystemExit():
            interrupt, settle = error, partial(job.retry, describe(error))
        case _:
            settle = partial(job.retry, describe(error))
    if not hand.is_settled():
        try:
            settle()
        except (LeaseLost, AlreadySettled):
            pass  # counted by the hand; or another thread was first
        except KQueueError:
            if interrupt is None:
                raise
    return interrupt


def outcome(settlement: Settlement) -> Outcome:
    """The outcome that ``settlement`` makes where the lease still holds."""
    if isinstance(settlement, Delete):
        return Outcome.DELETED
    if isinstance(settlement, Unget):
        return Outcome.UNGOT
    return Outcome.DEAD if isinstance(settlement, Die) else Outcome.RETRIED


def describe(error: BaseException) -> str:
    """An exception as a reason: its class and what it says."""
    try:
        message = str(error)
    except Exception as nested:
        message = f"(its text cannot be had: {type(nested).__name__})"
    name = type(error).__name__
    return f"{name}: {message}" if message else name


def reason_text(reason: str) -> str:
    """``reason`` as every store can keep it: at most ``MAX_REASON`` characters, lone surrogates replaced."""
    return reason[:MAX_REASON].encode("utf-8", "replace").decode()
