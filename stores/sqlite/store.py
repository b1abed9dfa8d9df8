"""The SQLite store: one file, no server, durable at every return. See :mod:`kqueue.stores.sqlite.schema`."""

import functools
import inspect
import json
import logging
import os
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Concatenate, ParamSpec, TypeAlias, TypeVar

from kqueue.contracts.admission import Admission, Claimer, Limit
from kqueue.contracts.budget import Budget
from kqueue.contracts.intake import Span, Tick
from kqueue.contracts.lookup import Backlog, EndedRows
from kqueue.contracts.operator import JobChange
from kqueue.contracts.repair import Abandoned, Due, Head, Recovered
from kqueue.contracts.reporting import Report
from kqueue.contracts.runs import Claim, LeaseKey, Selection
from kqueue.contracts.settlements import Settled, Settlement
from kqueue.contracts.stored_times import Misdated
from kqueue.contracts.workers import WorkerRecord
from kqueue.model import checks
from kqueue.model.errors import StoreError, StoreReadOnly
from kqueue.model.history import LogLine
from kqueue.model.job import Row, State
from kqueue.stores.sqlite import backup as files
from kqueue.stores.sqlite import intake as inserts
from kqueue.stores.sqlite import operator
from kqueue.stores.sqlite import side_tables as records
from kqueue.stores.sqlite import statements as sql
from kqueue.stores.sqlite.admission import HELD_TYPES, admit
from kqueue.stores.sqlite.claim import Lease, json_set
from kqueue.stores.sqlite.claim_limited import take
from kqueue.stores.sqlite.claimed_ranges import ClaimedRanges
from kqueue.stores.sqlite.expire import expire
from kqueue.stores.sqlite.file.connect import check_settings
from kqueue.stores.sqlite.file.file import SqliteFile
from kqueue.stores.sqlite.settle import settle, with_tracebacks
from kqueue.stores.sqlite.sweep import find_abandoned, lost_rule, recover
from kqueue.stores.sqlite.times import find_misdated, repair_times
from kqueue.system.clock import Clock, SystemClock

P = ParamSpec("P")
T = TypeVar("T")

_Values: TypeAlias = tuple[Any, ...]


