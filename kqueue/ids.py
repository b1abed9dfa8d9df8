"""Job ids: made by the client, unique without asking anyone.

An id is 28 characters of ``0-9a-v`` (base 32, whose letters sort as their values do):

    =======  =====  ==========================================================
    chars    bits   what
    =======  =====  ==========================================================
    0-8      45     milliseconds since 1970, never going back in one process
    9-12     20     number within the millisecond
    13-16    20     where: a digest of the host's name
    17-21    25     where: the process id
    22-27    30     random, drawn once a process
    =======  =====  ==========================================================

So ids sort by the time they were made, two ids of one process never meet, and two processes meet only if
host digest, process id and 30 random bits are all the same.
"""

import hashlib
import os
import re
import secrets
import socket
import threading
import time
from typing import NamedTuple

from kqueue.forks import PerProcess

#: The one form of a job id.
ID_FORM = re.compile(r"[0-9a-v]{28}", re.ASCII)

_DIGITS = "0123456789abcdefghijklmnopqrstuv"
_PAIRS = [high + low for high in _DIGITS for low in _DIGITS]
#: Ids in one millisecond of one process; after these the next millisecond is used.
_PER_MS = 1 << 20


class Origin(NamedTuple):
    """When and where an id was made."""

    #: Seconds since 1970, to the millisecond.
    made_at: float
    #: Four characters that stand for the host's name; equal to :func:`host_tag` on that host.
    host: str
    #: The process id on that host.
    pid: int


class IdMint:
    """Makes the ids of one process. Safe to share by threads and across forks."""

    def __init__(self) -> None:
        self._press = PerProcess(_Press)

    def make(self, count: int) -> list[str]:
        """``count`` new ids, in ascending order."""
        return self._press.get().make(count)

    def tail(self) -> str:
        """How every id of this process ends, and none of another one's: host, process and 30 random bits."""
        return self._press.get().where


def is_job_id(text: object) -> bool:
    """Whether ``text`` has the form of a job id."""
    return isinstance(text, str) and ID_FORM.fullmatch(text) is not None


def origin(job_id: str) -> Origin:
    """When and where ``job_id`` was made. Raises ``ValueError`` if it is no job id."""
    if not is_job_id(job_id):
        raise ValueError(f"id: expected 28 characters of 0-9 and a-v, got {job_id!r:.80}")
    return Origin(int(job_id[:9], 32) / 1000, job_id[13:17], int(job_id[17:22], 32))


def maker(id: str | None) -> str:
    """The process that made it, in words: ``process 4711 on this host``. Also of a lease's owner, which is made as
    ids are; ``its worker`` where that cannot be told.
    """
    if id is None or not is_job_id(id):
        return "its worker"
    made = origin(id)
    return f"process {made.pid} on {'this host' if made.host == host_tag() else 'another host'}"


def host_tag(name: str | None = None) -> str:
    """The four characters that stand for a host's name (this host's by default)."""
    name = socket.gethostname() if name is None else name
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    return _base32(int.from_bytes(digest[:4], "big") & 0xFFFFF, 4)


class _Press:
    """Counts in one number: milliseconds since 1970, and the number within the millisecond behind them."""

    def __init__(self) -> None:
        # A signal handler may make ids while its own thread is in here, so it has to be let in.
        self._lock = threading.RLock()
        self.where = host_tag() + _base32(os.getpid() & 0x1FFFFFF, 5) + _base32(secrets.randbits(30), 6)
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
            now = time.time_ns() // 1_000_000 * _PER_MS
            # Python runs signal handlers after a call, and within products: from here on there is neither.
            first = self._next
            if first < now:  # noqa: PLR1730 (max() is a call)
                first = now
            self._next = first + count
        return first

    def _within_one_ms(self, ms: int, first: int, end: int) -> list[str]:
        when = _DIGITS[ms >> 40] + "".join(_PAIRS[ms >> shift & 1023] for shift in (30, 20, 10, 0))
        return [when + _PAIRS[number >> 10] + _PAIRS[number & 1023] + self.where for number in range(first, end)]


def _base32(value: int, width: int) -> str:
    text = ""
    while len(text) < width:
        value, digit = divmod(value, 32)
        text = _DIGITS[digit] + text
    return text
