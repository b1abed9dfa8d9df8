"""The loops without a queue that bound what a queue can do: greenstalk alone, SQLite alone, and both.

The SQLite table has the columns that a job of such a queue needs, an index to claim by, and nothing else; each
call commits once, with the write-ahead log and ``synchronous=FULL``, as KQueue's own file does.
"""

import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

import greenstalk

#: What every job of a benchmark carries, unless said otherwise.
PAYLOAD = b"x" * 100

_COLUMNS = (
    "id TEXT NOT NULL UNIQUE, type TEXT NOT NULL, encoding TEXT NOT NULL, priority INTEGER NOT NULL,"
    " state TEXT NOT NULL, delay REAL NOT NULL, run_at REAL NOT NULL, ttr REAL NOT NULL, fence INTEGER NOT NULL,"
    " tries INTEGER NOT NULL, created_at REAL NOT NULL, put_at REAL, lease_until REAL, payload BLOB NOT NULL"
)


def client(port: int, tube: str = "bare") -> "greenstalk.Client[bytes]":
    """A connected client of the server on this port of 127.0.0.1, that uses and watches ``tube``."""
    return greenstalk.Client(("127.0.0.1", port), encoding=None, use=tube, watch=tube)


def put_all(client: "greenstalk.Client[bytes]", jobs: int) -> None:
    for _ in range(jobs):
        client.put(PAYLOAD)


def take_all(client: "greenstalk.Client[bytes]", jobs: int) -> None:
    """Reserve and delete, one by one."""
    for _ in range(jobs):
        client.delete(client.reserve())


def put_reserve_delete(port: int, jobs: int) -> float:
    """Seconds for one client that puts all jobs, then takes each."""
    with client(port) as connected:
        started = time.perf_counter()
        put_all(connected, jobs)
        take_all(connected, jobs)
        return time.perf_counter() - started


class Rows:
    """A table of jobs in an SQLite file. For one thread of one process."""

    def __init__(self, path: Path, busy_timeout: float = 60.0) -> None:
        """``busy_timeout`` in seconds."""
        self._connection = sqlite3.connect(path, isolation_level=None, timeout=busy_timeout)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute(f"CREATE TABLE IF NOT EXISTS jobs (key INTEGER PRIMARY KEY, {_COLUMNS})")
        self._connection.execute("CREATE INDEX IF NOT EXISTS ready ON jobs (type, priority) WHERE state = 'ready'")

    def add(self, ids: Sequence[str], payload: bytes = PAYLOAD) -> None:
        """One commit."""
        now = time.time()
        rows = [(id, "noop", "bytes", 65536, "ready", 0.0, now, 60.0, 0, 0, now, now, None, payload) for id in ids]
        places = ", ".join("?" for _ in rows[0])
        self._commit(f"INSERT INTO jobs VALUES (NULL, {places})", rows)

    def claim(self, ids: Sequence[str]) -> None:
        """One commit."""
        lease_until = time.time() + 60
        self._commit(
            "UPDATE jobs SET state = 'running', fence = fence + 1, tries = tries + 1, lease_until = ?"
            " WHERE id = ? AND state = 'ready'",
            [(lease_until, id) for id in ids],
        )

    def claim_next(self, jobs: int) -> list[int]:
        """Take so many of those that are ready: their keys. One commit."""
        self._connection.execute("BEGIN IMMEDIATE")
        found = self._connection.execute(
            "SELECT key, payload FROM jobs WHERE type = 'noop' AND state = 'ready' ORDER BY priority, key LIMIT ?",
            (jobs,),
        ).fetchall()
        self._connection.executemany(
            "UPDATE jobs SET state = 'running', fence = fence + 1, lease_until = ? WHERE key = ?",
            [(time.time() + 60, key) for key, _ in found],
        )
        self._connection.execute("COMMIT")
        return [key for key, _ in found]

    def delete(self, ids: Sequence[str]) -> None:
        """One commit."""
        self._commit("DELETE FROM jobs WHERE id = ? AND fence = 1", [(id,) for id in ids])

    def delete_keys(self, keys: Sequence[int]) -> None:
        """One commit."""
        self._commit("DELETE FROM jobs WHERE key = ? AND fence = 1", [(key,) for key in keys])

    def close(self) -> None:
        self._connection.close()

    def _commit(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany(statement, rows)
        self._connection.execute("COMMIT")
