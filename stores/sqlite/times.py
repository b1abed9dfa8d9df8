"""Times of a SQLite store that lie too far ahead: found by their indexes, and set right.

What is looked for is a range of an index that holds nothing else while no clock was wrong, so a look reads nothing.
"""
# ruff: noqa: S608 (only constants are joined into the text)

import json
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from kqueue.contracts.stored_times import CHANGED, Misdated, StoredTimes, furthest, latest, past, set_right, shifted
from kqueue.contracts.workers import WorkerRecord
from kqueue.stores.sqlite import side_tables as records
from kqueue.stores.sqlite import statements as sql

_TIMES: Final = "job.key, job.id, job.type, " + ", ".join(f"job.{name}" for name in StoredTimes._fields)

#: What is ready or held and has no pointer, but has to wait.
_FIND_UNPUT: Final = f"""
    SELECT {_TIMES} FROM kqueue_jobs AS job INDEXED BY kqueue_jobs_unput
    WHERE job.put_at IS NULL AND job.state = '{{}}' AND job.run_at > :latest LIMIT :most
"""
#: The states, as the index says them.
_FIND_ASKED: Final = f"""
    SELECT {_TIMES} FROM kqueue_jobs AS job INDEXED BY kqueue_jobs_asked
    WHERE job.state >= 'd' AND job.state < 'e'
        AND coalesce(job.asked_at, job.created_at) > :latest
    LIMIT :most
"""
_FIND_LEASED: Final = f"""
    {sql.TTRS} SELECT {_TIMES} FROM found CROSS JOIN kqueue_jobs AS job INDEXED BY kqueue_jobs_lease
    WHERE likelihood(found.ttr > 0, 0.000000001)
        AND job.state = 'running' AND job.ttr = found.ttr AND job.lease_until > :latest + found.ttr
    LIMIT :most
"""
FIND_OTHERS: Final = (_FIND_UNPUT.format("ready"), _FIND_UNPUT.format("held"), _FIND_ASKED, _FIND_LEASED)

_WAITING: Final = "FROM kqueue_jobs INDEXED BY kqueue_jobs_put WHERE state = 'ready' AND put_at IS NOT NULL"
#: Of each type, from each priority that is found one probe leads to the next. (On ``likelihood``: see FIND_LOST.)
FIND_PUT: Final = f"""
    WITH RECURSIVE found (type, priority) AS (
        SELECT wanted.value, (SELECT min(priority) {_WAITING} AND type = wanted.value)
        FROM json_each(:types) AS wanted
        UNION ALL
        SELECT found.type, (SELECT min(priority) {_WAITING} AND type = found.type AND priority > found.priority)
        FROM found WHERE found.priority IS NOT NULL
    )
    SELECT {_TIMES} FROM found CROSS JOIN kqueue_jobs AS job INDEXED BY kqueue_jobs_put
    WHERE likelihood(found.priority IS NOT NULL, 0.000000001) AND job.state = 'ready' AND job.put_at IS NOT NULL
        AND job.type = found.type AND job.priority = found.priority AND job.put_at > :latest
    LIMIT :most
"""
REDATE: Final = f"UPDATE kqueue_jobs SET {', '.join(f'{name} = :{name}' for name in CHANGED)} WHERE key = :key"

FIND_KEYS: Final = """
    SELECT type, key, until, taken_at FROM kqueue_unique INDEXED BY kqueue_unique_taken
    WHERE taken_at IS NOT NULL AND taken_at > :latest LIMIT :most
"""
REDATE_KEY: Final = "UPDATE kqueue_unique SET until = ?, taken_at = ? WHERE type = ? AND key = ?"

#: Type by type, each found by a probe from the one before.
FIND_STARTS: Final = """
    WITH RECURSIVE found (type) AS (
        SELECT min(type) FROM kqueue_starts
        UNION ALL
        SELECT (SELECT min(type) FROM kqueue_starts WHERE type > found.type)
        FROM found WHERE found.type IS NOT NULL
    )
    SELECT starts.type, starts.at, starts.jobs FROM found CROSS JOIN kqueue_starts AS starts
    WHERE starts.type = found.type AND starts.at > :latest LIMIT :most
"""
FORGET_START: Final = "DELETE FROM kqueue_starts WHERE type = ? AND at = ?"
ADD_START: Final = """
    INSERT INTO kqueue_starts (type, at, jobs) VALUES (?, ?, ?)
    ON CONFLICT (type, at) DO UPDATE SET jobs = jobs + excluded.jobs
"""

