"""What runs tell of themselves, in a SQLite file: their progress and their logs.

Both stand in tables of their own, and go with their job by the trigger that is for jobs with a history. So one that
has told something has a history, if an empty one.
"""
# ruff: noqa: S608 (only constants are joined into the text)

import sqlite3
from collections.abc import Sequence
from typing import Final

from kqueue.contracts.reporting import MOST_LINES, MOST_LOG_BYTES, Report
from kqueue.model.history import LogLine
from kqueue.stores.sqlite.file.file import SqliteFile
from kqueue.stores.sqlite.statements import IN_HAND

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


def report(file: SqliteFile, reports: Sequence[Report]) -> frozenset[str]:
    """One transaction; the ids lost."""
    with file.write() as connection:
        return write(connection, reports)


def write(connection: sqlite3.Connection, reports: Sequence[Report]) -> frozenset[str]:
    """Inside a transaction of the caller's; the ids lost."""
    lost = set()
    for one in reports:
        if not connection.execute(HAS_TOLD, (one.id, one.fence)).rowcount:
            lost.add(one.id)
        elif connection.execute(SET_PROGRESS, (one.id, one.fence, one.number, one.progress)).rowcount and one.lines:
            connection.executemany(ADD_LINE, [(one.id, at, one.tries, text) for at, text in one.lines])
            connection.execute(PRUNE, (one.id,))
    return frozenset(lost)


def read(file: SqliteFile, id: str, after: int | None, most: int) -> list[LogLine]:
    """Lines of a log, the oldest first."""
    with file.read() as connection:
        found = connection.execute(READ_LOG, (id, -1 if after is None else after, most)).fetchall()
    return [LogLine._make(line) for line in found]
