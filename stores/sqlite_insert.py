"""How rows get in. To bind a value costs SQLite's module as much as half an index, so what every new row has alike
stands in the statement.
"""

import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from kqueue.job import Row

#: Fields that have the same value in every row that never ran. They stand side by side.
_UNUSED: Final = slice(Row._fields.index("fence"), Row._fields.index("created_at"))
_UNUSED_VALUES: Final = tuple(Row._field_defaults[name] for name in Row._fields[_UNUSED])
_STATE: Final = Row._fields.index("state")
_ALONE: Final = Row._fields.index("alone")


def _statement(values: Sequence[str]) -> str:
    return f"INSERT INTO kqueue_jobs ({', '.join(Row._fields)}) VALUES ({', '.join(values)})"  # noqa: S608


#: Any row.
INSERT: Final = _statement(["?"] * len(Row._fields))
#: A row that never ran: without what is the same in all of them.
INSERT_NEW: Final = _statement(
    ["?"] * _UNUSED.start
    + ["NULL" if value is None else str(int(value)) for value in _UNUSED_VALUES]
    + ["?"] * (len(Row._fields) - _UNUSED.stop)
)


def insert(connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """In their order, inside a transaction of the caller's."""
    new = [_of_new(row) for row in rows if _used(row) == _UNUSED_VALUES]
    if len(new) == len(rows):
        connection.executemany(INSERT_NEW, new)
    else:
        connection.executemany(INSERT, map(_of_any, rows))


def _used(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return row[_UNUSED]


def _of_new(row: Row) -> tuple[Any, ...]:
    return (*row[:_STATE], str(row.state), *row[_STATE + 1 : _UNUSED.start], *row[_UNUSED.stop :])


def _of_any(row: Row) -> list[Any]:
    """SQLite binds plain values twice as fast as subclasses of them."""
    values = list(row)
    values[_STATE] = str(row.state)
    values[_ALONE] = int(row.alone)
    return values
