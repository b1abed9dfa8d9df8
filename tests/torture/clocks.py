"""The wall clock of the processes of a torture: the host's, and what one file says, so that all step at once.

A process that follows it has another ``time.time``, which is where KQueue has its time from. A preloaded
libfaketime would do it below Python, but its version 0.9.10 makes ``time.sleep`` fail: Python sleeps by the
monotonic clock.
"""

import mmap
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

#: Seconds of a step: within the patience of NTP, a wrong time zone, and a clock that was never set.
STEPS_S = (3.0, 40.0, 3600.0, 30 * 86400.0)
#: Seconds ahead, as they stand in the file.
_AHEAD = struct.Struct("d")


class StepClock:
    """Steps the clock of all processes that :func:`follow` its file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(_AHEAD.pack(0.0))
        self._shared = _map(path)

    @property
    def ahead(self) -> float:
        """Seconds that their clock is ahead of the host's; behind it if negative."""
        return float(_AHEAD.unpack_from(self._shared)[0])

    def set(self, ahead: float) -> None:
        """From now on."""
        _AHEAD.pack_into(self._shared, 0, ahead)


def follow(path: Path) -> None:
    """The clock of this process steps with the file. Before anything has asked for the time."""
    shared, host_time = _map(path), time.time

    def stepped() -> float:
        return host_time() + float(_AHEAD.unpack_from(shared)[0])

    time.time = stepped
    time.time_ns = lambda: int(stepped() * 1e9)


def steps(random: Random) -> Iterator[float]:
    """Where the clock stands after each step, in seconds ahead of the host's: both ways, and back again."""
    while True:
        step = random.choice(STEPS_S)
        yield random.choice((step, -step))
        yield 0.0


def _map(path: Path) -> mmap.mmap:
    file = os.open(path, os.O_RDWR)
    try:
        return mmap.mmap(file, _AHEAD.size)
    finally:
        os.close(file)
