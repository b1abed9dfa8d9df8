"""The memory store: plain dicts and a lock, the readable reference of the contract.

It lives in one process and ends with it, so it is for tests and for jobs that may be lost.
"""

import heapq
import threading
from collections.abc import Collection, Mapping, Sequence

from kqueue.contracts.admission import Admission, Claimer, Limit
from kqueue.contracts.budget import Budget
from kqueue.contracts.intake import Span, Tick
from kqueue.contracts.lookup import Backlog, EndedRows
from kqueue.contracts.operator import JobChange
from kqueue.contracts.repair import Abandoned, Due, Head, Recovered
from kqueue.contracts.reporting import Report
from kqueue.contracts.rules import is_lost
from kqueue.contracts.runs import Claim, LeaseKey, Selection
from kqueue.contracts.settlements import Settled, Settlement, comes_back, reports_of
from kqueue.contracts.stored_times import Misdated
from kqueue.contracts.workers import WorkerRecord
from kqueue.model import tubes
from kqueue.model.errors import AddFailed, StoreError
from kqueue.model.history import LogLine
from kqueue.model.ids import is_made_by
from kqueue.model.job import Row, State
from kqueue.stores.memory import claim as claims
from kqueue.stores.memory.gate_counts import Starts
from kqueue.stores.memory.reports import report
from kqueue.stores.memory.rows import MemoryRows, waiting_by
from kqueue.stores.memory.times import MemoryTimes
from kqueue.stores.memory.unique import NO_KEYS, Place, Taken, UniqueKeys
from kqueue.stores.transitions import (
    FORGET_AFTER_S,
    abandoned,
    changed,
    hastened,
    recovered,
    renewed,
    revived,
    settled,
)
from kqueue.system import locks
from kqueue.system.clock import Clock, SystemClock
from kqueue.system.forks import ForkGuard


