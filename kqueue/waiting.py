"""A loop that cannot begin yet, since its process has no file or thread left for it."""

import dataclasses

from kqueue.crew import Crew
from kqueue.ending import Ending, RunLimits
from kqueue.errors import KQueueError
from kqueue.locks import wait_until
from kqueue.reports import RunReport, total
from kqueue.retry import backoff
from kqueue.settling import Desk


class Waiting:
    """Stands for the loop until it begins: it hears a stop, and its time runs."""

    def __init__(self, limits: RunLimits, crew: Crew, desk: Desk) -> None:
        self._limits = limits
        self._crew = crew
        self._monotonic = desk.clock.monotonic
        self._logger = desk.logger
        self._ending = Ending(limits, self._monotonic)
        self._failures = 0

    def limits(self) -> RunLimits | None:
        """Those that are left for the loop; None if it is not to begin any more."""
        if not self._failures:
            return self._limits
        if self._ending.is_over():
            return None
        seconds = None if self._limits.seconds is None else self._ending.seconds_left()
        return dataclasses.replace(self._limits, seconds=seconds)

    def stand_back(self, error: KQueueError) -> None:
        """It could not begin: wait for a while, longer each time."""
        self._failures += 1
        seconds = self._ending.seconds_left(backoff(self._failures))
        self._logger.warning("trying again in %.0f s: %s", seconds, error)
        with self._crew.listening(self):
            wait_until(self._ending.is_over, seconds)

    def stop(self) -> None:
        """See :class:`kqueue.crew.Listener`."""
        self._ending.stop()

    def wake(self) -> None:
        """Nothing: there are no jobs to look for."""

    def report(self) -> RunReport:
        """Of a loop that did not begin."""
        return total([], self._monotonic() - self._ending.started)
