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
    from kqueue.event_loop import LoopThread


class Work:
    """One ``work``."""

    def __init__(self, crew: Crew, runners: Sequence[Runner], loop: "LoopThread | None") -> None:
        """``loop``: the event loop of those that run coroutines, not started yet; None if none does."""
        self._crew = crew
        self._runners = runners
        self._loop = loop
        self._reports: list[RunReport] = []
        self._errors: list[BaseException] = []

    def stop(self) -> None:
        """End all loops, also those that have not begun. Safe in a signal handler."""
        for runner in self._runners:
            runner.stop()

    def wake(self) -> None:
        """Nothing: the loops listen by themselves."""

    def run(self) -> RunReport:
        """Loop in all of them until they end. The first that fails ends the others, and its error is raised."""
        started = time.monotonic()
        threads = [
            threading.Thread(target=self._loop_in, args=(one,), name=f"kqueue-loop-{number}", daemon=True)
            for number, one in enumerate(self._runners, 1)
        ]
        with self._crew.listening(self):
            try:
                if self._loop is not None:
                    self._loop.start()
                for thread in threads:
                    thread.start()
                _join(threads)
            except BaseException:  # Ctrl-C, or a thread that could not be started
                self.stop()
                _join([thread for thread in threads if thread.ident is not None])
                raise
            finally:
                if self._loop is not None:
                    self._loop.close()
        if self._errors:
            raise self._errors[0]
        return total(self._reports, time.monotonic() - started)

    def _loop_in(self, runner: Runner) -> None:
        try:
            self._reports.append(runner.run())
        except BaseException as error:
            self._errors.append(error)
            self.stop()


def _join(threads: Sequence[threading.Thread]) -> None:
    for thread in threads:
        thread.join()
