"""The SQLite store: one file, no server, durable at every return. See :mod:`kqueue.stores.sqlite_schema`."""

import json
import math
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final, TypeAlias

from kqueue.clock import Clock, SystemClock
from kqueue.errors import AddFailed, StoreError
from kqueue.job import Row, State
from kqueue.rules import recovery
from kqueue.store import (
    Abandoned,
    Claim,
    Delete,
    Die,
    Due,
    Head,
    Held,
    Recovered,
    Retry,
    Selection,
    Settled,
    Settlement,
    Unget,
)
from kqueue.stores import sqlite_statements as sql
from kqueue.stores.sqlite_claim import Lease, candidates, json_set, later
from kqueue.stores.sqlite_file import SqliteFile
from kqueue.stores.sqlite_insert import insert
from kqueue.stores.transitions import waiting
from kqueue.window import Limits

#: What a write costs in safety. FULL survives a power loss; NORMAL may then lose the last commits, but
#: survives the death of any process; OFF may damage the file (https://www.sqlite.org/pragma.html).
SYNCHRONOUS: Final = ("FULL", "NORMAL", "OFF")
#: SQLite counts the milliseconds in 32 bits.
MAX_BUSY_TIMEOUT_S: Final = 86_400
#: Larger than any priority.
_AFTER_ALL: Final = 2**63 - 1
#: The states in the order of ``COUNT_ALL`` and ``COUNT_TYPE``.
_COUNTED: Final = ("delayed", "ready", "running", "dead", "done")

_Values: TypeAlias = tuple[Any, ...]


