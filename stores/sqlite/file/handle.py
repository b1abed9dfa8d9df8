"""What one process has of one SQLite file: its connection, and what stands behind that."""

import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final, ParamSpec, TypeVar

from kqueue.stores.sqlite.file.anchor import FENCE, Anchor, Anchors
from kqueue.stores.sqlite.file.lock import OwnedLock, Taking
from kqueue.stores.sqlite.file.place import FilePlace, identity, look, size
from kqueue.stores.sqlite.identity import SqliteIdentity

P = ParamSpec("P")
T = TypeVar("T")

#: Of this process: POSIX locks are a process's, so what guards them must be too.
ANCHORS: Final = Anchors()


class Handle:
    """All but the lock is for the thread that has the lock."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.lock = OwnedLock()
        self.connection: sqlite3.Connection | None = None
        self.anchor: Anchor | None = None
        #: The path without links, when the connection was made.
        self.real = path
        #: Of what the connection has open.
        self.place = FilePlace(None, None, None)
        #: A new one for each connection; None until it can be used.
        self.serial: object | None = None
        #: This process may not write the file: see :mod:`kqueue.stores.sqlite.file.read_only`.
        self.only_reads = False
        #: Who the file is then.
        self.identity: SqliteIdentity | None = None
        #: What was said of the file, once.
        self.warned: set[str] = set()

    def whole(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """``call``, and then this thread has nothing of the file open or held, whatever signal strikes when."""
        me = threading.get_ident()
        if self.lock.is_mine():
            return call(*args, **kwargs)  # within a whole call, which tidies
        try:
            return call(*args, **kwargs)
        finally:
            # Before each release there is no call of a function in Python: see kqueue.stores.sqlite.file.lock.
            for turn in self.lock.held:
                if turn.thread == me:
                    anchor, connection = self.anchor, self.connection
                    try:
                        try:
                            if connection is not None:
                                connection.rollback()
                        except sqlite3.Error:
                            pass  # it was closed, or the next call finds out
                        finally:
                            if anchor is not None:
                                for hold in anchor.lock.held:
                                    if hold.owner is self and hold.thread == me:
                                        hold.release()
                    finally:
                        turn.release()

    def change(self) -> str | None:
        """What of the file stands under its name no longer; None if all does."""
        return self.place.change(look(self.path, self.real))

    def checkpoint(self) -> bool:
        """Write all of the log into the file. Whether that was done: not if the log was replaced beside the path,
        or beside a name that the file was given. Then others have written into the file without ours, and old pages
        would go over theirs. Only under the fence.
        """
        if self.connection is None or not self._may_checkpoint():
            return False
        with suppress(sqlite3.Error):
            (busy, *_) = self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            return not busy
        return False

    def salvage(self, seconds: float) -> bool:
        """What another log may stand before: with all locks still held SQLite does nothing of it at its close. Each
        lock that is needed is waited for.
        """
        if self.anchor is None or self.connection is None:
            return False
        if not self.anchor.lock.is_mine() and not self.hold(self.anchor).take(seconds):
            return False
        return self.anchor.lock_byte(FENCE, seconds) and self.checkpoint()

    def hold(self, anchor: Anchor) -> Taking:
        """A turn with the anchor's lock that :meth:`let_go` finds."""
        return anchor.hold(self)

    def let_go(self) -> None:
        """Free the anchor's lock, with fence and opening, if this handle has it by this thread."""
        me = threading.get_ident()
        if self.anchor is not None:
            for taking in self.anchor.lock.held:
                if taking.owner is self and taking.thread == me:
                    taking.release()

    def roll_back(self) -> bool:
        """Whether no transaction is open any more."""
        connection = self.connection
        # Some errors (a full disk, say) have rolled back by themselves.
        with suppress(sqlite3.Error):
            if connection is not None and connection.in_transaction:
                connection.execute("ROLLBACK")
            return connection is None or not connection.in_transaction
        return False

    def disconnect(self, *, for_good: bool = True) -> None:
        """Close the connection while all locks are held, so that SQLite never takes itself for the last one and
        unlinks the log; then free them. ``for_good``: the descriptors go too.
        """
        self.serial = None
        if self.connection is not None:
            self.connection.close()
            self.connection = None
        self.let_go()
        if self.anchor is not None:
            anchor, self.anchor = self.anchor, None
            ANCHORS.leave(anchor, self, for_good=for_good)

    def give_up_idle(self) -> None:
        """From another file's turn: the log of this one was lost, so it is closed, unless a thread works with it:
        that will find out by itself.
        """
        if not self.lock.is_mine():
            self.whole(self._give_up)

    def _give_up(self) -> None:
        turn = Taking(self.lock, self)
        if turn.take(0):
            if self.change() is not None:
                self.salvage(0)
                self.disconnect()
            turn.release()

    def _may_checkpoint(self) -> bool:
        names = {self.real}
        if self.anchor is not None and self.anchor.descriptor is not None:
            # Where the file is now. One that was unlinked has a name there beside which nothing is.
            names.add(os.readlink(f"/proc/self/fd/{self.anchor.descriptor}"))
        return all(self._is_free(f"{name}-wal", f"{name}-shm") for name in names)

    def _is_free(self, log: str, shm: str) -> bool:
        """Whether nobody can have written through these."""
        # One of another's that is empty was only made by who then found an index to another log.
        return identity(shm) in {None, self.place.shm} and (identity(log) == self.place.log or not size(log))
