"""The memory store: plain dicts and a lock, the readable reference of the contract.

It lives in one process and ends with it, so it is for tests and for jobs that may be lost.
"""

import heapq
import os
import threading
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import TypeAlias

from kqueue.clock import Clock, SystemClock
from kqueue.errors import AddFailed, StoreError
from kqueue.job import Row, State
from kqueue.rules import is_lost
from kqueue.store import Abandoned, Claim, Due, Head, Held, Recovered, Selection, Settled, Settlement
from kqueue.stores.transitions import abandoned, claimed, due, recovered, revived, settled
from kqueue.window import Limits

#: (priority, order added, id)
_Place: TypeAlias = tuple[int, int, str]


class MemoryStore:
    """One instance is one store, for any number of threads of one process."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._rows: dict[str, Row] = {}
        #: When each row was added, as a number.
        self._order: dict[str, int] = {}
        self._next_order = count()
        #: The places of the ready rows of each type, sorted.
        self._ready: dict[str, list[_Place]] = {}
        #: A heap of (run_at, id). An entry whose row is not delayed until then any more is passed over.
        self._delayed: list[tuple[float, str]] = []
        self._settings: dict[str, str] = {}
        self._last_sweep: float | None = None
        self._changes = 0

    @property
    def address(self) -> str:
        """Its URL for messages."""
        return "memory:"

    def open(self) -> None:
        """Nothing to connect."""

    def close(self) -> None:
        """Nothing to close: the rows stay as long as the instance."""

    def now(self) -> float:
        """The clock it was given."""
        return self._clock.time()

    def setting(self, name: str, default: str) -> str:
        """The setting's value; if it has none, ``default`` is stored."""
        with self._locked():
            return self._settings.setdefault(name, default)

    # -- a job's way -------------------------------------------------------------------------------------

    def add(self, rows: Sequence[Row]) -> None:
        """All of them, or none."""
        ids = [row.id for row in rows]
        try:
            with self._locked():
                if len(set(ids)) < len(ids) or any(id in self._rows for id in ids):
                    raise StoreError("memory: holds a job of this id already")
                for row in rows:
                    self._order[row.id] = next(self._next_order)
                    self._write(row)
        except StoreError as error:
            raise AddFailed(f"no job was added: {error}", not_taken=ids) from error

    def claim(self, selection: Selection, limits: Limits, owner: str, now: float, alone: bool) -> Claim:
        """Candidates are looked at lazily, in order, until the window is full."""
        with self._locked():
            wanted = None if selection.ids is None else self._wanted(selection.ids, selection.types)
            candidates = self._in_order(selection.types) if wanted is None else _claimable(wanted, now)
            found, cut = limits.fit(candidates)
            blame = alone and len(found) == 1
            rows = [claimed(row, owner, now, blame) for row in found]
            for row in rows:
                self._write(row)
            later = {row.id: row.run_at for row in wanted or () if row.state == State.DELAYED and row.run_at > now}
            return Claim(rows, cut, later)

    def held_by(self, owner: str) -> list[Row]:
        """The rows that run under the claim of ``owner``."""
        with self._locked():
            return [row for row in self._rows.values() if row.lease_owner == owner and row.state == State.RUNNING]

    def renew(self, held: Sequence[Held], now: float, alone: bool | None = None) -> frozenset[str]:
        """Returns the ids lost."""
        lost = set()
        with self._locked():
            for job in held:
                row = self._held(job.id, job.fence)
                if row is None or row.state not in {State.RUNNING, State.READY}:
                    lost.add(job.id)
                else:
                    blame = row.alone if alone is None else alone
                    self._write(row._replace(state=State.RUNNING, lease_until=now + job.ttr, alone=blame))
        return frozenset(lost)

    def settle(self, settlements: Sequence[Settlement], now: float) -> Settled:
        """It always knows which are lost."""
        lost = set()
        with self._locked():
            for settlement in settlements:
                row = self._held(settlement.id, settlement.fence)
                if row is None:
                    lost.add(settlement.id)
                    continue
                after = settled(row, settlement, now)
                if after is None:
                    self._drop(row)
                else:
                    self._write(after)
        return Settled(frozenset(lost))

    # -- the operator's ----------------------------------------------------------------------------------

    def delete(self, ids: Sequence[str]) -> int:
        """Delete rows whatever their state and fence; returns how many there were."""
        with self._locked():
            return self._drop_all(self._existing(ids))

    def revive(self, ids: Sequence[str], reason: str, now: float, put_at: float | None) -> list[Due]:
        """Make dead rows ready; returns those made."""
        with self._locked():
            dead = [row for row in self._existing(ids) if row.state == State.DEAD]
            made = [revived(row, reason, now, put_at) for row in dead]
            for row in made:
                self._write(row)
            return [due(row) for row in made]

    def get(self, ids: Sequence[str]) -> list[Row]:
        """The rows that there are, in the order of ``ids``."""
        with self._locked():
            return [self._rows[id] for id in ids if id in self._rows]

    def find(self, type: str | None, state: str, after: str | None, limit: int) -> list[Row]:
        """Rows in one state, in the order of their ids, after the id ``after``."""
        with self._locked():
            found = [row for row in self._rows.values() if row.state == state and type in {None, row.type}]
        return heapq.nsmallest(limit, (row for row in found if after is None or row.id > after))

    def counts(self, type: str | None = None) -> dict[str, int]:
        """Rows by state, all states named."""
        found = {state.value: 0 for state in State}
        with self._locked():
            for row in self._rows.values():
                if type in {None, row.type}:
                    found[row.state] += 1
        return found

    def types(self) -> list[str]:
        """All job types that have a row, sorted."""
        with self._locked():
            return sorted({row.type for row in self._rows.values()})

    def purge(self, type: str, limit: int) -> int:
        """Delete up to ``limit`` rows of the type that do not run; returns how many."""
        with self._locked():
            idle = [row for row in self._rows.values() if row.type == type and row.state != State.RUNNING]
            return self._drop_all(idle[:limit])

    # -- the sweep's -------------------------------------------------------------------------------------

    def take_sweep(self, now: float, interval: float) -> bool:
        """True for one caller in ``interval`` seconds."""
        with self._locked():
            if self._last_sweep is not None and self._last_sweep <= now < self._last_sweep + interval:
                return False
            self._last_sweep = now
            return True

    def promote(self, now: float, limit: int) -> int:
        """Make up to ``limit`` due rows ready, the earliest first; how many."""
        made = 0
        with self._locked():
            while made < limit and (row := self._earliest()) is not None and row.run_at <= now:
                self._write(row._replace(state=State.READY))
                made += 1
        return made

    def recover(self, now: float, max_crashes: int, limit: int) -> Recovered:
        """Take up to ``limit`` abandoned rows from their holder, the longest abandoned first."""
        with self._locked():
            after = [recovered(row, max_crashes) for row in self._abandoned(now, limit)]
            for row in after:
                self._write(row)
        dead = sum(row.state == State.DEAD for row in after)
        return Recovered(len(after) - dead, dead)

    def find_due(self, now: float, limit: int) -> list[Due]:
        """What :meth:`promote` would make ready."""
        with self._locked():
            found = [row for row in self._rows.values() if row.state == State.DELAYED and row.run_at <= now]
        return [due(row) for row in heapq.nsmallest(limit, found, key=lambda row: row.run_at)]

    def find_abandoned(self, now: float, limit: int) -> list[Abandoned]:
        """What :meth:`recover` would take."""
        with self._locked():
            return [abandoned(row) for row in self._abandoned(now, limit)]

    def find_unput(self, until: float, limit: int) -> list[Due]:
        """Up to ``limit`` rows known to have no pointer that are ready, or due by ``until``."""
        with self._locked():
            unput = [row for row in self._rows.values() if row.put_at is None]
        return [
            due(row)
            for row in unput
            if row.state == State.READY or (row.state == State.DELAYED and row.run_at <= until)
        ][:limit]

    def ready_types(self) -> list[str]:
        """The types that have a ready row, sorted."""
        with self._locked():
            return sorted(type for type, places in self._ready.items() if places)

    def find_lost(self, type: str, head: Head | None, now: float, grace: float, limit: int) -> list[Due]:
        """Up to ``limit`` rows that have lost their pointer by the head rule, best priority first."""
        with self._locked():
            ready = [self._rows[id] for _, _, id in self._ready.get(type, ())]
        return [due(row) for row in ready if is_lost(row, head, now, grace)][:limit]

    def mark(self, dues: Sequence[Due], put_at: float) -> list[Due]:
        """Returns those written."""
        marked = []
        with self._locked():
            for due in dues:
                row = self._rows.get(due.id)
                if row is not None and row.state in {State.READY, State.DELAYED} and row.put_at == due.put_at:
                    self._write(row._replace(put_at=put_at))
                    marked.append(due)
        return marked

    # -- dispatching without a broker --------------------------------------------------------------------

    def has_ready(self, types: Sequence[str]) -> bool:
        """Whether any row of these types is ready."""
        with self._locked():
            return any(self._ready.get(type) for type in types)

    def next_run_at(self) -> float | None:
        """The earliest ``run_at`` of a delayed row, or None."""
        with self._locked():
            row = self._earliest()
            return None if row is None else row.run_at

    def pulse(self) -> object:
        """The number of changes so far."""
        with self._locked():
            return self._changes

    # -- the rows and their places; under the lock -------------------------------------------------------

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # A child has a copy of the rows: it would run its parent's jobs again, and its own would be lost.
        if os.getpid() != self._pid:
            raise StoreError("memory: a memory store cannot be used after a fork; use sqlite:///jobs.db")
        with self._lock:
            yield

    def _write(self, row: Row) -> None:
        """The one way to add or change a row."""
        before = self._rows.get(row.id)
        self._leave_place(row.id)
        self._rows[row.id] = row
        self._changes += 1
        if row.state == State.READY:
            insort(self._ready.setdefault(row.type, []), self._place(row))
        elif row.state == State.DELAYED and not (before is not None and _same_delay(before, row)):
            heapq.heappush(self._delayed, (row.run_at, row.id))

    def _drop(self, row: Row) -> None:
        self._leave_place(row.id)
        del self._rows[row.id], self._order[row.id]
        self._changes += 1

    def _drop_all(self, rows: Sequence[Row]) -> int:
        for row in rows:
            self._drop(row)
        return len(rows)

    def _leave_place(self, id: str) -> None:
        row = self._rows.get(id)
        if row is not None and row.state == State.READY:
            places = self._ready[row.type]
            del places[bisect_left(places, self._place(row))]

    def _place(self, row: Row) -> _Place:
        return row.priority, self._order[row.id], row.id

    def _in_order(self, types: Sequence[str]) -> Iterator[Row]:
        places = heapq.merge(*(self._ready.get(type, ()) for type in dict.fromkeys(types)))
        return (self._rows[id] for _, _, id in places)

    def _existing(self, ids: Iterable[str]) -> list[Row]:
        """Each row once: two pointers may name the same job."""
        return [self._rows[id] for id in dict.fromkeys(ids) if id in self._rows]

    def _wanted(self, ids: Iterable[str], types: Sequence[str]) -> list[Row]:
        return [row for row in self._existing(ids) if row.type in types]

    def _held(self, id: str, fence: int) -> Row | None:
        row = self._rows.get(id)
        return row if row is not None and row.fence == fence and row.lease_owner is not None else None

    def _abandoned(self, now: float, limit: int) -> list[Row]:
        leases = (
            (row.lease_until, row)
            for row in self._rows.values()
            if row.state == State.RUNNING and row.lease_until is not None and row.lease_until <= now
        )
        return [row for _, row in heapq.nsmallest(limit, leases)]

    def _earliest(self) -> Row | None:
        """The delayed row that is due first."""
        while self._delayed:
            run_at, id = self._delayed[0]
            row = self._rows.get(id)
            if row is not None and row.state == State.DELAYED and row.run_at == run_at:
                return row
            heapq.heappop(self._delayed)
        return None


def _claimable(rows: Iterable[Row], now: float) -> Iterator[Row]:
    return (row for row in rows if row.state == State.READY or (row.state == State.DELAYED and row.run_at <= now))


def _same_delay(before: Row, after: Row) -> bool:
    return before.state == State.DELAYED and before.run_at == after.run_at