class SqliteStore:
    """Keeps rows in one SQLite file, for any number of threads and processes of this host."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        synchronous: str = "FULL",
        busy_timeout: float = 5.0,
        clock: Clock | None = None,
    ) -> None:
        """``busy_timeout``: seconds to wait for the other threads of this process, and then for another process's
        write. Nothing is opened yet.
        """
        name = os.fspath(path)
        if not isinstance(name, str) or name in {"", ":memory:"}:
            raise ValueError(f"store: expected the path of an SQLite file, got {name!r}; 'memory:' keeps no file")
        if synchronous not in SYNCHRONOUS:
            raise ValueError(f"store: expected synchronous to be one of {SYNCHRONOUS}, got {synchronous!r:.40}")
        if not 0 <= busy_timeout <= MAX_BUSY_TIMEOUT_S:
            raise ValueError(
                f"store: expected busy_timeout in seconds, 0 or more, at most {MAX_BUSY_TIMEOUT_S},"
                f" got {busy_timeout!r}"
            )
        # Absolute, so that a later change of the working folder does not lead to another file.
        self._file = SqliteFile(os.path.abspath(name), synchronous=synchronous, busy_timeout=busy_timeout)
        self._clock = clock or SystemClock()

    @property
    def address(self) -> str:
        """Its URL for messages."""
        return self._file.address

    def open(self) -> None:
        """Connect, and make or migrate the tables."""
        self._file.open()

    def close(self) -> None:
        """Close this process's connection; a later call opens again."""
        self._file.close()

    def now(self) -> float:
        """The host's clock."""
        return self._clock.time()

    def setting(self, name: str, default: str) -> str:
        """The setting's value; if it has none, ``default`` is stored."""
        key = f"setting.{name}"
        found = self._read(sql.SETTING, (key,))
        if not found:
            with self._file.write() as connection:
                connection.execute(sql.SET_DEFAULT, (key, default))
            found = self._read(sql.SETTING, (key,))
        return str(found[0][0])

    # -- a job's way -------------------------------------------------------------------------------------

    def add(self, rows: Sequence[Row]) -> None:
        """All of them in one transaction, or none."""
        committing = False
        try:
            with self._file.write() as connection:
                insert(connection, rows)
                committing = True
        except StoreError as error:
            ids = [row.id for row in rows]
            if not committing:
                raise AddFailed(f"no job was added: {error}", not_taken=ids) from error
            self._check_commit(ids, error)

    def _check_commit(self, ids: list[str], error: StoreError) -> None:
        """A commit that failed has been rolled back, says SQLite; believe what can be read."""
        try:
            there = {record[0] for record in self._read(sql.THERE, {"ids": json.dumps(ids)})}
        except StoreError:
            raise AddFailed(f"the jobs may have been added or not: {error}", unknown=ids) from error
        if len(there) < len(ids):
            taken = [id for id in ids if id in there]
            missing = [id for id in ids if id not in there]
            raise AddFailed(
                f"{len(missing)} jobs were not added: {error}", taken=taken, not_taken=missing
            ) from error

    def claim(self, selection: Selection, limits: Limits, owner: str, now: float, alone: bool) -> Claim:
        """One transaction: candidates are read lazily, in order, until the window is full."""
        keys: list[int] = []
        with self._write_lease(now) as (connection, start):
            lease = Lease(owner, start, now)
            with ExitStack() as cursors:
                rows, cut = limits.fit(candidates(connection, selection, lease, cursors, keys))
            alone = alone and len(rows) == 1
            if alone:
                rows = [rows[0]._replace(alone=True)]
            values = {**lease._asdict(), "alone": alone, "keys": json.dumps(keys[: len(rows)])}
            connection.execute(sql.CLAIM, values)
            delayed = later(connection, selection, rows, cut, now)
            if not rows:
                connection.execute("ROLLBACK")
        return Claim(rows, cut, delayed)

    def held_by(self, owner: str) -> list[Row]:
        """The rows that run under the claim of ``owner``."""
        return [_row(record) for record in self._read(sql.HELD_BY, (owner,))]

    def renew(self, held: Sequence[Held], now: float, alone: bool | None = None) -> frozenset[str]:
        """One transaction; returns the ids lost."""
        with self._write_lease(now) as (connection, start):
            return frozenset(
                job.id
                for job in held
                if not connection.execute(sql.RENEW, (start + job.ttr, alone, job.id, job.fence)).rowcount
            )

    def settle(self, settlements: Sequence[Settlement], now: float) -> Settled:
        """One transaction. Only if some are lost, a second one finds out which."""
        with self._file.write() as connection:
            matched = sum(_write(connection, *batch) for batch in _batches(settlements, now))
            if matched == len(settlements):
                return Settled()
            connection.execute("ROLLBACK")
        with self._file.write() as connection:
            return Settled(
                frozenset(
                    settlement.id
                    for settlement in settlements
                    if not sum(_write(connection, *batch) for batch in _batches([settlement], now))
                )
            )

    # -- the operator's ----------------------------------------------------------------------------------

    def delete(self, ids: Sequence[str]) -> int:
        """Delete rows whatever their state and fence; returns how many there were."""
        with self._file.write() as connection:
            return connection.executemany(sql.DELETE, [(id,) for id in ids]).rowcount if ids else 0

    def revive(self, ids: Sequence[str], reason: str, now: float, put_at: float | None) -> list[Due]:
        """Make dead rows ready; returns those made."""
        with self._file.write() as connection:
            dead = connection.execute(sql.FIND_DEAD, {"ids": json_set(ids)}).fetchall()
            connection.executemany(sql.REVIVE, [(now, put_at, _text(reason), record[0]) for record in dead])
        return [Due(id, type, priority, now, put_at) for id, type, priority in dead]

    def get(self, ids: Sequence[str]) -> list[Row]:
        """The rows that there are, in the order of ``ids``."""
        return [_row(record) for record in self._read(sql.GET, {"ids": json.dumps(ids)})]

    def find(self, type: str | None, state: str, after: str | None, limit: int) -> list[Row]:
        """Rows in one state, in the order of their ids, after the id ``after``."""
        values = {"type": type, "after": after or "", "limit": limit}
        return [_row(record) for record in self._read(sql.FINDS[State(state)], values)]

    def counts(self, type: str | None = None) -> dict[str, int]:
        """Rows by state, each counted in an index."""
        (found,) = self._read(sql.COUNT_ALL) if type is None else self._read(sql.COUNT_TYPE, {"type": type})
        return dict(zip(_COUNTED, found, strict=True))

    def types(self) -> list[str]:
        """All job types that have a row, sorted."""
        return [record[0] for record in self._read(sql.TYPES)]

    def purge(self, type: str, limit: int) -> int:
        """Delete up to ``limit`` rows of the type that do not run; returns how many."""
        gone = 0
        with self._file.write() as connection:
            for statement in sql.PURGES:
                gone += connection.execute(statement, (type, limit - gone)).rowcount
        return gone

    # -- the sweep's -------------------------------------------------------------------------------------

    def take_sweep(self, now: float, interval: float) -> bool:
        """True for one caller in ``interval`` seconds."""
        # Most calls are told no: find that out without the write lock.
        if any(last <= now < last + interval for (last,) in self._read(sql.LAST_SWEEP)):
            return False
        with self._file.write() as connection:
            return connection.execute(sql.TAKE_SWEEP, {"now": now, "interval": interval}).rowcount == 1

    def promote(self, now: float, limit: int) -> int:
        """Make up to ``limit`` due rows ready, the earliest first; how many."""
        next_run_at = self.next_run_at()
        if next_run_at is None or next_run_at > now:
            return 0
        with self._file.write() as connection:
            return connection.execute(sql.PROMOTE, (now, limit)).rowcount

    def recover(self, now: float, max_crashes: int, limit: int) -> Recovered:
        """Take up to ``limit`` abandoned rows from their holder, the longest abandoned first."""
        if not self.find_abandoned(now, 1):
            return Recovered(0, 0)
        with self._file.write() as connection:
            found = map(_abandoned, connection.execute(sql.FIND_ABANDONED, (now, limit)).fetchall())
            verdicts = [(*recovery(row.alone, row.crashes, max_crashes), row.id) for row in found]
            connection.executemany(sql.RECOVER, verdicts)
        dead = sum(state == State.DEAD for state, _, _ in verdicts)
        return Recovered(len(verdicts) - dead, dead)

    def find_due(self, now: float, limit: int) -> list[Due]:
        """What :meth:`promote` would make ready: one index range."""
        return [Due(*record) for record in self._read(sql.FIND_DUE, (now, limit))]

    def find_abandoned(self, now: float, limit: int) -> list[Abandoned]:
        """What :meth:`recover` would take: one index range."""
        return [_abandoned(record) for record in self._read(sql.FIND_ABANDONED, (now, limit))]

    def find_unput(self, until: float, limit: int) -> list[Due]:
        """Up to ``limit`` rows known to have no pointer that are ready, or due by ``until``."""
        return [Due(*record) for record in self._read(sql.FIND_UNPUT, {"until": until, "limit": limit})]

    def ready_types(self) -> list[str]:
        """The types that have a ready row, sorted: one index probe for each."""
        return [record[0] for record in self._read(sql.READY_TYPES)]

    def find_lost(self, type: str, head: Head | None, now: float, grace: float, limit: int) -> list[Due]:
        """Up to ``limit`` rows that have lost their pointer by the head rule: one index range a priority."""
        until = now - grace
        # Strictly before, as the greatest number that is.
        beside = until if head is None else min(until, math.nextafter(head.put_at - grace, -math.inf))
        priority = _AFTER_ALL if head is None else head.priority
        values = {"type": type, "until": until, "priority": priority, "beside": beside, "limit": limit}
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
        earliest: float | None = self._read(sql.NEXT_RUN_AT)[0][0]
        return earliest

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

    def _read(self, statement: str, values: Sequence[Any] | dict[str, Any] = ()) -> list[_Values]:
        with self._file.read() as connection:
            return connection.execute(statement, values).fetchall()


