"""What the SQLite store forgets with time: done rows, and what nobody asks for any more.

All is looked for first, so that a call with nothing to do takes no write lock.
"""
# ruff: noqa: S608 (only constants are joined into the text)

import json
import sqlite3
from typing import Any, Final, NamedTuple

from kqueue.stores.sqlite.file.file import SqliteFile
from kqueue.stores.sqlite.side_tables import IS_FORGOTTEN
from kqueue.stores.transitions import FORGET_AFTER_S

FIND_KEPT: Final = """
    SELECT 1 FROM kqueue_jobs INDEXED BY kqueue_jobs_kept WHERE keep_until <= :now AND state = 'done' LIMIT 1
"""
EXPIRE: Final = """
    DELETE FROM kqueue_jobs WHERE key IN (
        SELECT key FROM kqueue_jobs INDEXED BY kqueue_jobs_kept
        WHERE keep_until <= :now AND state = 'done' ORDER BY keep_until LIMIT :rows
    )
"""

#: Any number of keys may be taken, so each look goes on where the last one ended, and reads ``most`` of them.
LOOK_AT_KEYS: Final = f"""
    SELECT job_id, {IS_FORGOTTEN} FROM kqueue_unique WHERE job_id > :after ORDER BY job_id LIMIT :most
"""
FORGET_KEYS: Final = f"""
    DELETE FROM kqueue_unique WHERE job_id IN (SELECT value FROM json_each(:ids)) AND {IS_FORGOTTEN}
"""
LAST_LOOK: Final = "SELECT value FROM kqueue_meta WHERE name = 'last_unique_key'"
SET_LAST_LOOK: Final = "INSERT OR REPLACE INTO kqueue_meta (name, value) VALUES ('last_unique_key', ?)"

#: Type by type, each found by a probe from the one before.
OLD_STARTS: Final = """
    WITH RECURSIVE found (type) AS (
        SELECT min(type) FROM kqueue_starts
        UNION ALL
        SELECT (SELECT min(type) FROM kqueue_starts WHERE type > found.type)
        FROM found WHERE found.type IS NOT NULL
    )
    SELECT starts.type, starts.at FROM found CROSS JOIN kqueue_starts AS starts
    WHERE starts.type = found.type AND starts.at <= :old LIMIT :most
"""
FORGET_START: Final = "DELETE FROM kqueue_starts WHERE type = ? AND at = ?"

#: Looks at keys in one call: 20,000 keys in each sweep, which is more than a store of this kind adds meanwhile.
MOST_LOOKS: Final = 20
#: Workers are few.
OLD_WORKERS: Final = "SELECT id FROM kqueue_workers WHERE seen_at <= :old LIMIT :most"
FORGET_WORKER: Final = "DELETE FROM kqueue_workers WHERE id = ? AND seen_at <= ?"


class _Stale(NamedTuple):
    """What there is to forget."""

    jobs: bool
    keys: list[str]
    #: Where the next look at keys begins, and whether this one began elsewhere.
    look_after: str
    has_moved: bool
    starts: list[tuple[str, float]]
    workers: list[str]

    def is_nothing(self) -> bool:
        return not (self.jobs or self.keys or self.has_moved or self.starts or self.workers)


def expire(file: SqliteFile, now: float, most: int) -> int:
    """As the contract says; how many done rows were deleted. Where there are more keys than a look reads, it looks
    again, a transaction each time: else they would come faster than they go.
    """
    deleted, is_more = _expire(file, now, most, most)
    for _ in range(MOST_LOOKS - 1):
        if not is_more:
            break
        more, is_more = _expire(file, now, most, most - deleted)
        deleted += more
    return deleted


def _expire(file: SqliteFile, now: float, most: int, rows: int) -> tuple[int, bool]:
    """(done rows that were deleted, up to ``rows``; whether there are more keys to look at)."""
    values = {"now": now, "old": now - FORGET_AFTER_S, "most": most, "rows": rows}
    with file.read() as connection:
        stale = _look(connection, values)
    if stale.is_nothing():
        return 0, False
    with file.write() as connection:
        if stale.has_moved:
            connection.execute(SET_LAST_LOOK, (stale.look_after,))
        connection.execute(FORGET_KEYS, {"ids": json.dumps(stale.keys), "now": now})
        connection.executemany(FORGET_START, stale.starts)
        connection.executemany(FORGET_WORKER, [(id, values["old"]) for id in stale.workers])
        return connection.execute(EXPIRE, values).rowcount, bool(stale.look_after)


def _look(connection: sqlite3.Connection, values: dict[str, Any]) -> _Stale:
    def read(statement: str, **more: Any) -> list[Any]:
        return connection.execute(statement, values | more).fetchall()

    after = next((str(value) for (value,) in read(LAST_LOOK)), "")
    keys = read(LOOK_AT_KEYS, after=after)
    look_after = keys[-1][0] if len(keys) == values["most"] else ""
    return _Stale(
        jobs=bool(read(FIND_KEPT)),
        keys=[id for id, is_forgotten in keys if is_forgotten],
        look_after=look_after,
        has_moved=look_after != after,
        starts=read(OLD_STARTS),
        workers=[id for (id,) in read(OLD_WORKERS)],
    )
