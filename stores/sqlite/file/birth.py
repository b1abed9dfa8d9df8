"""What tells a file from a copy of it: its inode and the time of its birth.

An inode alone does not: ext4 gives the number of a file that was removed to the next one, so that after
``rm jobs.db`` and ``cp backup.db jobs.db`` the copy has the inode of the original. The device is left out, since
its number may be another after a reboot. Python 3.11 does not tell the time of birth on Linux, so the C library is
asked
(https://man7.org/linux/man-pages/man2/statx.2.html).
"""

import ctypes
import os
import struct
from typing import Final

_AT_FDCWD: Final = -100
_STATX_BTIME: Final = 0x800
_BUFFER_BYTES: Final = 256
#: Where in the struct the mask of what was given stands, and the time: seconds, nanoseconds.
_MASK_AT, _BTIME_AT = 0, 80


def binding(path: str) -> str:
    """``inode:birth`` of the file; the birth, in nanoseconds, is empty where it is not known. Opens no descriptor.

    Raises ``OSError`` if it is not there.
    """
    found = os.stat(path)
    born = getattr(found, "st_birthtime", None)
    return f"{found.st_ino}:{_born(path) if born is None else int(born * 1e9)}"


def is_same(one: str, other: str) -> bool:
    """Whether both are of one file. A birth that one of them does not know is not compared."""
    (inode, _, birth), (other_inode, _, other_birth) = one.partition(":"), other.partition(":")
    return inode == other_inode and (not birth or not other_birth or birth == other_birth)


def _born(path: str) -> str:
    statx = getattr(ctypes.CDLL(None, use_errno=True), "statx", None)
    if statx is None:
        return ""
    buffer = ctypes.create_string_buffer(_BUFFER_BYTES)
    if statx(_AT_FDCWD, os.fsencode(path), 0, _STATX_BTIME, buffer) != 0:
        return ""
    (mask,) = struct.unpack_from("=I", buffer, _MASK_AT)
    seconds, nanoseconds = struct.unpack_from("=qI", buffer, _BTIME_AT)
    return str(seconds * 10**9 + nanoseconds) if mask & _STATX_BTIME else ""
