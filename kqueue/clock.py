"""The clock, and the one that tests turn by hand.

Two kinds of time, never mixed: ``time()`` is the wall clock (seconds since 1970, may jump), which is
written into rows; ``monotonic()`` never jumps and measures durations inside one process.
"""

import time
from typing import Protocol


class Clock(Protocol):
    """Where a store or a broker asks for the time."""

    def time(self) -> float:
        """Wall clock: seconds since 1970-01-01 UTC."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment; only differences mean something."""


class SystemClock:
    """The host's own clock."""

    def time(self) -> float:
        """Seconds since 1970-01-01 UTC, as the host has it."""
        return time.time()

    def monotonic(self) -> float:
        """The host's monotonic clock, in seconds."""
        return time.monotonic()


class ManualClock:
    """A clock that stands still until it is turned. For tests."""

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._wall = start
        self._monotonic = 0.0

    def time(self) -> float:
        """The wall clock as it was last set, in seconds since 1970."""
        return self._wall

    def monotonic(self) -> float:
        """The sum of all seconds passed to :meth:`advance`."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass on both clocks."""
        self._wall += seconds
        self._monotonic += seconds

    def jump(self, seconds: float) -> None:
        """Set the wall clock forward (or back, if negative), as an operator or NTP does. No time passes."""
        self._wall += seconds