class MemoryStore:
    """One instance is one store, for any number of threads of one process."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._lock = threading.RLock()
        self._fork = ForkGuard()
        self._rows = MemoryRows()
        self._starts = Starts()
        self._settings: dict[str, str] = {}
        self._remembered: dict[str, str] = {}
        self._id = tubes.new_id()
        self._last_sweep: float | None = None
        self._sweep_position = ""
        self._unique = UniqueKeys(self._rows)
        self._ticks: dict[str, Tick] = {}
        self._paused: dict[str, float] = {}
        self._workers: dict[str, WorkerRecord] = {}

    @property
    def address(self) -> str:
        """Its URL for messages."""
        return "memory:"

    @property
    def shared_url(self) -> None:
        """None: it lives in this process."""
        return None

    def exists(self) -> bool:
        """It does, as long as the instance."""
        return True

    def open(self) -> None:
        """Nothing to connect."""

    def close(self) -> None:
        """Nothing to close: the rows stay as long as the instance."""

    def now(self) -> float:
        """The clock it was given."""
        return self._clock.time()

    def identity(self) -> str:
        """The instance's."""
        with self._locked():
            return self._id

    def begin_anew(self) -> None:
        """Another id. Nothing is ever restored here, so fences go on."""
        with self._locked():
            self._id = tubes.new_id()

    def backup(self, path: str, *, replace: bool) -> None:
        """It ends with its process."""
        raise StoreError("memory: has no backup, since it ends with its process; use sqlite:///jobs.db")

    def restore(self, path: str, *, replace: bool) -> list[str]:
        """It begins with its process."""
        raise StoreError("memory: nothing can be restored into it; use sqlite:///jobs.db")

    def setting(self, name: str, default: str) -> str:
        """The setting's value; if it has none, ``default`` is stored."""
        with self._locked():
            return self._settings.setdefault(name, default)

    def remember(self, name: str, value: str) -> None:
        """In the place of what was there."""
        with self._locked():
            self._remembered[name] = value

    def remembered(self, name: str) -> str | None:
        """What was given last."""
        with self._locked():
            return self._remembered.get(name)

    # -- a job's way -------------------------------------------------------------------------------------

    def add(self, rows: Sequence[Row]) -> None:
        """All of them, or none."""
        with self._adding(rows):
            self._insert(rows)

    def add_unique(self, rows: Sequence[Row], until: Mapping[str, float], now: float) -> list[str]:
        """All that are new, or none."""
        with self._adding(rows):
            holders = [self._unique.holder_for(row, now) for row in rows]
            new = [row for row, holder in zip(rows, holders, strict=True) if holder == row.id]
            taken = {
                (row.type, row.unique_key): Taken(row.id, until[row.id], now)
                for row in new
                if row.unique_key is not None
            }
            self._insert(new, taken=taken)
        return holders

    def add_tick(self, tick: Tick, rows: Sequence[Row]) -> bool:
        """All of them and the tick, or nothing."""
        with self._adding(rows):
            last = self._ticks.get(tick.schedule)
            if (None if last is None else last.after) != tick.before:
                return False
            self._insert(rows, tick)
        return True

    def last_ticks(self) -> dict[str, float]:
        """The last tick of every schedule, by its name."""
        with self._locked():
            return {name: tick.after for name, tick in self._ticks.items()}

    def added_ticks(self) -> dict[str, tuple[Span, ...]]:
        """The spans of time whose ticks were added, of every schedule by its name."""
        with self._locked():
            return {name: tick.added for name, tick in self._ticks.items()}

    def claim(self, selection: Selection, budget: Budget, owner: str, now: float, alone: bool) -> Claim:
        """Candidates are looked at lazily, in order, until the window is full."""
        with self._locked():
            return claims.claim(self._rows, self._starts, selection, budget, owner, now=now, alone=alone)

    def admit(
        self,
        limit: Limit,
        keys: Collection[str] | None,
        now: float,
        put_at: float | None,
        most: int,
        *,
        holder: Claimer | None = None,
    ) -> Admission:
        """Let held rows through: at the gate of the type first."""
        with self._locked():
            return claims.admit(
                self._rows, self._starts, limit, keys, now=now, put_at=put_at, most=most, holder=holder
            )

    def held_types(self, types: Sequence[str]) -> list[str]:
        """The types that have a held row, sorted."""
        with self._locked():
            return self._rows.held_types(types)

    def claimed_by(self, owner: str) -> list[Row]:
        """The rows that run under the claim of ``owner``."""
        with self._locked():
            return [row for row in self._rows.running() if row.lease_owner == owner]

    def renew(self, keys: Sequence[LeaseKey], now: float, alone: bool | None = None) -> frozenset[str]:
        """Give each lease another TTR; returns the ids whose leases were lost."""
        lost = set()
        with self._locked():
            for job in keys:
                row = self._rows.in_hand(job.id, job.fence)
                if row is None or row.state not in {State.RUNNING, State.READY}:
                    lost.add(job.id)
                else:
                    self._rows.write(renewed(row, now + job.ttr, row.alone if alone is None else alone))
        return frozenset(lost)

    def report(self, reports: Sequence[Report], now: float) -> frozenset[str]:
        """Returns the ids lost."""
        with self._locked():
            return frozenset(one.id for one in reports if not report(self._rows, one))

    def job_log(self, id: str, after: int | None, most: int) -> list[LogLine]:
        """Lines of a log, the oldest first."""
        with self._locked():
            lines = self._rows.logs.get(id, [])
            return [line for line in lines if after is None or line.number > after][:most]

    def settle(self, settlements: Sequence[Settlement], now: float) -> Settled:
        """It always knows which are lost."""
        lost = set()
        with self._locked():
            for one in reports_of(settlements):
                report(self._rows, one)
            for settlement in settlements:
                row = self._rows.in_hand(settlement.id, settlement.fence)
                if row is None:
                    lost.add(settlement.id)
                    continue
                after = settled(row, settlement, now)
                if after is None:
                    self._rows.remove([row])
                else:
                    self._rows.write(after, last=comes_back(settlement))
        return Settled(frozenset(lost))

    # -- the operator's ----------------------------------------------------------------------------------

    def delete(self, ids: Sequence[str]) -> int:
        """Delete rows whatever their state and fence; returns how many there were."""
        with self._locked():
            self._unique.free(set(ids))
            return self._rows.remove(self._rows.existing(ids))

    def revive(self, ids: Sequence[str], reason: str, now: float, put_at: float | None) -> list[Due]:
        """Make dead rows ready; returns those made."""
        with self._locked():
            dead = [row for row in self._rows.existing(ids) if row.state == State.DEAD]
            return self._rows.write_all(revived(row, reason, now, put_at) for row in dead)

    def hasten(self, ids: Sequence[str], now: float, put_at: float | None) -> list[Due]:
        """Make delayed rows ready; returns those made."""
        with self._locked():
            found = [row for row in self._rows.existing(ids) if row.state == State.DELAYED]
            return self._rows.write_all(hastened(row, now, put_at) for row in found)

    def change(self, id: str, change: JobChange, now: float, put_at: float | None, put_until: float) -> Due | None:
        """Change a row that waits; None if there is none."""
        with self._locked():
            row = self._rows.by_id.get(id)
            if row is None or row.state not in {State.DELAYED, State.READY, State.HELD}:
                return None
            self._rows.write(changed(row, change, now, put_at, put_until))
            return Due.of(self._rows.by_id[id])

    def get(self, ids: Sequence[str]) -> list[Row]:
        """The rows that there are, in the order of ``ids``."""
        with self._locked():
            return [self._rows.by_id[id] for id in ids if id in self._rows.by_id]

    def ends(self, type: str | None, after: str | None, most: int) -> EndedRows:
        """In the order in which they ended."""
        with self._locked():
            return self._rows.ended(type, after, most)

    def states(self, ids: Sequence[str]) -> dict[str, str]:
        """The states of those that there are."""
        with self._locked():
            return {row.id: str(row.state) for row in self._rows.existing(ids)}

    def find_unique(self, type: str, key: str) -> Row | None:
        """The row of the job that took the key last."""
        with self._locked():
            taken = self._unique.by_place.get((type, key))
            return None if taken is None else self._rows.by_id.get(taken.id)

    def find(self, type: str | None, state: str, after: str | None, most: int) -> list[Row]:
        """Rows in one state, in the order of their ids, after the id ``after``."""
        with self._locked():
            return self._rows.find(type, state, after, most)

    def counts(self, type: str | None = None) -> dict[str, int]:
        """Rows by state, all states named."""
        with self._locked():
            return self._rows.counts(type)

    def overview(self) -> list[Backlog]:
        """How many rows stand where."""
        with self._locked():
            return self._rows.overview()

    def ahead(self, row: Row, most: int) -> int:
        """How many ready rows of its type come before ``row``."""
        with self._locked():
            return min(most, self._rows.ahead(row.id, row.priority))

    def purge(self, type: str, most: int) -> int:
        """Delete up to ``most`` rows of the type that do not run; returns how many."""
        with self._locked():
            idle = [row for row in self._rows.all() if row.type == type and row.state != State.RUNNING]
            gone = self._rows.remove(idle[:most])
            self._unique.free_gone(type)
        return gone

    def pause(self, type: str, now: float) -> bool:
        """False if it was paused already."""
        with self._locked():
            if type in self._paused:
                return False
            self._paused[type] = now
            return True

    def resume(self, type: str) -> bool:
        """False if it was not paused."""
        with self._locked():
            return self._paused.pop(type, None) is not None

    def paused(self) -> dict[str, float]:
        """What is paused, and since when."""
        with self._locked():
            return dict(self._paused)

    def see_worker(self, worker: WorkerRecord) -> None:
        """Remember ``worker``."""
        with self._locked():
            self._workers[worker.id] = worker

    def forget_worker(self, id: str) -> None:
        """Forget the worker: it has left."""
        with self._locked():
            self._workers.pop(id, None)

    def workers(self) -> list[WorkerRecord]:
        """All workers that are remembered, by id."""
        with self._locked():
            return sorted(self._workers.values())

    def claimed_by_process(self, tail: str) -> list[Row]:
        """The rows that run under claims of one process."""
        with self._locked():
            return [row for row in self._rows.running() if is_made_by(row.lease_owner, tail)]

    # -- the sweep's -------------------------------------------------------------------------------------

    def take_sweep(self, now: float, interval: float) -> bool:
        """True for one caller in ``interval`` seconds."""
        with self._locked():
            if self._last_sweep is not None and self._last_sweep <= now < self._last_sweep + interval:
                return False
            self._last_sweep = now
            return True

    def promote(self, now: float, most: int) -> int:
        """Make up to ``most`` due rows ready, the earliest first; how many."""
        made = 0
        with self._locked():
            while made < most and (row := self._rows.earliest()) is not None and row.run_at <= now:
                self._rows.write(row._replace(state=State.READY))
                made += 1
        return made

    def recover(self, now: float, max_crashes: int, most: int) -> Recovered:
        """Take up to ``most`` abandoned rows from their holder, the longest abandoned first."""
        with self._locked():
            found = self._rows.abandoned(now, most)
            after = [recovered(row, max_crashes, now) for row in found]
            for row in after:
                self._rows.write(row, last=True)
        died = [abandoned(was) for was, row in zip(found, after, strict=True) if row.state == State.DEAD]
        return Recovered(len(after) - len(died), tuple(died))

    def expire(self, now: float, most: int) -> int:
        """Delete done rows that need not be kept any more; returns how many."""
        old = now - FORGET_AFTER_S
        with self._locked():
            gone = self._rows.remove(self._rows.over(now, most))
            self._unique.forget(now)
            for worker in [worker for worker in self._workers.values() if worker.seen_at <= old][:most]:
                del self._workers[worker.id]
            self._starts.forget(old, most)
        return gone

    def find_misdated(self, types: Sequence[str] | None, now: float, most: int) -> list[Misdated]:
        """What :meth:`repair_times` would set right."""
        with self._locked():
            return self._times().find(types, now, most)

    def repair_times(self, types: Sequence[str] | None, now: float, most: int) -> int:
        """Set right what lies too far ahead; how many."""
        with self._locked():
            return self._times().repair(types, now, most)

    def _times(self) -> MemoryTimes:
        return MemoryTimes(self._rows, self._starts, self._unique.by_place, self._paused, self._workers)

    def find_due(self, now: float, most: int) -> list[Due]:
        """What :meth:`promote` would make ready."""
        with self._locked():
            found = [row for row in self._rows.all() if row.state == State.DELAYED and row.run_at <= now]
        return [Due.of(row) for row in heapq.nsmallest(most, found, key=lambda row: row.run_at)]

    def find_abandoned(self, now: float, most: int) -> list[Abandoned]:
        """What :meth:`recover` would take."""
        with self._locked():
            return [abandoned(row) for row in self._rows.abandoned(now, most)]

    def find_unput(self, until: float, most: int) -> list[Due]:
        """Up to ``most`` rows known to have no pointer that are ready, or due by ``until``."""
        with self._locked():
            unput = [row for row in self._rows.all() if row.put_at is None]
        return [Due.of(row) for row in waiting_by(unput, until)][:most]

    def ready_types(self, after: str, most: int) -> list[str]:
        """Types that have a ready row, sorted."""
        with self._locked():
            return self._rows.ready_types(after, most)

    def sweep_position(self) -> str:
        """As :meth:`keep_sweep_position` was told last."""
        with self._locked():
            return self._sweep_position

    def keep_sweep_position(self, type: str) -> None:
        """Remember it."""
        with self._locked():
            self._sweep_position = type

    def find_lost(self, heads: Mapping[str, Head | None], now: float, grace: float, most: int) -> list[Due]:
        """Up to ``most`` rows that have lost their pointer by the head rule."""
        with self._locked():
            ready = [row for type in sorted(heads) for row in self._rows.ready([type])]
        return [Due.of(row) for row in ready if is_lost(row, heads[row.type], now, grace)][:most]

    def mark(self, dues: Sequence[Due], put_at: float) -> list[Due]:
        """Write ``put_at`` where it is as it was read; returns those written."""
        with self._locked():
            return [due for due in dues if self._rows.mark(due, put_at)]

    # -- dispatching without a broker --------------------------------------------------------------------

    def has_ready(self, types: Sequence[str]) -> bool:
        """Whether any row of these types is ready."""
        with self._locked():
            return next(self._rows.ready(types), None) is not None

    def next_run_at(self) -> float | None:
        """The earliest ``run_at`` of a delayed row, or None."""
        with self._locked():
            row = self._rows.earliest()
            return None if row is None else row.run_at

    def pulse(self) -> object:
        """The number of changes of rows so far."""
        with self._locked():
            return self._rows.changes

    # -- under the lock ----------------------------------------------------------------------------------

    def _locked(self) -> locks.OwnLock:
        """The lock, for the ``with`` that calls this."""
        # A child has a copy of the rows: it would run its parent's jobs again, and its own would be lost.
        if self._fork.is_inherited():
            raise StoreError("memory: a memory store cannot be used after a fork; use sqlite:///jobs.db")
        return locks.entry(self._lock, StoreError, "memory")

    def _adding(self, rows: Sequence[Row]) -> locks.OwnLock:
        """The lock. Raises ``AddFailed``: no job was added."""
        try:
            return self._locked()
        except StoreError as error:
            raise self._not_added(str(error), rows) from error

    def _not_added(self, why: str, rows: Sequence[Row]) -> AddFailed:
        return AddFailed(f"no job was added: {why}", not_taken=[row.id for row in rows])

    def _insert(
        self, rows: Sequence[Row], tick: Tick | None = None, taken: Mapping[Place, Taken] = NO_KEYS
    ) -> None:
        """``rows``, the ``tick`` that they are of, and how their unique keys are ``taken``: all, or nothing."""
        ids = [row.id for row in rows]
        if len(set(ids)) < len(ids) or any(id in self._rows.by_id for id in ids):
            raise self._not_added("memory: holds a job of this id already", rows)
        try:
            for row in rows:
                self._rows.add(row)
            if tick is not None:
                self._ticks[tick.schedule] = tick
            self._unique.by_place.update(taken)
        except BaseException:  # of a signal handler
            self._rows.remove(self._rows.existing(ids))
            raise
