"""Several loops of one process as one: for plain functions in some threads, for each coroutine function in another.

All coroutines run in one event loop, which has a thread of its own.
"""

import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kqueue.crew import Crew
from kqueue.reports import RunReport, total
from kqueue.runner import Runner

if TYPE_CHECKING:
    from kqueue.loop_thread import LoopThread


class Work:
    """One ``work``."""

    def __init__(self, crew: Crew, runners: Sequence[Runner], loop: "LoopThread | None") -> None:
        """``loop``: the event loop of those that run coroutines, not started yet; None if none does."""
        self._crew = crew
        self._runners = runners
        self._loop = loop
        self._reports: list[RunReport] = []
        self._errors: list[BaseException] = []
        #: One for each loop that has begun, set when it has ended.
        self._ends: list[threading.Event] = []

    def stop(self) -> None:
        """End all loops, also those that have not begun. Safe in a signal handler."""
        for runner in self._runners:
            runner.stop()

    def wake(self) -> None:
        """Nothing: the loops listen by themselves."""

    def run(self) -> RunReport:
        """Loop in all of them until they end. The first that fails ends the others, and its error is raised."""
        started = time.monotonic()
        with self._crew.listening(self):
            try:
                if self._loop is not None:
                    self._loop.start()
                    self._crew.event_loops.add(self._loop)
                for number, runner in enumerate(self._runners, 1):
                    self._start(runner, f"kqueue-loop-{number}")
                self._await_ends()
            except BaseException:  # Ctrl-C, or a thread that could not be started
                self.stop()
                self._await_ends()
                raise
            finally:
                if self._loop is not None:
                    self._crew.event_loops.discard(self._loop)
                    self._loop.close(is_kept=bool(self._crew.abandoned))
        if self._errors:
            raise self._errors[0]
        return total(self._reports, time.monotonic() - started)

    def _start(self, runner: Runner, name: str) -> None:
        ended = threading.Event()
        threading.Thread(target=self._loop_in, args=(runner, ended), name=name, daemon=True).start()
        self._ends.append(ended)

    def _await_ends(self) -> None:
        # Not by joining the threads: a join that Ctrl-C interrupts takes its thread for ended (Python 3.11).
        for ended in self._ends:
            ended.wait()

    def _loop_in(self, runner: Runner, ended: threading.Event) -> None:
        try:
            self._reports.append(runner.run())
        except BaseException as error:
            self._errors.append(error)
            self.stop()
        finally:
            ended.set()
