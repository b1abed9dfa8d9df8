"""Cancels the coroutines of an event loop whose time is over: one timer for all of them.

A timer for each costs more than a coroutine that waits for nothing else. Those of one type have about the same time
left, so the first that is started is the first to be looked at, and all that have ended by then cost nothing.
"""

import asyncio
import math
from collections.abc import Callable
from typing import Any, Protocol

from kqueue.execution.execute import Decision
from kqueue.execution.overtime import TimeLeft

#: Seconds between two looks at what coroutines have left, at least.
SHORTEST_LOOK_S = 0.001


class Timed(Protocol):
    """A run whose coroutine has its time. See :mod:`kqueue.execution.overtime`."""

    def time_left(self) -> TimeLeft:
        """What it still has, now."""

    def cut(self, decision: Decision) -> None:
        """It is cancelled, since its time is over. ``decision``: how its run ends, unless it settles itself."""

    def abandon(self) -> None:
        """It has not ended, although it was cancelled. It is not waited for any more."""


class Deadlines:
    """Those of one event loop's tasks. All of it is of the loop's own thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._watched: dict[asyncio.Task[Any], _Watched] = {}
        self._timer: asyncio.TimerHandle | None = None
        #: When the timer rings, by the loop's time.
        self._look_at = math.inf

    def add(self, task: "asyncio.Task[Any]", timed: Timed, abandon: Callable[[], object]) -> None:
        """``abandon()`` is called if it has not ended when the time that it has for that is over too."""
        self._watched[task] = _Watched(timed, abandon)
        self._look_by(self._loop.time() + max(timed.time_left().seconds, SHORTEST_LOOK_S))

    def discard(self, task: "asyncio.Task[Any]") -> None:
        """It has ended."""
        self._watched.pop(task, None)

    def _look_by(self, at: float) -> None:
        if at < self._look_at:
            if self._timer is not None:
                self._timer.cancel()
            self._look_at, self._timer = at, self._loop.call_at(at, self._look)

    def _look(self) -> None:
        self._look_at, self._timer = math.inf, None
        now = self._loop.time()
        # A list, since whoever is abandoned may have others started.
        soonest = min([one.look(task, now) for task, one in list(self._watched.items())], default=math.inf)
        if soonest < math.inf:
            self._look_by(max(soonest, now + SHORTEST_LOOK_S))


class _Watched:
    """One of the tasks."""

    __slots__ = ("_abandon", "_abandon_at", "_timed")

    def __init__(self, timed: Timed, abandon: Callable[[], object]) -> None:
        self._timed = timed
        self._abandon = abandon
        #: By the loop's time, once it is cancelled; infinity once it is abandoned.
        self._abandon_at: float | None = None

    def look(self, task: "asyncio.Task[Any]", now: float) -> float:
        """Cancel or abandon it, if it is time for that. Returns when to look again, infinity for never."""
        if self._abandon_at is None:
            left = self._timed.time_left()
            if left.seconds > 0:
                return now + left.seconds
            self._timed.cut(left.decision)
            task.cancel()
            self._abandon_at = now + left.ending_s
        elif now >= self._abandon_at:
            self._abandon_at = math.inf
            self._abandon()
        return self._abandon_at
