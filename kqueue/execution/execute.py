"""One job through its handler, to one named outcome.

    call the handler, and await what it returns if that can be awaited
                      ->  what it settled itself wins
                          else: returned Verdict.OK        -> deleted
                                Verdict.FAILED             -> dead
                                Verdict.RETRY or ERROR      -> retried, with the word as its reason
                                Snooze(seconds)            -> given back for so long
                                anything else              -> retried, "not deleted" (or deleted, if so asked, and
                                                              what it returned is the job's result)
                                raised Snooze(seconds)     -> given back for so long
                                what is final              -> dead, with the exception as its reason
                                what gives back            -> given back for the retry policy's delay
                                any other                  -> retried, with the exception as its reason
                                cancelled by its loop      -> retried, with what it took too long for as its reason
                                KeyboardInterrupt          -> given back, and the loop ends
                                SystemExit                 -> retried, and the loop ends

What is final and what gives back is in the retry policy of the job. "Retried" is dead instead where the
tries are used up; "given back" costs no try. Nothing else that a handler does can end the loop.
"""

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Protocol, TypeVar

from kqueue.contracts.settlements import Outcome
from kqueue.model import checks
from kqueue.model.answers import Snooze, Verdict
from kqueue.model.errors import AlreadySettled, KQueueError, LeaseLost
from kqueue.model.handlers import Handler
from kqueue.model.job import Holder, JobInHand, Row, row_of
from kqueue.model.reasons import describe
from kqueue.model.retry import RetryPolicy, Rule
from kqueue.model.wording import span


class Decision(NamedTuple):
    """How a run is to end."""

    outcome: Outcome
    #: Why the job did not end well.
    reason: str | None = None
    #: Until it runs again; None: as the retry policy says.
    seconds: float | None = None
    #: What the handler raised: the retry policy may ask for it.
    error: BaseException | None = None
    #: Of what is given back: None keeps the job's own.
    priority: int | None = None
    #: What came of a job that is finished.
    result: object = None


DELETED = Decision(Outcome.DELETED)
#: Of a job whose handler returned and settled nothing.
NOT_DELETED = Decision(Outcome.RETRIED, "not deleted")
UNRUN = Decision(Outcome.UNGOT, "its run was interrupted", seconds=0.0)
#: The same where only the handler itself can have raised it.
INTERRUPTED = Decision(Outcome.RETRIED, "the handler raised KeyboardInterrupt")
OF_WORD = {
    Verdict.OK: DELETED,
    Verdict.FAILED: Decision(Outcome.DEAD, "the handler returned FAILED"),
    Verdict.RETRY: Decision(Outcome.RETRIED, "the handler returned RETRY"),
    Verdict.ERROR: Decision(Outcome.RETRIED, "the handler returned ERROR"),
}
OF_RULE = {Rule.RETRY: Outcome.RETRIED, Rule.FINAL: Outcome.DEAD, Rule.GIVE_BACK: Outcome.UNGOT}


class Hand(Holder, Protocol):
    """Who holds the job: where a run is settled."""

    def is_settled(self) -> bool:
        """Whether the run of the job in hand has an outcome."""

    def policy(self, row: Row) -> RetryPolicy:
        """The retry policy of the job: its own add's, or its type's."""

    def deletes_on_success(self, row: Row) -> bool:
        """Whether jobs of its type are deleted when their handler returns, where that does not say itself."""

    def left_unsettled(self, handler: Handler) -> None:
        """The handler of the job in hand has returned and settled nothing, so it is to run again."""

    def end(self, row: Row, decision: Decision) -> None:
        """End the run as it was decided."""

    def cut_short(self) -> Decision | None:
        """How its run ends if it settles nothing itself, since its coroutine was cancelled: its time is over. None
        if it was not.
        """

    def raised(self, error: BaseException) -> None:
        """The handler of the job in hand raised ``error``; the job has its outcome, or gets it now."""


AnyHand = TypeVar("AnyHand", bound=Hand)


