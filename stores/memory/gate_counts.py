"""What the memory store counts at its gates."""

from collections.abc import Iterable, Iterator

from kqueue.contracts.admission import Limit
from kqueue.model.job import Row
from kqueue.stores.gates import Gates, Leases, Place, counted_starts, leases_of
from kqueue.stores.memory.rows import MemoryRows
from kqueue.stores.transitions import held


class Starts:
    """When limited claims were, by type: as (time, rows claimed), the oldest first."""

    def __init__(self) -> None:
        self._of: dict[str, list[tuple[float, int]]] = {}

    def add(self, limit: Limit, now: float, rows: int) -> None:
        """Also forgets what the limit does not count any more."""
        kept = [start for start in self._of.get(limit.type, []) if start[0] > now - limit.period]
        self._of[limit.type] = sorted([*kept, (now, rows)])

    def of(self, limit: Limit, now: float) -> list[tuple[float, int]]:
        """Those in the limit's period."""
        since, until = counted_starts(limit, now)
        return [start for start in self._of.get(limit.type, []) if since < start[0] <= until]

    def after(self, until: float) -> Iterator[tuple[str, float]]:
        """(type, time) of those later than ``until``."""
        return ((type, at) for type, starts in self._of.items() for at, _ in starts if at > until)

    def bring_back(self, until: float, now: float) -> int:
        """Those later than ``until`` were ``now``, at the latest; how many they are."""
        found = len(list(self.after(until)))
        for type, starts in self._of.items():
            self._of[type] = sorted((now if at > until else at, rows) for at, rows in starts)
        return found

    def forget(self, until: float, most: int) -> None:
        """Up to ``most`` of those that were before."""
        old = [(type, start) for type, starts in self._of.items() for start in starts if start[0] <= until]
        for type, start in old[:most]:
            self._of[type].remove(start)


class MemoryCounts:
    """As :class:`kqueue.stores.gates.GateCounts` says."""

    def __init__(self, rows: MemoryRows, starts: Starts, now: float) -> None:
        self._rows, self._starts, self._now = rows, starts, now

    def leases(self, type: str, limit_key: str | None) -> Leases:
        """Of all rows of the type that run under a limit."""
        found = (row for row in self._rows.limited(type) if self._counts(row, limit_key))
        return leases_of((row.gate or type, row.lease_until or 0.0) for row in found)

    def starts(self, limit: Limit) -> int:
        """In its last period."""
        return sum(rows for _, rows in self._starts.of(limit, self._now))

    def first_start(self, limit: Limit) -> float | None:
        """Of those."""
        return next((at for at, _ in self._starts.of(limit, self._now)), None)

    def admitted(self, gate: str) -> int:
        """Ready ones."""
        return self._rows.admitted(gate)

    def waiting(self, gate: str) -> Iterator[Place]:
        """Held and admitted ones."""
        return self._rows.at_gate(gate)

    def _counts(self, row: Row, limit_key: str | None) -> bool:
        return (row.lease_until or 0.0) > self._now and limit_key in {None, row.limit_key}


def passing(
    rows: MemoryRows, candidates: Iterable[Row], gates: Gates, stopped: list[Row], most: int | None
) -> Iterator[Row]:
    """Those that no gate stops. The others go into ``stopped``, held; after ``most`` of them it ends."""
    for row in candidates:
        gate = gates.stop(rows.candidate(row))
        if gate is None:
            yield row
            continue
        stopped.append(held(row, gate))
        if len(stopped) == most:
            return
