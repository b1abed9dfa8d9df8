"""One SQLite file: its connection in each process, its transactions, and that no acknowledged job is lost with it.

Theory of operation. A process has one connection, which its threads share under a lock.

*Two logs.* What is written into a log that nobody reads after us is lost. So each write holds the *fence* of the
file (:mod:`kqueue.stores.sqlite.file.anchor`), which keeps out all other processes that write or checkpoint, and
looks twice whether the file, its log and the log's index still stand under their names: once SQLite's write lock is
held, and after the commit, before it is acknowledged. A write that finds another is taken back, or, after the
commit, said to be unknown (:class:`~kqueue.stores.sqlite.file.errors.Unanswered`). Then what the lost log holds is
written into its file, where no other log can have been used meanwhile, and the connection is closed; the next call
opens what is there then (:mod:`kqueue.stores.sqlite.file.connect`). A read looks once, before it begins.

*Closing.* SQLite checkpoints and unlinks the log when it takes itself for the last one, and it cannot tell that
once locks were lost. So it is always closed while our own locks keep it from that: ``-wal`` and ``-shm`` stay
behind. Who is in truth the last one empties the log first.

*Forks.* No connection may ever be carried across ``fork``: SQLite keeps the locks of a process in its memory, so
that a connection which a child opens beside an inherited one believes that it holds locks which only the parent has
(https://www.sqlite.org/howtocorrupt.html section 2.6). So a fork first waits for the transactions in progress,
closes the connections, without a checkpoint, and lets nobody connect until it is done; parent and child each open
again at their next call. A fork that runs no ``os.register_at_fork`` hooks leaves an inherited connection; then the
child is refused, before it loses a job.

*Signals.* An exception that a signal's handler raises may leave any code between two steps, a context manager too.
So each call of a store is *whole*: at its end, in a way that no signal interrupts, what it has left open is taken
back, and its locks are freed (:mod:`kqueue.stores.sqlite.file.lock`). A call from a handler that interrupted the
same store's own call is refused if that has the lock, and else works.

*Reading alone.* A file that this process may not write is read all the same, and nothing is made beside it
(:mod:`kqueue.stores.sqlite.file.read_only`). What would write tries again whether it may, and is refused.

Every wait has an end: ``busy_timeout`` for the other threads, and as long again for other processes. They look
again and again, and stand in no line: under steady writes one process may wait much longer than those that came
after it.
"""

import logging
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, ParamSpec, TypeVar
from weakref import WeakSet

from kqueue.model.errors import StoreError, StoreUnavailable
from kqueue.stores.sqlite.file.anchor import FENCE, OPENING
from kqueue.stores.sqlite.file.connect import Settings, connect
from kqueue.stores.sqlite.file.errors import Unanswered, explain, interrupted, locked, only_read
from kqueue.stores.sqlite.file.handle import ANCHORS, Handle
from kqueue.stores.sqlite.file.lock import Taking
from kqueue.stores.sqlite.file.place import size, url
from kqueue.stores.sqlite.identity import SqliteIdentity, begin_anew, read
from kqueue.system.clock import awake
from kqueue.system.forks import PerProcess

P = ParamSpec("P")
T = TypeVar("T")

