"""A SQLite file that this process may not write: a mounted backup, or another user's.

Nothing is made beside it, and no lock of ours is taken: who writes it may be another user, whom a log of ours
would shut out. SQLite reads with an index that is there, also one that it may not write. Where there is none it
would make one; so without a log the file is read as one that nobody writes, and a log that was left without its
index is read alone. Once somebody begins to write, files appear beside it, and the next call connects anew.
"""

import errno
import os
import sqlite3
from collections import deque
from functools import partial
from operator import call
from typing import Final
from urllib.parse import quote

from kqueue.model import tubes
from kqueue.model.errors import StoreError, StoreReadOnly
from kqueue.stores.sqlite.file.birth import binding, is_same
from kqueue.stores.sqlite.file.handle import ANCHORS, Handle
from kqueue.stores.sqlite.file.place import FilePlace, look, size
from kqueue.stores.sqlite.identity import SqliteIdentity, read
from kqueue.stores.sqlite.schema import STEPS, NewerSchemaError, check_version

#: What SQLite says where it may not write, or not make a file beside ours.
_REFUSED: Final = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM}
#: What the system says then.
_DENIED: Final = {errno.EACCES, errno.EPERM, errno.EROFS}


def is_refused(error: Exception) -> bool:
    """Whether it may come of a lack of the right to write."""
    if isinstance(error, OSError):
        return error.errno in _DENIED
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF in _REFUSED


def may_only_be_read(real: str) -> bool:
    """Whether this process may read the file, and may not write it, or its log, or make that."""
    effective = os.access in os.supports_effective_ids

    def may(path: str, mode: int) -> bool:
        return os.access(path, mode, effective_ids=effective)

    beside = [name if os.path.exists(name) else os.path.dirname(real) for name in (f"{real}-wal", f"{real}-shm")]
    return may(real, os.R_OK) and not all(may(name, os.W_OK) for name in (real, *beside))


def connect(path: str, real: str, address: str, timeout: float, handle: Handle) -> int:
    """Give the handle a connection that only reads; returns the floor of the file's fences. Raises ``StoreError``
    for a file that would have to be written first, and ``sqlite3.Error``. The caller disconnects then.
    """
    handle.real, handle.place, handle.only_reads = real, look(path, real), True
    options, first = _how(real, handle.place)
    with ANCHORS.gate:  # as for one that writes: see kqueue.stores.sqlite.file.connect
        connecting = partial(
            sqlite3.connect,
            f"file://{quote(real)}?mode=ro{options}",
            uri=True,
            timeout=timeout,
            isolation_level=None,
            check_same_thread=False,
        )
        deque(map(setattr, (handle,), ("connection",), map(call, (connecting,))), 0)
        assert handle.connection is not None
        if first:
            handle.connection.execute(first).fetchone()
        _check_schema(handle.connection, address)
        handle.identity = _identity(handle.connection, real)
    handle.serial = object()
    return handle.identity.fence_floor


def _how(real: str, place: FilePlace) -> tuple[str, str]:
    """More of the URL, and the first statement."""
    if place.log_and_shm is not None:
        return "", ""
    if not size(f"{real}-wal"):
        return "&immutable=1", ""
    # An index in the memory of this process; SQLite then takes no locks that need a right to write.
    return "&vfs=unix-none", "PRAGMA locking_mode = EXCLUSIVE"


def _check_schema(connection: sqlite3.Connection, address: str) -> None:
    try:
        found = check_version(connection)
    except NewerSchemaError as error:
        raise StoreError(f"{address}: {error}") from None
    if found == 0:
        raise StoreReadOnly(f"{address}: it holds no store of KQueue, and this user may only read it")
    if found < len(STEPS):
        raise StoreReadOnly(
            f"{address}: its schema has version {found}, this KQueue reads version {len(STEPS)}, and this user may"
            " only read it, so it cannot be migrated; copy it, with its -wal, to where you may write"
        )


def _identity(connection: sqlite3.Connection, real: str) -> SqliteIdentity:
    """A copy has tubes of its own, which are those of nobody as long as it cannot be written."""
    found = read(connection)
    if found is not None and is_same(found.bound_to, binding(real)):
        return found
    return SqliteIdentity(tubes.new_id(), "", 0 if found is None else found.fence_floor)
