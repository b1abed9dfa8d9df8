"""Threads that add at once, and a store whose writes are held up: what tests of the group commit are made of."""

import ctypes
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from kqueue import AddFailed
from kqueue.dispatch.group_commit import GroupCommit
from kqueue.model.job import Row, State
from kqueue.stores.sqlite.store import SqliteStore
from kqueue.system.mint import IdMint
from tests.tubes import PATIENCE_S, await_true, run

NOW = 1_700_000_000.0
MINT = IdMint()


def row(size: int = 2, **fields: int | str) -> Row:
    [id] = MINT.make(1)
    made = Row(id, "t", b"x" * size, "bytes", 1, State.READY, 0.0, NOW, 30.0, created_at=NOW, put_at=NOW)
    return made._replace(**fields)


class Gate:
    """One write stands before it until it is opened."""

    def __init__(self) -> None:
        self._entered = threading.Event()
        self._may_go = threading.Event()
        self.open = self._may_go.set

    def stand(self) -> None:
        self._entered.set()
        assert self._may_go.wait(PATIENCE_S)

    def is_reached(self) -> None:
        """Wait until one stands there."""
        assert self._entered.wait(PATIENCE_S)


class HeldStore(SqliteStore):
    """Its adds may be held up, before their effect and after it."""

    def __init__(self, path: Path, busy_timeout: float = 30) -> None:
        super().__init__(path, synchronous="OFF", busy_timeout=busy_timeout)
        #: What each add was to write, as ids.
        self.batches: list[list[str]] = []
        #: By the number of an add, from 0.
        self.before: dict[int, Gate] = {}
        self.after: dict[int, Gate] = {}
        #: What is done right before the effect.
        self.then: Callable[[Sequence[Row]], object] = len

    def add(self, rows: Sequence[Row]) -> None:
        number = len(self.batches)
        self.batches.append([row.id for row in rows])
        if number in self.before:
            self.before[number].stand()
        self.then(rows)
        super().add(rows)
        if number in self.after:
            self.after[number].stand()

    def there(self) -> list[str]:
        return [row.id for row in self.find("t", "ready", None, 10**6)]

    def connection(self) -> sqlite3.Connection:
        connection = self._file._handles.get().connection
        assert connection is not None
        return connection


class Adder:
    """A thread that adds rows, and what it was told."""

    def __init__(self, group: GroupCommit, *rows: Row) -> None:
        self.rows = rows
        self.ids = [row.id for row in rows]
        self.error: BaseException | None = None
        self._group = group
        self.thread = run(self._run)

    def _run(self) -> None:
        try:
            self._group.add(self.rows)
        except BaseException as error:
            self.error = error

    def end(self) -> "Adder":
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive(), "it waits for ever"
        return self

    def failed(self) -> AddFailed:
        assert isinstance(self.error, AddFailed), self.error
        return self.error

    def interrupt(self) -> None:
        assert strike(self.thread)


class Stop(BaseException):
    """Comes from outside."""


def strike(thread: threading.Thread) -> bool:
    """As libraries do that end a thread's work from outside. False if it has ended."""
    number = ctypes.c_ulong(thread.ident or 0)
    return ctypes.pythonapi.PyThreadState_SetAsyncExc(number, ctypes.py_object(Stop)) == 1


def waiting(group: GroupCommit) -> int:
    return len(group._groups.get()._waiting)


class Crowd:
    """One that is held up while it writes a row, and those that have come meanwhile."""

    def __init__(self, group: GroupCommit, store: HeldStore, *each: Sequence[Row]) -> None:
        """``each``: the rows of one of them; they wait in this order."""
        self.gate = store.before[0] = Gate()
        self._group = group
        self.first = Adder(group, row())
        self.gate.is_reached()
        self.others: list[Adder] = []
        for rows in each:
            self.come(rows)

    def come(self, rows: Sequence[Row]) -> Adder:
        self.others.append(Adder(self._group, *rows))
        await_true(lambda: waiting(self._group) == len(self.others))
        return self.others[-1]

    def end(self) -> list[Adder]:
        """Let the first go on; the others, once all have ended."""
        self.gate.open()
        self.first.end()
        return [adder.end() for adder in self.others]
