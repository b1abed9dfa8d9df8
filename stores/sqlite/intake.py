"""How rows get in: alone, if a unique key is free, or with the tick of a schedule. Each in one transaction.

A statement opens the table and each index before it writes its first row, which costs as much as to write into two:
so many rows go into one. To bind a value costs SQLite's module as much as half an index, so what every new row has
alike stands in the statement, and what the rows of one list have alike, all but the id and the payload, is bound
once for many of them.
"""

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, groupby
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
from kqueue.stores.sqlite.payloads import APART, NAMES, as_kept, kept, put_apart

#: Fields of a row that never ran and has no keys: those that are the same in all of them, and the others. The state
#: stands apart.
_ALIKE: Final = [
    name for name in Row._fields if name in Row._field_defaults and name not in {"created_at", "put_at", *APART}
]
_OWN: Final = [name for name in Row._fields if name not in {*_ALIKE, "state", *APART}]
_alike = itemgetter(*map(Row._fields.index, _ALIKE))
_own = itemgetter(*map(Row._fields.index, _OWN))
_ALIKE_VALUES: Final = tuple(Row._field_defaults[name] for name in _ALIKE)
_STATE: Final = Row._fields.index("state")
_ALONE: Final = Row._fields.index("alone")
#: What the rows of a list may have alike: the type, and all behind the payload.
_TYPE: Final = Row._fields.index("type")
_REST: Final = slice(Row._fields.index("payload") + 1, None)
#: Of these the fields whose values are bound, in this order; the state is behind them.
_SHARED: Final = [name for name in _OWN if name not in {"id", "payload"}]
_shared = itemgetter(*map(Row._fields.index, _SHARED))

#: Rows that one statement adds at most. Twice as many would save a thirtieth more. The module copies what is bound
#: to it, and keeps that with the statement: no payload is among it that is not small.
MANY: Final = 50


def _statement(*rows: Mapping[str, str]) -> str:
    names = ", ".join(NAMES.get(name, name) for name in rows[0])
    values = ", ".join(f"({', '.join(row.values())})" for row in rows)
    return f"INSERT INTO kqueue_jobs ({names}) VALUES {values}"  # noqa: S608


#: What a row says that never ran and has no keys.
_DEFAULTS: Final = {
    name: "NULL" if value is None else str(int(value)) for name, value in zip(_ALIKE, _ALIKE_VALUES, strict=True)
}
_NEW: Final = dict.fromkeys([*_OWN, "state"], "?") | _DEFAULTS
INSERT_NEW: Final = _statement(_NEW)
INSERT_MANY_NEW: Final = _statement(*[_NEW] * MANY)
#: First what they share, then the id and the payload of each.
_FIRST_OWN: Final = len(_SHARED) + 2
INSERT_MANY_ALIKE: Final = _statement(
    *(
        {name: f"?{number}" for number, name in enumerate([*_SHARED, "state"], 1)}
        | {"id": f"?{own}", "payload": f"?{own + 1}"}
        | _DEFAULTS
        for own in range(_FIRST_OWN, _FIRST_OWN + 2 * MANY, 2)
    )
)
#: Any row.
_COLUMNS: Final = [name for name in Row._fields if name not in APART]
INSERT: Final = _statement(dict.fromkeys(_COLUMNS, "?"))


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
    lots = (rows[first : first + MANY] for first in range(0, len(rows), MANY))
    for statement, bound in groupby(chain.from_iterable(map(_bound, lots)), itemgetter(0)):
        connection.executemany(statement, (values for _, values in bound))
    put_apart(connection, rows)


def _bound(lot: Sequence[Row]) -> list[tuple[str, Sequence[Any]]]:
    """The statements that add these rows, each with its values."""
    first = lot[0]
    type, rest = first[_TYPE], first[_REST]
    if len(lot) == MANY and _is_new(first) and all(row[_REST] == rest and row[_TYPE] == type for row in lot):
        own = chain.from_iterable([(row.id, kept(row.payload)) for row in lot])
        return [(INSERT_MANY_ALIKE, (*_shared(first), str(first.state), *own))]
    if not all(map(_is_new, lot)):
        return [(INSERT, _of_any(row)) for row in map(as_kept, lot)]
    new = [(*_own(row), str(row.state)) for row in map(as_kept, lot)]
    if len(lot) == MANY:
        return [(INSERT_MANY_NEW, tuple(chain.from_iterable(new)))]
    return [(INSERT_NEW, values) for values in new]


def _is_new(row: Row) -> bool:
    return bool(_alike(row) == _ALIKE_VALUES)


def _of_any(row: Row) -> list[Any]:
    """SQLite binds plain values twice as fast as subclasses of them."""
    values = list(row[: len(_COLUMNS)])
    values[_STATE] = str(row.state)
    values[_ALONE] = int(row.alone)
    return values