def _whole(method: Callable[Concatenate["SqliteStore", P], T]) -> Callable[Concatenate["SqliteStore", P], T]:
    @functools.wraps(method)
    def call(store: "SqliteStore", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return store._file.whole(method, store, *args, **kwargs)

    return call


def _in_whole_calls(store: "type[SqliteStore]") -> "type[SqliteStore]":
    """Have each public method leave nothing open or held, whatever signal strikes: see ``SqliteFile.whole``."""
    for name, method in list(vars(store).items()):
        if inspect.isfunction(method) and not name.startswith("_"):
            setattr(store, name, _whole(method))
    return store


@_in_whole_calls
class SqliteStore:
    """Keeps rows in one SQLite file, for any number of threads and processes of this host."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        synchronous: str = "FULL",
        busy_timeout: float = 5.0,
        clock: Clock | None = None,
        create: bool = True,
        mode: int = 0o600,
        logger: logging.Logger | None = None,
    ) -> None:
        """``busy_timeout``: seconds to wait for the other threads of this process, and then for another process's
        write. ``create``: whether to make a file that is missing, with the permissions ``mode``; ``logger`` is told
        of it. Nothing is opened yet.
        """
        name = os.fspath(path)
        if name in {"", ":memory:"}:
            raise ValueError(f"store: expected the path of an SQLite file, got {name!r}; 'memory:' keeps no file")
        name = checks.path("store", name)
        check_settings(synchronous, busy_timeout)
        if mode & 0o600 != 0o600 or mode & ~0o777:
            raise ValueError(
                f"store: expected a mode from 0600 to 0777 that lets the owner read and write, got {mode:04o}"
            )
        self._file = SqliteFile(
            # Absolute, so that a later change of the working folder does not lead to another file.
            os.path.abspath(name),
            synchronous=synchronous,
            busy_timeout=busy_timeout,
            create=create,
            mode=mode,
            logger=logger or logging.getLogger("kqueue"),
        )
        self._query = f"synchronous={synchronous}&busy_timeout={busy_timeout}&mode={mode:04o}"
        self._clock = clock or SystemClock()
        self._ranges = ClaimedRanges()

    @property
    def address(self) -> str:
        """Its URL for messages."""
        return self._file.address

    @property
    def shared_url(self) -> str:
        """Its URL for another process, with all options."""
        return f"{self.address}?{self._query}"

    def exists(self) -> bool:
        """Whether there is a file. Opens and makes nothing."""
        return self._file.exists()

    def open(self) -> None:
        """Connect, and make or migrate the tables. Raises :class:`~kqueue.model.errors.StoreUnavailable` if the
        file is missing and may not be made.
        """
        self._file.open()

    def close(self) -> None:
        """Close this process's connection; a later call opens again."""
        self._file.close()

    def now(self) -> float:
        """The host's clock."""
        return self._clock.time()

    def identity(self) -> str:
        """The file's."""
        return self._file.identity().id

    def begin_anew(self) -> None:
        """As if the file were a copy."""
        self._file.begin_anew()

    def backup(self, path: str, *, replace: bool) -> None:
        """SQLite's online backup of one moment: nobody waits for it. See :mod:`kqueue.stores.sqlite.backup`."""
        self._file.open()
        files.backup(self._file.path, path, replace=replace, timeout=self._file.busy_timeout)

    def restore(self, path: str, *, replace: bool) -> list[str]:
        """The file gets its name once it is complete."""
        self._file.close()
        return files.restore(path, self._file.path, replace=replace, timeout=self._file.busy_timeout)

    def setting(self, name: str, default: str) -> str:
        """The setting's value; if it has none, ``default`` is stored."""
        key = f"setting.{name}"
        found = self._read(sql.SETTING, (key,))
        if not found:
            with suppress(StoreReadOnly), self._file.write() as connection:
                connection.execute(sql.SET_DEFAULT, (key, default))
            found = self._read(sql.SETTING, (key,)) or [(default,)]
        return str(found[0][0])

    def remember(self, name: str, value: str) -> None:
        """In the place of what was there."""
        self._write(sql.REMEMBER, (f"remembered.{name}", value))

    def remembered(self, name: str) -> str | None:
        """What was given last."""
        found = self._read(sql.SETTING, (f"remembered.{name}",))
        return str(found[0][0]) if found else None

    # -- a job's way -------------------------------------------------------------------------------------

    def add(self, rows: Sequence[Row]) -> None:
        """All of them in one transaction, or none."""
        inserts.add(self._file, rows)

    def add_unique(self, rows: Sequence[Row], until: Mapping[str, float], now: float) -> list[str]:
        """One transaction; the primary key of the keys decides."""
        return inserts.add_unique(self._file, rows, until, now)

    def add_tick(self, tick: Tick, rows: Sequence[Row]) -> bool:
        """All of them and the tick in one transaction, or nothing."""
        return inserts.add_tick(self._file, tick, rows)

    def last_ticks(self) -> dict[str, float]:
        """The last tick of every schedule, by its name."""
        with self._file.read() as connection:
            return records.last_ticks(connection)

    def added_ticks(self) -> dict[str, tuple[Span, ...]]:
        """The spans of time whose ticks were added, of every schedule by its name."""
        with self._file.read() as connection:
            return records.added_ticks(connection)

    def claim(self, selection: Selection, budget: Budget, owner: str, now: float, alone: bool) -> Claim:
        """One transaction: candidates are read lazily, in order, until the window is full."""
        with self._write_lease(now) as (connection, start):
            lease = Lease(owner, start, now, self._file.fence_floor)
            claim = take(connection, selection, budget, lease, alone, ranges=self._ranges)
            if not claim.rows and not claim.held:
                connection.execute("ROLLBACK")
        return claim

    def settle_and_claim(
        self,
        settlements: Sequence[Settlement],
        selection: Selection,
        budget: Budget,
        owner: str,
        now: float,
        *,
        alone: bool,
    ) -> tuple[Settled, Claim]:
        """One transaction, unless some of the settlements are lost."""
        is_written = False
        try:
            with self._write_lease(now) as (connection, start):
                lease = Lease(owner, start, now, self._file.fence_floor)
                is_written = settle(connection, settlements, now, self._ranges) == len(settlements)
                if is_written:
                    return Settled(), take(connection, selection, budget, lease, alone, ranges=self._ranges)
                connection.execute("ROLLBACK")
            settled = self.settle(settlements, now)
            is_written = True
            return settled, self.claim(selection, budget, owner, now, alone)
        except StoreError as error:
            error.may_be_done |= is_written
            raise

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
        """One transaction, if any gate has a place for a row that it holds."""
        return admit(self._file, limit, keys, now, put_at=put_at, most=most, holder=holder)

    def held_types(self, types: Sequence[str]) -> list[str]:
        """Those of ``types`` that have a held row, sorted: one index probe for each."""
        return sorted(type for (type,) in self._read(HELD_TYPES, (json_set(types),)))

    def claimed_by(self, owner: str) -> list[Row]:
        """The rows that run under the claim of ``owner``."""
        return [_row(record) for record in self._read(sql.CLAIMED_BY, (owner,))]

    def renew(self, keys: Sequence[LeaseKey], now: float, alone: bool | None = None) -> frozenset[str]:
        """One transaction; returns the ids lost."""
        with self._write_lease(now) as (connection, start):
            return frozenset(
                job.id
                for job in keys
                if not connection.execute(sql.RENEW, (start + job.ttr, alone, job.id, job.fence)).rowcount
            )

    def settle(self, settlements: Sequence[Settlement], now: float) -> Settled:
        """One transaction. Only if some are lost, a second finds out which. An error at a commit is in doubt."""
        is_written = False
        try:
            with self._file.write() as connection:
                is_written = settle(connection, settlements, now, self._ranges) == len(settlements)
                if is_written:
                    return Settled()
                connection.execute("ROLLBACK")
            with self._file.write() as connection:
                lost = [one.id for one in settlements if not settle(connection, [one], now, self._ranges)]
                is_written = True
                return Settled(frozenset(lost))
        except StoreError as error:
            error.may_be_done |= is_written
            raise

    def report(self, told: Sequence[Report], now: float) -> frozenset[str]:
        """One transaction; returns the ids lost."""
        with self._file.write() as connection:
            return records.write_reports(connection, told)

    def job_log(self, id: str, after: int | None, most: int) -> list[LogLine]:
        """One index range."""
        with self._file.read() as connection:
            return records.read_log(connection, id, after, most)

    # -- the operator's ----------------------------------------------------------------------------------

    def delete(self, ids: Sequence[str]) -> int:
        """Delete rows whatever their state and fence; returns how many there were."""
        return operator.delete(self._file, ids)

    def revive(self, ids: Sequence[str], reason: str, now: float, put_at: float | None) -> list[Due]:
        """Make dead rows ready; returns those made."""
        return operator.revive(self._file, ids, reason, now, put_at)

    def hasten(self, ids: Sequence[str], now: float, put_at: float | None) -> list[Due]:
        """Make delayed rows ready; returns those made."""
        return operator.hasten(self._file, ids, now, put_at)

    def change(self, id: str, change: JobChange, now: float, put_at: float | None, put_until: float) -> Due | None:
        """One statement."""
        values = {**change._asdict(), "id": id, "now": now, "put_at": put_at, "put_until": put_until}
        return operator.change(self._file, values)

    def get(self, ids: Sequence[str]) -> list[Row]:
        """The rows that there are, in the order of ``ids``."""
        with self._file.read() as connection:
            found = connection.execute(sql.GET, {"ids": json.dumps(ids)}).fetchall()
            return with_tracebacks(connection, [*map(_row, found)])

    def ends(self, type: str | None, after: str | None, most: int) -> EndedRows:
        """By their numbers, which commits give."""
        found = self._read(sql.ENDS, {"type": type, "after": checks.place(after), "most": most})
        return EndedRows([_row(record[1:]) for record in found], str(found[-1][0]) if found else after)

    def states(self, ids: Sequence[str]) -> dict[str, str]:
        """Look-ups by id."""
        return dict(self._read(sql.STATES, {"ids": json.dumps(ids)}))

    def find_unique(self, type: str, key: str) -> Row | None:
        """The row of the job that took the key last: look-ups by primary key and id."""
        return next(iter(self.get([id for (id,) in self._read(records.HOLDER_OF_KEY, (type, key))])), None)

    def find(self, type: str | None, state: str, after: str | None, most: int) -> list[Row]:
        """Rows in one state, in the order of their ids, after the id ``after``."""
        values = {"type": type, "after": after or "", "most": most}
        return [_row(record) for record in self._read(sql.FINDS[State(state)], values)]

    def counts(self, type: str | None = None) -> dict[str, int]:
        """Rows by state, each counted in an index."""
        (found,) = self._read(sql.COUNT_ALL) if type is None else self._read(sql.COUNT_TYPE, {"type": type})
        return dict(zip(map(str, State), found, strict=True))

    def overview(self) -> list[Backlog]:
        """How many rows stand where: reads every row."""
        return [Backlog._make(record) for record in self._read(sql.OVERVIEW)]

    def ahead(self, row: Row, most: int) -> int:
        """How many ready rows of its type come before ``row``: up to ``most`` of two index ranges."""
        for (key,) in self._read(sql.KEY_OF, (row.id,)):
            values = {"type": row.type, "priority": row.priority, "key": key, "most": most}
            return int(self._read(sql.AHEAD, values)[0][0])
        return 0

    def purge(self, type: str, most: int) -> int:
        """One transaction; once no row is left, more of them if there are many unique keys to free."""
        return operator.purge(self._file, type, most)

    def pause(self, type: str, now: float) -> bool:
        """False if it was paused already."""
        return self._write(records.PAUSE, (type, now)) == 1

    def resume(self, type: str) -> bool:
        """False if it was not paused."""
        return self._write(records.RESUME, (type,)) == 1

    def paused(self) -> dict[str, float]:
        """What is paused, and since when: one small table."""
        return dict(self._read(records.PAUSED))

    def see_worker(self, worker: WorkerRecord) -> None:
        """Remember ``worker``."""
        with self._file.write() as connection:
            records.see_worker(connection, worker)

    def forget_worker(self, id: str) -> None:
        """Forget the worker: it has left."""
        self._write(records.FORGET_WORKER, (id,))

    def workers(self) -> list[WorkerRecord]:
        """All workers that are remembered, by id."""
        with self._file.read() as connection:
            return records.workers(connection)

    def claimed_by_process(self, tail: str) -> list[Row]:
        """The rows that run under claims of one process."""
        return [_row(record) for record in self._read(sql.CLAIMED_BY_PROCESS, {"tail": tail})]

    # -- the sweep's -------------------------------------------------------------------------------------

    def take_sweep(self, now: float, interval: float) -> bool:
        """True for one caller in ``interval`` seconds."""
        # Most calls are told no: find that out without the write lock.
        if any(last <= now < last + interval for (last,) in self._read(sql.LAST_SWEEP)):
            return False
        with self._file.write() as connection:
            return connection.execute(sql.TAKE_SWEEP, {"now": now, "interval": interval}).rowcount == 1

    def promote(self, now: float, most: int) -> int:
        """Make up to ``most`` due rows ready, the earliest first; how many."""
        next_run_at = self.next_run_at()
        if next_run_at is None or next_run_at > now:
            return 0
        with self._file.write() as connection:
            return connection.execute(sql.PROMOTE, (now, most)).rowcount

    def recover(self, now: float, max_crashes: int, most: int) -> Recovered:
        """Take up to ``most`` abandoned rows from their holder, the longest abandoned first."""
        if not self.find_abandoned(now, 1):
            return Recovered(0)
        with self._file.write() as connection:
            return recover(connection, now, max_crashes, most)

    def expire(self, now: float, most: int) -> int:
        """One transaction, if there is anything to forget."""
        return expire(self._file, now, most)

    def find_misdated(self, types: Sequence[str] | None, now: float, most: int) -> list[Misdated]:
        """What :meth:`repair_times` would set right: index probes, and two small tables."""
        with self._file.read() as connection:
            return find_misdated(connection, types, now, most)

    def repair_times(self, types: Sequence[str] | None, now: float, most: int) -> int:
        """One transaction, if anything lies too far ahead."""
        if not self.find_misdated(types, now, 1):
            return 0
        with self._file.write() as connection:
            return repair_times(connection, types, now, most)

    def find_due(self, now: float, most: int) -> list[Due]:
        """What :meth:`promote` would make ready: one index range."""
        return [Due(*record) for record in self._read(sql.FIND_DUE, (now, most))]

    def find_abandoned(self, now: float, most: int) -> list[Abandoned]:
        """What :meth:`recover` would take: one index range for each TTR."""
        with self._file.read() as connection:
            return find_abandoned(connection, now, most)

    def find_unput(self, until: float, most: int) -> list[Due]:
        """Up to ``most`` rows known to have no pointer that are ready, or due by ``until``."""
        return [Due(*record) for record in self._read(sql.FIND_UNPUT, {"until": until, "most": most})]

    def ready_types(self, after: str, most: int) -> list[str]:
        """Types that have a ready row, sorted: one index probe for each."""
        return [record[0] for record in self._read(sql.READY_TYPES, {"after": after, "most": most})]

    def sweep_position(self) -> str:
        """As :meth:`keep_sweep_position` was told last."""
        return next((str(position) for (position,) in self._read(sql.SWEEP_POSITION)), "")

    def keep_sweep_position(self, type: str) -> None:
        """One small write."""
        self._write(sql.KEEP_SWEEP_POSITION, (type,))

    def find_lost(self, heads: Mapping[str, Head | None], now: float, grace: float, most: int) -> list[Due]:
        """Rows that have lost their pointer by the head rule: one index range for each type and priority."""
        until = now - grace
        rules = [(type, *lost_rule(head, until, grace)) for type, head in heads.items()]
        values = {"heads": json.dumps(rules), "until": until, "most": most}
        return [Due(*record) for record in self._read(sql.FIND_LOST, values)]

    def mark(self, dues: Sequence[Due], put_at: float) -> list[Due]:
        """One transaction; returns those written."""
        with self._file.write() as connection:
            return [due for due in dues if connection.execute(sql.MARK, (put_at, due.id, due.put_at)).rowcount]

    # -- dispatching without a broker --------------------------------------------------------------------

    def has_ready(self, types: Sequence[str]) -> bool:
        """Whether any row of these types is ready: one index probe for each."""
        return self._read(sql.HAS_READY, (json.dumps(types),)) == [(1,)]

    def next_run_at(self) -> float | None:
        """The earliest ``run_at`` of a delayed row, or None: one index probe."""
        return next((run_at for (run_at,) in self._read(sql.NEXT_RUN_AT)), None)

    def pulse(self) -> object:
        """Differs once any process has changed the file since the last call."""
        return self._file.pulse()

    @contextmanager
    def _write_lease(self, now: float) -> Iterator[tuple[sqlite3.Connection, float]]:
        """A write transaction, and the start of a lease: ``now``, and the wait for the transaction. Without the
        wait a lease could be over when it is granted.
        """
        asked = self._clock.monotonic()
        with self._file.write() as connection:
            yield connection, now + (self._clock.monotonic() - asked)

    def _write(self, statement: str, values: Sequence[Any]) -> int:
        with self._file.write() as connection:
            return connection.execute(statement, values).rowcount

    def _read(self, statement: str, values: Sequence[Any] | dict[str, Any] = ()) -> list[_Values]:
        with self._file.read() as connection:
            return connection.execute(statement, values).fetchall()


def _row(record: _Values) -> Row:
    row = Row._make(record)
    return row._replace(alone=bool(row.alone))