#: These are few.
FIND_PAUSES: Final = "SELECT type, since FROM kqueue_paused WHERE since > :latest"
REDATE_PAUSE: Final = "UPDATE kqueue_paused SET since = ? WHERE type = ?"


class _Job(NamedTuple):
    """A row that may be wrong."""

    key: int
    id: str
    type: str
    times: StoredTimes


def find_misdated(
    connection: sqlite3.Connection, types: Sequence[str] | None, now: float, most: int
) -> list[Misdated]:
    """See :meth:`kqueue.contracts.store.JobStore.find_misdated`."""
    look = _Look(connection, now, most)
    found = [Misdated("job", job.id, job.type, furthest(job.times, now)) for job in look.jobs(types)]
    if types is None:
        found += [Misdated("unique key", key, type, at) for type, key, _, at in look.unique_keys()]
        found += [Misdated("start", type, type, at) for type, at, _ in look.starts()]
        found += [Misdated("pause", name, None, since) for name, since in look.pauses()]
        found += [Misdated("worker", one.id, None, max(one.seen_at, one.started_at)) for one in look.workers()]
    return found


def repair_times(connection: sqlite3.Connection, types: Sequence[str] | None, now: float, most: int) -> int:
    """See :meth:`kqueue.contracts.store.JobStore.repair_times`. Inside a write transaction of the caller's."""
    look = _Look(connection, now, most)
    jobs = list(look.jobs(types))
    connection.executemany(REDATE, [{"key": job.key, **set_right(job.times, now)._asdict()} for job in jobs])
    if types is not None:
        return len(jobs)
    keys, starts, pauses, workers = look.unique_keys(), look.starts(), look.pauses(), look.workers()
    connection.executemany(REDATE_KEY, [(shifted(until, at, now), now, type, key) for type, key, until, at in keys])
    connection.executemany(FORGET_START, [(type, at) for type, at, _ in starts])
    connection.executemany(ADD_START, [(type, now, jobs) for type, _, jobs in starts])
    connection.executemany(REDATE_PAUSE, [(now, name) for name, _ in pauses])
    for worker in workers:
        right = worker._replace(started_at=past(worker.started_at, now), seen_at=past(worker.seen_at, now))
        records.see_worker(connection, right)
    return len(jobs) + len(keys) + len(starts) + len(pauses) + len(workers)


class _Look:
    """At what lies too far ahead of one moment."""

    def __init__(self, connection: sqlite3.Connection, now: float, most: int) -> None:
        self._connection, self._now, self._limit = connection, now, most

    def jobs(self, types: Sequence[str] | None) -> Iterator[_Job]:
        """Ready rows of the types that have a pointer, or all others."""
        for statement in FIND_OTHERS if types is None else (FIND_PUT,):
            for key, id, type, *times in self._read(statement, types=json.dumps(types)):
                yield _Job(key, id, type, StoredTimes(*times))

    def unique_keys(self) -> list[Any]:
        """Each: (type, key, until, since)."""
        return self._read(FIND_KEYS)

    def starts(self) -> list[Any]:
        """Each: (type, time, jobs)."""
        return self._read(FIND_STARTS)

    def pauses(self) -> list[Any]:
        """Each: (name, since)."""
        return self._read(FIND_PAUSES)

    def workers(self) -> list[WorkerRecord]:
        """They are few."""
        until = latest(self._now)
        return [one for one in records.workers(self._connection) if max(one.seen_at, one.started_at) > until]

    def _read(self, statement: str, **more: Any) -> list[Any]:
        values = {"latest": latest(self._now), "most": self._limit, **more}
        return self._connection.execute(statement, values).fetchall()
