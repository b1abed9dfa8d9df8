"""Jobs in a MongoDB.

What was tested: a genuine MongoDB 6.0.5, a replica set of one, its process killed, on one machine.

Give it a replica set, of one member at least: a standalone server has no retried writes. Writes ask for
``w=majority`` and the journal, reads for what a majority has, unless the URL says ``w=`` or ``journal=``
otherwise. Any less gives up the promise: with ``w=1`` a job that was acknowledged is gone when another
member takes over before it was copied, with ``journal=false`` when the server dies. Reads go to the primary,
whatever the URL prefers.

A window costs a small constant number of commands, since each write waits for the journal: its claim two (a
read and a write; one more read if a payload is over 16 KiB), its deletes one, a renewal one, an add one. A claim of
a type that has limits costs four reads more, and some more for limit keys.

What adds a job *and* something else (a unique key, the tick of a schedule) is a transaction. A process that is
killed within one, in the few milliseconds before its end, keeps that key or schedule shut until the server ends the
transaction: a minute and a half by default, see ``transactionLifetimeLimitSeconds`` of the server.
"""

import re
from collections.abc import Collection as Many
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from pymongo import MongoClient
from pymongo.collection import Collection
from pymongo.database import Database

from kqueue.contracts.admission import Admission, Claimer, Limit
from kqueue.contracts.budget import MAX_JOBS, Budget
from kqueue.contracts.intake import Span, Tick
from kqueue.contracts.lookup import Backlog, EndedRows
from kqueue.contracts.operator import JobChange
from kqueue.contracts.repair import Abandoned, Due, Head, Recovered
from kqueue.contracts.reporting import Report
from kqueue.contracts.runs import Claim, LeaseKey, Selection
from kqueue.contracts.settlements import Delete, Settled, Settlement
from kqueue.contracts.stored_times import Misdated
from kqueue.contracts.workers import WorkerRecord
from kqueue.model.errors import AddFailed, StoreError
from kqueue.model.history import LogLine
from kqueue.model.job import Row, State
from kqueue.stores.mongo import commands, operator, schema
from kqueue.stores.mongo import keys_and_workers as notes
from kqueue.stores.mongo import lookup as looks
from kqueue.stores.mongo import pauses_and_ticks as metas
from kqueue.stores.mongo import recover as recovers
from kqueue.stores.mongo import settle as runs
from kqueue.stores.mongo import sweep as sweeps
from kqueue.stores.mongo.claim import candidates, take
from kqueue.stores.mongo.claim_limited import LimitedJobs
from kqueue.stores.mongo.intake import all_or_none, insert
from kqueue.stores.mongo.schema import Document
from kqueue.stores.mongo.server.errors import named_errors
from kqueue.stores.mongo.server.link import Link, read_url
from kqueue.stores.mongo.server.transaction import in_transaction
from kqueue.stores.mongo.times import MongoTimes
from kqueue.system.clock import Clock, SystemClock
from kqueue.system.forks import PerProcess


