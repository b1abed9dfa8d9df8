"""When a loop ends: at a limit, at ``stop()``, or in a forked child, which is not its own."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from kqueue.model import checks
from kqueue.model.errors import KQueueError
from kqueue.system.forks import ForkGuard
from kqueue.system.wakeup import Wakeup


class LoopFailed(KQueueError):
    """What no waiting mends: the loop ends, also one that otherwise waits for what it lacks."""


@dataclass(frozen=True, slots=True)
class RunLimits:
    """When a loop ends by itself."""

    count: int | None = None
    seconds: float | None = None
    wait: bool = False

    @classmethod
    def checked(cls, count_limit: int | None, time_limit_ms: float | None, wait: bool) -> "RunLimits":
        """Of what a user gave. Raises ``ValueError`` or ``TypeError`` that names the argument."""
        return cls(
            None if count_limit is None else checks.whole("count_limit", count_limit, 0),
            None if time_limit_ms is None else checks.number("time_limit_ms", time_limit_ms, 0) / 1000,
            checks.flag("wait", wait),
        )


class Stopping:
    """Of one loop. It counts the jobs that were started."""

    def __init__(
        self, limits: RunLimits, monotonic: Callable[[], float], is_spent: Callable[[], bool] | None = None
    ) -> None:
        """``is_spent()``: whether all loops of the process have together started as many jobs as they may."""
        self._limits = limits
        self._is_spent = is_spent
        self._monotonic = monotonic
        self._fork = ForkGuard()
        self._stopped = False
        self.started = monotonic()
        self._deadline = None if limits.seconds is None else self.started + limits.seconds
        #: Jobs started.
        self.count = 0

    def stop(self) -> None:
        """End after the current job. Safe in a signal handler."""
        self._stopped = True

    def is_here(self) -> bool:
        """Whether this is the loop's own process: a handler may fork, and its child come back into the loop."""
        return not self._fork.is_inherited()

    def is_over(self, now: float | None = None) -> bool:
        """Whether no new job is to be taken. ``now`` in monotonic seconds, if it is known."""
        # As is_stopped, and this is asked for each job: of whom no limit ends, one call.
        may_be = self._stopped or self._deadline is not None or self._fork.is_inherited()
        if may_be and self.is_stopped(now):
            return True
        limit, is_spent = self._limits.count, self._is_spent
        return (limit is not None and self.count >= limit) or (is_spent is not None and is_spent())

    def is_stopped(self, now: float | None = None) -> bool:
        """Whether it is over for another reason than the number of jobs."""
        if self._fork.is_inherited():
            return True
        if self._stopped or self._deadline is None:
            return self._stopped
        return (self._monotonic() if now is None else now) >= self._deadline

    def jobs_left(self) -> int | None:
        """What ``count_limit`` leaves; None for no limit."""
        return None if self._limits.count is None else self._limits.count - self.count

    def seconds_left(self, most: float = math.inf) -> float:
        """What the time limit leaves, but no more than ``most``."""
        return most if self._deadline is None else min(most, max(0.0, self._deadline - self._monotonic()))


class LoopControls(NamedTuple):
    """What the dispatcher of a loop knows of it."""

    stopping: Stopping
    #: What its thread waits for, where it waits for something of its own.
    wakeup: Wakeup
    #: Rings that, and ends a wait for jobs that leaves some out: there may be a place. From any thread.
    ring: Callable[[], None]
    #: Ends it after what is in hand. From any thread.
    stop: Callable[[], None]
    #: Says that its thread gets on, where it does not come back to the loop for long.
    turned: Callable[[], None]
