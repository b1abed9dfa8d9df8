"""What the SQLite store counts at its gates (see :mod:`kqueue.stores.gates`).

One index holds all of it, and the rows of limited types alone.
"""

import heapq
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from typing import Any, Final

from kqueue.contracts.admission import Limit
from kqueue.stores.gates import Place, counted_starts

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

#: What runs of a type has its gate, or that of a key if no limit was told when it was claimed. It is as few as
#: may run, so all of it is read once and counted by key.
RUNNING: Final = f"""
    SELECT job.limit_key, job.lease_until {_AT_GATE.format("running")}
    AND job.gate >= :type AND job.gate < :type || '!' AND job.lease_until > :now
"""


class SqliteCounts:
    """As :class:`kqueue.stores.gates.GateCounts` says, at one time; ``cursors`` closes what is left open."""

    def __init__(self, connection: sqlite3.Connection, now: float, cursors: ExitStack) -> None:
        self._connection, self._now, self._cursors = connection, now, cursors
        #: By type: the ends of leases by limit key.
        self._leases: dict[str, dict[str | None, list[float]]] = {}

    def running(self, type: str, limit_key: str | None) -> int:
        """Under a lease that is not over."""
        return len(self._ends(type, limit_key))

    def lease_end(self, type: str, limit_key: str | None) -> float | None:
        """The first of those."""
        return min(self._ends(type, limit_key), default=None)

    def starts(self, limit: Limit) -> int:
        """One range of their own table."""
        return int(self._starts(limit)[0])

    def first_start(self, limit: Limit) -> float | None:
        """Of the same range."""
        first: float | None = self._starts(limit)[1]
        return first

    def admitted(self, gate: str) -> int:
        """One index range."""
        return int(self._read(ADMITTED, (gate,))[0][0])

    def waiting(self, gate: str) -> Iterator[Place]:
        """Two index ranges, merged as far as they are read."""
        found = (self._connection.execute(statement, (gate,)) for statement in (HELD_PLACES, ADMITTED_PLACES))
        merged = heapq.merge(*(self._cursors.enter_context(closing(cursor)) for cursor in found))
        return self._cursors.enter_context(closing(merged))

    def _ends(self, type: str, limit_key: str | None) -> list[float]:
        """Of the leases of the type, or of the key."""
        if type not in self._leases:
            by_key: dict[str | None, list[float]] = {}
            for key, end in self._read(RUNNING, {"type": type, "now": self._now}):
                by_key.setdefault(key, []).append(end)
            self._leases[type] = by_key
        leases = self._leases[type]
        return (
            leases.get(limit_key, [])
            if limit_key is not None
            else [end for ends in leases.values() for end in ends]
        )

    def _starts(self, limit: Limit) -> tuple[Any, ...]:
        since, until = counted_starts(limit, self._now)
        (found,) = self._read(STARTS, {"type": limit.type, "since": since, "until": until})
        return found

    def _read(self, statement: str, values: Sequence[Any] | dict[str, Any]) -> list[tuple[Any, ...]]:
        return self._connection.execute(statement, values).fetchall()
