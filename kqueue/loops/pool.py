"""Several loops of one process as one: for plain functions in some threads, for each coroutine function in another.

All coroutines run in one event loop, which has a thread of its own.
"""

import threading
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from kqueue.loops.registry import Registry
from kqueue.loops.runner import Runner
from kqueue.model.reports import RunReport, total
from kqueue.system.clock import Clock
from kqueue.system.threads import Background

if TYPE_CHECKING:
    from kqueue.loops.loop_thread import LoopThread


#: Seconds between two looks at the ends of loops. A signal that another thread was given, or that comes just before
#: the wait, does not interrupt it; Python hears of it then.
LOOK_S = 1.0


class LoopEnd:
    """Of a loop that has a thread of its own."""

    def __init__(self) -> None:
        self.is_over = False
        #: Held until then.
        self._lock = threading.Lock()
        self._lock.acquire()

    def come(self) -> None:
        """The loop has ended. Called by its thread."""
        self.is_over = True
        self._lock.release()

    def wait(self) -> None:
        """Not by joining threads, nor by events: see :mod:`kqueue.system.locks` and :mod:`kqueue.system.threads`.

        An interrupt may leave the lock held, and nobody needs it then.
        """
        while not self.is_over:
            if self._lock.acquire(timeout=LOOK_S):
                self._lock.release()


class LoopPool:
    """The loops of one ``work``, each in a thread of its own."""

    def __init__(
        self, registry: Registry, runners: Sequence[Runner], loop: "LoopThread | None", clock: Clock
    ) -> None:
        """``loop``: the event loop of those that run coroutines, not started yet; None if none does."""
        self._registry = registry
        self._runners = runners
        self._loop = loop
        self._clock = clock
        self._reports: list[RunReport] = []
        self._errors: list[BaseException] = []
        self._begin = threading.Lock()
        self._is_closed = False
        #: Of the loops that have begun. None begins once it is closed.
        self._begun: list[LoopEnd] = []

    def stop(self) -> None:
        """End all loops, also those that have not begun. Safe in a signal handler."""
        for runner in self._runners:
            runner.stop()

    def wake(self) -> None:
        """Nothing: the loops listen by themselves."""

    def run(self) -> RunReport:
        """Loop in all of them until they end. The first that fails ends the others, and its error is raised."""
        started = self._clock.monotonic()
        ends: list[LoopEnd] = []
        with self._registry.listening(self):
            try:
                if self._loop is not None:
                    self._loop.start()
                    self._registry.event_loops.add(self._loop)
                for number, runner in enumerate(self._runners, 1):
                    ends.append(LoopEnd())
                    Background(partial(self._loop_in, runner, ends[-1]), f"kqueue-loop-{number}")
                for end in ends:
                    end.wait()
            except BaseException:  # Ctrl-C, or a thread that could not be started
                with self._begin:
                    self._is_closed = True
                self.stop()
                for end in self._begun:
                    end.wait()
                raise
            finally:
                if self._loop is not None:
                    self._registry.event_loops.discard(self._loop)
                    self._loop.close(is_kept=bool(self._registry.abandoned))
        if self._errors:
            raise self._errors[0]
        return total(self._reports, self._clock.monotonic() - started)

    def _loop_in(self, runner: Runner, end: LoopEnd) -> None:
        with self._begin:
            if self._is_closed:
                return
            self._begun.append(end)
        try:
            self._reports.append(runner.run())
        except BaseException as error:
            self._errors.append(error)
            self.stop()
        finally:
            end.come()
