"""The windows of a loop of coroutines: claim rows as places get free, settle the pointers, start the coroutines.

It goes on where :mod:`kqueue.loops.windows` would wait for the window to end: a claim holds up to as many jobs as
there are free places, and what :mod:`kqueue.execution.coroutines` has in hand ends in its own time. Everything that
asks a store or a broker is done by the loop's thread or the watchdog's, and nothing by the event loop's.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING

from kqueue.contracts.budget import MAX_JOBS, SOLITUDE_S, Budget
from kqueue.execution.auto_renew import AutoRenew
from kqueue.execution.context import LoopContext
from kqueue.execution.coroutines import Coroutines
from kqueue.execution.inflight_job import InflightJob
from kqueue.execution.overtime import MOST_ABANDONED
from kqueue.loops.claiming import Found, fetch, give_back_claim, release
from kqueue.loops.coroutine_runs import CoroutineRuns
from kqueue.loops.isolation import LOOK_S
from kqueue.loops.registry import Registry
from kqueue.loops.stopping import LoopControls
from kqueue.loops.watchdog import Watchdog
from kqueue.loops.windows import ASIDE_S
from kqueue.model.errors import KQueueError
from kqueue.model.handlers import Handler
from kqueue.system.mint import IdMint
from kqueue.system.wakeup import wait_readable

if TYPE_CHECKING:
    from kqueue.loops.loop_thread import LoopThread

#: Seconds between two looks at the limits while an end is awaited, which wakes its loop by itself.
IDLE_S = 1.0
#: Seconds between two looks for more, in a loop that ends when nothing is ready, while coroutines run.
DRAIN_LOOK_S = 0.1
#: The part of its lease that a suspect waits for others to end. With half of it gone it would not start any more.
WAITING_PART = 0.4


class AsyncWindows:
    """Those of one loop. Its jobs are of one type."""

    def __init__(
        self,
        context: LoopContext,
        registry: Registry,
        handlers: Callable[[], Mapping[str, Handler]],
        mint: IdMint,
        controls: LoopControls,
        *,
        auto_renew: AutoRenew,
        loop: "LoopThread",
    ) -> None:
        """``handlers()`` is that of the type, or empty."""
        self._context = context
        self._store = context.store
        self._logger = context.logger
        self._monotonic = context.clock.monotonic
        self._registry = registry
        self._handlers = handlers
        self._mint = mint
        self._auto_renew = auto_renew
        self._loop = loop
        self._stopping = controls.stopping
        self._wakeup = controls.wakeup
        self._stop = controls.stop
        self._turned = controls.turned
        self._watchdog = Watchdog(context.clock, context.logger)
        self._coroutines = Coroutines(
            context,
            awake=self._awake,
            ring=self._ring,
            keeps_loop=self._keeps_loop,
            late=self._late,
        )
        self._jobs = self._coroutines.jobs
        self._runs = CoroutineRuns(context, registry, loop, self._coroutines, self._interrupt_with)
        #: Those of its jobs when it began to look for more.
        self._writes = 0
        #: What a handler raised to end the loop.
        self._interrupt: BaseException | None = None
        #: Pointers that had no row to claim at all.
        self.stale = 0

    # -- see kqueue.loops.windows --------------------------------------------------------------------------------

    def budget(self) -> Budget | None:
        """What the next claim may hold; None if all places are taken. The loop's wakeup rings when one gets free.

        Raises ``LoopFailed`` if the event loop has.
        """
        self._loop.check()
        self._writes = self._jobs.completer.writes
        self._coroutines.read_clock()
        concurrency = max((handler.concurrency for handler in self._handlers().values()), default=0)
        if len(self._registry.abandoned) >= MOST_ABANDONED:
            concurrency = 0
        places = self._coroutines.places(concurrency)
        left = [number for number in (self._stopping.jobs_left(), self._registry.share()) if number is not None]
        jobs = min([places, MAX_JOBS, *left])
        # What a coroutine does most is to wait, so a claim is bounded by the places and not by expected work.
        return Budget(jobs, job_s=dict.fromkeys(self._handlers(), 0.0)) if jobs > 0 else None

    def has_leftovers(self) -> bool:
        """Whether something could not be settled. What still runs is none."""
        return self._jobs.completer.is_failing()

    def settle_leftovers(self) -> None:
        """What a store that was down could not take before. Raises ``StoreError``."""
        if self._jobs.completer.is_failing():
            self._jobs.settle()

    def deny_solitude(self) -> None:
        """See :meth:`kqueue.loops.registry.Registry.deny_solitude`."""
        self._registry.deny_solitude()

    def take(self, found: Found) -> None:
        """Claim what was found and start it, or give it back if a suspect of another loop is aside."""
        with ExitStack() as window:
            if not window.enter_context(self._registry.isolation.window()):
                release(found, self._context)
                return
            try:
                self._claim(found)
            except BaseException:
                self._coroutines.give_back()
                raise
            finally:
                self._coroutines.keep(window)

    def wait_for_more(self) -> bool:
        """Wait for a moment while anything is in hand; False, at once, if nothing is. What it added, or itself, may
        be ready then. Raises ``StoreError``.
        """
        if self._coroutines.running():
            self._pause(self._stopping.seconds_left(DRAIN_LOOK_S))
            return True
        if not self._jobs.completer.is_written():
            self._jobs.settle()
        # What the watchdog has written since the tube was found empty may have come back too.
        self._jobs.completer.await_rings()
        return self._jobs.completer.writes != self._writes

    def finish(self) -> None:
        """Start nothing more, wait until all that runs has ended, and settle it. Raises ``StoreError``, and what a
        handler raised to end the loop.
        """
        self._coroutines.give_back()
        while self._coroutines.running():
            self._pause(IDLE_S)
        interrupt, self._interrupt = self._interrupt, None
        try:
            self._jobs.settle()
            self._jobs.completer.await_rings()
        except KQueueError as error:
            if interrupt is None:
                raise
            self._logger.warning("not settled: %s", error)
        if interrupt is not None:
            raise interrupt

    def close(self) -> None:
        """End the watchdog, and let go of what could not be settled."""
        try:
            self.finish()
        except KQueueError as error:
            self._logger.warning("not settled: %s", error)
        finally:
            self._registry.let_go(self._jobs)
            self._watchdog.close()

    # -- the loop's thread -------------------------------------------------------------------------------

    def _claim(self, found: Found) -> None:
        self._jobs.thread = self._loop.thread
        self._registry.hold(self._jobs)
        owner = self._mint.make(1)[0]
        try:
            self.stale += fetch(found, owner, self._context, alone=False, hold=self._jobs.claim)
        except BaseException:
            if not self._jobs.unstarted:
                give_back_claim(owner, self._context)
            raise
        ttrs = [job.row.ttr for job in list(self._jobs.unstarted)]
        if ttrs:
            self._watchdog.watch(self._coroutines, alone=len(ttrs) == 1)
            self._start(self._coroutines.most_beside(), min(ttrs))

    def _start(self, most: float, ttr: float) -> None:
        """Start what is claimed, once no more than ``most`` run with it."""
        until = self._monotonic() + min(SOLITUDE_S, WAITING_PART * ttr)
        while not self._coroutines.fits(most) and self._monotonic() < until and not self._stopping.is_stopped():
            self._pause(min(IDLE_S, until - self._monotonic()))
        if not self._coroutines.fits(most):
            self._coroutines.give_back(0.0 if self._stopping.is_stopped() else self._registry.isolation.again_in())
        elif most == 1:
            self._start_aside()
        else:
            self._jobs.renew_unstarted()
            self._board()

    def _start_aside(self) -> None:
        """Start the suspect that is claimed, and wait for its end as long as others wait for it."""
        isolation = self._registry.isolation
        if not self._jobs.completer.is_written():
            self._jobs.settle()
        with isolation.aside(ASIDE_S) as isolated:
            if not isolated:
                self._coroutines.give_back(isolation.again_in())
                return
            self._jobs.mark_alone()
            self._board()
            while self._coroutines.are_under_way() and not isolation.has_expired():
                self._pause(LOOK_S)
            self._jobs.deny_solitude()
            self._jobs.settle()

    def _board(self) -> None:
        for job in list(self._jobs.unstarted):
            job.renewal = self._auto_renew.hold([job.row], self._handlers(), job.leased_since)
        self._coroutines.board()
        self._loop.call(self._take_off)

    def _pause(self, seconds: float) -> None:
        self._turned()
        wait_readable([self._wakeup], seconds)
        self._wakeup.answer()

    # -- the event loop's thread -------------------------------------------------------------------------

    def _take_off(self) -> None:
        handlers, heard = self._handlers(), self._context.telemetry.is_heard()
        for job in self._coroutines.take_off(not handlers or self._stopping.is_stopped()):
            self._stopping.count += 1
            if heard:
                job.tell_start(self._coroutines.now())
            handler = handlers[job.row.type]
            if job.renewal is not None:
                job.renewal.start(job.row.id, job.started_at)
                job.max_runtime = handler.max_runtime
            self._runs.start(handler, job)

    def _ring(self) -> None:
        if self._loop.is_here():
            # Not at once: several may be about to end, and one claim for all costs as much as one for each.
            self._loop.call_last(self._wakeup.ring)
        else:
            self._wakeup.ring()

    # -- from any thread ---------------------------------------------------------------------------------

    def _keeps_loop(self, job: InflightJob) -> bool | None:
        return self._runs.keeps_loop(job)

    def _late(self, jobs: list[InflightJob]) -> None:
        self._runs.late(jobs)

    def _interrupt_with(self, interrupt: BaseException) -> None:
        self._interrupt = interrupt
        self._stop()

    def _awake(self) -> None:
        self._watchdog.watch(self._coroutines, alone=False)
