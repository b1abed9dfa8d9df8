"""How a thread that waits for a socket is woken by another thread or by a signal handler."""

import io
import os
import select
import weakref
from collections.abc import Sequence
from typing import Protocol

from kqueue.system.forks import ForkGuard

#: Bytes that a pipe holds at most on Linux by default: one answer reads all rings.
PIPE_BYTES = 64 * 1024


class Wakeup:
    """A pipe that is written to wake whoever polls its other end.

    A write to a raw file is async-signal-safe and needs no lock. The pipe stays open as long as the wakeup is
    referenced, so a late ring never writes into a file that got the same number. Neither end is used in a
    child after a fork: it would wake the parent, or eat the parent's ring.
    """

    def __init__(self) -> None:
        self._fork = ForkGuard()
        # Raw files, since eventlet's os.read and os.write wait where there is nothing to read, or no room.
        self._listen, self._ring = (io.FileIO(end, mode) for end, mode in zip(os.pipe(), "rw", strict=True))
        for end in (self._listen, self._ring):
            os.set_blocking(end.fileno(), False)
            weakref.finalize(self, end.close)

    def fileno(self) -> int:
        """What to poll for reading."""
        return self._listen.fileno()

    def ring(self) -> None:
        """Wake who waits, or who waits next. From any thread or a signal handler."""
        if not self._fork.is_inherited():
            # None for a full pipe: it holds rings enough that nobody has answered yet.
            self._ring.write(b"!")

    def answer(self) -> bool:
        """Whether it rang since the last answer."""
        if self._fork.is_inherited():
            return False
        return bool(self._listen.read(PIPE_BYTES))  # None where it did not ring


class HasFileno(Protocol):
    """A socket, a wakeup."""

    def fileno(self) -> int:
        """A file descriptor."""


def wait_readable(sources: Sequence[HasFileno], seconds: float) -> set[int]:
    """The descriptors that can be read, as soon as there is one; empty after ``seconds``."""
    descriptors = [source.fileno() for source in sources]
    seconds = max(0.0, seconds)
    if not hasattr(select, "poll"):  # eventlet takes it away, and its own select takes any descriptor
        return set(select.select(descriptors, (), (), seconds)[0])
    poller = select.poll()
    for descriptor in descriptors:
        poller.register(descriptor, select.POLLIN)
    return {descriptor for descriptor, _ in poller.poll(seconds * 1000)}


def wait_writable(target: HasFileno, seconds: float) -> bool:
    """Whether it takes bytes, or is broken, within ``seconds``."""
    seconds = max(0.0, seconds)
    if not hasattr(select, "poll"):
        return bool(select.select((), [target.fileno()], (), seconds)[1])
    poller = select.poll()
    poller.register(target.fileno(), select.POLLOUT)
    return bool(poller.poll(seconds * 1000))
