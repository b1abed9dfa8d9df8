"""Who a SQLite store is: its random id, the file that the id is bound to, and where its fences begin.

A file that is not the one the id is bound to is a copy: a backup that was restored, or one beside its original. It
takes an id of its own at the first open, so that the two never share a tube, and the sweep puts its rows anew: they
were put before anything that stands in the new tubes. Its fences begin above all that the original may have
given since the copy was made, so that nobody who holds a job from then can settle what is claimed here: at the time
of the open, in microseconds since 1970. Each claim of a row adds one, and none is claimed a million times a second.
"""

import sqlite3
import time
from typing import Final, NamedTuple

from kqueue.model import tubes
from kqueue.stores.sqlite.file.birth import binding, is_same

#: What a copy's fences begin above at least, beside the time: the clock may have gone back since the last copy.
STRIDE: Final = 2**32

_READ: Final = "SELECT name, value FROM kqueue_meta WHERE name IN ('store_id', 'bound_to', 'fence_floor')"
_WRITE: Final = "INSERT OR REPLACE INTO kqueue_meta (name, value) VALUES (?, ?)"
_HAS_JOBS: Final = "SELECT EXISTS (SELECT 1 FROM kqueue_jobs)"
_UNBIND: Final = "UPDATE kqueue_meta SET value = '' WHERE name = 'bound_to'"


class SqliteIdentity(NamedTuple):
    """Of a store, as it was read."""

    id: str
    #: See :func:`kqueue.stores.sqlite.file.birth.binding`; empty for a backup, which is nobody's.
    bound_to: str
    #: Every claim gives a fence above it.
    fence_floor: int


def adopt(connection: sqlite3.Connection, path: str) -> SqliteIdentity:
    """The identity of the file, which gets one if it has none, and another one if it is a copy. One read if not.

    On an error the caller rolls back.
    """
    bound_to = binding(path)
    found = read(connection)
    if found is not None and is_same(found.bound_to, bound_to):
        return found
    connection.execute("BEGIN IMMEDIATE")
    # Read again under the write lock: another process may have done it in between.
    found = read(connection)
    if found is None or not is_same(found.bound_to, bound_to):
        found = _write(connection, found, bound_to)
    connection.execute("COMMIT")
    return found


def is_adopted(connection: sqlite3.Connection, path: str) -> bool:
    """Whether :func:`adopt` would write nothing."""
    found = read(connection)
    return found is not None and is_same(found.bound_to, binding(path))


def begin_anew(connection: sqlite3.Connection, path: str) -> None:
    """As if the file were a copy. Inside a write transaction."""
    _write(connection, read(connection), binding(path))


def unbind(connection: sqlite3.Connection) -> None:
    """Whoever opens the file takes it for a copy."""
    connection.execute(_UNBIND)


def read(connection: sqlite3.Connection) -> SqliteIdentity | None:
    """None if it has none yet."""
    found = dict(connection.execute(_READ).fetchall())
    if "store_id" not in found:
        return None
    return SqliteIdentity(found["store_id"], found.get("bound_to", ""), found.get("fence_floor", 0))


def _write(connection: sqlite3.Connection, before: SqliteIdentity | None, bound_to: str) -> SqliteIdentity:
    floor = 0
    # What has jobs and no id is of an older version, and may be a copy for all that one can tell.
    if before is not None or connection.execute(_HAS_JOBS).fetchone() == (1,):
        floor = max(0 if before is None else before.fence_floor + STRIDE, int(time.time() * 1e6))
    after = SqliteIdentity(tubes.new_id(), bound_to, floor)
    values = [("store_id", after.id), ("bound_to", after.bound_to), ("fence_floor", after.fence_floor)]
    connection.executemany(_WRITE, values)
    return after
