"""Memory that a client and its renewer both see: which job of a window runs, and since when.

A slot is two words, the serial number of the job and the start of its run. Each is written by one store of eight
bytes, in the order start, serial; so whoever reads between the two takes the job before for one that started a
moment ago, which changes nothing.
"""

import mmap
import os
import struct
import tempfile
import weakref

from kqueue.model.errors import KQueueError
from kqueue.renewal.due import HandlerProgress
from kqueue.renewal.messages import SLOTS

#: Serial number, seconds.
_SLOT = struct.Struct("=Qd")
#: Memory that no slot uses is not taken up.
_SIZE = SLOTS * _SLOT.size


class Board:
    """A client's. To take a slot and to give it back are each atomic, so there is no lock."""

    def __init__(self) -> None:
        self._descriptor = _memory()
        weakref.finalize(self, os.close, self._descriptor)
        os.ftruncate(self._descriptor, _SIZE)
        words = memoryview(mmap.mmap(self._descriptor, _SIZE))
        self._serials = words.cast("Q")
        self._starts = words.cast("d")
        self._free = list(range(SLOTS - 1, -1, -1))

    def fileno(self) -> int:
        """To be handed to the renewer."""
        return self._descriptor

    def take(self) -> int:
        """A slot that nobody uses."""
        try:
            return self._free.pop()
        except IndexError:
            raise KQueueError(f"more than {SLOTS} windows are renewed at once in this process") from None

    def give_back(self, slot: int) -> None:
        """The slot is not used any more."""
        self._free.append(slot)

    def write(self, slot: int, serial: int, started: float) -> None:
        """The job ``serial`` runs, since ``started``."""
        self._starts[2 * slot + 1] = started
        self._serials[2 * slot] = serial


def read(descriptor: int, slot: int) -> HandlerProgress:
    """What the slot of a client's board says. A board that is too short says that nothing runs."""
    data = os.pread(descriptor, _SLOT.size, slot * _SLOT.size)
    return HandlerProgress(*_SLOT.unpack(data)) if len(data) == _SLOT.size else HandlerProgress(0, 0.0)


def _memory() -> int:
    """A file without a name."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("kqueue-board")
    with tempfile.TemporaryFile() as file:  # pragma: no cover (not Linux)
        return os.dup(file.fileno())
