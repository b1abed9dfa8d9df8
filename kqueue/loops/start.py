"""What ``run_jobs`` and ``work`` are made of: one loop, or several as one."""

from collections.abc import Callable, Mapping
from functools import partial

from kqueue.contracts.broker import Broker
from kqueue.contracts.renewer import Renewer
from kqueue.execution.auto_renew import AutoRenew
from kqueue.execution.context import LoopContext
from kqueue.loops import lazy_asyncio
from kqueue.loops.dispatcher import Dispatcher
from kqueue.loops.loop_hands import LoopHands
from kqueue.loops.pool import LoopPool
from kqueue.loops.registry import Registry
from kqueue.loops.runner import AnyWindows, Runner, WindowsParts
from kqueue.loops.stopping import RunLimits
from kqueue.loops.thread_hands import ThreadHands
from kqueue.loops.waiting import Waiting
from kqueue.loops.windows import Windows
from kqueue.model.handlers import Handler, Part
from kqueue.model.reports import RunReport
from kqueue.system.mint import IdMint
from kqueue.system.resources import are_short, named
from kqueue.upkeep.hooks import Hooks
from kqueue.upkeep.maintenance import Maintenance
from kqueue.upkeep.sweep import Sweeper


class Loops:
    """Starts the loops of one queue: ``run_jobs`` and ``work``."""

    def __init__(
        self,
        *,
        open: Callable[[], str],
        context: Callable[[], LoopContext],
        broker: Broker,
        sweeper: Sweeper,
        registry: Registry,
        maintenance: Maintenance,
        handlers: Callable[[], Mapping[str, Handler]],
        mint: IdMint,
        renewer: Callable[[], Renewer],
        hooks: Hooks,
    ) -> None:
        """``open()`` opens what is not open, and returns what the names of the tubes begin with; ``context()``
        makes a new one; ``handlers()`` returns a mapping that is replaced, never changed; ``renewer()`` returns
        this process's.
        """
        self._open = open
        self._context = context
        self._broker = broker
        self._sweeper = sweeper
        self._registry = registry
        self._maintenance = maintenance
        self._handlers = handlers
        self._mint = mint
        self._renewer = renewer
        self._hooks = hooks

    def run(self, limits: RunLimits) -> RunReport:
        """One loop in this thread, for all types. Coroutines run one by one."""
        return self._opened("run_jobs", limits, lambda left: self._runner(self._handlers, left, Windows))

    def work(self, threads: int, limits: RunLimits) -> RunReport:
        """One loop for the types of plain functions, which run in ``threads`` threads, and one for each of the
        others.
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

    def _work(self, threads: int, limits: RunLimits) -> LoopPool:
        async_types, context = self._async_types(), self._context()
        runners = []
        if not async_types or len(async_types) < len(self._handlers()):
            plain = Part(self._handlers, lambda type, handler: not handler.is_async)
            runners.append(self._runner(plain, limits, _in_threads(threads) if threads > 1 else Windows))
        if not async_types:
            return LoopPool(self._registry, runners, None, context.clock)
        loop = lazy_asyncio.open_loop_thread(context.clock, context.logger)
        for one in async_types:
            part = Part(self._handlers, partial(_is_async, one))
            hands = partial(LoopHands, loop=loop)
            runners.append(self._runner(part, limits, partial(Dispatcher, hands=hands, threads=False)))
        return LoopPool(self._registry, runners, loop, context.clock)

    def _runner(
        self, handlers: Callable[[], Mapping[str, Handler]], limits: RunLimits, windows: Callable[..., AnyWindows]
    ) -> Runner:
        context = self._context()
        return Runner(
            open=self._open,
            context=context,
            broker=self._broker,
            sweeper=self._sweeper,
            registry=self._registry,
            maintenance=self._maintenance,
            handlers=handlers,
            limits=limits,
            windows=partial(
                windows,
                WindowsParts(
                    context, self._registry, handlers, self._mint, AutoRenew(self._renewer, context.retry_in)
                ),
            ),
        )

    def _async_types(self) -> list[str]:
        return sorted(type for type, handler in self._handlers().items() if handler.is_async)

    def _check_outside_loop(self, name: str) -> None:
        if self._async_types():
            lazy_asyncio.check_outside_loop(name)


def _in_threads(threads: int) -> Callable[..., AnyWindows]:
    return partial(Dispatcher, hands=partial(ThreadHands, threads=threads), threads=True)


def _is_async(only: str, type: str, handler: Handler) -> bool:
    return type == only and handler.is_async
