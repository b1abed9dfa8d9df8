"""One SQLite file: its connection in each process, its transactions, and what its errors mean.

Theory of operation. A process has one connection, which its threads share under a lock. No connection may
ever be carried across ``fork``: SQLite keeps the locks of a process in its memory, so that a connection which
a child opens beside an inherited one believes that it holds locks which only the parent has. When the parent
then closes, it removes the write-ahead log, and what the child commits after that is lost (seen with SQLite
3.40; https://www.sqlite.org/howtocorrupt.html section 2.6). So a fork first waits for the transaction in
progress and closes the connection; parent and child each open again at their next call. A fork that runs no
``os.register_at_fork`` hooks leaves an inherited connection; then the child is refused, before it loses a job.

A file that is removed or replaced while it is open stays with those who have it open, and what they commit is
lost with it. So the path is compared with the file that was opened: before each read, once the write lock is held,
and after each commit, so that what was acknowledged is in the file that the path named then.

Every wait has an end: ``busy_timeout`` for the other threads, and as long again for other processes. SQLite waits
for those by sleeping and trying again, not in a line (https://www.sqlite.org/c3ref/busy_timeout.html): under
steady writes one process may wait much longer than those that came after it.
"""

import logging
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from kqueue.errors import StoreError, StoreUnavailable
from kqueue.forks import PerProcess
from kqueue.stores.sqlite_identity import Identity, adopt, begin_anew, read
from kqueue.stores.sqlite_schema import NewerSchemaError, migrate

#: Seconds between two attempts to switch a new file to write-ahead logging.
_WAL_RETRY_S: Final = 0.01

#: What an error of SQLite means, by its primary result code (https://www.sqlite.org/rescode.html).
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


