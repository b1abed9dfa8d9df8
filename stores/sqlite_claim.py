"""The candidates of a claim: lazily and in order, so that no payload is read of a job that is not looked at."""

import heapq
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from typing import Any, NamedTuple

from kqueue.job import Row
from kqueue.store import Selection
from kqueue.stores import sqlite_statements as sql


class Lease(NamedTuple):
    """Whose the claimed rows are, and from when. Times in seconds since 1970."""

    owner: str
    #: Each row's own TTR runs from there.
    start: float
    #: What is due by then may be claimed.
    now: float


def candidates(
    connection: sqlite3.Connection, selection: Selection, lease: Lease, cursors: ExitStack, keys: list[int]
) -> Iterator[Row]:
    """The rows, as ``lease`` makes them. The row key of each one handed out is added to ``keys``; ``cursors``
    closes what is opened.
    """
    for record in _records(connection, selection, lease, cursors):
        keys.append(record[0])
        yield row_of(record[1:])


def row_of(record: tuple[Any, ...]) -> Row:
    """A record of all columns. ``Row._make`` would count them once more, for each job of a window."""
    return tuple.__new__(Row, record)


def later(
    connection: sqlite3.Connection, selection: Selection, taken: Sequence[Row], cut: bool, now: float
) -> dict[str, float]:
    """Those among the ids that were looked at that are not due yet, with their ``run_at``.

    ``taken``: the rows that were; with ``cut``, no id after the last of them was looked at.
    """
    ids = selection.ids or ()
    if cut and ids:
        ids = ids[: ids.index(taken[-1].id) + 1]
    if len(ids) <= len(taken):
        return {}
    return dict(connection.execute(sql.LATER, {**wanted(selection._replace(ids=ids)), "now": now}))


def json_set(ids: Iterable[str]) -> str:
    """Each id once, in order: two pointers may name the same job."""
    return json.dumps(list(dict.fromkeys(ids)))


def _records(
    connection: sqlite3.Connection, selection: Selection, lease: Lease, cursors: ExitStack
) -> Iterable[tuple[Any, ...]]:
    def read(statement: str, values: Mapping[str, Any]) -> sqlite3.Cursor:
        return cursors.enter_context(closing(connection.execute(statement, {**values, **lease._asdict()})))

    if selection.ids is not None:
        return read(sql.CANDIDATES_BY_ID, wanted(selection))
    types = tuple(dict.fromkeys(selection.types))
    if len(types) == 1:
        return read(sql.CANDIDATES_OF_TYPE, {"type": types[0]})
    # Each is one index range in order, so the backlog is merged as far as it is read, and never sorted.
    places = heapq.merge(*(read(sql.PLACES_OF_TYPE, {"type": type}) for type in types))
    values = lease._asdict()
    return (connection.execute(sql.CANDIDATE_AT, values | {"key": key}).fetchone() for _, key in places)


def wanted(selection: Selection) -> dict[str, str]:
    """The values of a statement that looks at the selection's ids alone."""
    return {"ids": json_set(selection.ids or ()), "types": json.dumps(selection.types)}
