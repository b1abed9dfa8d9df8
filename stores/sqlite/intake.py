"""How rows get in: alone, if a unique key is free, or with the tick of a schedule. Each in one transaction.

A statement opens the table and each index before it writes its first row, which costs as much as to write into two:
so many rows go into one. To bind a value costs SQLite's module as much as half an index, so what every new row has
alike stands in the statement.
"""

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from operator import itemgetter
from typing import Any, Final

from kqueue.contracts.intake import Tick
from kqueue.model.errors import AddFailed, StoreError
from kqueue.model.job import Row
from kqueue.model.wording import counted
from kqueue.stores.sqlite import side_tables as records
from kqueue.stores.sqlite import statements as sql
from kqueue.stores.sqlite.file.errors import Unanswered
from kqueue.stores.sqlite.file.file import SqliteFile
from kqueue.stores.sqlite.payloads import NAMES, as_kept, put_apart

#: Fields of a row that never ran and has no keys: those that are the same in all of them, and the others. The state
#: stands apart.
_ALIKE: Final = [
    name for name in Row._fields if name in Row._field_defaults and name not in {"created_at", "put_at"}
]
_OWN: Final = [name for name in Row._fields if name not in {*_ALIKE, "state"}]
_alike = itemgetter(*map(Row._fields.index, _ALIKE))
_own = itemgetter(*map(Row._fields.index, _OWN))
_ALIKE_VALUES: Final = tuple(Row._field_defaults[name] for name in _ALIKE)
_STATE: Final = Row._fields.index("state")
_ALONE: Final = Row._fields.index("alone")


#: Rows that one statement adds at most. Twice as many would save a thirtieth more. The module copies what is bound
#: to it, and keeps that with the statement: no payload is among it that is not small.
MANY: Final = 50


def _statement(values: Mapping[str, str], rows: int = 1) -> str:
    names = ", ".join(NAMES.get(name, name) for name in values)
    row = f"({', '.join(values.values())})"
    return f"INSERT INTO kqueue_jobs ({names}) VALUES {', '.join([row] * rows)}"  # noqa: S608


#: What a row says that never ran and has no keys.
_NEW: Final = dict.fromkeys([*_OWN, "state"], "?") | {
    name: "NULL" if value is None else str(int(value)) for name, value in zip(_ALIKE, _ALIKE_VALUES, strict=True)
}
INSERT_NEW: Final = _statement(_NEW)
INSERT_MANY_NEW: Final = _statement(_NEW, MANY)
#: Any row.
INSERT: Final = _statement(dict.fromkeys(Row._fields, "?"))


def add(file: SqliteFile, rows: Sequence[Row]) -> None:
    """All of them, or none. Raises as the contract's ``add`` does."""
    with _adding(file, rows) as connection:
        _insert(connection, rows)


def add_unique(file: SqliteFile, rows: Sequence[Row], until: Mapping[str, float], now: float) -> list[str]:
    """For each row the id of the job that has its type and unique key then."""
    holders: list[str] = []
    new = list(rows)
    with _adding(file, new) as connection:
        for row in rows:
            is_free = row.unique_key is None or records.take_key(connection, row, until[row.id], now)
            holders.append(row.id if is_free else records.holder_of_key(connection, row))
        new[:] = [row for row, holder in zip(rows, holders, strict=True) if row.id == holder]
        if new:
            _insert(connection, new)
        else:
            connection.execute("ROLLBACK")
    return holders


def add_tick(file: SqliteFile, tick: Tick, rows: Sequence[Row]) -> bool:
    """All of them and the tick, or nothing."""

    def is_there() -> bool:
        with file.read() as connection:
            return records.last_ticks(connection).get(tick.schedule) == tick.after

    with _adding(file, rows, is_there) as connection:
        done = records.advance(connection, tick)
        if done:
            _insert(connection, rows)
        else:
            connection.execute("ROLLBACK")
    return done


@contextmanager
def _adding(
    file: SqliteFile, rows: Sequence[Row], is_there: Callable[[], bool] = lambda: True
) -> Iterator[sqlite3.Connection]:
    """A transaction, whose errors say what became of ``rows``; ``is_there`` tells whether the rest of it is."""
    committing = False
    try:
        with file.write() as connection:
            yield connection
            committing = True
    except StoreError as error:
        ids = [row.id for row in rows]
        if not committing:
            raise AddFailed(f"no job was added: {error}", not_taken=ids) from error
        _check_commit(file, ids, is_there, error)


def _check_commit(file: SqliteFile, ids: list[str], is_there: Callable[[], bool], error: StoreError) -> None:
    """A commit that failed has been rolled back, says SQLite; believe what can be read."""
    try:
        with file.read() as connection:
            there = {record[0] for record in connection.execute(sql.THERE, {"ids": json.dumps(ids)})}
        complete = len(there) == len(ids) and is_there()
    except StoreError:
        raise AddFailed(f"the jobs may have been added or not: {error}", unknown=ids) from error
    if not complete:
        if isinstance(error, Unanswered):  # it was written, perhaps into a log that others do not read
            raise AddFailed(f"the jobs may have been added or not: {error}", unknown=ids) from error
        taken = [id for id in ids if id in there]
        missing = [id for id in ids if id not in there]
        raise AddFailed(
            f"{counted(len(missing), 'job')} not added: {error}", taken=taken, not_taken=missing
        ) from error


def _insert(connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
    kept = [*map(as_kept, rows)]
    new = [(*_own(row), str(row.state)) for row in kept if _alike(row) == _ALIKE_VALUES]
    if len(new) < len(rows):
        connection.executemany(INSERT, map(_of_any, kept))
    else:
        whole = len(new) - len(new) % MANY
        if whole:
            lots = (new[first : first + MANY] for first in range(0, whole, MANY))
            connection.executemany(INSERT_MANY_NEW, (tuple(chain.from_iterable(lot)) for lot in lots))
        if whole < len(new):
            connection.executemany(INSERT_NEW, new[whole:])
    put_apart(connection, rows)


def _of_any(row: Row) -> list[Any]:
    """SQLite binds plain values twice as fast as subclasses of them."""
    values = list(row)
    values[_STATE] = str(row.state)
    values[_ALONE] = int(row.alone)
    return values
