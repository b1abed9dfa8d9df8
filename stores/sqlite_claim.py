"""The candidates of a claim: lazily and in order, so that no payload is read of a job that is not looked at."""

import heapq
import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from typing import Any

from kqueue.job import Row
from kqueue.store import Selection
from kqueue.stores import sqlite_statements as sql


def candidates(
    connection: sqlite3.Connection, selection: Selection, now: float, cursors: ExitStack, keys: list[int]
) -> Iterator[Row]:
    """The rows. The row key of each one handed out is added to ``keys``; ``cursors`` closes what is opened."""
    for key, *fields in _records(connection, selection, now, cursors):
        keys.append(key)
        yield Row._make(fields)


def later(connection: sqlite3.Connection, selection: Selection, now: float) -> dict[str, float]:
    """Those among the ids of ``selection`` that are not due yet, with their ``run_at``."""
    return dict(connection.execute(sql.LATER, _wanted(selection, now)))


def json_set(ids: Iterable[str]) -> str:
    """Each id once, in order: two pointers may name the same job."""
    return json.dumps(list(dict.fromkeys(ids)))


def _records(
    connection: sqlite3.Connection, selection: Selection, now: float, cursors: ExitStack
) -> Iterable[tuple[Any, ...]]:
    def read(statement: str, values: Any) -> sqlite3.Cursor:
        return cursors.enter_context(closing(connection.execute(statement, values)))

    if selection.ids is not None:
        return read(sql.CANDIDATES_BY_ID, _wanted(selection, now))
    types = tuple(dict.fromkeys(selection.types))
    if len(types) == 1:
        return read(sql.CANDIDATES_OF_TYPE, types)
    # Each is one index range in order, so the backlog is merged as far as it is read, and never sorted.
    places = heapq.merge(*(read(sql.PLACES_OF_TYPE, (type,)) for type in types))
    return (connection.execute(sql.CANDIDATE_AT, (key,)).fetchone() for _, key in places)


def _wanted(selection: Selection, now: float) -> dict[str, Any]:
    return {"ids": json_set(selection.ids or ()), "types": json.dumps(selection.types), "now": now}
