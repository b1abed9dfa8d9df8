"""What ``run_jobs`` and ``work`` are made of: one loop, or several as one."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

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
from kqueue.loops.pool import LoopPool
from kqueue.loops.registry import Registry
from kqueue.loops.runner import Runner
from kqueue.loops.stopping import RunLimits
from kqueue.loops.thread_hands import SharedThreads
from kqueue.loops.waiting import Waiting
from kqueue.model.handlers import Handler, Part
from kqueue.model.reports import RunReport
from kqueue.system.mint import IdMint
from kqueue.system.resources import are_short, named
from kqueue.upkeep.hooks import Hooks
from kqueue.upkeep.maintenance import Maintenance
from kqueue.upkeep.sweep import Sweeper

#: The loop's own thread runs the handlers.
IN_TURN = partial(Dispatcher, hands=OwnHands, run_in=RunIn.OWN_THREAD)


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
        """One loop for the types of plain functions, which run in ``threads`` threads, one for each of these types
        that has a bound, and one for each coroutine function.
        """
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
        bounded = [] if number == 1 else sorted(type for type, handler in types.items() if _is_bounded(handler))
        runners = []
        threads = SharedThreads(number, self._registry) if number > 1 else None
        plainly = IN_TURN if threads is None else partial(Dispatcher, hands=threads.hands, run_in=RunIn.THREADS)
        if not types or len(async_types) + len(bounded) < len(types):
            plain = Part(self._handlers, _is_plain if threads is None else _is_unbounded)
            runners.append(self._runner(plain, limits, plainly, number))
        for one in bounded:
            part = Part(self._handlers, partial(_is_plain_one, one))
            runners.append(self._runner(part, limits, plainly, number))
        loop = None
        if async_types:
            loop = lazy_asyncio.open_loop_thread(context.clock, context.logger)
            hands = partial(LoopHands, loop=loop)
            as_coroutines = partial(Dispatcher, hands=hands, run_in=RunIn.EVENT_LOOP)
            for one in async_types:
                part = Part(self._handlers, partial(_is_async, one))
                runners.append(self._runner(part, limits, as_coroutines))
        return LoopPool(self._registry, runners, context.clock, threads=threads, loop=loop)

    def _runner(
        self,
        handlers: Callable[[], Mapping[str, Handler]],
        limits: RunLimits,
        dispatcher: Callable[..., Dispatcher],
        threads: int = 1,
    ) -> Runner:
        """``threads``: how many run plain functions."""
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
                dispatcher,
                DispatcherParts(
                    context,
                    self._registry,
                    served,
                    self._mint,
                    AutoRenew(self._renewer, context.retry_in, context.overran),
                ),
            ),
        )

    def _async_types(self) -> list[str]:
        return sorted(type for type, handler in self._known().items() if handler.is_async)

    def _check_outside_loop(self, name: str) -> None:
        if self._async_types():
            lazy_asyncio.check_outside_loop(name)


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
