"""What ``run_jobs`` and ``work`` are made of: one loop. Where plain functions run in the thread of theirs, a second
one for the coroutines.

All plain functions share their threads. All coroutines run in one event loop, which has a thread of its own.
"""

import errno
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from kqueue.contracts.broker import Subscription
from kqueue.contracts.renewer import Renewer
from kqueue.dispatch.slots import ServedHandlers
from kqueue.execution.auto_renew import AutoRenew
from kqueue.execution.context import LoopContext
from kqueue.execution.inflight import RunIn
from kqueue.loops import lazy_asyncio
from kqueue.loops.dispatcher import Dispatcher, DispatcherParts
from kqueue.loops.loop_hands import LoopHands
from kqueue.loops.own_hands import OwnHands
from kqueue.loops.part import PartPlan
from kqueue.loops.registry import Registry
from kqueue.loops.runner import Runner
from kqueue.loops.stopping import RunLimits
from kqueue.loops.thread_hands import SharedThreads
from kqueue.loops.waiting import Waiting
from kqueue.model.handlers import Handler, Part
from kqueue.model.reports import RunReport, total
from kqueue.system.clock import Clock
from kqueue.system.locks import wait_until
from kqueue.system.mint import IdMint
from kqueue.system.resources import are_short, named
from kqueue.system.threads import Background
from kqueue.upkeep.hooks import Hooks
from kqueue.upkeep.maintenance import Maintenance
from kqueue.upkeep.sweep import Sweeper

if TYPE_CHECKING:
    from kqueue.loops.loop_thread import LoopThread

#: The loop's own thread runs the handlers.
IN_TURN = [PartPlan(None, OwnHands, RunIn.OWN_THREAD)]
#: Seconds of a wait for the end of a loop, before the next. A signal that another thread was given, or that comes
#: just before the wait, does not interrupt it; Python hears of it in between.
LOOK_S = 1.0


class LoopPool:
    """The loops of one ``work``, each in a thread of its own: one, or two."""

    def __init__(
        self,
        registry: Registry,
        runners: Sequence[Runner],
        clock: Clock,
        *,
        threads: SharedThreads | None,
        loop: "LoopThread | None",
    ) -> None:
        """``threads``: of plain functions; None where they run in their loop's own. ``loop``: the event loop of
        those that run coroutines, not started yet; None if none does.
        """
        self._registry = registry
        self._threads = threads
        self._runners = runners
        self._loop = loop
        self._clock = clock
        self._reports: list[RunReport] = []
        self._errors: list[BaseException] = []
        self._begin = threading.Lock()
        self._is_closed = False
        #: Whose loops have begun, and have not ended. None begins once it is closed.
        self._looping: set[Runner] = set()

    def stop(self) -> None:
        """End all loops, also those that have not begun. Safe in a signal handler."""
        for runner in self._runners:
            runner.stop()

    def wake(self) -> None:
        """Nothing: the loops listen by themselves."""

    def run(self) -> RunReport:
        """Loop in all of them until they end. The first that fails ends the others, and its error is raised."""
        started = self._clock.monotonic()
        threads: list[Background] = []
        with self._registry.listening(self):
            try:
                if self._loop is not None:
                    self._loop.start()
                    self._registry.event_loops.add(self._loop)
                for number, runner in enumerate(self._runners, 1):
                    threads.append(Background(partial(self._loop_in, runner), f"kqueue-loop-{number}"))
                for thread in threads:
                    while not thread.join(LOOK_S):
                        pass
            except BaseException:  # Ctrl-C, or a thread that could not be started
                with self._begin:
                    self._is_closed = True
                self.stop()
                wait_until(lambda: not self._looping, math.inf)
                raise
            finally:
                if self._threads is not None:
                    self._threads.close()
                if self._loop is not None:
                    self._registry.event_loops.discard(self._loop)
                    self._loop.close(is_kept=bool(self._registry.abandoned))
        if self._errors:
            raise self._errors[0]
        if len(self._reports) < len(self._runners):
            raise OSError(errno.EAGAIN, "a thread could not be started: this process, or its user, has too many")
        return total(self._reports, self._clock.monotonic() - started)

    def _loop_in(self, runner: Runner) -> None:
        with self._begin:
            if self._is_closed:
                return
            self._looping.add(runner)
        try:
            self._reports.append(runner.run())
        except BaseException as error:
            self._errors.append(error)
            self.stop()
        finally:
            self._looping.discard(runner)


