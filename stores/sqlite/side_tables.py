"""What the SQLite store keeps beside jobs: unique keys, ticks, pauses, workers, and what runs tell of themselves.

Each function works on a connection of the caller's, inside a transaction of his where it writes.
"""
# ruff: noqa: S608 (only constants are joined into the text)

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final

from kqueue.contracts.intake import Span, Tick
from kqueue.contracts.reporting import MOST_LINES, MOST_LOG_BYTES, Report
from kqueue.contracts.workers import WorkerRecord
from kqueue.model.history import LogLine
from kqueue.model.job import Row
from kqueue.stores.sqlite.statements import IN_HAND
from kqueue.stores.transitions import UNFINISHED

# -- unique keys -----------------------------------------------------------------------------------------

_STATES: Final = ", ".join(f"'{state}'" for state in sorted(UNFINISHED))
#: Whether a key is free: its time is over, and the job that has it neither waits nor runs.
IS_FREE: Final = f"""
    until <= :now AND NOT EXISTS (
        SELECT 1 FROM kqueue_jobs AS job WHERE job.id = kqueue_unique.job_id AND job.state IN ({_STATES})
    )
"""

#: Whether nobody can ask for it any more: a dead job that is brought back has its key again.
IS_FORGOTTEN: Final = """
    until <= :now AND NOT EXISTS (SELECT 1 FROM kqueue_jobs AS job WHERE job.id = kqueue_unique.job_id)
"""

#: Writes nothing where the key is taken. So the primary key decides, and a look before could add nothing to it.
TAKE_KEY: Final = f"""
    INSERT INTO kqueue_unique (type, key, job_id, until, taken_at) VALUES (:type, :key, :job_id, :until, :now)
    ON CONFLICT (type, key) DO UPDATE
    SET job_id = excluded.job_id, until = excluded.until, taken_at = excluded.taken_at
    WHERE {IS_FREE}
"""

HOLDER_OF_KEY: Final = "SELECT job_id FROM kqueue_unique WHERE type = ? AND key = ?"

FREE_KEYS: Final = "DELETE FROM kqueue_unique WHERE job_id IN (SELECT value FROM json_each(?))"

FREE_KEYS_WITHOUT_JOB: Final = """
    DELETE FROM kqueue_unique WHERE type = :type AND key IN (
        SELECT key FROM kqueue_unique AS taken
        WHERE type = :type AND NOT EXISTS (SELECT 1 FROM kqueue_jobs AS job WHERE job.id = taken.job_id)
        LIMIT :most
    )
"""

# -- the others ------------------------------------------------------------------------------------------

#: Inserts only the first tick, and updates only what is as it was read.
ADVANCE_TICK: Final = """
    INSERT INTO kqueue_ticks (schedule, last, added)
    SELECT :schedule, :after, :added
    WHERE :before IS NULL OR EXISTS (SELECT 1 FROM kqueue_ticks WHERE schedule = :schedule)
    ON CONFLICT (schedule) DO UPDATE SET last = excluded.last, added = excluded.added WHERE last = :before
"""
LAST_TICKS: Final = "SELECT schedule, last FROM kqueue_ticks"
ADDED_TICKS: Final = "SELECT schedule, added FROM kqueue_ticks"

PAUSE: Final = "INSERT OR IGNORE INTO kqueue_paused (type, since) VALUES (?, ?)"
RESUME: Final = "DELETE FROM kqueue_paused WHERE type = ?"
PAUSED: Final = "SELECT type, since FROM kqueue_paused"

_WORKER: Final = ", ".join(WorkerRecord._fields)
SEE_WORKER: Final = f"INSERT OR REPLACE INTO kqueue_workers ({_WORKER}) VALUES (?, ?, ?, ?, ?, ?, ?)"
FORGET_WORKER: Final = "DELETE FROM kqueue_workers WHERE id = ?"
WORKERS: Final = f"SELECT {_WORKER} FROM kqueue_workers ORDER BY id"

# -- what runs tell ---------------------------------------------------------------------------------------

# Progress and logs go with their job by the trigger that is for jobs with a history. So one that has told something
# has a history, if an empty one.

