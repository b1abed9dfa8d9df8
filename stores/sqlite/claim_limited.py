"""A claim under a limit, on SQLite. See :mod:`kqueue.stores.gates`.

All is counted inside the write transaction that acts on it, so no two claims share a place.
"""
# ruff: noqa: S608 (only constants are joined into the text)

import heapq
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from operator import itemgetter
from typing import Any, Final

from kqueue.contracts.admission import Limit
from kqueue.contracts.budget import Budget
from kqueue.contracts.runs import Claim, Selection
from kqueue.model.job import Row
from kqueue.stores.gates import FEW_HELD, MOST_HELD, Candidate, Gates, counted_starts
from kqueue.stores.sqlite import statements as sql
from kqueue.stores.sqlite.claim import Lease, claim_unlimited, claimed, later, served, wanted
from kqueue.stores.sqlite.claimed_ranges import ClaimedRanges
from kqueue.stores.sqlite.gate_counts import SqliteCounts
from kqueue.stores.sqlite.payloads import columns_in_row, payload_apart

#: The place first, so that ranges of several types can be merged. No payload that stands apart: only what passes
#: needs it.
_RECORD: Final = f"job.priority, job.key, {columns_in_row(sql.CLAIM_FIELDS)}, {sql.RARE}, job.gate, job.limit_key"
#: Of the fields after the place, and behind all of them.
_TYPE, _PAYLOAD = (2 + sql.CLAIM_FIELDS.index(name) for name in ("type", "payload"))
_GATE, _LIMIT_KEY = -2, -1
_ID, _PRIORITY = 2, 0
_candidate: Final = itemgetter(0, 1, _TYPE, _GATE, _LIMIT_KEY)

RECORDS_BY_ID: Final = f"SELECT {_RECORD} {sql.WANTED}"
RECORDS_OF_TYPE: Final = f"""
    SELECT {_RECORD} FROM kqueue_jobs AS job
    WHERE job.state = 'ready' AND job.type = :type ORDER BY job.priority, job.key
"""

HOLD: Final = "UPDATE kqueue_jobs SET state = 'held', gate = ?, put_at = NULL WHERE key = ?"

CLAIM: Final = """
    UPDATE kqueue_jobs SET
        state = 'running', fence = max(fence, :fence_floor) + 1, tries = tries + 1,
        alone = :alone, lease_owner = :owner, lease_until = :start + ttr,
        gate = coalesce((SELECT value FROM json_each(:limited) AS one WHERE one.key = kqueue_jobs.type), gate)
    WHERE key IN (SELECT value FROM json_each(:keys))
"""

#: Two claims may be of the same time.
ADD_START: Final = """
    INSERT INTO kqueue_starts (type, at, jobs) VALUES (:type, :at, :jobs)
    ON CONFLICT (type, at) DO UPDATE SET jobs = jobs + excluded.jobs
"""
PRUNE_STARTS: Final = "DELETE FROM kqueue_starts WHERE type = :type AND at <= :since"


def take(
    connection: sqlite3.Connection,
    selection: Selection,
    budget: Budget,
    lease: Lease,
    alone: bool,
    *,
    ranges: ClaimedRanges,
) -> Claim:
    """Claim inside a write transaction of the caller's, with limits or without."""
    if selection.limits:
        return claim_limited(connection, selection, budget, lease, alone)
    return claim_unlimited(connection, selection, budget, lease, alone, ranges=ranges)


def claim_limited(
    connection: sqlite3.Connection, selection: Selection, budget: Budget, lease: Lease, alone: bool
) -> Claim:
    """What the contract says of a claim with limits, inside a write transaction of the caller's."""
    keys: list[int] = []
    held: list[tuple[str, int]] = []
    with ExitStack() as cursors:
        gates = Gates(selection.limits, SqliteCounts(connection, lease.start, cursors), selection.holder)
        limited = {limit.type: gates.while_running(limit.type) for limit in selection.limits}
        records = _records(connection, selection, lease, cursors)
        ends = selection.ids is None

        def holds_enough() -> bool:
            return ends and len(held) >= (FEW_HELD if keys else MOST_HELD)

        passing = _passing(records, gates, held, holds_enough, lambda: len(keys) >= budget.jobs)
        rows, cut = budget.fit(_rows(connection, passing, limited, lease, keys))
    if held:
        connection.executemany(HOLD, held)
    rows = [rows[0]._replace(alone=True)] if alone and len(rows) == 1 else rows
    values = {**lease._asdict(), "alone": alone and len(rows) == 1, "keys": json.dumps(keys[: len(rows)])}
    connection.execute(CLAIM, {**values, "limited": json.dumps(limited)})
    for limit in selection.limits:
        _count_starts(connection, limit, lease.start, sum(row.type == limit.type for row in rows))
    return Claim(rows, cut, later(connection, selection, rows, cut, lease.now), len(held))


def _records(
    connection: sqlite3.Connection, selection: Selection, lease: Lease, cursors: ExitStack
) -> Iterable[tuple[Any, ...]]:
    def read(statement: str, values: dict[str, Any]) -> sqlite3.Cursor:
        return cursors.enter_context(closing(connection.execute(statement, values)))

    if selection.ids is not None:
        records = read(RECORDS_BY_ID, {**wanted(selection), "now": lease.now})
        return served(records, selection, _ID, _PRIORITY) if selection.pointed else records
    merged = heapq.merge(*(read(RECORDS_OF_TYPE, {"type": type}) for type in dict.fromkeys(selection.types)))
    return cursors.enter_context(closing(merged))


def _passing(
    records: Iterable[tuple[Any, ...]],
    gates: Gates,
    held: list[tuple[str, int]],
    holds_enough: Callable[[], bool],
    is_full: Callable[[], bool],
) -> Iterator[tuple[Any, ...]]:
    """Those that no gate stops, and the one that a full window leaves out, whatever it is. The others go into
    ``held``, with their gates; where these are enough it ends.
    """
    for record in records:
        gate = None if is_full() else gates.stop(Candidate._make(_candidate(record)))
        if gate is None:
            yield record
            continue
        held.append((gate, record[1]))
        if holds_enough():
            return


def _rows(
    connection: sqlite3.Connection,
    passing: Iterable[tuple[Any, ...]],
    limited: Mapping[str, str | None],
    lease: Lease,
    keys: list[int],
) -> Iterator[Row]:
    """The rows, as ``lease`` makes them; the row key of each one handed out is added to ``keys``."""
    for row in claimed((_whole(connection, record) for record in passing), lease, keys):
        yield row._replace(gate=limited[row.type]) if row.type in limited else row


def _whole(connection: sqlite3.Connection, record: tuple[Any, ...]) -> tuple[Any, ...]:
    """As ``CANDIDATES_AT`` gives it."""
    if type(record[_PAYLOAD]) is bytes:
        return record[1:_GATE]
    return (*record[1:_PAYLOAD], payload_apart(connection, record[1]), *record[_PAYLOAD + 1 : _GATE])


def _count_starts(connection: sqlite3.Connection, limit: Limit, at: float, jobs: int) -> None:
    if limit.starts is None or not jobs:
        return
    since, _ = counted_starts(limit, at)
    connection.execute(PRUNE_STARTS, {"type": limit.type, "since": since})
    connection.execute(ADD_START, {"type": limit.type, "at": at, "jobs": jobs})
