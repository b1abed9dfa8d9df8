"""The clock, and the one that tests turn by hand.

Two kinds of time, never mixed: ``time()`` is the wall clock (seconds since 1970, may jump), which is
written into rows; ``monotonic()`` never jumps and measures durations inside one process.

A lease goes on while the host is suspended, and Linux's CLOCK_MONOTONIC does not: a process that wakes up would
take a lease for good that was over long ago. So durations are measured by CLOCK_BOOTTIME where there is one, which
is the same clock but for that (https://man7.org/linux/man-pages/man2/clock_gettime.2.html).
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Protocol


def _steady_clock() -> Callable[[], float]:
    number = getattr(time, "CLOCK_BOOTTIME", None)
    if number is None:
        return time.monotonic
    try:
        time.clock_gettime(number)
    except OSError:  # the name is known, and this kernel has no such clock
        return time.monotonic
    return partial(time.clock_gettime, number)


#: Seconds since some fixed moment, the same in all processes of this host; a suspend counts where that can be had.
steady: Callable[[], float] = _steady_clock()

#: The same without the time in which the host was suspended: for how long a thread or a process may take for what
#: it does, and how long a lock is waited for. Nobody does anything in a suspend, and nobody is to be killed for it.
awake: Callable[[], float] = time.monotonic


class Clock(Protocol):
    """Where all ask for the time. The system's own is asked for here, and where tests/test_layout.py says why."""

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
        """The host's clock that never jumps, in seconds; time in which the host was suspended counts."""
        return steady()


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


def busy() -> float:
    """Seconds that the calling thread has had of a processor."""
    return time.thread_time()
