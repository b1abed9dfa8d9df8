"""How runs are written that ended: each statement once, with the values of every time that it is to run."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

from kqueue.contracts.settlements import Delete, Die, Finish, Retry, Settlement, Unget
from kqueue.model import history
from kqueue.model.job import Row
from kqueue.model.reasons import storable
from kqueue.stores.sqlite import statements as sql
from kqueue.stores.sqlite.claimed_ranges import ClaimedRanges
from kqueue.stores.sqlite.side_tables import write_reports
from kqueue.stores.transitions import waiting

_Values: TypeAlias = tuple[Any, ...]


def settle(
    connection: sqlite3.Connection, settlements: Sequence[Settlement], now: float, ranges: ClaimedRanges
) -> int:
    """How many rows were changed."""
    deletes = [one for one in settlements if type(one) is Delete]
    others = [one for one in settlements if type(one) is not Delete] if len(deletes) < len(settlements) else []
    told = [one.report for one in others if not isinstance(one, Delete) and one.report is not None]
    if told:
        write_reports(connection, told)
    ended = [(one.id, one.fence) for one in others if isinstance(one, Finish | Die)]
    if ended:
        connection.executemany(sql.NOTE_END, ended)
    results = [
        (one.result, one.id, one.fence) for one in others if isinstance(one, Finish) and one.result is not None
    ]
    if results:
        connection.executemany(sql.KEEP_RESULT, results)
    raised = [one for one in others if isinstance(one, Retry | Die) and one.traceback]
    if raised:
        traces = ((storable(one.traceback or ""), one.id, one.fence) for one in raised)
        connection.executemany(sql.KEEP_TRACEBACK, traces)
        connection.executemany(sql.PRUNE_TRACEBACKS, [{"id": one.id} for one in raised])
    return sum(
        connection.executemany(statement, values).rowcount
        for statement, values in (*_of_deletes(deletes, ranges), *_of_others(others, now))
    )


def with_tracebacks(connection: sqlite3.Connection, rows: Sequence[Row]) -> list[Row]:
    """``rows``, whose histories have the tracebacks that are kept."""
    ran = [row.id for row in rows if row.history is not None]
    if not ran:
        return list(rows)
    of_job: dict[str, dict[str | None, str]] = {}
    for job_id, owner, traceback in connection.execute(sql.FIND_TRACEBACKS, (json.dumps(ran),)):
        of_job.setdefault(job_id, {})[owner] = traceback
    return [
        row._replace(history=history.with_tracebacks(row.history, of_job[row.id]))
        if row.history is not None and row.id in of_job
        else row
        for row in rows
    ]


def run_of(now: float, reason: str | None) -> str:
    """A run as the history keeps it, but for its owner, which the row tells. Written here, since SQLite writes a
    number with no more than 15 digits into JSON.
    """
    return json.dumps([None, now, reason])


def _asked(asked_at: float | None, now: float) -> float:
    return now if asked_at is None else asked_at


def _of_deletes(deletes: Sequence[Delete], ranges: ClaimedRanges) -> Iterator[tuple[str, list[_Values]]]:
    """Nearly all ends are deletes, and nearly all of a window have one fence."""
    fences = {fence for _, fence in deletes}
    by_fence: dict[int, list[str]] = {fence: [] for fence in fences}
    if len(fences) == 1:
        by_fence = {fence: [id for id, _ in deletes] for fence in fences}
    else:
        for id, fence in deletes:
            by_fence[fence].append(id)
    for fence, ids in by_fence.items():
        if len(ids) > 1:
            claimed = ranges.take(ids)
            if claimed is None:
                yield sql.SETTLE_DELETES, [(json.dumps(ids), fence)]
            else:
                yield sql.SETTLE_RANGE, [(claimed.first, claimed.last, claimed.owner, fence)]
    alone: list[_Values] = [(ids[0], fence) for fence, ids in by_fence.items() if len(ids) == 1]
    if alone:
        yield sql.SETTLE_DELETE, alone


def _of_others(settlements: Sequence[Settlement], now: float) -> Iterator[tuple[str, list[_Values]]]:
    others: dict[str, list[_Values]] = {}
    for settlement in settlements:
        match settlement:
            case Finish(id, fence, keep_until, asked_at, _, reason, _):
                said = None if reason is None else storable(reason)
                finish = (keep_until, _asked(asked_at, now), now, run_of(now, said), id, fence)
                others.setdefault(sql.SETTLE_FINISH, []).append(finish)
            case Retry(id, fence, run_at, reason, put_at, asked_at, _, _):
                reason = storable(reason)
                back = (waiting(run_at, now), run_at, put_at, _asked(asked_at, now), now)
                retry = (*back, reason, run_of(now, reason), id, fence)
                others.setdefault(sql.SETTLE_RETRY, []).append(retry)
            case Unget(id, fence, run_at, priority, put_at, started, reason, asked_at, _):
                said = None if reason is None else storable(reason)
                back = (waiting(run_at, now), run_at, put_at, _asked(asked_at, now), now)
                statement = sql.SETTLE_UNGET_STARTED if started else sql.SETTLE_UNGET
                others.setdefault(statement, []).append((*back, priority, said, id, fence))
            case Die(id, fence, reason, _, _):
                reason = storable(reason)
                others.setdefault(sql.SETTLE_DIE, []).append((now, now, reason, run_of(now, reason), id, fence))
    yield from others.items()
