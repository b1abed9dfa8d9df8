"""What SQLite's errors mean for a user, and errors of the file's place."""

import errno
import sqlite3
from typing import Final

from kqueue.model.errors import StoreError, StoreReadOnly, StoreUnavailable
from kqueue.stores.sqlite.schema import NewerSchemaError, check_version
from kqueue.system.locks import REENTERED

#: By SQLite's primary result code (https://www.sqlite.org/rescode.html).
_MEANINGS: Final[dict[int, tuple[type[StoreError], str]]] = {
    sqlite3.SQLITE_CANTOPEN: (
        StoreUnavailable,
        "cannot be opened; its folder must exist, and both must be writable for this user",
    ),
    sqlite3.SQLITE_NOTADB: (StoreError, "is not an SQLite database; give another path"),
    sqlite3.SQLITE_READONLY: (StoreError, "is read-only; this user must be able to write the file and its folder"),
    sqlite3.SQLITE_PERM: (StoreError, "may not be opened by this user; change its permissions"),
    sqlite3.SQLITE_FULL: (StoreUnavailable, "has no room left on its disk; free some"),
    sqlite3.SQLITE_IOERR: (StoreUnavailable, "cannot be read or written; look at its disk"),
    sqlite3.SQLITE_CONSTRAINT: (StoreError, "holds a job of this id already, or lacks a field"),
    sqlite3.SQLITE_CORRUPT: (StoreError, "is damaged; restore it from a backup"),
}


class Unanswered(StoreUnavailable):
    """The commit was done, but perhaps not to the file that the path names: what it wrote may be there or not."""


def primary_code(error: sqlite3.Error) -> int:
    """SQLITE_ERROR for what Python's module raises by itself, which has no code."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


def explain(
    address: str, busy_timeout: float, error: sqlite3.Error, connection: sqlite3.Connection | None
) -> StoreError:
    """The error to raise from SQLite's, which ``connection`` gave."""
    code = primary_code(error)
    if code == sqlite3.SQLITE_ERROR and connection is not None:
        # What a statement names has gone, perhaps: a newer version has migrated the file meanwhile.
        try:
            check_version(connection)
        except NewerSchemaError as newer:
            return StoreError(f"{address}: was migrated while this process had it open: {newer}")
        except sqlite3.Error:
            pass  # it was closed
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return locked(address, busy_timeout)
    kind, meaning = _MEANINGS.get(code, (StoreError, "failed"))
    return kind(f"{address}: {meaning} ({error})")


def explain_opening(address: str, error: OSError) -> StoreError:
    """The error to raise from the system's when the file was to be opened."""
    codes = {
        errno.EACCES: sqlite3.SQLITE_PERM,
        errno.EPERM: sqlite3.SQLITE_PERM,
        errno.EROFS: sqlite3.SQLITE_READONLY,
    }
    kind, meaning = _MEANINGS[codes.get(error.errno or 0, sqlite3.SQLITE_CANTOPEN)]
    return kind(f"{address}: {meaning} ({error})")


def locked(address: str, busy_timeout: float) -> StoreUnavailable:
    """By another process."""
    return StoreUnavailable(
        f"{address}: locked by another process for more than {busy_timeout:g} s;"
        " try again, or wait longer with ?busy_timeout="
    )


def only_read(address: str) -> StoreReadOnly:
    """By this user; and what was asked would write."""
    return StoreReadOnly(
        f"{address}: this user may only read it, and nothing was changed; to write, give the user the right to"
        " write the file, its -wal and -shm, and their folder"
    )


def interrupted(address: str) -> StoreUnavailable:
    """By a signal handler, which now asks for what the thread itself has locked."""
    return StoreUnavailable(f"{address}: {REENTERED}")
