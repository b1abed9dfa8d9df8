"""An event loop as the hands of a part of a dispatcher: coroutines of one type, many at once."""

from typing import TYPE_CHECKING

from kqueue.execution.inflight_job import InflightJob
from kqueue.execution.overtime import MOST_ABANDONED
from kqueue.loops.coroutine_runs import CoroutineRuns
from kqueue.loops.part import HandsParts
from kqueue.model.handlers import Handler

if TYPE_CHECKING:
    from kqueue.loops.loop_thread import LoopThread


class LoopHands:
    """See :class:`kqueue.loops.part.Hands`."""

    def __init__(self, parts: HandsParts, *, loop: "LoopThread") -> None:
        """``parts.handlers()`` is that of the type, or empty."""
        self._context, self._registry, self._handlers, self._jobs, self._controls = parts[:5]
        self._auto_renew = parts.auto_renew
        self._loop = loop
        self._runs = CoroutineRuns(parts, loop, self._next)
        #: Whether the event loop was called by another thread, and has not come yet.
        self._is_called = False
        #: Whether it comes to fill its places after what it does now.
        self._is_filling = False

    @property
    def thread(self) -> int:
        """The event loop's."""
        return self._loop.thread

    def open(self) -> None:
        """Raises ``LoopFailed`` if the event loop has failed."""
        self._loop.check()

    def number(self) -> int:
        """As the handler says. None while the event loop does not come, so that nothing is claimed again and again
        for one that is kept.
        """
        return 0 if self._is_called else self._places()

    def free(self) -> int:
        """Of those, how many run nothing."""
        return self.number() - self._jobs.jobs.calls()

    def renew(self, jobs: list[InflightJob]) -> None:
        """Each by itself."""
        self._auto_renew.hold_each(jobs, self._handlers())

    def start(self) -> None:
        """In the event loop's thread: now, if it has a place, else when one gets free."""
        if not self._is_called and self._jobs.jobs.calls() < self._places():
            self._call()

    def ring(self) -> None:
        """From the event loop not at once: several may be about to end, and one claim for all costs as much as one
        for each.
        """
        if self._loop.is_here():
            self._loop.call_last(self._controls.ring)
        else:
            self._controls.ring()

    def keeps_loop(self, job: InflightJob) -> bool | None:
        """See :meth:`kqueue.loops.coroutine_runs.CoroutineRuns.keeps_loop`."""
        return self._runs.keeps_loop(job)

    def late(self, jobs: list[InflightJob]) -> None:
        """See :meth:`kqueue.loops.coroutine_runs.CoroutineRuns.late`."""
        self._runs.late(jobs)

    def rest(self) -> None:
        """Nothing: the dispatcher's thread runs no handlers."""

    def close(self) -> None:
        """Nothing: the event loop may have other hands."""

    def _places(self) -> int:
        """None more while too many go on that were abandoned."""
        if len(self._registry.abandoned) >= MOST_ABANDONED:
            return 0
        return max((handler.concurrency or 1 for handler in self._handlers().values()), default=0)

    def _call(self) -> None:
        self._is_called = True
        self._loop.call(self._come)

    def _next(self) -> None:
        """A place has got free. Several may have, so they are filled together."""
        if not self._jobs.waiting() or self._is_filling or self._loop.has_failed():
            return
        if self._loop.is_here():
            self._is_filling = True
            self._loop.call_last(self._fill)
        elif not self._is_called:  # its coroutine was abandoned, and the event loop is kept
            self._call()

    # -- the event loop's thread -------------------------------------------------------------------------

    def _come(self) -> None:
        self._is_called = False
        self._fill()
        self._jobs.tell_of_place()

    def _fill(self) -> None:
        self._is_filling = False
        stopping, handlers = self._controls.stopping, self._handlers()
        if stopping.is_over():
            self.ring()
            return
        free = self._places() - self._jobs.jobs.calls() if handlers else 1
        if free > 0:
            heard = self._context.telemetry.is_heard()
            is_batch = any(handler.batch is not None for handler in handlers.values())
            # Of batches one after another: the first of each takes the others with it.
            while taken := self._jobs.take(handlers, 1 if is_batch else free):
                for job in taken:
                    self._start(handlers[job.row.type], job, heard)
                free -= len(taken)
                if free <= 0 or not is_batch:
                    break

    def _start(self, handler: Handler, job: InflightJob, heard: bool) -> None:
        jobs = [job] if handler.batch is None else self._jobs.take_with(job, handler.batch)
        with self._jobs.jobs.lock:  # threads count too
            self._controls.stopping.count += len(jobs)
        for one in jobs:
            if heard:
                one.tell_start(self._jobs.now())
            if one.renewal is not None:
                one.renewal.start(one.row.id, one.started_at)
                one.max_runtime = handler.max_runtime
        self._runs.start(handler, jobs)
