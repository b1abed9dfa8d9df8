"""The dispatcher of a loop: it writes what has ended and claims what is wanted, in one turn; hands run handlers.

A claim has committed before any handler starts, and no pointer is held while one runs. It holds as many jobs as
there are free places, and some more. What :mod:`kqueue.execution.concurrent_jobs` has in hand ends in its own time,
and is written with the next claim, or ``settle_ms`` later. Whatever ends a turn, at whatever line, no row stays
claimed by nobody.

Handlers run in the loop's own thread, one after another (:mod:`kqueue.loops.own_hands`: the short way of
``run_jobs``), in threads (:mod:`kqueue.loops.thread_hands`) or in an event loop (:mod:`kqueue.loops.loop_hands`).
Where others run them, all that asks a store or a broker is done by the dispatcher's thread or the watchdog's.

Types that do not share their places are each a *part* (:mod:`kqueue.loops.part`): the plain functions without a
bound, each that has one, each coroutine function. One claim takes what all parts have places for; a part that has
none is left out of what is reserved, until it has some again.
"""

import math
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import NamedTuple

from kqueue.contracts.admission import Claimer
from kqueue.contracts.budget import MAX_JOBS, Budget
from kqueue.contracts.runs import RunsInOneWrite
from kqueue.dispatch.slots import ServedHandlers
from kqueue.execution.auto_renew import AutoRenew
from kqueue.execution.context import LoopContext
from kqueue.execution.inflight import RunIn
from kqueue.execution.jobs_in_parts import JobsInParts
from kqueue.loops.claiming import Found, fetch, give_back_claim, release
from kqueue.loops.isolation import LOOK_S, YIELD_S
from kqueue.loops.part import ASIDE_S, DispatcherPart, HandsParts, PartPlan
from kqueue.loops.registry import Registry
from kqueue.loops.stopping import LoopControls
from kqueue.loops.watchdog import Watchdog
from kqueue.model.errors import KQueueError
from kqueue.model.handlers import Part
from kqueue.model.job import Row
from kqueue.system.mint import IdMint
from kqueue.system.wakeup import wait_readable

#: Seconds between two looks at the limits while an end is awaited, which wakes its loop by itself.
IDLE_S = 1.0
#: Seconds between two looks for more, in a loop that ends when nothing is ready, while handlers run.
DRAIN_LOOK_S = 0.1


class DispatcherParts(NamedTuple):
    """What the dispatcher of a loop works with."""

    context: LoopContext
    registry: Registry
    #: Those of the loop, by type.
    handlers: ServedHandlers
    mint: IdMint
    auto_renew: AutoRenew


