"""Locks of an open file description: held by a descriptor, and not by the process as POSIX locks are.

``close`` of any descriptor of a file drops all POSIX locks of the process on it, so SQLite's own are gone after a
mere copy of the file. These stay until they are unlocked, or the last descriptor of that one ``open`` is closed.
They keep POSIX locks out and are kept out by them, also between those of one process; two descriptors of one
``open``, such as that which a child has from its parent, share them. Only Linux has them (since 3.15):
https://man7.org/linux/man-pages/man2/F_OFD_SETLK.2const.html
"""

import errno
import fcntl
import os
import struct
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from kqueue.system.clock import awake

#: The layout of the lock that is described here is that of 64 bits.
SUPPORTED: Final = sys.platform == "linux" and struct.calcsize("P") == 8
#: Type, whence, start, length, process.
_LOCK: Final = struct.Struct("hhqqi4x")
_IS_TAKEN: Final = {errno.EAGAIN, errno.EACCES}
#: Seconds between two looks at a lock that another has: the first, and the longest.
_FIRST_WAIT_S: Final = 0.000_25
_LONGEST_WAIT_S: Final = 0.005


def try_lock(descriptor: int, start: int, length: int = 1, *, alone: bool) -> bool:
    """Whether it was got: ``alone``, or beside others that are not. Bytes that are held already stay so.

    Raises ``OSError`` where there are no such locks.
    """
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _lock(fcntl.F_WRLCK if alone else fcntl.F_RDLCK, start, length))
    except OSError as error:
        if error.errno in _IS_TAKEN:
            return False
        raise
    return True


def wait_for(descriptor: int, start: int, seconds: float, length: int = 1, *, alone: bool = True) -> bool:
    """Whether it was got within ``seconds``. The kernel has no such wait with an end, so this looks."""
    if try_lock(descriptor, start, length, alone=alone):
        return True
    until, pause = awake() + seconds, _FIRST_WAIT_S
    while awake() < until:
        time.sleep(pause)
        if try_lock(descriptor, start, length, alone=alone):
            return True
        pause = min(pause * 1.5, _LONGEST_WAIT_S)
    return False


def unlocker(descriptor: int, start: int, length: int = 1) -> Callable[[], object]:
    """What gives back all that the descriptor has in the range, in one call of a function in C."""
    return partial(fcntl.fcntl, descriptor, fcntl.F_OFD_SETLK, _lock(fcntl.F_UNLCK, start, length))


def is_free(descriptor: int, start: int, length: int) -> bool:
    """Whether nobody else has any lock in the range."""
    found = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _lock(fcntl.F_WRLCK, start, length))
    return bool(_LOCK.unpack(found)[0] == fcntl.F_UNLCK)


def _lock(kind: int, start: int, length: int) -> bytes:
    return _LOCK.pack(kind, os.SEEK_SET, start, length, 0)
