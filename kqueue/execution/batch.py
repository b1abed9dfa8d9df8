"""A list of jobs through one call of their handler, each to an outcome of its own.

what the handler settled itself wins; of the others
returned a list         -> an answer for each job, in their order:
                            a Verdict, a Snooze, an exception: as if its handler had returned or raised that
                            a status, or a text that begins with one: 2xx deleted, 4xx dead, 1xx and 5xx retried
                            anything else: as if its handler had returned that
returned a text         -> the same, a line each; lines that begin with # do not count
fewer answers than jobs -> the rest retried, NO_RESPONSE
one that is no status   -> that job, and all after it, retried, INVALID_RESPONSE
more answers than jobs  -> all retried, INVALID_RESPONSE
anything else, or raised -> for each of them as in :mod:`kqueue.execution.execute`
"""

import inspect
import math
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any

from kqueue.contracts.budget import is_suspect
from kqueue.contracts.settlements import Outcome
from kqueue.execution.execute import DELETED, Decision, conclude
from kqueue.execution.inflight import LEAST_PART
from kqueue.execution.inflight_job import InflightJob
from kqueue.execution.overtime import TimeLeft
from kqueue.model.errors import KQueueError
from kqueue.model.handlers import Handler
from kqueue.model.job import JobInHand, Row
from kqueue.model.wording import shown
from kqueue.system.clock import Clock

#: Three digits at the beginning of an answer.
STATUS = re.compile(r"\s*([0-9]{3})(?![0-9])", re.ASCII)
#: What becomes of a job by the first digit of its status.
OF_STATUS = {1: Outcome.RETRIED, 2: Outcome.DELETED, 4: Outcome.DEAD, 5: Outcome.RETRIED}


class BatchTime:
    """The time of one call: that of the job of the list which has least. A
    :class:`kqueue.execution.deadlines.Timed`.
    """

    __slots__ = ("_jobs",)

    def __init__(self, jobs: Sequence[InflightJob]) -> None:
        self._jobs = jobs

    def time_left(self) -> TimeLeft:
        """What the call still has."""
        return min((job.time_left() for job in self._jobs), key=lambda left: left.seconds)

    def cut(self, decision: Decision) -> None:
        """Its coroutine is cancelled."""
        for job in self._jobs:
            job.cut(decision)

    def abandon(self) -> None:
        """It has not ended."""
        for job in self._jobs:
            job.abandon()


def started(jobs: Sequence[InflightJob], clock: Clock, *, heard: bool, at: float | None = None) -> float:
    """They start now, in one call. Returns when, in monotonic seconds: not before all have listened, where starts
    are ``heard``. ``at``: by the store's clock.
    """
    if heard:
        for one in jobs:
            one.tell_start(at)
    now = clock.monotonic()
    for one in jobs:
        one.started_at = now
    return now


def execute_batch(
    handler: Handler, jobs: Sequence[InflightJob], wait: Callable[[BatchTime, Awaitable[Any]], object]
) -> BaseException | None:
    """Run ``jobs``; when it returns each has its outcome. Returns and raises as
    :func:`kqueue.execution.execute.execute`.
    """
    in_hand = [JobInHand(one.row, one) for one in jobs]
    try:
        returned = handler.batch_function(in_hand.copy())
        if returned is not None and inspect.isawaitable(returned):
            returned = wait(BatchTime(jobs), returned)
    except BaseException as error:
        return _conclude(handler, in_hand, jobs, [error] * len(jobs), raised=True)
    return _conclude(handler, in_hand, jobs, answers(returned, len(jobs)))


async def execute_batch_async(handler: Handler, jobs: Sequence[InflightJob]) -> BaseException | None:
    """As :func:`execute_batch`, for a coroutine function and inside its event loop."""
    in_hand = [JobInHand(one.row, one) for one in jobs]
    try:
        returned = await handler.batch_function(in_hand.copy())
    except BaseException as error:
        return _conclude(handler, in_hand, jobs, [error] * len(jobs), raised=True)
    return _conclude(handler, in_hand, jobs, answers(returned, len(jobs)))


def _conclude(
    handler: Handler,
    in_hand: Sequence[JobInHand],
    jobs: Sequence[InflightJob],
    said: Sequence[object],
    *,
    raised: bool = False,
) -> BaseException | None:
    """Give each its outcome, also where that of one cannot be stored: then the first such error is raised."""
    interrupt: BaseException | None = None
    failures: list[KQueueError] = []
    for job, hand, one in zip(in_hand, jobs, said, strict=True):
        try:
            if raised or (isinstance(one, Exception) and not hand.is_settled()):
                error = one if isinstance(one, BaseException) else None
                interrupt = conclude(handler, job, hand, error=error) or interrupt
            elif not hand.is_settled():
                conclude(handler, job, hand, one)
        except KQueueError as failure:
            failures.append(failure)
    if failures:
        try:
            raise failures.pop(0)
        finally:
            failures.clear()  # their frames have this one, which would keep them
    return interrupt


def answers(returned: object, jobs: int) -> Sequence[object]:
    """What a call has said of each of so many ``jobs``, in their order, as
    :func:`kqueue.execution.execute.conclude` takes it.
    """
    if isinstance(returned, str):
        lines = returned.removesuffix("\n").split("\n") if returned else []
        listed: list[object] = [line for line in lines if not line.startswith("#")]
    elif isinstance(returned, list | tuple):
        listed = list(returned)
    else:
        return [returned] * jobs
    if len(listed) > jobs:
        return [_retried(f"INVALID_RESPONSE: its handler gave {len(listed)} answers for {jobs} jobs")] * jobs
    decided: list[object] = []
    for answer in listed:
        if isinstance(answer, bool) or not isinstance(answer, str | int):
            decided.append(answer)
            continue
        decision = _of_status(answer)
        if decision is None:
            decided.append(_retried(f"INVALID_RESPONSE: its handler's answer is no status: {shown(answer)}"))
            before = _retried("INVALID_RESPONSE: an answer before that of its own is no status")
            return decided + [before] * (jobs - len(decided))
        decided.append(decision)
    missing = _retried(f"NO_RESPONSE: its handler gave {len(listed)} answers for {jobs} jobs")
    return decided + [missing] * (jobs - len(decided))


def beside(first: Row, unstarted: Iterable[InflightJob], now: float) -> Iterator[InflightJob]:
    """Those that may start beside ``first`` in one call, in their order."""
    most_urgent = math.inf
    for one in unstarted:
        row = one.row
        if not one.may_start or row.priority > most_urgent:
            return
        if row.type != first.type:
            most_urgent = min(most_urgent, row.priority)
        elif is_suspect(row) or now - one.leased_at > LEAST_PART * row.ttr:
            return
        else:
            yield one


def _of_status(answer: str | int) -> Decision | None:
    """None if it is no status, or does not begin with one."""
    text = str(answer)
    found = STATUS.match(text)
    outcome = OF_STATUS.get(int(found[1]) // 100) if found else None
    if outcome is None:
        return None
    return DELETED if outcome is Outcome.DELETED else Decision(outcome, f"the handler answered {text.strip()}")


def _retried(reason: str) -> Decision:
    return Decision(Outcome.RETRIED, reason)