def _abandoned(record: _Values) -> Abandoned:
    found = Abandoned(*record)
    return found._replace(alone=bool(found.alone))


def _row(record: _Values) -> Row:
    row = Row._make(record)
    return row._replace(alone=bool(row.alone))


def _batches(settlements: Sequence[Settlement], now: float) -> Iterator[tuple[str, list[_Values]]]:
    """Each statement that writes some of ``settlements``, with the values of each time that it is to run."""
    deleted: dict[int, list[str]] = {}
    others: dict[str, list[_Values]] = {}
    for settlement in settlements:
        match settlement:
            case Delete(id, fence):
                deleted.setdefault(fence, []).append(id)
            case Retry(id, fence, run_at, reason, put_at):
                retry = (waiting(run_at, now), run_at, put_at, _text(reason), id, fence)
                others.setdefault(sql.SETTLE_RETRY, []).append(retry)
            case Unget(id, fence, run_at, priority, put_at, started):
                keep = 0 if started else 1
                unget = (waiting(run_at, now), run_at, put_at, priority, keep, keep, id, fence)
                others.setdefault(sql.SETTLE_UNGET, []).append(unget)
            case Die(id, fence, reason):
                others.setdefault(sql.SETTLE_DIE, []).append((_text(reason), id, fence))
    for fence, ids in deleted.items():
        if len(ids) > 1:
            yield sql.SETTLE_DELETES, [(json.dumps(ids), fence)]
        else:
            others.setdefault(sql.SETTLE_DELETE, []).append((ids[0], fence))
    yield from others.items()


def _write(connection: sqlite3.Connection, statement: str, values: list[_Values]) -> int:
    """How many rows were changed."""
    return connection.executemany(statement, values).rowcount


def _text(reason: str) -> str:
    """A reason often quotes an exception, which may hold what UTF-8 cannot: a lone surrogate of a file name."""
    return reason.encode("utf-8", "backslashreplace").decode()