#: Finds out whether the run may tell anything.
HAS_TOLD: Final = f"UPDATE kqueue_jobs SET history = coalesce(history, '[]') WHERE {IN_HAND}"
#: Changes nothing if it was written before.
SET_PROGRESS: Final = """
    INSERT INTO kqueue_progress (job_id, fence, number, progress) VALUES (?, ?, ?, ?)
    ON CONFLICT (job_id) DO UPDATE SET
        fence = excluded.fence, number = excluded.number, progress = coalesce(excluded.progress, progress)
    WHERE (fence, number) < (excluded.fence, excluded.number)
"""
ADD_LINE: Final = "INSERT INTO kqueue_log (job_id, at, tries, text) VALUES (?, ?, ?, ?)"
PRUNE: Final = f"""
    DELETE FROM kqueue_log WHERE key IN (
        SELECT key FROM (
            SELECT key, row_number() OVER newest AS number, sum(length(CAST(text AS BLOB))) OVER newest AS bytes
            FROM kqueue_log WHERE job_id = ? WINDOW newest AS (ORDER BY key DESC)
        ) WHERE number > {MOST_LINES} OR bytes > {MOST_LOG_BYTES}
    )
"""
READ_LOG: Final = """
    SELECT key, at, tries, text FROM kqueue_log WHERE job_id = ? AND key > ? ORDER BY key LIMIT ?
"""


def take_key(connection: sqlite3.Connection, row: Row, until: float, now: float) -> bool:
    """Whether the row's type and unique key were free; then they are its own."""
    values = {"type": row.type, "key": row.unique_key, "job_id": row.id, "until": until, "now": now}
    return connection.execute(TAKE_KEY, values).rowcount == 1


def holder_of_key(connection: sqlite3.Connection, row: Row) -> str:
    """The id of the job that has them."""
    ((holder,),) = connection.execute(HOLDER_OF_KEY, (row.type, row.unique_key)).fetchall()
    return str(holder)


def free_keys(connection: sqlite3.Connection, ids: Iterable[str]) -> None:
    """Those of the jobs, whether these are still there or not."""
    connection.execute(FREE_KEYS, (json.dumps(list(ids)),))


def free_keys_without_job(connection: sqlite3.Connection, type: str, most: int) -> int:
    """Those of the type; how many there were, at most ``most``."""
    return connection.execute(FREE_KEYS_WITHOUT_JOB, {"type": type, "most": most}).rowcount


def advance(connection: sqlite3.Connection, tick: Tick) -> bool:
    """Whether the schedule's last tick was as it was read; then it is the next."""
    values = {**tick._asdict(), "added": json.dumps(tick.added)}
    return connection.execute(ADVANCE_TICK, values).rowcount == 1


def last_ticks(connection: sqlite3.Connection) -> dict[str, float]:
    """The last tick of each schedule."""
    return dict(connection.execute(LAST_TICKS).fetchall())


def added_ticks(connection: sqlite3.Connection) -> dict[str, tuple[Span, ...]]:
    """The spans of time whose ticks were added, by schedule."""
    found = connection.execute(ADDED_TICKS).fetchall()
    return {
        schedule: tuple((first, last) for first, last in json.loads(added or "[]")) for schedule, added in found
    }


def see_worker(connection: sqlite3.Connection, worker: WorkerRecord) -> None:
    """In the place of what there was of it."""
    connection.execute(SEE_WORKER, worker._replace(types=json.dumps(worker.types)))  # type: ignore[arg-type]


def workers(connection: sqlite3.Connection) -> list[WorkerRecord]:
    """All workers that are remembered, by id."""
    found = map(WorkerRecord._make, connection.execute(WORKERS).fetchall())
    return [worker._replace(types=tuple(json.loads(str(worker.types)))) for worker in found]


def write_reports(connection: sqlite3.Connection, reports: Sequence[Report]) -> frozenset[str]:
    """What runs tell; the ids lost."""
    lost = set()
    for one in reports:
        if not connection.execute(HAS_TOLD, (one.id, one.fence)).rowcount:
            lost.add(one.id)
        elif connection.execute(SET_PROGRESS, (one.id, one.fence, one.number, one.progress)).rowcount and one.lines:
            connection.executemany(ADD_LINE, [(one.id, at, one.tries, text) for at, text in one.lines])
            connection.execute(PRUNE, (one.id,))
    return frozenset(lost)


def read_log(connection: sqlite3.Connection, id: str, after: int | None, most: int) -> list[LogLine]:
    """Lines of a log, the oldest first."""
    found = connection.execute(READ_LOG, (id, -1 if after is None else after, most)).fetchall()
    return [LogLine._make(line) for line in found]
