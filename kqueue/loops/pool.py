"""Several loops of one process as one: one for plain functions, one for each of them that is bounded, and one for
each coroutine function.

All plain functions share their threads. All coroutines run in one event loop, which has a thread of its own.
"""

import errno
import math
import threading
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from kqueue.loops.registry import Registry
from kqueue.loops.runner import Runner
from kqueue.loops.thread_hands import SharedThreads
from kqueue.model.reports import RunReport, total
from kqueue.system.clock import Clock
from kqueue.system.locks import wait_until
from kqueue.system.threads import Background

if TYPE_CHECKING:
    from kqueue.loops.loop_thread import LoopThread


#: Seconds of a wait for the end of a loop, before the next. A signal that another thread was given, or that comes
#: just before the wait, does not interrupt it; Python hears of it in between.
LOOK_S = 1.0


class LoopPool:
    """The loops of one ``work``, each in a thread of its own."""

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
