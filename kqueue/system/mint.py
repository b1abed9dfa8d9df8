"""Makes job ids: see :mod:`kqueue.model.ids` for their form."""

import os
import threading
import time
from collections.abc import Callable

from kqueue.model.ids import DIGITS, base32, host_tag
from kqueue.system.forks import PerProcess

_PAIRS = [high + low for high in DIGITS for low in DIGITS]


#: Ids in one millisecond of one process; after these the next millisecond is used.
_PER_MS = 1 << 20


class IdMint:
    """Makes the ids of one process. Safe to share by threads and across forks."""

    def __init__(self, time_ns: Callable[[], int] = time.time_ns) -> None:
        """``time_ns()``: nanoseconds since 1970. Nothing is decided by the time in an id; it orders them."""
        self._press = PerProcess(lambda: _Press(time_ns))

    def make(self, count: int) -> list[str]:
        """``count`` new ids, in ascending order."""
        return self._press.get().make(count)

    def tail(self) -> str:
        """How every id of this process ends, and none of another one's: host, process and 30 random bits."""
        return self._press.get().where


class _Press:
    """Counts in one number: milliseconds since 1970, and the number within the millisecond behind them."""

    def __init__(self, time_ns: Callable[[], int]) -> None:
        self._time_ns = time_ns
        # A signal handler may make ids while its own thread is in here, so it has to be let in.
        self._lock = threading.RLock()
        drawn = int.from_bytes(os.urandom(4)) >> 2
        self.where = host_tag() + base32(os.getpid() & 0x1FFFFFF, 5) + base32(drawn, 6)
        self._next = 0

    def make(self, count: int) -> list[str]:
        first = self._take(count)
        ids: list[str] = []
        while len(ids) < count:
            ms, number = divmod(first + len(ids), _PER_MS)
            ids += self._within_one_ms(ms, number, min(_PER_MS, number + count - len(ids)))
        return ids

    def _take(self, count: int) -> int:
        """The first of ``count`` numbers that nobody else gets."""
        with self._lock:
            now = self._time_ns() // 1_000_000 * _PER_MS
            # Python runs signal handlers after a call, and within products: from here on there is neither.
            first = self._next
            if first < now:  # noqa: PLR1730 (max() is a call)
                first = now
            self._next = first + count
        return first

    def _within_one_ms(self, ms: int, first: int, end: int) -> list[str]:
        when = DIGITS[ms >> 40] + "".join(_PAIRS[ms >> shift & 1023] for shift in (30, 20, 10, 0))
        return [when + _PAIRS[number >> 10] + _PAIRS[number & 1023] + self.where for number in range(first, end)]
