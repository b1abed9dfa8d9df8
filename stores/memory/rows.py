"""The rows of a memory store, each where it is looked for: so that no call but the rare ones walks all of them.

A signal handler may raise in the middle of a change. What a row is stands in one place, which changes in one step;
all other places are made anew from it when a change was not ended.
"""

import heapq
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from typing import TypeAlias

from kqueue.contracts.lookup import Backlog, EndedRows
from kqueue.contracts.repair import Due
from kqueue.model import checks
from kqueue.model.history import LogLine
from kqueue.model.job import Row, State
from kqueue.stores.gates import Candidate, Place, after_gates, gate_of, key_of, type_of

#: (priority, order added or come back, id)
_Stand: TypeAlias = tuple[int, int, str]


class MemoryRows:
    """Not safe for threads: the store's lock is held around every call."""

    def __init__(self) -> None:
        self.by_id: dict[str, Row] = {}
        #: Lines of logs, by the ids of their jobs.
        self.logs: dict[str, list[LogLine]] = {}
        #: Numbers of ends, in their order, by the ids of the jobs that are done or dead.
        self.ends: dict[str, int] = {}
        self._next_end = count(1)
        #: The fence and number of the last report of each job that has told something.
        self.reported: dict[str, tuple[int, int]] = {}
        #: The number of changes so far.
        self.changes = 0
        #: When each row was added, or came back from a run, as a number.
        self._order: dict[str, int] = {}
        self._next_order = count()
        #: Whether a change was begun and not ended.
        self._is_torn = False
        self._clear()

    def _clear(self) -> None:
        #: The places of the ready rows of each type, sorted; then of the held rows of each gate, and of the ready
        #: ones that it has admitted.
        self._ready: dict[str, list[_Stand]] = {}
        self._held: dict[str, list[_Stand]] = {}
        self._admitted: dict[str, list[_Stand]] = {}
        #: The running rows of each type that limits count.
        self._limited: dict[str, set[str]] = {}
        #: A heap of (run_at, id). An entry whose row is not delayed until then any more is passed over.
        self._delayed: list[tuple[float, str]] = []

    def all(self) -> Iterable[Row]:
        """All rows, in the order added."""
        return self.by_id.values()

    def existing(self, ids: Iterable[str]) -> list[Row]:
        """Each row once: two pointers may name the same job."""
        return [self.by_id[id] for id in dict.fromkeys(ids) if id in self.by_id]

    def wanted(self, ids: Iterable[str], types: Sequence[str]) -> list[Row]:
        """Those of the types, each once."""
        return [row for row in self.existing(ids) if row.type in types]

    def in_hand(self, id: str, fence: int) -> Row | None:
        """The row whose run may still be settled or renewed under this fence."""
        row = self.by_id.get(id)
        return row if row is not None and row.fence == fence and row.lease_owner is not None else None

    # -- of all ------------------------------------------------------------------------------------------

    def find(self, type: str | None, state: str, after: str | None, most: int) -> list[Row]:
        """Rows in one state, in the order of their ids, after the id ``after``."""
        found = (row for row in self.all() if row.state == state and type in {None, row.type})
        return heapq.nsmallest(most, (row for row in found if after is None or row.id > after))

    def ended(self, type: str | None, after: str | None, most: int) -> EndedRows:
        """Done and dead rows, in the order in which they ended."""
        first = checks.place(after)
        found = [(number, self.by_id[id]) for id, number in self.ends.items() if number > first]
        page = [(number, row) for number, row in found if type in {None, row.type}][:most]
        return EndedRows([row for _, row in page], str(page[-1][0]) if page else after)

    def running(self) -> list[Row]:
        """Whatever has become of their leases."""
        return [row for row in self.all() if row.state == State.RUNNING]

    def over(self, now: float, most: int) -> list[Row]:
        """Done rows that need not be kept any more, the earliest first."""
        kept = [(row.keep_until, row) for row in self.all() if row.state == State.DONE]
        over = [(until, row) for until, row in kept if until is not None and until <= now]
        return [row for _, row in heapq.nsmallest(most, over)]

    def counts(self, type: str | None) -> dict[str, int]:
        """Rows by state, all states named."""
        found = {state.value: 0 for state in State}
        for row in self.all():
            if type in {None, row.type}:
                found[row.state] += 1
        return found

    def overview(self) -> list[Backlog]:
        """How many rows stand where."""
        found: dict[tuple[str, str], list[float]] = {}
        for row in self.all():
            found.setdefault((row.type, str(row.state)), []).append(row.run_at)
        return [Backlog(type, state, len(times), min(times)) for (type, state), times in sorted(found.items())]

    # -- changes -----------------------------------------------------------------------------------------

    def add(self, row: Row) -> None:
        """A new one; its place is behind all others."""
        self._order[row.id] = next(self._next_order)
        self.write(row)

    def write(self, row: Row, *, last: bool = False) -> None:
        """The one way to change a row. ``last``: its place is behind all others from now on."""
        self._mend()
        self._is_torn = True
        before = self.by_id.get(row.id)
        self._leave_place(row.id)
        if last:
            self._order[row.id] = next(self._next_order)
        self.by_id[row.id] = row
        if row.state in {State.DONE, State.DEAD} and (before is None or before.state != row.state):
            self.ends.pop(row.id, None)  # so that it comes last
            self.ends[row.id] = next(self._next_end)
        elif row.state not in {State.DONE, State.DEAD}:
            self.ends.pop(row.id, None)
        self.changes += 1
        self._take_place(row, before)
        self._is_torn = False

    def write_all(self, rows: Iterable[Row]) -> list[Due]:
        """Each of them; what is to be rung for."""
        written = list(rows)
        for row in written:
            self.write(row)
        return [Due.of(row) for row in written]

    def mark(self, due: Due, put_at: float) -> bool:
        """Write ``put_at`` if it is as it was read."""
        row = self.by_id.get(due.id)
        is_so = row is not None and row.state in {State.READY, State.DELAYED} and row.put_at == due.put_at
        if row is not None and is_so:
            self.write(row._replace(put_at=put_at))
        return is_so

    def _take_place(self, row: Row, before: Row | None) -> None:
        for places, name in self._places(row):
            insort(places.setdefault(name, []), self._stand(row))
        if _is_limited(row):
            self._limited.setdefault(row.type, set()).add(row.id)
        if row.state == State.DELAYED and not (before is not None and _same_delay(before, row)):
            heapq.heappush(self._delayed, (row.run_at, row.id))

    def remove(self, rows: Sequence[Row]) -> int:
        """Delete them; returns how many."""
        self._mend()
        for row in rows:
            self._is_torn = True
            self._leave_place(row.id)
            del self.by_id[row.id], self._order[row.id]
            self.logs.pop(row.id, None)
            self.reported.pop(row.id, None)
            self.ends.pop(row.id, None)
            self.changes += 1
            self._is_torn = False
        return len(rows)

    def _mend(self) -> None:
        """Where a change was not ended, put every row in its places."""
        if self._is_torn:
            self._clear()
            for row in self.by_id.values():
                self._take_place(row, None)
            self._is_torn = False

    def _leave_place(self, id: str) -> None:
        row = self.by_id.get(id)
        if row is None:
            return
        for places, name in self._places(row):
            del places[name][bisect_left(places[name], self._stand(row))]
            if not places[name]:
                del places[name]
        if _is_limited(row):
            self._limited[row.type].remove(id)

    def _places(self, row: Row) -> Iterator[tuple[dict[str, list[_Stand]], str]]:
        """Where the row stands sorted, and under which name there."""
        if row.state == State.READY:
            yield self._ready, row.type
            if row.gate is not None:
                yield self._admitted, row.gate
        elif row.state == State.HELD and row.gate is not None:
            yield self._held, row.gate

    def _stand(self, row: Row) -> _Stand:
        return row.priority, self._order[row.id], row.id

    # -- where they stand --------------------------------------------------------------------------------

    def candidate(self, row: Row) -> Candidate:
        """What gates must know of it."""
        return Candidate(row.priority, self._order[row.id], row.type, row.gate, row.limit_key)

    def ready(self, types: Sequence[str]) -> Iterator[Row]:
        """Ready rows, in order over all types, lazily."""
        self._mend()
        places = heapq.merge(*(self._ready.get(type, ()) for type in dict.fromkeys(types)))
        return (self.by_id[id] for _, _, id in places)

    def ready_types(self, after: str, most: int) -> list[str]:
        """Up to ``most`` types after ``after`` that have a ready row, sorted."""
        self._mend()
        return heapq.nsmallest(most, (type for type in self._ready if type > after))

    def ahead(self, id: str, priority: int) -> int:
        """Ready rows of the row's type that come before it."""
        self._mend()
        row = self.by_id.get(id)
        places = [] if row is None else self._ready.get(row.type, [])
        return bisect_left(places, (priority, self._order.get(id, 0), id))

    def held_types(self, types: Iterable[str]) -> list[str]:
        """Those of ``types`` that have a held row, sorted."""
        self._mend()
        return sorted({type_of(gate) for gate in self._held}.intersection(types))

    def held_keys(self, type: str) -> list[str]:
        """Limit keys of the type at whose gates a row is held."""
        self._mend()
        keys = (key_of(gate) for gate in self._held if gate_of(type, None) <= gate < after_gates(type))
        return [key for key in keys if key is not None]

    def held(self, gate: str) -> list[Row]:
        """Rows held at the gate, in order."""
        self._mend()
        return [self.by_id[id] for _, _, id in self._held.get(gate, ())]

    def admitted(self, gate: str) -> int:
        """Ready rows that the gate has admitted."""
        self._mend()
        return len(self._admitted.get(gate, ()))

    def at_gate(self, gate: str) -> Iterator[Place]:
        """Held rows and admitted ones, in order."""
        self._mend()
        stands = heapq.merge(self._held.get(gate, ()), self._admitted.get(gate, ()))
        return ((priority, order) for priority, order, _ in stands)

    def limited(self, type: str) -> list[Row]:
        """Running rows of the type that limits count."""
        self._mend()
        return [self.by_id[id] for id in self._limited.get(type, ())]

    def abandoned(self, now: float, most: int) -> list[Row]:
        """Running rows whose lease is over, the longest over first."""
        leases = (
            (row.lease_until, row)
            for row in self.all()
            if row.state == State.RUNNING and row.lease_until is not None and row.lease_until <= now
        )
        return [row for _, row in heapq.nsmallest(most, leases)]

    def earliest(self) -> Row | None:
        """The delayed row that is due first."""
        self._mend()
        while self._delayed:
            run_at, id = self._delayed[0]
            row = self.by_id.get(id)
            if row is not None and row.state == State.DELAYED and row.run_at == run_at:
                return row
            heapq.heappop(self._delayed)
        return None


def waiting_by(rows: Iterable[Row], until: float) -> Iterator[Row]:
    """Those that are ready, or delayed and due by then."""
    return (row for row in rows if row.state == State.READY or (row.state == State.DELAYED and row.run_at <= until))


def _is_limited(row: Row) -> bool:
    return row.state == State.RUNNING and row.gate is not None


def _same_delay(before: Row, after: Row) -> bool:
    return before.state == State.DELAYED and before.run_at == after.run_at