#: Seconds after which a fork looks again whether there is still something to close.
_FORK_LOOK_S: Final = 0.02


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
        #: For messages.
        self.address = url(path)
        self._settings = Settings(path, self.address, synchronous, busy_timeout, create, mode, logger)
        self._busy_timeout = busy_timeout
        self._handles = PerProcess(lambda: Handle(path))
        #: Every claim gives a fence above it; as it was read last, at the latest when the file was opened.
        self.fence_floor = 0
        #: The latest that connected.
        self._connected_last: Handle | None = None
        with ANCHORS.gate:
            _FILES.add(self)

    @property
    def busy_timeout(self) -> float:
        """Seconds to wait for other threads, and as long again for other processes."""
        return self._busy_timeout

    def exists(self) -> bool:
        """Whether there is a store: a file that is not empty. Opens and makes nothing."""
        try:
            return bool(size(self.path))
        except OSError:
            return False

    def open(self) -> None:
        """Connect now. Idempotent."""
        with self.read():
            pass

    def close(self) -> None:
        """Close this process's connection. Idempotent; a later call opens again."""
        handle = self._handles.existing()
        if handle is not None:
            with self._turn(-1) as (handle, _):
                self._empty_log(handle)
                handle.disconnect()

    def whole(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """``call``, which uses this file: after it nothing is open or held, whatever signal strikes when."""
        return self._handles.get().whole(call, *args, **kwargs)

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """The connection, for statements that each read by themselves. Finish every cursor inside."""
        with self._turn(self._busy_timeout) as (handle, _):
            connection = self._connected(handle)
            self._check_place(handle)
            yield connection

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """The connection inside a write transaction: committed at the end, rolled back at an exception.

        The write lock is taken at the start, because a read that becomes a write fails at once with
        SQLITE_BUSY_SNAPSHOT when another process has written in between. A caller with nothing to write says
        ``ROLLBACK``, and no commit follows.
        """
        with self._turn(self._busy_timeout) as (handle, turn):
            if handle.only_reads:
                handle.disconnect()  # it may be written by now
            connection = self._connected(handle)
            if handle.only_reads:
                raise only_read(self.address)
            try:
                self._take_fence(handle)
                connection.execute("BEGIN IMMEDIATE")
                self._check_place(handle)
                yield connection
                if connection.in_transaction:
                    connection.execute("COMMIT")
                    self._check_place(handle, committed=True)
            except BaseException:
                # Left open it would look committed to our own reads, and keep all others out. But where a signal's
                # exception left this generator behind, it ends here when it is thrown away: in another turn.
                if turn.has_it() and not handle.roll_back():
                    handle.disconnect()
                raise
            finally:
                if turn.has_it():
                    handle.let_go()

    def identity(self) -> SqliteIdentity:
        """Who the file is now."""
        identity = self._identity()
        if identity is None:  # another program took it away; who opens gives another
            self.close()
            self.open()
            identity = self._identity()
        if identity is None:
            raise StoreError(f"{self.address}: its table kqueue_meta is damaged; restore it from a backup")
        self.fence_floor = identity.fence_floor
        return identity

    def _identity(self) -> SqliteIdentity | None:
        with self.read() as connection:
            handle = self._handles.get()
            return handle.identity if handle.only_reads else read(connection)

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
    def _turn(self, seconds: float) -> Iterator[tuple[Handle, Taking]]:
        """What this process has of the file, for this thread alone."""
        handle = self._handles.get()
        if handle.lock.is_mine():
            raise interrupted(self.address)
        turn = Taking(handle.lock, handle)
        try:
            if not turn.take(seconds):
                raise StoreUnavailable(
                    f"{self.address}: used by other threads of this process for more than {seconds:g} s;"
                    " try again, or wait longer with ?busy_timeout="
                )
            yield handle, turn
        except sqlite3.Error as error:
            raise explain(self.address, self._busy_timeout, error, handle.connection) from error
        finally:
            if turn.has_it():
                handle.let_go()  # if a signal strikes here, it is done by Handle.whole, and so is the other
                turn.release()

    def _connected(self, handle: Handle) -> sqlite3.Connection:
        if handle.only_reads and handle.change() is not None:
            handle.disconnect()  # somebody has begun, or ended, to write it
        if handle.serial is None or handle.connection is None:
            last = self._connected_last
            if last is not None and last is not handle and last.connection is not None:
                raise StoreError(
                    f"{self.address}: this process was forked in a way that Python was not told of, with the file"
                    " open; open the queue after the fork"
                )
            self._connected_last = handle
            self.fence_floor = connect(self._settings, handle)
            assert handle.connection is not None
        return handle.connection

    def _take_fence(self, handle: Handle) -> None:
        assert handle.anchor is not None
        if handle.anchor.lock.is_mine():
            raise interrupted(self.address)
        if not handle.hold(handle.anchor).take(self._busy_timeout):
            raise StoreUnavailable(
                f"{self.address}: used by other threads of this process for more than {self._busy_timeout:g} s;"
                " try again, or wait longer with ?busy_timeout="
            )
        if not handle.anchor.lock_byte(FENCE, self._busy_timeout):
            raise locked(self.address, self._busy_timeout)

    def _check_place(self, handle: Handle, *, committed: bool = False) -> None:
        change = handle.change()
        if change is None:
            return
        handle.roll_back()
        rescued = handle.salvage(self._busy_timeout)
        handle.disconnect()
        kind = Unanswered if committed else StoreUnavailable
        raise kind(
            f"{self.address}: {change} while it was open; stop every process that uses it before you move it, its"
            f" -wal and its -shm. {'All that was acknowledged is in the file itself.' if rescued else ''}"
            " The next call opens what is there then, and makes no new file"
        )

    def _empty_log(self, handle: Handle) -> None:
        """If this is the last one that has the file open: it is a smaller risk then for who moves or copies it."""
        anchor, connection = handle.anchor, handle.connection
        if anchor is None or connection is None or handle.change() is not None:
            return
        has_lock = handle.hold(anchor).take(0) and anchor.lock_byte(OPENING, 0)
        if has_lock and not anchor.is_used_by_others() and anchor.lock_byte(FENCE, 0):
            with suppress(sqlite3.Error):  # the next one to open it finds the log, then
                connection.execute("PRAGMA busy_timeout = 0")
                handle.checkpoint()

    # -- around a fork -----------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """Close the connection. The caller has the gate, so nobody connects meanwhile."""
        handle = self._handles.existing()
        # A signal handler may fork inside one of our own transactions: then the child is refused.
        if handle is not None and not handle.lock.is_mine():
            handle.whole(self._close_for_fork, handle)

    def _close_for_fork(self, handle: Handle) -> None:
        turn, until = Taking(handle.lock, handle), awake() + self._busy_timeout + 1
        # A thread that has no connection may wait for the gate, with the lock.
        while handle.connection is not None and awake() < until:
            if turn.take(_FORK_LOOK_S):
                handle.disconnect(for_good=False)
                turn.release()
                return


#: All of this process. One hook for all of them, which keeps none alive, and only one order: first the gate, then
#: the closing; the gate is freed by a function in C, which no signal can interrupt.
_FILES: Final[WeakSet[SqliteFile]] = WeakSet()


def _close_all() -> None:
    for file in list(_FILES):
        with suppress(StoreError):
            file.before_fork()


os.register_at_fork(before=_close_all)
os.register_at_fork(
    before=ANCHORS.gate.acquire, after_in_parent=ANCHORS.gate.release, after_in_child=ANCHORS.gate.release
)
os.register_at_fork(after_in_child=ANCHORS.forget_inherited)
