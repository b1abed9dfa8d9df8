"""What the SQLite store counts at its gates (see :mod:`kqueue.stores.gates`).

One index holds all of it, and the rows of limited types alone.
"""

import heapq
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from itertools import chain
from typing import Any, Final

from kqueue.contracts.admission import Limit
from kqueue.stores.gates import Leases, Place, counted_starts, leases_of, type_of
from kqueue.stores.sqlite.statements import gates_of

STARTS: Final = """
    SELECT coalesce(sum(jobs), 0), min(at) FROM kqueue_starts WHERE type = :type AND at > :since AND at <= :until
"""
_AT_GATE: Final = (
    "FROM kqueue_jobs AS job INDEXED BY kqueue_jobs_gate WHERE job.gate IS NOT NULL AND job.state = '{}'"
)
_OF_TYPE: Final = gates_of(":type", "job.gate")
HELD_HERE: Final = _AT_GATE.format("held")
_ADMITTED: Final = _AT_GATE.format("ready")

ADMITTED: Final = f"SELECT count(*) {_ADMITTED} AND job.gate = ?"
#: In order, as the index has them.
HELD_PLACES: Final = f"SELECT job.priority, job.key {HELD_HERE} AND job.gate = ? ORDER BY job.priority, job.key"
ADMITTED_PLACES: Final = f"SELECT job.priority, job.key {_ADMITTED} AND job.gate = ? ORDER BY job.priority, job.key"

#: Whether anybody stands at any gate of a type. Where a limit does not bind nobody does, and none is asked for.
IS_ANY_WAITING: Final = f"""
    SELECT EXISTS (SELECT 1 {HELD_HERE} AND {_OF_TYPE})
        OR EXISTS (SELECT 1 {_ADMITTED} AND {_OF_TYPE})
"""

#: What runs of a type has a gate that begins with it. It is as little as may run, or wait for those who run it, so
#: all of it is read once and counted by key.
RUNNING: Final = f"""
    SELECT job.limit_key, job.gate, job.lease_until {_AT_GATE.format("running")}
    AND {_OF_TYPE} AND job.lease_until > :now
"""

NO_LEASES: Final = Leases()


class SqliteCounts:
    """As :class:`kqueue.stores.gates.GateCounts` says, at one time; ``cursors`` closes what is left open."""

    def __init__(self, connection: sqlite3.Connection, now: float, cursors: ExitStack) -> None:
        self._connection, self._now, self._cursors = connection, now, cursors
        #: By type and limit key.
        self._leases: dict[tuple[str, str | None], Leases] = {}
        self._looked_at: set[str] = set()
        #: By type: whether anybody stands at a gate of it.
        self._is_any_waiting: dict[str, bool] = {}

    def leases(self, type: str, limit_key: str | None) -> Leases:
        """One read for all keys of the type."""
        if type not in self._looked_at:
            self._look_at(type)
        return self._leases.get((type, limit_key), NO_LEASES)

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
        """Two index ranges, merged as far as they are read; none if nobody stands at any gate of the type."""
        type = type_of(gate)
        if type not in self._is_any_waiting:
            self._is_any_waiting[type] = bool(self._read(IS_ANY_WAITING, {"type": type})[0][0])
        if not self._is_any_waiting[type]:
            return iter(())
        found = (self._connection.execute(statement, (gate,)) for statement in (HELD_PLACES, ADMITTED_PLACES))
        merged = heapq.merge(*(self._cursors.enter_context(closing(cursor)) for cursor in found))
        return self._cursors.enter_context(closing(merged))

    def _look_at(self, type: str) -> None:
        self._looked_at.add(type)
        by_key: defaultdict[str | None, list[tuple[str, float]]] = defaultdict(list)
        for key, gate, end in self._read(RUNNING, {"type": type, "now": self._now}):
            by_key[key].append((gate, end))
        self._leases |= {(type, key): leases_of(running) for key, running in by_key.items()}
        self._leases[type, None] = leases_of(chain.from_iterable(by_key.values()))

    def _starts(self, limit: Limit) -> tuple[Any, ...]:
        since, until = counted_starts(limit, self._now)
        (found,) = self._read(STARTS, {"type": limit.type, "since": since, "until": until})
        return found

    def _read(self, statement: str, values: Sequence[Any] | dict[str, Any]) -> list[tuple[Any, ...]]:
        return self._connection.execute(statement, values).fetchall()