def execute(
    handler: Handler, job: JobInHand, hand: AnyHand, wait: Callable[[AnyHand, Awaitable[Any]], object]
) -> BaseException | None:
    """Run ``job``; when it returns the job has its outcome. Returns what is to end the loop, if anything.

    ``wait(hand, awaitable)`` runs what can be awaited to its end. Raises ``StoreError`` if the outcome has to be
    stored at once and cannot be; it is then still to be stored.
    """
    try:
        returned = handler.function(job)
        if returned is not None and inspect.isawaitable(returned):
            returned = wait(hand, returned)
    except BaseException as error:
        return conclude(handler, job, hand, error=error)
    return None if hand.is_settled() else conclude(handler, job, hand, returned)


async def execute_async(handler: Handler, job: JobInHand, hand: Hand) -> BaseException | None:
    """As :func:`execute`, for a coroutine function and inside its event loop."""
    try:
        returned = await handler.function(job)
    except BaseException as error:
        return conclude(handler, job, hand, error=error)
    return None if hand.is_settled() else conclude(handler, job, hand, returned)


def conclude(
    handler: Handler, job: JobInHand, hand: Hand, returned: object = None, *, error: BaseException | None = None
) -> BaseException | None:
    """The handler has returned, or raised ``error``: give the job its outcome. Returns and raises as
    :func:`execute`.
    """
    interrupt = error if isinstance(error, KeyboardInterrupt | SystemExit) else None
    if error is not None and interrupt is None:
        hand.raised(error)
    if not hand.is_settled():
        row = row_of(job)
        if error is not None:
            decision = decision_of_raised(error, hand.policy(row))
        else:
            deletes = handler.delete_on_success
            decision = decision_of_returned(returned, hand.deletes_on_success(row) if deletes is None else deletes)
        cut = hand.cut_short()
        if cut is not None and says_nothing(returned, error):
            decision = cut._replace(error=error)
        elif decision is NOT_DELETED:
            hand.left_unsettled(handler)
        try:
            hand.end(row, decision)
        except (LeaseLost, AlreadySettled):
            pass  # counted by the hand; or another thread was first
        except KQueueError:
            if interrupt is None:
                raise
    return interrupt


def says_nothing(returned: object, error: BaseException | None) -> bool:
    """Whether a handler that was cancelled ended just so: by the cancellation, or by returning no word."""
    if error is None:
        return not isinstance(returned, Verdict | Snooze | Decision)
    return not isinstance(error, Exception | KeyboardInterrupt | SystemExit)


def decision_of_returned(returned: object, deletes: bool) -> Decision:
    """What a handler's return means, where it settled nothing itself. ``deletes``: if it is no word of ours, the
    job is deleted, and that is its result.
    """
    if isinstance(returned, Verdict):
        return OF_WORD[returned]
    if isinstance(returned, Snooze):
        return decision_of_snooze(returned)
    if isinstance(returned, Decision):  # of an answer: see kqueue.execution.batch
        return returned
    if not deletes:
        return NOT_DELETED
    return DELETED if returned is None else DELETED._replace(result=returned)


def decision_of_raised(error: BaseException, policy: RetryPolicy) -> Decision:
    """What an exception of a handler means, where it settled nothing itself."""
    if isinstance(error, Snooze):
        return decision_of_snooze(error)
    if isinstance(error, KeyboardInterrupt):
        return UNRUN
    if isinstance(error, SystemExit):
        return Decision(Outcome.RETRIED, describe(error), error=error)
    return Decision(OF_RULE[policy.rule_for(error)], describe(error), error=error)


def decision_of_snooze(snooze: Snooze) -> Decision:
    """For as long as it says. A subclass of the user's may say nothing, or nonsense: then it is retried."""
    try:
        seconds = checks.number("seconds", getattr(snooze, "seconds", None), 0)
        return Decision(
            Outcome.UNGOT, f"snoozed for {f'{seconds:g} s' if seconds < 7200 else span(seconds)}", seconds
        )
    except (ValueError, TypeError) as error:
        return Decision(Outcome.RETRIED, describe(error))