class Dispatcher:
    """What one loop has in hand, and how it gets more: see the module's text."""

    def __init__(self, parts: DispatcherParts, controls: LoopControls, plans: Sequence[PartPlan]) -> None:
        """``plans``: of its parts. Those whose handlers run in the loop's own thread have no other beside them."""
        self._context, self._registry, handlers, self._mint, auto_renew = parts
        context = self._context
        self._logger = context.logger
        self._monotonic = context.clock.monotonic
        self._stopping = controls.stopping
        self._wakeup = controls.wakeup
        self._stop = controls.stop
        self._turned = controls.turned
        self._id = self._mint.make(1)[0]
        self._jobs = JobsInParts(
            context,
            awake=self._awake,
            emptied=partial(parts.registry.isolation.leave, self),
        )
        self._watchdog = Watchdog(self._jobs, context.clock, context.logger)
        self._is_own = plans[0].run_in is RunIn.OWN_THREAD
        self._has_one_write = isinstance(context.store, RunsInOneWrite)
        self._parts: list[DispatcherPart] = []
        for plan in plans:
            own = handlers if plan.belongs is None else Part(handlers, plan.belongs)
            part = DispatcherPart(context, own, self._jobs, plan.run_in)
            part.hands = plan.hands(
                HandsParts(
                    context,
                    parts.registry,
                    own,
                    part.concurrent,
                    controls,
                    self._interrupt_with,
                    auto_renew,
                    handlers.number,
                )
            )
            self._parts.append(part)
        #: Those that wait until what they have claimed may start, and while others are told of that.
        self._waiting: dict[DispatcherPart, AbstractContextManager[None]] = {}
        #: Whose types the next claim may take, as in its budget.
        self._wanted: list[DispatcherPart] = self._parts
        #: The last budget of several parts.
        self._budget = Budget(0)
        #: How many writes there had been when it began to look for more.
        self._writes = 0
        #: What a handler raised to end the loop.
        self._interrupt: BaseException | None = None
        #: Pointers that had no row to claim at all.
        self.stale = 0

    def budget(self, types: Collection[str]) -> Budget | None:
        """What the next claim may hold of ``types``; None if all places are taken. The loop's wakeup rings when one
        gets free.

        Raises ``LoopFailed`` if the hands have, ``StoreError``, and ``OSError``.
        """
        for part in self._parts:
            part.hands.open()
        self._writes = self._jobs.completer.writes
        self._jobs.read_clock()
        if self._waiting:
            self.look_at_waiting()
        waiting = self._jobs.waiting()
        left = [one - waiting for one in (self._stopping.jobs_left(), self._registry.share()) if one is not None]
        most, seconds_left = min([MAX_JOBS, *left]), self._stopping.seconds_left()
        if len(self._parts) == 1:
            return self._parts[0].budget(most, seconds_left)
        return self._budget_of_all(types, most, seconds_left)

    def _budget_of_all(self, types: Collection[str], most: int, seconds_left: float) -> Budget | None:
        wanted: list[DispatcherPart] = []
        budgets: list[Budget] = []
        part_of: dict[str, int] = {}
        for part in self._parts:
            own = [type for type in part.handlers() if type in types]
            budget = part.budget(most, seconds_left) if own else None
            if budget is not None:
                part_of.update(dict.fromkeys(own, len(wanted)))
                wanted.append(part)
                budgets.append(budget)
        self._wanted = wanted
        if not wanted:
            return None
        return Budget(min(most, sum(one.jobs for one in budgets)), parts=tuple(budgets), part_of=part_of)

    def look_at_waiting(self) -> None:
        """Start what is claimed and waits for others to end, if it may by now, or give it back once it has waited
        for long enough. Raises ``StoreError``.
        """
        for part in list(self._waiting):
            self._guarded(partial(self._start_if_fit, part))

    def seconds_to_fit(self) -> float:
        """Until what is claimed, and waits for others to end, goes back; infinity if nothing does."""
        if not self._waiting:
            return math.inf
        untils = [part.fit.until for part in self._waiting if part.fit is not None]
        return max(0.0, min(untils, default=math.inf) - self._monotonic())

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
        self._guarded(partial(self._take, found))

    def _take(self, found: Found) -> None:
        if not self._registry.isolation.enter(self):
            release(found, self._context)
            return
        self._registry.deny_solitude()  # of a suspect that had its time while this one waited for what it found
        self._claim(found)

    def _guarded(self, claim: Callable[[], object]) -> None:
        try:
            self._jobs.begin_claim()
            claim()
        except BaseException:
            if self._stopping.is_here():
                self._jobs.give_back()
            raise
        finally:
            if self._stopping.is_here():
                self._jobs.end_claim()

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
        if self._jobs.are_under_way():
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
        for part in self._parts:
            part.hands.rest()
        self._jobs.give_back()
        for part in list(self._waiting):
            self._end_wait(part)
        while self._jobs.running():
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
                for part in self._parts:
                    part.hands.close()
                    self._registry.let_go(part.jobs)
                self._registry.isolation.forget(self)
                self._watchdog.close()

    # -- the loop's thread -------------------------------------------------------------------------------

    def _claim(self, found: Found) -> None:
        first = self._parts[0]
        if len(self._parts) == 1:
            self._hold_ready(first)
        if self._is_own and not self._has_one_write:
            self._jobs.settle()  # before others start: what has ended is not to be blamed for their crash
        owner, began = self._mint.make(1)[0], self._monotonic()
        alone = self._is_own and self._registry.isolation.has_one_loop()
        claimed: list[DispatcherPart] = []
        try:
            holder = self._jobs.completer.holder = self._holder()
            self.stale += fetch(
                found,
                owner,
                self._context,
                holder=holder,
                alone=alone,
                hold=partial(self._hold, alone, claimed, found.budget),
                settle=self._jobs.settle if self._has_one_write else None,
            )
        except BaseException:
            if not self._holds(owner):
                give_back_claim(owner, self._context)
            raise
        for part in claimed or self._wanted:
            part.claimed(self._monotonic() - began)
        if alone and not self._registry.isolation.has_one_loop():
            first.jobs.deny_solitude()  # another loop has begun while the claim waited for the store
        self._start(claimed)

    def _holder(self) -> Claimer:
        """Who claims, with the hands of each type that has a limit: also of those that are not wanted now, since
        some may end before the next claim.
        """
        first = self._parts[0]
        if len(self._parts) == 1:
            return Claimer(self._id, *first.share)
        limiter = self._context.limiter
        own = {limit.type: part.share for part in self._parts for limit in limiter.of(part.handlers())}
        return Claimer(self._id, *first.share, own)

    def _part_of(self, type: str, budget: Budget) -> DispatcherPart:
        index = budget.part_of.get(type)
        if index is not None:
            return self._wanted[index]
        return next((part for part in self._parts if type in part.handlers()), self._parts[0])

    def _hold(
        self, alone: bool, claimed: list[DispatcherPart], budget: Budget, rows: list[Row], leased_at: float
    ) -> None:
        """Hand ``rows`` to their parts, which are added to ``claimed``."""
        if len(self._parts) == 1:
            claimed.append(self._parts[0])
            self._parts[0].concurrent.hold(rows, leased_at, alone=alone and len(rows) == 1)
            return
        by_part: dict[DispatcherPart, list[Row]] = {}
        for row in rows:
            by_part.setdefault(self._part_of(row.type, budget), []).append(row)
        for part, own in by_part.items():
            self._hold_ready(part)
            part.concurrent.hold(own, leased_at)
            claimed.append(part)

    def _hold_ready(self, part: DispatcherPart) -> None:
        """It is about to have something in hand."""
        part.jobs.thread = part.hands.thread
        self._registry.hold(part.jobs)

    def _start(self, claimed: list[DispatcherPart]) -> None:
        """Start what is claimed, suspects last."""
        jobs = 0
        for part in claimed:
            jobs += part.look_for_fit()
        if jobs:
            self._watchdog.wake(alone=jobs == 1)
        for part in sorted(claimed, key=DispatcherPart.most, reverse=True) if len(claimed) > 1 else claimed:
            if part.fit is not None:
                # In one thread it stands behind the others anyway.
                if part.fit.most < math.inf and not self._is_own and self._registry.isolation.must_yield():
                    self._end_wait(part)
                    part.concurrent.give_back(YIELD_S)
                else:
                    self._start_if_fit(part)

    def _start_if_fit(self, part: DispatcherPart) -> None:
        """Start what it has claimed, once no more than may run with it do. Until then others go on."""
        fit, isolation = part.fit, self._registry.isolation
        if fit is None or not part.unboarded():  # they were given back, since something keeps all places
            self._end_wait(part)
            return
        fits, is_stopped = part.concurrent.fits(fit.most), self._stopping.is_stopped()
        if not fits and not is_stopped and self._monotonic() < fit.until:
            self._begin_wait(part)
            return
        self._end_wait(part)
        if not fits and (fit.must_fit or is_stopped):
            part.concurrent.give_back(0.0 if is_stopped else isolation.again_in())
            return
        if fits and fit.most == 1 and self._start_aside(part, fit.must_fit):
            return
        part.jobs.renew_unstarted()
        part.board()

    def _begin_wait(self, part: DispatcherPart) -> None:
        if part not in self._waiting:
            waiting = self._waiting[part] = self._registry.isolation.waiting()
            waiting.__enter__()

    def _end_wait(self, part: DispatcherPart) -> None:
        part.fit = None
        waiting = self._waiting.pop(part, None)
        if waiting is not None:
            waiting.__exit__(None, None, None)

    def _start_aside(self, part: DispatcherPart, must_be_alone: bool) -> bool:
        """Start the suspect that is claimed, and wait for its end as long as others wait for it. False if it cannot
        be alone and need not: then it is still to be started.
        """
        isolation, jobs = self._registry.isolation, part.jobs
        if not jobs.completer.is_written():
            self._jobs.settle()
        with isolation.aside(ASIDE_S, self, partial(self._jobs.has_only, part.concurrent)) as isolated:
            if not isolated:
                if must_be_alone:
                    part.concurrent.give_back(isolation.again_in())
                else:
                    jobs.deny_solitude()
                return must_be_alone
            if jobs.alone is None:
                jobs.mark_alone()
            part.board()
            if not self._stopping.is_here():
                return True  # in a child that the handler has forked, nothing ends
            # Where all loops end, nothing else starts here, and it stays alone for as long as it takes.
            while self._jobs.are_under_way() and (self._stopping.is_stopped() or not isolation.has_expired()):
                self._pause(LOOK_S)
            jobs.deny_solitude()
            self._jobs.settle()
        return True

    def _pause(self, seconds: float) -> None:
        self._turned()
        wait_readable([self._wakeup], seconds)
        self._wakeup.answer()

    def _holds(self, owner: str) -> bool:
        """Whether what was claimed for ``owner`` is in hand."""
        return any(part.holds(owner) for part in self._parts)

    # -- from any thread ---------------------------------------------------------------------------------

    def _awake(self) -> None:
        self._watchdog.wake()

    def _interrupt_with(self, interrupt: BaseException) -> None:
        self._interrupt = interrupt
        self._stop()
