"""The dispatcher of a loop: it writes what has ended and claims what is wanted, in one turn; hands run handlers.

A claim has committed before any handler starts, and no pointer is held while one runs. It holds as many jobs as
there are free places, and some more. What :mod:`kqueue.execution.concurrent_jobs` has in hand ends in its own time,
and is written with the next claim, or ``settle_ms`` later. Whatever ends a turn, at whatever line, no row stays
claimed by nobody.

Handlers run in the loop's own thread, one after another (:mod:`kqueue.loops.own_hands`: the short way of
``run_jobs``), in threads (:mod:`kqueue.loops.thread_hands`) or in an event loop (:mod:`kqueue.loops.loop_hands`).
Where others run them, all that asks a store or a broker is done by the dispatcher's thread or the watchdog's.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple, Protocol

from kqueue.contracts.admission import Claimer
from kqueue.contracts.budget import MAX_JOBS, SOLITUDE_S, Budget
from kqueue.contracts.runs import RunsInOneWrite
from kqueue.dispatch.slots import ServedHandlers
from kqueue.execution.auto_renew import AutoRenew
from kqueue.execution.concurrent_jobs import ConcurrentJobs
from kqueue.execution.context import LoopContext
from kqueue.execution.inflight import BOUND_S, RunIn
from kqueue.execution.inflight_job import InflightJob
from kqueue.loops.claiming import Found, fetch, give_back_claim, release
from kqueue.loops.isolation import LOOK_S, YIELD_S
from kqueue.loops.registry import Registry
from kqueue.loops.sizer import Sizer
from kqueue.loops.stopping import LoopControls
from kqueue.loops.watchdog import Watchdog
from kqueue.model.errors import KQueueError
from kqueue.model.handlers import Handler
from kqueue.model.job import Row
from kqueue.system.mint import IdMint
from kqueue.system.wakeup import wait_readable

#: Seconds between two looks at the limits while an end is awaited, which wakes its loop by itself.
IDLE_S = 1.0
#: Seconds between two looks for more, in a loop that ends when nothing is ready, while handlers run.
DRAIN_LOOK_S = 0.1
#: Seconds that a suspect waits for other loops to end their windows, and they for it: as long as windows of
#: fast jobs take. A loop that is busy for longer is not waited for.
ASIDE_S = 2.5 * BOUND_S
#: The part of its lease that a suspect waits for others to end. With half of it gone it would not start any more.
WAITING_PART = 0.4


class Hands(Protocol):
    """What runs the handlers of one dispatcher."""

    @property
    def thread(self) -> int:
        """Where handlers run, as :func:`threading.get_ident` has it; -1 where each has its own."""

    def open(self) -> None:
        """Be there. Called at each turn. Raises ``LoopFailed`` if they cannot run anything any more, and
        ``OSError`` where the system has no more threads.
        """

    def number(self) -> int:
        """How many handlers may run at once, now."""

    def free(self) -> int:
        """How many places there are for another one, now."""

    def renew(self, jobs: list[InflightJob]) -> None:
        """Have the leases of those that are about to start renewed while they run, where their types want it."""

    def start(self) -> None:
        """Start what has boarded. Hands that are the dispatcher's own thread run it to its end, and raise what a
        handler raised to end the loop.
        """

    def ring(self) -> None:
        """Wake the dispatcher's thread. From any thread."""

    def keeps_loop(self, job: InflightJob) -> bool | None:
        """Whether it is this one's code that keeps :attr:`thread`; None if it is not known whose."""

    def late(self, jobs: list[InflightJob]) -> None:
        """They should have been cancelled, and the event loop does not come to them."""

    def rest(self) -> None:
        """The dispatcher's thread has left :meth:`start`, perhaps by an interrupt."""

    def close(self) -> None:
        """Nothing runs any more, and nothing will."""


class DispatcherParts(NamedTuple):
    """What the dispatcher of a loop works with."""

    context: LoopContext
    registry: Registry
    #: Those of the loop, by type.
    handlers: ServedHandlers
    mint: IdMint
    auto_renew: AutoRenew


class HandsParts(NamedTuple):
    """What hands work with."""

    context: LoopContext
    registry: Registry
    handlers: ServedHandlers
    jobs: ConcurrentJobs
    controls: LoopControls
    #: Ends the dispatcher, which then raises it.
    interrupt: Callable[[BaseException], None]
    auto_renew: AutoRenew


