"""An event loop as the hands of a dispatcher: coroutines of one type, many at once."""

from typing import TYPE_CHECKING

from kqueue.execution.inflight_job import InflightJob
from kqueue.execution.overtime import MOST_ABANDONED
from kqueue.loops.coroutine_runs import CoroutineRuns
from kqueue.loops.dispatcher import HandsParts

if TYPE_CHECKING:
    from kqueue.loops.loop_thread import LoopThread


class LoopHands:
    """See :class:`kqueue.loops.dispatcher.Hands`."""

    def __init__(self, parts: HandsParts, *, loop: "LoopThread") -> None:
        """``parts.handlers()`` is that of the type, or empty."""
        self._context, self._registry, self._handlers, self._jobs, self._controls, end = parts
        self._loop = loop
        self._runs = CoroutineRuns(self._context, self._registry, loop, self._jobs, end)

    @property
    def thread(self) -> int:
        """The event loop's."""
        return self._loop.thread

    def open(self) -> None:
        """Raises ``LoopFailed`` if the event loop has failed."""
        self._loop.check()

    def number(self) -> int:
        """As the handler says. None more while too many go on that were abandoned."""
        if len(self._registry.abandoned) >= MOST_ABANDONED:
            return 0
        return max((handler.concurrency for handler in self._handlers().values()), default=0)

    def start(self) -> None:
        """In the event loop's thread."""
        self._loop.call(self._take_off)

    def ring(self) -> None:
        """From the event loop not at once: several may be about to end, and one claim for all costs as much as one
        for each.
        """
        wakeup = self._controls.wakeup
        if self._loop.is_here():
            self._loop.call_last(wakeup.ring)
        else:
            wakeup.ring()

    def keeps_loop(self, job: InflightJob) -> bool | None:
        """See :meth:`kqueue.loops.coroutine_runs.CoroutineRuns.keeps_loop`."""
        return self._runs.keeps_loop(job)

    def late(self, jobs: list[InflightJob]) -> None:
        """See :meth:`kqueue.loops.coroutine_runs.CoroutineRuns.late`."""
        self._runs.late(jobs)

    def close(self) -> None:
        """Nothing: the event loop may have other hands."""

    def _take_off(self) -> None:
        stopping = self._controls.stopping
        handlers, heard = self._handlers(), self._context.telemetry.is_heard()
        for job in self._jobs.take_off(not handlers or stopping.is_stopped()):
            stopping.count += 1
            if heard:
                job.tell_start(self._jobs.now())
            handler = handlers[job.row.type]
            if job.renewal is not None:
                job.renewal.start(job.row.id, job.started_at)
                job.max_runtime = handler.max_runtime
            self._runs.start(handler, job)