class Loops:
    """Starts the loops of one queue: ``run_jobs`` and ``work``."""

    def __init__(
        self,
        *,
        open: Callable[[], str],
        context: Callable[[], LoopContext],
        subscribe: Callable[[Sequence[str], bool], Subscription],
        sweeper: Sweeper,
        registry: Registry,
        maintenance: Maintenance,
        handlers: Callable[[], Mapping[str, Handler]],
        known: Callable[[], Mapping[str, Handler]],
        mint: IdMint,
        renewer: Callable[[], Renewer],
        hooks: Hooks,
    ) -> None:
        """``open()`` opens what is not open, and returns what the names of the tubes begin with; ``context()``
        makes a new one; ``subscribe(types, waits)`` returns what a loop reserves from; ``handlers()`` returns a
        mapping that is replaced, never changed, and ``known()`` one with those too that are paused in this process;
        ``renewer()`` returns this process's.
        """
        self._open = open
        self._context = context
        self._subscribe = subscribe
        self._sweeper = sweeper
        self._registry = registry
        self._maintenance = maintenance
        self._handlers = handlers
        self._known = known
        self._mint = mint
        self._renewer = renewer
        self._hooks = hooks

    def run(self, limits: RunLimits) -> RunReport:
        """One loop in this thread, for all types. Coroutines run one by one."""
        return self._opened("run_jobs", limits, lambda left: self._runner(self._handlers, left, IN_TURN))

    def work(self, threads: int, limits: RunLimits) -> RunReport:
        """One loop: plain functions run in ``threads`` threads, coroutines in an event loop."""
        return self._opened("work", limits, lambda left: self._work(threads, left))

    def _opened(self, name: str, limits: RunLimits, make: Callable[[RunLimits], Runner | LoopPool]) -> RunReport:
        """Make it, which opens files, and run it. Where the process has no more of them, one that waits for jobs
        waits for files too, until a limit or a stop.
        """
        waiting, run = Waiting(limits, self._registry, self._context()), object()
        try:
            self._hooks.enter(run)
            while (left := waiting.limits()) is not None:
                try:
                    self._check_outside_loop(name)  # which may have to import what it asks
                    return make(left).run()
                except OSError as error:
                    if not are_short(error):
                        raise
                    if not limits.wait:
                        raise named(error) from error
                    waiting.stand_back(named(error))
            return waiting.report()
        finally:
            self._hooks.leave(run)

    def _work(self, number: int, limits: RunLimits) -> LoopPool:
        types, context = self._known(), self._context()
        async_types = self._async_types()
        bounded = sorted(type for type, handler in types.items() if _is_bounded(handler))
        threads = SharedThreads(number, self._registry) if number > 1 else None
        plans: list[PartPlan] = []
        runners: list[Runner] = []
        if threads is not None:
            if not types or len(async_types) + len(bounded) < len(types):
                plans.append(PartPlan(_is_unbounded, threads.hands, RunIn.THREADS))
            for one in bounded:
                hands = partial(threads.hands, bounded=one)
                plans.append(PartPlan(partial(_is_plain_one, one), hands, RunIn.THREADS))
        elif not types or len(async_types) < len(types):
            runners.append(self._runner(Part(self._handlers, _is_plain), limits, IN_TURN))
        loop = None
        if async_types:
            loop = lazy_asyncio.open_loop_thread(context.clock, context.logger)
            for one in async_types:
                plans.append(PartPlan(partial(_is_async, one), partial(LoopHands, loop=loop), RunIn.EVENT_LOOP))
        if plans:
            # A coroutine function, or one with a bound, that comes later has no part here.
            chosen = Part(self._handlers, partial(_is_of_any, plans))
            runners.append(self._runner(chosen, limits, plans, number))
        return LoopPool(self._registry, runners, context.clock, threads=threads, loop=loop)

    def _runner(
        self,
        handlers: Callable[[], Mapping[str, Handler]],
        limits: RunLimits,
        plans: Sequence[PartPlan],
        threads: int = 1,
    ) -> Runner:
        """``plans``: of the parts of its dispatcher. ``threads``: how many run plain functions."""
        context = self._context()
        served = ServedHandlers(self._registry.slots, handlers, self._registry.wake, threads)
        return Runner(
            open=self._open,
            context=context,
            subscribe=self._subscribe,
            sweeper=self._sweeper,
            registry=self._registry,
            maintenance=self._maintenance,
            handlers=served,
            limits=limits,
            dispatcher=partial(
                Dispatcher,
                DispatcherParts(
                    context,
                    self._registry,
                    served,
                    self._mint,
                    AutoRenew(self._renewer, context.retry_in, context.overran),
                ),
                plans=plans,
            ),
        )

    def _async_types(self) -> list[str]:
        return sorted(type for type, handler in self._known().items() if handler.is_async)

    def _check_outside_loop(self, name: str) -> None:
        if self._async_types():
            lazy_asyncio.check_outside_loop(name)


def _is_of_any(plans: Sequence[PartPlan], type: str, handler: Handler) -> bool:
    return any(plan.belongs is None or plan.belongs(type, handler) for plan in plans)


def _is_async(only: str, type: str, handler: Handler) -> bool:
    return type == only and handler.is_async


def _is_plain(type: str, handler: Handler) -> bool:
    return not handler.is_async


def _is_bounded(handler: Handler) -> bool:
    return handler.concurrency is not None and not handler.is_async


def _is_unbounded(type: str, handler: Handler) -> bool:
    return not handler.is_async and not _is_bounded(handler)


def _is_plain_one(only: str, type: str, handler: Handler) -> bool:
    return type == only and not handler.is_async