class SqliteFile:
    """Safe to share by threads, and to use after a fork."""

    def __init__(
        self,
        path: str,
        *,
        synchronous: str,
        busy_timeout: float,
        create: bool,
        mode: int,
        logger: logging.Logger,
    ) -> None:
        """``path`` is absolute; ``busy_timeout`` in seconds. ``create``: whether to make a file that is missing,
        with the permissions ``mode``.
        """
        self.path = path
        self._create = create
        self._mode = mode
        self._logger = logger
        #: For messages.
        self.address = f"sqlite:///{path}"
        self._synchronous = synchronous
        self._busy_timeout = busy_timeout
        self._handles = PerProcess(_Handle)
        #: The process that has a connection now, if any.
        self._open_in: int | None = None
        #: Every claim gives a fence above it; as it was read last, at the latest when the file was opened.
        self.fence_floor = 0
        _close_at_fork(self)

    def exists(self) -> bool:
        """Whether there is a file. Opens and makes nothing."""
        return os.path.exists(self.path)

    def open(self) -> None:
        """Connect now. Idempotent."""
        with self.read():
            pass

    def close(self) -> None:
        """Close this process's connection. Idempotent; a later call opens again."""
        handle = self._handles.existing()
        if handle is not None:
            with handle.lock:
                self._disconnect(handle)

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """The connection, for statements that each read by themselves. Finish every cursor inside."""
        with self._turn() as handle:
            connection = handle.connection or self._connect(handle)
            self._check_place(handle)
            yield connection

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """The connection inside a write transaction: committed at the end, rolled back at an exception.

        The write lock is taken at the start, because a read that becomes a write fails at once with
        SQLITE_BUSY_SNAPSHOT when another process has written in between. A caller with nothing to write says
        ``ROLLBACK``, and no commit follows.
        """
        with self._turn() as handle:
            connection = handle.connection or self._connect(handle)
            try:
                connection.execute("BEGIN IMMEDIATE")
                self._check_place(handle)
                yield connection
                if connection.in_transaction:
                    connection.execute("COMMIT")
                    self._check_place(handle)
            except BaseException:
                # Left open it would look committed to our own reads, and keep all others out.
                if handle.connection is not None and not _roll_back(connection):
                    self._disconnect(handle)
                raise

    def identity(self) -> Identity:
        """Who the file is now."""
        with self.read() as connection:
            identity = read(connection) or self._adopt(connection)
            self.fence_floor = identity.fence_floor
            return identity

    def begin_anew(self) -> None:
        """Become another store, as a copy does."""
        with self.write() as connection:
            begin_anew(connection, self.path)
        self.identity()

    def pulse(self) -> object:
        """Differs once any connection has changed the file. PRAGMA data_version leaves out one's own changes,
        and is only comparable within one connection (https://www.sqlite.org/pragma.html#pragma_data_version).
        """
        with self.read() as connection:
            (others,) = connection.execute("PRAGMA data_version").fetchone()
            return self._handles.get().serial, others, connection.total_changes

    @contextmanager
    def _turn(self) -> Iterator["_Handle"]:
        """What this process has of the file, for this thread alone."""
        handle = self._handles.get()
        if not handle.lock.acquire(timeout=self._busy_timeout):
            raise StoreUnavailable(
                f"{self.address}: used by other threads of this process for more than {self._busy_timeout:g} s;"
                " try again, or wait longer with ?busy_timeout="
            )
        try:
            yield handle
        except sqlite3.Error as error:
            raise self._explain(error) from error
        finally:
            handle.lock.release()

    def _check_place(self, handle: "_Handle") -> None:
        if handle.place is None or _place(self.path) != handle.place:
            self._disconnect(handle)
            raise StoreError(
                f"{self.address}: was removed or replaced while it was open; stop every process that uses it before"
                " you move it, its -wal and its -shm. The next call opens what is there then"
            )

    def _connect(self, handle: "_Handle") -> sqlite3.Connection:
        if self._open_in not in {None, os.getpid()}:
            raise StoreError(
                f"{self.address}: this process was forked in a way that Python was not told of, with the file"
                " open; open the queue after the fork"
            )
        if not self.exists():
            self._make()
        connection = sqlite3.connect(
            self.path, timeout=self._busy_timeout, isolation_level=None, check_same_thread=False
        )
        place = _place(self.path)
        try:
            self._prepare(connection)
            self.fence_floor = self._adopt(connection).fence_floor
        except BaseException:
            _roll_back(connection)
            connection.close()
            raise
        handle.connection, self._open_in = connection, os.getpid()
        handle.place, handle.serial = place, object()
        return connection

    def _make(self) -> None:
        if not self._create:
            raise StoreUnavailable(
                f"{self.address}: there is no such file, and this process may not make one; a producer makes it, or"
                " create=True"
            )
        try:
            made = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, self._mode)
        except OSError:
            return  # another was first, or the next step says what is wrong
        os.fchmod(made, self._mode)  # whatever the umask
        os.close(made)
        self._logger.info("%s: made a new store", self.address)

    def _adopt(self, connection: sqlite3.Connection) -> Identity:
        try:
            return adopt(connection, self.path)
        except OSError as error:
            raise StoreUnavailable(f"{self.address}: went away while it was opened ({error.strerror})") from error

    def _prepare(self, connection: sqlite3.Connection) -> None:
        self._switch_to_wal(connection)
        connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        try:
            migrate(connection)
        except NewerSchemaError as error:
            raise StoreError(f"{self.address}: {error}") from None

    def _switch_to_wal(self, connection: sqlite3.Connection) -> None:
        """SQLite does not wait for another process that opens a new file at the same moment, so we do."""
        deadline = time.monotonic() + self._busy_timeout
        while True:
            try:
                (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            except sqlite3.OperationalError as error:
                if _primary_code(error) != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                    raise
                time.sleep(_WAL_RETRY_S)
                continue
            if mode != "wal":
                raise StoreError(
                    f"{self.address}: its file system cannot do write-ahead logging (journal mode {mode!r});"
                    " put the file on a local disk"
                )
            return

    def _disconnect(self, handle: "_Handle") -> None:
        if handle.connection is not None:
            connection, handle.connection, self._open_in = handle.connection, None, None
            connection.close()

    def _explain(self, error: sqlite3.Error) -> StoreError:
        code = _primary_code(error)
        if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            return StoreUnavailable(
                f"{self.address}: locked by another process for more than {self._busy_timeout:g} s;"
                " try again, or wait longer with ?busy_timeout="
            )
        kind, meaning = _MEANINGS.get(code, (StoreError, "failed"))
        return kind(f"{self.address}: {meaning} ({error})")

    # -- around a fork -----------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """Close the connection, and hold the lock until :meth:`after_fork`."""
        handle = self._handles.existing()
        # Never wait for ever: a signal handler may fork inside one of our own transactions.
        if handle is not None and handle.lock.acquire(timeout=self._busy_timeout + 1):
            handle.forking = threading.get_ident()
            self._disconnect(handle)

    def after_fork(self) -> None:
        """In the parent. The child needs none: it makes a lock and a connection of its own."""
        handle = self._handles.existing()
        if handle is not None and handle.forking == threading.get_ident():
            handle.forking = None
            handle.lock.release()


class _Handle:
    """What one process has of the file."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.connection: sqlite3.Connection | None = None
        #: Of the file that the connection has open.
        self.place: tuple[int, int] | None = None
        #: A new one for each connection.
        self.serial = object()
        #: The thread that holds the lock over a fork.
        self.forking: int | None = None


def _close_at_fork(file: SqliteFile) -> None:
    """Hooks cannot be taken back, so they must not keep the file alive."""
    reference = weakref.ref(file)

    def hook(method: Callable[[SqliteFile], None]) -> Callable[[], None]:
        def call() -> None:
            file = reference()
            if file is not None:
                method(file)

        return call

    os.register_at_fork(before=hook(SqliteFile.before_fork), after_in_parent=hook(SqliteFile.after_fork))


def _place(path: str) -> tuple[int, int] | None:
    """What tells a file from one that takes its name: (device, inode). None if there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _roll_back(connection: sqlite3.Connection) -> bool:
    """Whether no transaction is open any more."""
    # Some errors (a full disk, say) have rolled back by themselves.
    with suppress(sqlite3.Error):
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    return not connection.in_transaction


def _primary_code(error: sqlite3.Error) -> int:
    # Errors that Python's module raises by itself have no code.
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
