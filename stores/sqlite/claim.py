"""The candidates of a claim: lazily and in order, so that no payload is read of a job that is not looked at."""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from typing import Any, Final, NamedTuple

from kqueue.contracts.budget import Budget
from kqueue.contracts.runs import Claim, Selection
from kqueue.model.job import Row, State
from kqueue.stores.sqlite import statements as sql
from kqueue.stores.sqlite.claimed_ranges import ClaimedRanges
from kqueue.stores.sqlite.places import ready_records

RUNNING: Final = str(State.RUNNING)
#: Where they stand in a record, after the key.
_ID, _PRIORITY = (1 + sql.CLAIM_FIELDS.index(name) for name in ("id", "priority"))
#: The rare fields of a row that was never claimed.
_NEW: Final = tuple(Row._field_defaults[name] for name in sql.RARE_FIELDS)


class Lease(NamedTuple):
    """Whose the claimed rows are, and from when. Times in seconds since 1970."""

    owner: str
    #: Each row's own TTR runs from there.
    start: float
    #: What is due by then may be claimed.
    now: float
    #: Each fence is above it.
    fence_floor: int = 0


def candidates(
    connection: sqlite3.Connection, selection: Selection, lease: Lease, cursors: ExitStack, keys: list[int]
) -> Iterator[Row]:
    """The rows, as ``lease`` makes them. The row key of each one handed out is added to ``keys``; ``cursors``
    closes what is opened.
    """
    return claimed(_records(connection, selection, lease, cursors), lease, keys)


def claimed(records: Iterable[tuple[Any, ...]], lease: Lease, keys: list[int]) -> Iterator[Row]:
    """The rows of records as ``CANDIDATES_AT`` gives them, under ``lease``; whether one is alone is known later.
    The row key of each one handed out is added to ``keys``.

    By position: this is done for each job. A column that is read costs ten times as much as one that is known.
    """
    owner, start, _, floor = lease
    make = tuple.__new__  # Row._make would count the fields once more
    # fmt: off
    for (
        key, id, type, payload, encoding, priority, delay, run_at, ttr, created_at, put_at, scheduled_for, asked_at,
        rare,
    ) in records:
        keys.append(key)
        (
            fence, tries, failures, crashes, suspicion, reason, gate, unique_key, limit_key, own_options,
        ) = _NEW if rare is None else json.loads(rare)
        yield make(Row, (
            id, type, payload, encoding, priority, RUNNING, delay, run_at, ttr,
            (fence if fence > floor else floor) + 1, tries + 1, failures,
            crashes, suspicion, False, owner, start + ttr, reason, gate, None, None, created_at, put_at, unique_key,
            limit_key, scheduled_for, asked_at, own_options, None, None,
        ))
    # fmt: on


def claim_unlimited(
    connection: sqlite3.Connection,
    selection: Selection,
    budget: Budget,
    lease: Lease,
    alone: bool,
    *,
    ranges: ClaimedRanges,
) -> Claim:
    """Claim rows of types that have no limit, inside a write transaction of the caller's, and remember them in
    ``ranges``.
    """
    keys: list[int] = []
    with ExitStack() as cursors:
        rows, cut = budget.fit(candidates(connection, selection, lease, cursors, keys))
    alone = alone and len(rows) == 1
    if alone:
        rows = [rows[0]._replace(alone=True)]
    if write(connection, keys[: len(rows)], lease, alone):
        ranges.remember(rows, keys[: len(rows)], lease.owner)
    return Claim(rows, cut, later(connection, selection, rows, cut, lease.now))


def write(connection: sqlite3.Connection, keys: Sequence[int], lease: Lease, alone: bool) -> bool:
    """Put the rows with these keys under ``lease``; whether they are all that have a key in between."""
    values = {**lease._asdict(), "alone": alone}
    is_range = bool(keys) and max(keys) - min(keys) == len(keys) - 1
    if is_range:
        connection.execute(sql.CLAIM_RANGE, {**values, "first": min(keys), "last": max(keys)})
    elif keys:
        connection.execute(sql.CLAIM, {**values, "keys": json.dumps(keys)})
    return is_range


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
    found = connection.execute(sql.LATER, {**wanted(selection._replace(ids=ids)), "now": now})
    return {id: run_at for id, run_at, priority in found if selection.serves(id, priority)}


def json_set(ids: Iterable[str]) -> str:
    """Each id once, in order: two pointers may name the same job."""
    return json.dumps(list(dict.fromkeys(ids)))


def _records(
    connection: sqlite3.Connection, selection: Selection, lease: Lease, cursors: ExitStack
) -> Iterable[tuple[Any, ...]]:
    def read(statement: str, values: Mapping[str, Any]) -> sqlite3.Cursor:
        return cursors.enter_context(closing(connection.execute(statement, values)))

    if selection.ids is not None:
        records = read(sql.CANDIDATES_BY_ID, {**wanted(selection), "now": lease.now})
        return served(records, selection, _ID, _PRIORITY) if selection.pointed else records
    types = tuple(dict.fromkeys(selection.types))
    if len(types) == 1:
        return read(sql.CANDIDATES_OF_TYPE, {"type": types[0]})
    return cursors.enter_context(closing(ready_records(connection, types)))


def served(
    records: Iterable[tuple[Any, ...]], selection: Selection, id: int, priority: int
) -> Iterator[tuple[Any, ...]]:
    """Those that their pointers serve. ``id``, ``priority``: where these stand in each."""
    return (record for record in records if selection.serves(record[id], record[priority]))


def wanted(selection: Selection) -> dict[str, str]:
    """The values of a statement that looks at the selection's ids alone."""
    return {"ids": json_set(selection.ids or ()), "types": json.dumps(selection.types)}
