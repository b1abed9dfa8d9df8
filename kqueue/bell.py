"""How a thread that waits for a socket is woken by another thread or by a signal handler."""

import os
import select
import weakref
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

#: Bytes that a pipe holds at most on Linux by default: one answer reads all rings.
PIPE_BYTES = 64 * 1024


class Bell:
    """A pipe that is written to wake whoever polls its other end.

    Only ``os.write`` is async-signal-safe and needs no lock. The pipe stays open as long as the bell is
    referenced, so a late ring never writes into a file that got the same number. Neither end is used in a
    child after a fork: it would wake the parent, or eat the parent's ring.
    """

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._listen, self._ring = os.pipe()
        for end in (self._listen, self._ring):
            os.set_blocking(end, False)
            weakref.finalize(self, os.close, end)

    def fileno(self) -> int:
        """What to poll for reading."""
        return self._listen

    def ring(self) -> None:
        """Wake who waits, or who waits next. From any thread or a signal handler."""
        if self._pid == os.getpid():
            # A full pipe holds rings enough that nobody has answered yet.
            with suppress(BlockingIOError):
                os.write(self._ring, b"!")

    def answer(self) -> bool:
        """Whether it rang since the last answer."""
        if self._pid != os.getpid():
            return False
        try:
            return bool(os.read(self._listen, PIPE_BYTES))
        except BlockingIOError:
            return False


class _HasFileno(Protocol):
    def fileno(self) -> int:
        """A file descriptor."""


def wait_readable(sources: Sequence[_HasFileno], seconds: float) -> set[int]:
    """The descriptors that can be read, as soon as there is one; empty after ``seconds``."""
    poller = select.poll()
    for source in sources:
        poller.register(source.fileno(), select.POLLIN)
    return {descriptor for descriptor, _ in poller.poll(max(0.0, seconds) * 1000)}
