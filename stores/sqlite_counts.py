"""What the SQLite store counts at its gates (see :mod:`kqueue.stores.gates`).

The indexes hold the rows of limited types alone.
"""

import heapq
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from typing import Any, Final

from kqueue.store import Throttle
from kqueue.stores.gates import Place, counted_starts

_RUNNING: Final = """
    FROM kqueue_jobs INDEXED BY kqueue_jobs_limited
    WHERE gate IS NOT NULL AND state = 'running' AND type = :type AND lease_until > :now
"""
RUNNING_OF_TYPE: Final = f"SELECT count(*), min(lease_until) {_RUNNING}"
RUNNING_OF_KEY: Final = f"{RUNNING_OF_TYPE} AND limit_key = :limit_key"

STARTS: Final = """
    SELECT coalesce(sum(jobs), 0), min(at) FROM kqueue_starts WHERE type = :type AND at > :since AND at <= :until
"""
_AT_GATE: Final = (
    "FROM kqueue_jobs AS job INDEXED BY kqueue_jobs_gate WHERE job.gate IS NOT NULL AND job.state = '{}'"
)
HELD_HERE: Final = _AT_GATE.format("held")
_ADMITTED: Final = _AT_GATE.format("ready")

ADMITTED: Final = f"SELECT count(*) {_ADMITTED} AND job.gate = ?"
#: In order, as the index has them.
HELD_PLACES: Final = f"SELECT job.priority, job.key {HELD_HERE} AND job.gate = ? ORDER BY job.priority, job.key"
ADMITTED_PLACES: Final = f"SELECT job.priority, job.key {_ADMITTED} AND job.gate = ? ORDER BY job.priority, job.key"


class SqliteCounts:
    """As :class:`kqueue.stores.gates.Counts` says, at one time; ``cursors`` closes what is left open."""

    def __init__(self, connection: sqlite3.Connection, now: float, cursors: ExitStack) -> None:
        self._connection, self._now, self._cursors = connection, now, cursors

    def running(self, type: str, limit_key: str | None) -> int:
        """Under a lease that is not over: one index range."""
        return int(self._running(type, limit_key)[0])

    def lease_end(self, type: str, limit_key: str | None) -> float | None:
        """Of the same range."""
        end: float | None = self._running(type, limit_key)[1]
        return end

    def starts(self, throttle: Throttle) -> int:
        """One range of their own table."""
        return int(self._starts(throttle)[0])

    def first_start(self, throttle: Throttle) -> float | None:
        """Of the same range."""
        first: float | None = self._starts(throttle)[1]
        return first

    def admitted(self, gate: str) -> int:
        """One index range."""
        return int(self._read(ADMITTED, (gate,))[0])

    def waiting(self, gate: str) -> Iterator[Place]:
        """Two index ranges, merged as far as they are read."""
        found = (self._connection.execute(statement, (gate,)) for statement in (HELD_PLACES, ADMITTED_PLACES))
        return heapq.merge(*(self._cursors.enter_context(closing(cursor)) for cursor in found))

    def _running(self, type: str, limit_key: str | None) -> tuple[Any, ...]:
        values = {"type": type, "limit_key": limit_key, "now": self._now}
        return self._read(RUNNING_OF_TYPE if limit_key is None else RUNNING_OF_KEY, values)

    def _starts(self, throttle: Throttle) -> tuple[Any, ...]:
        since, until = counted_starts(throttle, self._now)
        return self._read(STARTS, {"type": throttle.type, "since": since, "until": until})

    def _read(self, statement: str, values: Sequence[Any] | dict[str, Any]) -> tuple[Any, ...]:
        (found,) = self._connection.execute(statement, values).fetchall()
        return tuple(found)
