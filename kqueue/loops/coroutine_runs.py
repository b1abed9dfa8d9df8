"""The coroutines of a loop: started, and told as ended once each, however they end or do not.

What a handler cannot prevent: a task that is cancelled before its first step, a task factory that fails, an event
loop that fails. What it may do: not end when it is cancelled, or keep the event loop. In each case its job is ended
and its place is free. See :mod:`kqueue.execution.overtime`.
"""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from kqueue.contracts.settlements import Outcome
from kqueue.execution.batch import BatchTime, execute_batch_async
from kqueue.execution.execute import Decision, execute_async
from kqueue.execution.inflight_job import InflightJob
from kqueue.execution.overtime import MOST_ABANDONED, TimeLeft, kept_waiting, unended
from kqueue.loops.registry import AbandonedRun
from kqueue.model.errors import KQueueError
from kqueue.model.handlers import Handler
from kqueue.model.job import JobInHand
from kqueue.model.reasons import describe
from kqueue.system.forks import end_child

if TYPE_CHECKING:
    from kqueue.loops.loop_thread import LoopThread
    from kqueue.loops.part import HandsParts

#: Seconds after which a coroutine whose code still runs counts as one that keeps its event loop.
SECOND_LOOK_S = 0.01
#: Seconds that the event loop has to come to one that it should have cancelled, where nobody is known to keep it.
LATE_S = 2.0


class CoroutineRuns:
    """Those of one loop."""

    def __init__(self, parts: "HandsParts", loop: "LoopThread", next: Callable[[], None]) -> None:
        """``next()`` is told that a place has got free."""
        self._telemetry = parts.context.telemetry
        self._logger = parts.context.logger
        self._registry = parts.registry
        self._loop = loop
        self._jobs = parts.jobs
        self._end = parts.interrupt
        self._next = next

    def start(self, handler: Handler, jobs: list[InflightJob]) -> None:
        """One job, or a batch: in the event loop's thread."""
        self._loop.spawn(self._run(handler, jobs), _Run(self, jobs))

    async def _run(self, handler: Handler, jobs: list[InflightJob]) -> None:
        interrupt: BaseException | None = None
        try:
            if handler.batch is not None:
                interrupt = await execute_batch_async(handler, jobs)
            else:
                interrupt = await execute_async(handler, JobInHand(jobs[0].row, jobs[0]), jobs[0])
        finally:
            if not self._jobs.jobs.is_here():
                end_child(interrupt)  # it has a copy of every coroutine, and may run none
        if interrupt is not None:
            self._end(interrupt)

    def ended(self, job: InflightJob, error: BaseException | None) -> None:
        """Its coroutine is over. ``error``: what came out of it, which nothing of a handler's should."""
        if not self._jobs.jobs.is_here():
            return
        if isinstance(error, KeyboardInterrupt | SystemExit):
            self._end(error)
        elif error is not None and not job.is_settled():
            with suppress(KQueueError):
                job.end(job.row, _decision_of(error))
        one = AbandonedRun(job.row.id, job.row.type, job.row.fence)
        if not self._jobs.ended(job) and one in self._registry.abandoned:
            self._registry.abandoned.discard(one)
            self._telemetry.log(logging.INFO, job.row, "its coroutine, which was abandoned, has ended")
        self._next()

    def abandon(self, job: InflightJob, decision: Decision) -> None:
        """Its coroutine has had its time and goes on: end its run as it was decided, and free its place."""
        if not self._jobs.jobs.is_here():
            return
        with suppress(KQueueError):  # it has its outcome, or has just ended
            job.end(job.row, decision)
        one = AbandonedRun(job.row.id, job.row.type, job.row.fence)
        self._registry.abandoned.add(one)  # first: it may end meanwhile
        if not self._jobs.ended(job):
            self._registry.abandoned.discard(one)
            return
        self._next()
        text = "%s: it is abandoned; its place is free, and what it still does with its job changes nothing"
        self._telemetry.log(logging.WARNING, job.row, text, decision.reason)
        if len(self._registry.abandoned) == MOST_ABANDONED:
            self._logger.error(
                "%d coroutines that were cancelled have not ended: this process takes no more jobs of coroutines"
                " until some have",
                MOST_ABANDONED,
            )

    def late(self, jobs: list[InflightJob]) -> None:
        """They should have been cancelled, and the event loop does not come to it. In the watchdog's thread."""
        renewer = self._loop.renewer()
        time.sleep(SECOND_LOOK_S)
        if isinstance(renewer, _Run) and self._loop.renewer() is renewer:
            for one in jobs:
                self.abandon(one, kept_waiting(one.row, one in renewer.jobs))
            return
        for one in jobs:  # the machine may be slow, and the event loop about to come to it
            if one.time_left().seconds < -LATE_S:
                self.abandon(one, kept_waiting(one.row, None))

    def keeps_loop(self, job: InflightJob) -> bool | None:
        """Whether it is this one's own code that the event loop runs now; None if it is not known whose."""
        renewer = self._loop.renewer()
        return job in renewer.jobs if isinstance(renewer, _Run) else None


class _Run:
    """A :class:`kqueue.loops.loop_thread.Spawned`."""

    __slots__ = ("_runs", "jobs")

    def __init__(self, runs: CoroutineRuns, jobs: list[InflightJob]) -> None:
        self._runs = runs
        self.jobs = jobs

    def time_left(self) -> TimeLeft:
        return BatchTime(self.jobs).time_left() if len(self.jobs) > 1 else self.jobs[0].time_left()

    def cut(self, decision: Decision) -> None:
        for job in self.jobs:
            job.cut(decision)

    def abandon(self) -> None:
        for job in reversed(self.jobs):  # the first stands for their place
            decision = job.cut_short()
            if decision is not None:
                self._runs.abandon(job, unended(decision))

    def ended(self, error: BaseException | None) -> None:
        for job in reversed(self.jobs):
            self._runs.ended(job, error)


def _decision_of(error: BaseException) -> Decision:
    """Of a run that came to no end of its own: its start failed, or the event loop did, for no fault of the job."""
    if isinstance(error, KQueueError):
        return Decision(Outcome.UNGOT, str(error), seconds=0.0)
    return Decision(Outcome.RETRIED, describe(error), error=error)