class Dispatcher:
    """What one loop has in hand, and how it gets more: see the module's text."""

    def __init__(
        self,
        parts: DispatcherParts,
        controls: LoopControls,
        *,
        hands: Callable[[HandsParts], Hands],
        run_in: RunIn,
    ) -> None:
        """``hands`` makes what runs the handlers; ``run_in``: where these run them."""
        self._context, self._registry, self._handlers, self._mint, auto_renew = parts
        context = self._context
        self._logger = context.logger
        self._monotonic = context.clock.monotonic
        self._stopping = controls.stopping
        self._wakeup = controls.wakeup
        self._stop = controls.stop
        self._turned = controls.turned
        self._sizer = Sizer(context.telemetry.counters.measured(parts.handlers()))
        self._id = self._mint.make(1)[0]
        self._concurrent = ConcurrentJobs(
            context,
            awake=self._awake,
            ring=self._ring,
            keeps_loop=self._keeps_loop,
            late=self._late,
            emptied=partial(parts.registry.isolation.leave, self),
            run_in=run_in,
        )
        self._watchdog = Watchdog(self._concurrent, context.clock, context.logger)
        self._is_own = run_in is RunIn.OWN_THREAD
        self._has_one_write = isinstance(context.store, RunsInOneWrite)
        self._jobs = self._concurrent.jobs
        self._hands = hands(
            HandsParts(
                context,
                parts.registry,
                parts.handlers,
                self._concurrent,
                controls,
                self._interrupt_with,
                auto_renew,
            )
        )
        #: The handlers as they were at the last look, and of those with batches how many jobs these take.
        self._seen: tuple[Mapping[str, Handler], Mapping[str, int]] = ({}, {})
        #: How many writes there had been when it began to look for more.
        self._writes = 0
        #: What a handler raised to end the loop.
        self._interrupt: BaseException | None = None
        #: Pointers that had no row to claim at all.
        self.stale = 0

    def budget(self) -> Budget | None:
        """What the next claim may hold; None if all places are taken. The loop's wakeup rings when one gets free.

        Raises ``LoopFailed`` if the hands have, and ``OSError``.
        """
        self._hands.open()
        self._writes = self._jobs.completer.writes
        self._concurrent.read_clock()
        self._sizer.observe(self._concurrent.spent())
        number, batches = self._hands.number(), self._batches()
        width = max(batches.values(), default=1)
        # Whole batches wait, so that none is called with what is left of one.
        ahead = -(-self._sizer.ahead(number, self._is_own) // width) * width
        places = self._concurrent.places(number, ahead, self._hands.free(), width)
        waiting = self._concurrent.waiting()
        left = [one - waiting for one in (self._stopping.jobs_left(), self._registry.share()) if one is not None]
        # Who does not know yet how long jobs take would hold back at their limits what may follow at once.
        first = 1 if self._sizer.is_new() and self._context.limiter.of(self._handlers()) else MAX_JOBS
        jobs = min([places, first, *left])
        if jobs <= 0:
            return None
        # A place that is taken by a batch has had its share.
        free = number if width == 1 else max(1, number - self._jobs.calls())
        return self._sizer.shared(jobs, free, self._handlers(), self._stopping.seconds_left(), batches)

    def _batches(self) -> Mapping[str, int]:
        """Of those types whose handlers take several jobs in one call, how many."""
        handlers, batches = self._seen
        now = self._handlers()
        if now is not handlers:
            batches = {type: handler.batch for type, handler in now.items() if handler.batch is not None}
            self._seen = now, batches
        return batches

    def has_leftovers(self) -> bool:
        """Whether something could not be settled. What still runs is none."""
        return self._jobs.completer.is_failing()

    def settle_leftovers(self) -> None:
        """What a store that was down could not take before. Raises ``StoreError``."""
        if self._stopping.is_here() and self._jobs.completer.is_failing():
            self._jobs.settle()

    def take(self, found: Found) -> None:
        """Claim what was found and start it, or give it back if a suspect of another loop is aside.

        Raises what a handler raised to end the loop, if it ran in this thread.
        """
        try:
            self._concurrent.begin_claim()
            if not self._registry.isolation.enter(self):
                release(found, self._context)
                return
            self._registry.deny_solitude()  # of a suspect that had its time while this one waited for what it found
            self._claim(found)
        except BaseException:
            if self._stopping.is_here():
                self._concurrent.give_back()
            raise
        finally:
            if self._stopping.is_here():
                self._concurrent.end_claim()

    def owes(self) -> bool:
        """Whether something has ended that nobody writes before long, if the dispatcher's thread does not."""
        return self._is_own and not self._jobs.completer.is_written()

    def settle(self) -> None:
        """Write what has ended. Raises ``StoreError``."""
        self._jobs.settle()

    def wait_for_more(self) -> bool:
        """Wait for a moment while anything is in hand; False, at once, if nothing is. What it added, or itself, may
        be ready then. Raises ``StoreError``.
        """
        if self._concurrent.are_under_way():
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
        if not self._stopping.is_here():
            return
        self._hands.rest()
        self._concurrent.give_back()
        while self._concurrent.running():
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
            if self._stopping.is_here():
                self._hands.close()
                self._registry.let_go(self._jobs)
                self._registry.isolation.forget(self)
                self._watchdog.close()

    # -- the loop's thread -------------------------------------------------------------------------------

    def _claim(self, found: Found) -> None:
        self._jobs.thread = self._hands.thread
        self._registry.hold(self._jobs)
        if self._is_own and not self._has_one_write:
            self._jobs.settle()  # before others start: what has ended is not to be blamed for their crash
        owner, began = self._mint.make(1)[0], self._monotonic()
        alone = self._is_own and self._registry.isolation.has_one_loop()
        try:
            most = self._hands.number() * max(self._batches().values(), default=1)
            holder = Claimer(self._id, most, self._sizer.follow())
            self._jobs.completer.holder = holder
            self.stale += fetch(
                found,
                owner,
                self._context,
                holder=holder,
                alone=alone,
                hold=partial(self._hold, alone),
                settle=self._jobs.settle if self._has_one_write else None,
            )
        except BaseException:
            if not self._holds(owner):
                give_back_claim(owner, self._context)
            raise
        self._sizer.claimed(self._monotonic() - began)
        if alone and not self._registry.isolation.has_one_loop():
            self._jobs.deny_solitude()  # another loop has begun while the claim waited for the store
        unboarded = self._unboarded()
        if unboarded:
            self._watchdog.wake(alone=len(unboarded) == 1)
            self._start(self._concurrent.most_beside(), unboarded)

    def _hold(self, alone: bool, rows: list[Row], leased_at: float) -> None:
        self._jobs.claim(rows, leased_at, alone=alone and len(rows) == 1)

    def _start(self, most: float, claimed: list[InflightJob]) -> None:
        """Start what is ``claimed``, once no more than ``most`` run with it: infinity if none of them is a
        suspect.
        """
        # In one thread it stands behind the others anyway.
        if most < math.inf and not self._is_own and self._registry.isolation.must_yield():
            self._concurrent.give_back(YIELD_S)
            return
        # One that was alone when its worker died, which may have been the power, is not to wait for ever.
        must_fit = most < math.inf and any(job.row.suspicion for job in claimed)
        ttr = min(job.row.ttr for job in claimed) if must_fit else math.inf
        until = self._monotonic() + (min(SOLITUDE_S, WAITING_PART * ttr) if must_fit else ASIDE_S)
        if not self._concurrent.fits(most):
            with self._registry.isolation.waiting():
                self._wait_to_fit(most, until)
        fits, is_stopped = self._concurrent.fits(most), self._stopping.is_stopped()
        if not fits and (must_fit or is_stopped):
            self._concurrent.give_back(0.0 if is_stopped else self._registry.isolation.again_in())
            return
        if fits and most == 1 and self._start_aside(must_fit):
            return
        self._jobs.renew_unstarted()
        self._board()

    def _wait_to_fit(self, most: float, until: float) -> None:
        while not self._concurrent.fits(most) and self._monotonic() < until and not self._stopping.is_stopped():
            self._pause(min(IDLE_S, until - self._monotonic()))

    def _start_aside(self, must_be_alone: bool) -> bool:
        """Start the suspect that is claimed, and wait for its end as long as others wait for it. False if it cannot
        be alone and need not: then it is still to be started.
        """
        isolation = self._registry.isolation
        if not self._jobs.completer.is_written():
            self._jobs.settle()
        with isolation.aside(ASIDE_S, self) as isolated:
            if not isolated:
                if must_be_alone:
                    self._concurrent.give_back(isolation.again_in())
                else:
                    self._jobs.deny_solitude()
                return must_be_alone
            if self._jobs.alone is None:
                self._jobs.mark_alone()
            self._board()
            if not self._stopping.is_here():
                return True  # in a child that the handler has forked, nothing ends
            # Where all loops end, nothing else starts here, and it stays alone for as long as it takes.
            while self._concurrent.are_under_way() and (self._stopping.is_stopped() or not isolation.has_expired()):
                self._pause(LOOK_S)
            self._jobs.deny_solitude()
            self._jobs.settle()
        return True

    def _board(self) -> None:
        unboarded = self._unboarded()
        if unboarded:
            self._hands.renew(unboarded)
        self._concurrent.board()
        self._hands.start()

    def _pause(self, seconds: float) -> None:
        self._turned()
        wait_readable([self._wakeup], seconds)
        self._wakeup.answer()

    def _unboarded(self) -> list[InflightJob]:
        with self._jobs.lock:
            return [one for one in self._jobs.unstarted if not one.may_start]

    def _holds(self, owner: str) -> bool:
        """Whether what was claimed for ``owner`` is in hand."""
        with self._jobs.lock:
            return any(one.row.lease_owner == owner for one in self._jobs.unstarted)

    # -- from any thread ---------------------------------------------------------------------------------

    def _ring(self) -> None:
        self._hands.ring()

    def _keeps_loop(self, job: InflightJob) -> bool | None:
        return self._hands.keeps_loop(job)

    def _late(self, jobs: list[InflightJob]) -> None:
        self._hands.late(jobs)

    def _interrupt_with(self, interrupt: BaseException) -> None:
        self._interrupt = interrupt
        self._stop()

    def _awake(self) -> None:
        self._watchdog.wake()
