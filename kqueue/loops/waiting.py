"""A loop that cannot begin yet, since its process has no file or thread left for it."""

import dataclasses

from kqueue.execution.context import LoopContext
from kqueue.loops.registry import Registry
from kqueue.loops.stopping import RunLimits, Stopping
from kqueue.model.errors import KQueueError
from kqueue.model.reports import RunReport, total
from kqueue.model.retry import backoff
from kqueue.system.locks import wait_until


class Waiting:
    """Stands for the loop until it begins: it hears a stop, and its time runs."""

    def __init__(self, limits: RunLimits, registry: Registry, context: LoopContext) -> None:
        self._limits = limits
        self._registry = registry
        self._monotonic = context.clock.monotonic
        self._logger = context.logger
        self._stopping = Stopping(limits, self._monotonic)
        self._failures = 0

    def limits(self) -> RunLimits | None:
        """Those that are left for the loop; None if it is not to begin any more."""
        if not self._failures:
            return self._limits
        if self._stopping.is_over():
            return None
        seconds = None if self._limits.seconds is None else self._stopping.seconds_left()
        return dataclasses.replace(self._limits, seconds=seconds)

    def stand_back(self, error: KQueueError) -> None:
        """It could not begin: wait for a while, longer each time."""
        self._failures += 1
        seconds = self._stopping.seconds_left(backoff(self._failures))
        self._logger.warning("trying again in %.0f s: %s", seconds, error)
        with self._registry.listening(self):
            wait_until(self._stopping.is_over, seconds)

    def stop(self) -> None:
        """See :class:`kqueue.loops.registry.Listener`."""
        self._stopping.stop()

    def wake(self) -> None:
        """Nothing: there are no jobs to look for."""

    def report(self) -> RunReport:
        """Of a loop that did not begin."""
        return total([], self._monotonic() - self._stopping.started)
