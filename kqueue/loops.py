"""What ``run_jobs`` and ``work`` are made of: one loop, or several as one."""

from collections.abc import Callable, Mapping
from functools import partial

from kqueue import awaiting
from kqueue.async_turns import AsyncTurns
from kqueue.broker import Broker
from kqueue.chores import Chores
from kqueue.crew import Crew
from kqueue.ending import RunLimits
from kqueue.following import Following
from kqueue.handlers import Handler, Part
from kqueue.ids import IdMint
from kqueue.lease import Keeper
from kqueue.reports import RunReport
from kqueue.resources import are_short, named
from kqueue.runner import AnyTurns, Runner
from kqueue.settling import Desk
from kqueue.sweep import Sweeper
from kqueue.turns import Turns
from kqueue.waiting import Waiting
from kqueue.work import Work


class Loops:
    """Of one queue."""

    def __init__(
        self,
        *,
        open: Callable[[], str],
        desk: Callable[[], Desk],
        broker: Broker,
        sweeper: Sweeper,
        crew: Crew,
        chores: Chores,
        handlers: Callable[[], Mapping[str, Handler]],
        mint: IdMint,
        keeper: Callable[[], Keeper],
    ) -> None:
        """``open()`` opens what is not open, and returns what the names of the tubes begin with; ``desk()`` makes a
        new one; ``handlers()`` returns a mapping that is replaced, never changed; ``keeper()`` returns this
        process's.
        """
        self._open = open
        self._desk = desk
        self._broker = broker
        self._sweeper = sweeper
        self._crew = crew
        self._chores = chores
        self._handlers = handlers
        self._mint = mint
        self._keeper = keeper

    def run(self, limits: RunLimits) -> RunReport:
        """One loop in this thread, for all types. Coroutines run one by one."""
        return self._opened("run_jobs", limits, lambda left: self._runner(self._handlers, left, Turns))

    def work(self, threads: int, limits: RunLimits) -> RunReport:
        """Loops in ``threads`` threads for the types of plain functions, and in one for each of the others."""
        return self._opened("work", limits, lambda left: self._work(threads, left))

    def _opened(self, name: str, limits: RunLimits, make: Callable[[RunLimits], Runner | Work]) -> RunReport:
        """Make it, which opens files, and run it. Where the process has no more of them, one that waits for jobs
        waits for files too, until a limit or a stop.
        """
        waiting = Waiting(limits, self._crew, self._desk())
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

    def _work(self, threads: int, limits: RunLimits) -> Work:
        async_types = self._async_types()
        runners = []
        if not async_types or len(async_types) < len(self._handlers()):
            plain = Part(self._handlers, lambda type, handler: not handler.is_async)
            runners += [self._runner(plain, limits, Turns) for _ in range(threads)]
        if not async_types:
            return Work(self._crew, runners, None)
        loop = awaiting.open_loop_thread(self._desk().logger)
        for one in async_types:
            part = Part(self._handlers, partial(_is_async, one))
            runners.append(self._runner(part, limits, partial(AsyncTurns, loop=loop)))
        return Work(self._crew, runners, loop)

    def _runner(
        self, handlers: Callable[[], Mapping[str, Handler]], limits: RunLimits, turns: Callable[..., AnyTurns]
    ) -> Runner:
        desk = self._desk()
        return Runner(
            open=self._open,
            desk=desk,
            broker=self._broker,
            sweeper=self._sweeper,
            crew=self._crew,
            chores=self._chores,
            handlers=handlers,
            limits=limits,
            turns=partial(
                turns, desk, self._crew, handlers, self._mint, following=Following(self._keeper, desk.retry_in)
            ),
        )

    def _async_types(self) -> list[str]:
        return sorted(type for type, handler in self._handlers().items() if handler.is_async)

    def _check_outside_loop(self, name: str) -> None:
        if self._async_types():
            awaiting.check_outside_loop(name)


def _is_async(only: str, type: str, handler: Handler) -> bool:
    return type == only and handler.is_async