class MongoStore:
    """A :class:`~kqueue.contracts.store.JobStore` in the database that ``url`` names: ``mongodb://HOST:PORT/DATABASE``.

    For tests: ``clock``: times are the server's own without it. ``host``: this host's clock, by which the server's
    is known between two looks at it. ``client`` is used as it is, with its own options, and never closed here.
    Raises ``ValueError``, naming ``store``, for a URL that cannot be read or names no database.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Clock | None = None,
        host: Clock | None = None,
        client: MongoClient[Document] | None = None,
    ) -> None:
        target = read_url(url)
        self._address = target.address
        self._shared_url = url if client is None else None
        prepare = _prepare if clock is None else schema.prepare
        self._links = PerProcess(lambda: Link(target, prepare, clock, host or SystemClock(), client))

    @property
    def address(self) -> str:
        """Its URL for messages: no user, no password, no options."""
        return self._address

    @property
    def shared_url(self) -> str | None:
        """Its URL as it was given; None with a client of a test's own."""
        return self._shared_url

    def exists(self) -> bool:
        """Whether the database holds a schema. Makes nothing."""
        with named_errors(self._address):
            return self._links.get().exists()

    def open(self) -> None:
        """Connect, and make or migrate the schema. See :meth:`kqueue.contracts.store.JobStore.open`."""
        with self._jobs():
            pass

    def close(self) -> None:
        """Close this process's client. Idempotent; a later call opens again."""
        link = self._links.existing()
        if link is not None:
            link.close()

    def now(self) -> float:
        """The server's clock, seconds since 1970: by the time that passes here, looked at each minute and where it
        may be another. It is for what is ready; leases begin and end by the server's own clock within each command.
        """
        with named_errors(self._address):
            return self._links.get().now()

    def identity(self) -> str:
        """See :meth:`kqueue.contracts.store.JobStore.identity`. One small read."""
        with named_errors(self._address):
            return self._links.get().identity().id

    def begin_anew(self) -> None:
        """See :meth:`kqueue.contracts.store.JobStore.begin_anew`."""
        with named_errors(self._address):
            self._links.get().begin_anew()
            self._links.get().identity()

    def backup(self, path: str, *, replace: bool) -> None:
        """MongoDB has its own tools."""
        raise StoreError(f"{self._address}: KQueue makes no backup of a MongoDB; use mongodump")

    def restore(self, path: str, *, replace: bool) -> list[str]:
        """MongoDB has its own tools."""
        raise StoreError(
            f"{self._address}: KQueue restores no MongoDB; use mongorestore, and then kqueue restore --mark before"
            " anybody uses it"
        )

    def setting(self, name: str, default: str) -> str:
        """See :meth:`kqueue.contracts.store.JobStore.setting`."""
        with self._meta() as meta:
            return metas.setting(meta, name, default)

    def remember(self, name: str, value: str) -> None:
        """See :meth:`kqueue.contracts.store.JobStore.remember`."""
        with self._meta() as meta:
            metas.remember(meta, name, value)

    def remembered(self, name: str) -> str | None:
        """See :meth:`kqueue.contracts.store.JobStore.remembered`. One small read."""
        with self._meta() as meta:
            return metas.remembered(meta, name)

    # -- a job's way -------------------------------------------------------------------------------------

    def add(self, rows: Sequence[Row]) -> None:
        """Store new rows with one command, or one for each 32 MiB of payload. After a lost reply the rows that are
        found are taken; one that is not found is unknown: it may have been run and deleted since.
        """
        with self._adding(rows) as (database, places):
            insert(database[schema.JOBS], rows, places, self._address)

    def add_unique(self, rows: Sequence[Row], until: Mapping[str, float], now: float) -> list[str]:
        """See :meth:`kqueue.contracts.store.JobStore.add_unique`. After a lost reply the jobs are looked for."""
        with self._adding(rows) as (database, places), all_or_none(rows, self._address):
            documents = [schema.to_document(*both) for both in zip(rows, places, strict=True)]
            once = notes.UniqueOnce(database, documents, until, now)
            return in_transaction(database, once.add, once.added, self._links.get().abandon_transaction)

    def add_tick(self, tick: Tick, rows: Sequence[Row]) -> bool:
        """See :meth:`kqueue.contracts.store.JobStore.add_tick`. After a lost reply the tick is looked for."""
        with self._adding(rows) as (database, places), all_or_none(rows, self._address):
            documents = [schema.to_document(*both) for both in zip(rows, places, strict=True)]
            once = metas.TickOnce(database, tick, documents)
            return in_transaction(database, once.add, once.added, self._links.get().abandon_transaction)

    def last_ticks(self) -> dict[str, float]:
        """See :meth:`kqueue.contracts.store.JobStore.last_ticks`."""
        with self._meta() as meta:
            return metas.last_ticks(meta)

    def added_ticks(self) -> dict[str, tuple[Span, ...]]:
        """See :meth:`kqueue.contracts.store.JobStore.added_ticks`."""
        with self._meta() as meta:
            return metas.added_ticks(meta)

    def claim(self, selection: Selection, budget: Budget, owner: str, now: float, alone: bool) -> Claim:
        """When it raises, rows may have been claimed all the same: see :meth:`claimed_by`. Leases begin by the
        server's own clock; what the rows that are returned say of their end is as exact as ``now``.
        """
        moment = self._links.get().moment(now)
        limits = tuple(one for one in selection.limits if one.type in selection.types)
        if limits:
            selection = selection._replace(limits=limits)
            with self._claiming() as (jobs, floor):
                return LimitedJobs(jobs, self._address, floor).claim(selection, budget, owner, moment, alone)
        later: dict[str, float] = {}
        with self._claiming() as (jobs, floor):
            rows, cut = budget.fit(candidates(jobs, selection, budget, now, later))
            if rows:
                alone = alone and len(rows) == 1
                rows = take(jobs, rows, owner, moment, alone=alone, floor=floor)
        return Claim(rows, cut, later)

    def admit(
        self,
        limit: Limit,
        keys: Many[str] | None,
        now: float,
        put_at: float | None,
        most: int,
        *,
        holder: Claimer | None = None,
    ) -> Admission:
        """When it raises, rows may have been admitted all the same: they are then found lost, and put."""
        with self._jobs() as jobs:
            moment = self._links.get().moment(now)
            return LimitedJobs(jobs, self._address).admit(limit, keys, moment, put_at, most, holder=holder)

    def held_types(self, types: Sequence[str]) -> list[str]:
        """See :meth:`kqueue.contracts.store.JobStore.held_types`."""
        with self._jobs() as jobs:
            return looks.held_types(jobs, types)

    def claimed_by(self, owner: str) -> list[Row]:
        """See :meth:`kqueue.contracts.store.JobStore.claimed_by`."""
        with self._jobs() as jobs:
            return looks.claimed(jobs, owner, MAX_JOBS)

    def renew(self, keys: Sequence[LeaseKey], now: float, alone: bool | None = None) -> frozenset[str]:
        """See :meth:`kqueue.contracts.store.JobStore.renew`."""
        with self._jobs() as jobs:
            return runs.renew(jobs, keys, self._links.get().moment(now), alone)

    def settle(self, settlements: Sequence[Settlement], now: float) -> Settled:
        """See :meth:`kqueue.contracts.store.JobStore.settle`. One command for all deletes, one for all others.

        If the connection breaks it is sent once more, and then a delete that finds no row is unsure. After an error
        any part of it may have been done, if it was more than one command.
        """
        try:
            with self._jobs() as jobs:
                return runs.settle(jobs, settlements, now, self._links.get().places)
        except StoreError as error:
            error.may_be_done |= len({isinstance(one, Delete) for one in settlements}) > 1
            raise

    def report(self, reports: Sequence[Report], now: float) -> frozenset[str]:
        """One command, and a read if some are lost."""
        with self._jobs() as jobs:
            return runs.report(jobs, reports)

    def job_log(self, id: str, after: int | None, most: int) -> list[LogLine]:
        """One read by id."""
        with self._jobs() as jobs:
            return runs.job_log(jobs, id, after, most)

    # -- the operator's ----------------------------------------------------------------------------------

    def delete(self, ids: Sequence[str]) -> int:
        """See :meth:`kqueue.contracts.store.JobStore.delete`. One by one in one command, so the driver retries.
        When it raises, rows may be deleted whose keys are still taken, for the time that their adds asked for.
        """
        if not ids:
            return 0
        with self._jobs() as jobs:
            return operator.delete(jobs, ids)

    def revive(self, ids: Sequence[str], reason: str, now: float, put_at: float | None) -> list[Due]:
        """See :meth:`kqueue.contracts.store.JobStore.revive`."""
        with self._jobs() as jobs:
            return sweeps.made_ready(jobs, ids, lambda token: commands.revivals(ids, token, reason, now, put_at))

    def hasten(self, ids: Sequence[str], now: float, put_at: float | None) -> list[Due]:
        """See :meth:`kqueue.contracts.store.JobStore.hasten`."""
        with self._jobs() as jobs:
            return sweeps.made_ready(jobs, ids, lambda token: commands.hastenings(ids, token, now, put_at))

    def change(self, id: str, change: JobChange, now: float, put_at: float | None, put_until: float) -> Due | None:
        """See :meth:`kqueue.contracts.store.JobStore.change`. One command."""
        with self._jobs() as jobs:
            return operator.change(jobs, id, change, now, put_at=put_at, put_until=put_until)

    def get(self, ids: Sequence[str]) -> list[Row]:
        """See :meth:`kqueue.contracts.store.JobStore.get`."""
        with self._jobs() as jobs:
            found = jobs.find({"_id": {"$in": list(ids)}}, schema.WITHOUT_LOG)
            rows = {document["_id"]: schema.whole_row(document) for document in found}
        return [rows[id] for id in ids if id in rows]

    def ends(self, type: str | None, after: str | None, most: int) -> EndedRows:
        """See :meth:`kqueue.contracts.store.JobStore.ends`. One read of an index."""
        with self._jobs() as jobs:
            return looks.ends(jobs, type, after, most)

    def states(self, ids: Sequence[str]) -> dict[str, str]:
        """See :meth:`kqueue.contracts.store.JobStore.states`. One read by ids."""
        with self._jobs() as jobs:
            return looks.states(jobs, ids)

    def find_unique(self, type: str, key: str) -> Row | None:
        """See :meth:`kqueue.contracts.store.JobStore.find_unique`. Two reads by id."""
        with self._jobs() as jobs:
            return looks.find_unique(jobs, type, key)

    def find(self, type: str | None, state: str, after: str | None, most: int) -> list[Row]:
        """Dead, done and delayed rows have an index in the order of their ids. Others are all read and sorted."""
        with self._jobs() as jobs:
            return looks.find(jobs, type, state, after, most)

    def counts(self, type: str | None = None) -> dict[str, int]:
        """See :meth:`kqueue.contracts.store.JobStore.counts`. Walks an index, never the rows."""
        with self._jobs() as jobs:
            return looks.counts(jobs, type)

    def overview(self) -> list[Backlog]:
        """See :meth:`kqueue.contracts.store.JobStore.overview`. Reads every row."""
        with self._jobs() as jobs:
            return looks.overview(jobs)

    def ahead(self, row: Row, most: int) -> int:
        """See :meth:`kqueue.contracts.store.JobStore.ahead`. Three reads: of the row, and of an index."""
        with self._jobs() as jobs:
            return looks.ahead(jobs, row, most)

    def purge(self, type: str, most: int) -> int:
        """Keys of jobs that had ended before are freed once nothing more is left to be deleted."""
        with self._jobs() as jobs:
            return operator.purge(jobs, type, most)

    def pause(self, type: str, now: float) -> bool:
        """See :meth:`kqueue.contracts.store.JobStore.pause`."""
        with self._meta() as meta:
            return metas.pause(meta, type, now)

    def resume(self, type: str) -> bool:
        """See :meth:`kqueue.contracts.store.JobStore.resume`."""
        with self._meta() as meta:
            return metas.resume(meta, type)

    def paused(self) -> dict[str, float]:
        """See :meth:`kqueue.contracts.store.JobStore.paused`."""
        with self._meta() as meta:
            return metas.paused(meta)

    def see_worker(self, worker: WorkerRecord) -> None:
        """See :meth:`kqueue.contracts.store.JobStore.see_worker`."""
        with self._jobs() as jobs:
            notes.see_worker(jobs.database[schema.NOTES], worker)

    def forget_worker(self, id: str) -> None:
        """See :meth:`kqueue.contracts.store.JobStore.forget_worker`."""
        with self._jobs() as jobs:
            notes.forget_worker(jobs.database[schema.NOTES], id)

    def workers(self) -> list[WorkerRecord]:
        """See :meth:`kqueue.contracts.store.JobStore.workers`."""
        with self._jobs() as jobs:
            return notes.workers(jobs.database[schema.NOTES])

    def claimed_by_process(self, tail: str) -> list[Row]:
        """See :meth:`kqueue.contracts.store.JobStore.claimed_by_process`."""
        with self._jobs() as jobs:
            return looks.claimed(jobs, {"$regex": f"{re.escape(tail)}$"}, looks.MOST_CLAIMED)

    # -- the sweep's -------------------------------------------------------------------------------------

    def take_sweep(self, now: float, interval: float) -> bool:
        """See :meth:`kqueue.contracts.store.JobStore.take_sweep`."""
        with self._meta() as meta:
            return sweeps.take(meta, now, interval)

    def promote(self, now: float, most: int) -> int:
        """See :meth:`kqueue.contracts.store.JobStore.promote`."""
        with self._jobs() as jobs:
            return sweeps.promote(jobs, now, most)

    def recover(self, now: float, max_crashes: int, most: int) -> Recovered:
        """See :meth:`kqueue.contracts.store.JobStore.recover`. The server is asked for its time first; ``now`` is
        for tests. After another member has taken over all leases are given anew, by its clock.
        """
        link = self._links.get()
        with self._jobs() as jobs:
            moment, election = link.asked_moment(now)
            if election is not None:
                recovers.follow(jobs.database, election)
                link.follows(election)
            return recovers.recover(jobs, moment, max_crashes, most, link.places(1).start)

    def expire(self, now: float, most: int) -> int:
        """See :meth:`kqueue.contracts.store.JobStore.expire`. Claims that limits counted are not forgotten here:
        they stand in one document for each type, and each claim drops what is not counted any more.
        """
        with self._jobs() as jobs:
            deleted = sweeps.expire(jobs, now, most)
            notes.forget(jobs.database, now, most)
        return deleted

    def find_misdated(self, types: Sequence[str] | None, now: float, most: int) -> list[Misdated]:
        """See :meth:`kqueue.contracts.store.JobStore.find_misdated`. One read for ``types``, else some six."""
        with self._jobs() as jobs:
            return MongoTimes(jobs.database, self._links.get().moment(now), most).find(types)

    def repair_times(self, types: Sequence[str] | None, now: float, most: int) -> int:
        """See :meth:`kqueue.contracts.store.JobStore.repair_times`. One write for jobs, one for notes, one for
        pauses. The server is asked for its time first, as in :meth:`recover`.
        """
        with self._jobs() as jobs:
            moment, _ = self._links.get().asked_moment(now)
            return MongoTimes(jobs.database, moment, most).repair(types)

    def find_due(self, now: float, most: int) -> list[Due]:
        """See :meth:`kqueue.contracts.store.JobStore.find_due`."""
        with self._jobs() as jobs:
            return sweeps.due(jobs, now, most)

    def find_abandoned(self, now: float, most: int) -> list[Abandoned]:
        """See :meth:`kqueue.contracts.store.JobStore.find_abandoned`."""
        with self._jobs() as jobs:
            return runs.abandoned(jobs, now, most)

    def find_unput(self, until: float, most: int) -> list[Due]:
        """See :meth:`kqueue.contracts.store.JobStore.find_unput`."""
        with self._jobs() as jobs:
            return sweeps.unput(jobs, until, most)

    def ready_types(self, after: str, most: int) -> list[str]:
        """See :meth:`kqueue.contracts.store.JobStore.ready_types`."""
        with self._jobs() as jobs:
            return looks.types_in(jobs, State.READY, after, most)

    def sweep_position(self) -> str:
        """See :meth:`kqueue.contracts.store.JobStore.sweep_position`."""
        with self._meta() as meta:
            return sweeps.position(meta)

    def keep_sweep_position(self, type: str) -> None:
        """See :meth:`kqueue.contracts.store.JobStore.keep_sweep_position`."""
        with self._meta() as meta:
            sweeps.keep_position(meta, type)

    def find_lost(self, heads: Mapping[str, Head | None], now: float, grace: float, most: int) -> list[Due]:
        """See :meth:`kqueue.contracts.store.JobStore.find_lost`. The server merges ranges of the index."""
        with self._jobs() as jobs:
            return sweeps.lost(jobs, heads, now, grace, most)

    def mark(self, dues: Sequence[Due], put_at: float) -> list[Due]:
        """See :meth:`kqueue.contracts.store.JobStore.mark`."""
        with self._jobs() as jobs:
            return sweeps.mark(jobs, dues, put_at)

    # -- dispatching without a broker --------------------------------------------------------------------

    def has_ready(self, types: Sequence[str]) -> bool:
        """See :meth:`kqueue.contracts.store.JobStore.has_ready`."""
        with self._jobs() as jobs:
            return looks.has_ready(jobs, types)

    def next_run_at(self) -> float | None:
        """See :meth:`kqueue.contracts.store.JobStore.next_run_at`."""
        with self._jobs() as jobs:
            return looks.next_run_at(jobs)

    def pulse(self) -> object:
        """None: MongoDB has no such token that would be cheaper than to look."""
        return None

    @contextmanager
    def _adding(self, rows: Sequence[Row]) -> Iterator[tuple[Database[Document], range]]:
        """The database, opened, and the places of new rows. Raises ``AddFailed`` if it cannot be had."""
        with ExitStack() as stack:
            try:
                database = stack.enter_context(self._jobs()).database
                with named_errors(self._address):
                    places = self._links.get().places(len(rows))
            except StoreError as error:
                raise AddFailed(f"no job was added: {error}", not_taken=[row.id for row in rows]) from error
            yield database, places

    @contextmanager
    def _claiming(self) -> Iterator[tuple[Collection[Document], int]]:
        """The jobs, and what every fence is to be above."""
        with self._jobs() as jobs:
            yield jobs, self._links.get().fence_floor()

    @contextmanager
    def _jobs(self) -> Iterator[Collection[Document]]:
        with named_errors(self._address), self._links.get().use() as database:
            yield database[schema.JOBS]

    @contextmanager
    def _meta(self) -> Iterator[Collection[Document]]:
        with named_errors(self._address), self._links.get().use() as database:
            yield database[schema.META]


def _prepare(database: Database[Document], address: str) -> None:
    schema.prepare(database, address)
    recovers.begin(database)
