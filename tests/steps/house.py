"""A house: one case's own store, tubes, clock and ledger, and the processes that come and go in it.

SQLite runs with ``synchronous=OFF`` here, and MongoDB does not wait for its journal: it is our own processes that
die, not the servers or the power. The clock stands still unless it is turned, so the same things happen in the same
order in each run of an operation.

The ledger, which survives a kill:

    wants    labels                 about to be added; a label is the payload's name, and no two are the same
    added    ids                    acknowledged
    refused  taken not_taken        what ``AddFailed`` said
    run      id fence label right   a handler has begun; ``right``: the payload is the one that was added
    ends     id fence               the handler is about to delete its job
    unwanted ids                    an operator is about to delete these
    deleted  ids                    acknowledged to the operator
    revived  ids                    acknowledged: to run again
    doomed   ids                    may end dead
    struck   ids                    a fault struck, and these were claimed and unsettled in the store
    raised   error ours             what ended the operation, and whether it is an error that we promise
"""

import logging
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import greenstalk
from pymongo import MongoClient
from pymongo.collection import Collection
from pymongo.errors import OperationFailure

from kqueue import AddFailed, JobInHand, KQueue, KQueueError
from kqueue.assembly import assemble
from kqueue.contracts.store import JobStore
from kqueue.model import payload, tubes
from kqueue.model.job import Row, State
from kqueue.stores.mongo.schema import JOBS, LOST, META, NOTES
from kqueue.stores.mongo.server.link import read_url
from kqueue.stores.mongo.store import MongoStore
from kqueue.stores.sqlite.store import SqliteStore
from kqueue.system.clock import ManualClock
from kqueue.system.mint import IdMint
from tests.beanstalkd import Beanstalkd
from tests.mongod import Mongod
from tests.steps.tap import Tap
from tests.stores.stray_payloads import stray_payloads
from tests.torture.ledger import SUFFIX, Ledger, Record, read

T = TypeVar("T")

#: Job types. Those that a queue serves beside each other: a store merges them.
TYPES = ("t", "u")
#: When each case begins: the same for all, and later than any server's own clock, by which one operation goes.
START = 4e9
#: Seconds.
TTR = 60.0
#: Failed runs until a job is dead.
MAX_TRIES = 2
#: Runs in a house at most, so that a queue that runs the same for ever fails the test instead of holding it up.
MANY = 100
#: An entry that is none of ours.
STRANGER = b"not a pointer"


class Place(NamedTuple):
    """A store and a broker that are there for all cases."""

    name: str
    #: None: SQLite.
    mongod: Mongod | None
    #: None: the store dispatches.
    beanstalkd: Beanstalkd | None
    #: Holds a made SQLite file.
    template: Path
    #: Of this process, for whom no fault is meant.
    client: MongoClient[dict[str, Any]] | None
    #: The edges whose calls are failed here. What a MongoDB's queue says to a tube is failed beside SQLite, where
    #: each case is ten times as fast.
    edges: tuple[str, ...] = ("sqlite", "tube")

    @property
    def url(self) -> str:
        """Of the database."""
        assert self.mongod is not None
        return database_url(self.mongod)


class House:
    """One case's. ``queue`` is the one that the fault is meant for."""

    def __init__(self, place: Place, tap: Tap, folder: Path, *, new: bool = False) -> None:
        """``new``: not even the schema is there."""
        self.place = place
        self.tap = tap
        self.clock = ManualClock(START)
        self.folder = folder
        self.prefix = f"{int(folder.name):x}."
        self._pid = os.getpid()
        self._ledger = Ledger(folder / f"house{SUFFIX}")
        self._others: list[KQueue] = []
        self._mint = IdMint()
        self._clear(new)
        self._store_id = "" if new else self._make_known()
        self._queue: KQueue | None = None
        self._runs = 0
        #: What a handler does, by the first word of its job's label; else it deletes.
        self.acts: dict[str, Callable[[JobInHand], object]] = {}

    # -- processes ---------------------------------------------------------------------------------------

    def enter(self, types: Iterable[str], *, opened: bool = True, timed: bool = True) -> None:
        """The process that the fault is meant for. Not ``timed``: it goes by the store's own clock."""
        self._queue = self.serve(self._make(self.store(timed=timed)), types)
        if opened:
            self.queue.open()

    @property
    def queue(self) -> KQueue:
        """Of the process that the fault is meant for."""
        assert self._queue is not None
        return self._queue

    def repairers(self) -> Iterator[KQueue]:
        """The same, if it lives here, and then for ever one of another process, with all handlers."""
        if self._queue is not None:
            yield self._queue
        other = self.serve(self.another())
        while True:
            yield other

    def another(self) -> KQueue:
        """A queue of another process, for which no fault is meant."""
        self._others.append(self._make(self.store(shared=True)))
        return self._others[-1]

    def leave(self) -> None:
        """All processes end."""
        if self._queue is not None:
            self._queue.close()
        while self._others:
            self._others.pop().close()

    def store(self, *, shared: bool = False, timed: bool = True) -> JobStore:
        """A handle on the rows; ``shared``: with the client of all cases. Not ``timed``: by its own clock."""
        place = self.place
        clock = self.clock if timed else None
        if place.mongod is None:
            return SqliteStore(self._path, synchronous="OFF", clock=clock)
        # After a fork the child makes its own.
        client = place.client if shared and self._pid == os.getpid() else None
        return MongoStore(place.url, clock=clock, client=client)

    def serve(self, queue: KQueue, types: Iterable[str] = TYPES) -> KQueue:
        """Give it the handlers."""
        for type in types:
            queue.add_handler(type, self._run)
        return queue

    def _make(self, store: JobStore) -> KQueue:
        broker = self.place.beanstalkd.url if self.place.beanstalkd else None
        options: dict[str, Any] = {"retry_delay": 0, "max_tries": MAX_TRIES, "logger": _quiet_logger()}
        return KQueue.from_parts(assemble(store, broker, clock=self.clock, prefix=self.prefix, **options))

    # -- what is noted -----------------------------------------------------------------------------------

    def note(self, what: str, **fields: Any) -> None:
        """In the ledger."""
        self._ledger.write(what, **fields)

    def records(self) -> list[Record]:
        """All that was noted."""
        return list(read(self.folder))

    def add(
        self, *labels: str, queue: KQueue | None = None, type: str = "t", size: int = 0, **how: Any
    ) -> list[str]:
        """Add a job for each label, by the queue that the fault is meant for unless another is named."""
        self.note("wants", labels=labels)
        try:
            payloads = [_payload(label, size) for label in labels]
            ids = (queue or self.queue).add_jobs(type, payloads, ttr=TTR, **how)
        except AddFailed as error:
            self.note("refused", taken=error.taken, not_taken=error.not_taken)
            raise
        self.note("added", ids=ids)
        return ids

    def row(self, label: str, type: str = "t", size: int = 0, **fields: Any) -> Row:
        """A new job, for what a queue does not do by itself."""
        [job_id] = self._mint.make(1)
        data, encoding = payload.encode(_payload(label, size), 10_000 + size)
        now = self.clock.time()
        return Row(job_id, type, data, encoding, 1, State.READY, 0.0, now, TTR, created_at=now, **fields)

    def insert(self, rows: Sequence[Row], add: Callable[[], T]) -> T:
        """Have a store add them. ``add`` may give the id of the only one that is there, or False for none."""
        self.note("wants", labels=[payload.decode(row.payload, row.encoding)["label"] for row in rows])
        try:
            given = add()
        except AddFailed as error:
            self.note("refused", taken=error.taken, not_taken=error.not_taken)
            raise
        ids = [] if given is False else [row.id for row in rows]
        self.note("added", ids=[given] if isinstance(given, str) else ids)
        return given

    def _run(self, job: JobInHand) -> None:
        self._runs += 1
        if self._runs > MANY:
            raise SystemExit(f"{job.id} was handed out with fence {job.fence}, and there is no end of it")
        label = job.payload["label"]
        right = job.payload == _payload(label, len(job.payload["filling"]))
        self.note("run", id=job.id, fence=job.fence, label=label, right=right)
        self.acts.get(label.split()[0], self.end)(job)

    def run_each(self, jobs: Sequence[JobInHand]) -> None:
        """A handler that is given several, and does with each what it does with one."""
        for job in jobs:
            self._run(job)

    def end(self, job: JobInHand) -> None:
        """Delete the job in hand."""
        self.note("ends", id=job.id, fence=job.fence)
        job.delete()

    def attempt(self, operation: Callable[["House"], object]) -> None:
        """Do it, and note what ends it."""
        try:
            operation(self)
        except BaseException as error:
            ours = isinstance(error, KQueueError | KeyboardInterrupt)
            self.note("raised", error=f"{type(error).__name__}: {error}", ours=ours)

    # -- what is there -----------------------------------------------------------------------------------

    def rows(self) -> dict[str, str]:
        """State by id, as committed: read behind the store's back."""
        if self.place.mongod is not None:
            return {row["_id"]: row["state"] for row in self.documents().find({"state": {"$exists": True}})}
        with closing(sqlite3.connect(self._path, timeout=0)) as connection, suppress(sqlite3.OperationalError):
            return dict(connection.execute("SELECT id, state FROM kqueue_jobs"))
        return {}  # there is no table yet, or it is being made

    def stray_payloads(self) -> list[str]:
        """Payloads without their job, and the other way round."""
        if self.place.mongod is not None or not self._path.exists():
            return []  # MongoDB keeps a job in one document
        with closing(sqlite3.connect(self._path, timeout=0)) as connection:
            return stray_payloads(connection)

    def documents(self) -> Collection[dict[str, Any]]:
        """The rows of a MongoDB, for a look and a hand behind the store's back."""
        assert self.place.mongod is not None
        # After a fork the child may not use its parent's.
        client = self.place.client if self._pid == os.getpid() else self.place.mongod.client()
        assert client is not None
        return client["steps"][JOBS]

    def strike(self) -> None:
        """A fault strikes."""
        self.note("struck", ids=[id for id, state in self.rows().items() if state == "running"])

    def entries(self, queue: KQueue) -> int:
        """Of all tubes, whatever their state; but for strangers that were put aside."""
        depths = queue.broker.depths(TYPES)
        return sum(sum(depth.values()) for depth in depths.values())

    def turn_tubes(self) -> None:
        """Turn the clock of the tubes: what is delayed there is ready. Strangers that were put aside go."""
        for type in TYPES if self.place.beanstalkd else ():
            with self.at_tube(type) as client:
                with suppress(greenstalk.NotFoundError):
                    while (stranger := client.peek_buried()).body == STRANGER:
                        client.delete(stranger)
                client.kick(1000)

    def at_tube(self, type: str) -> "greenstalk.Client[bytes]":
        """A plain client."""
        assert self.place.beanstalkd is not None
        self._store_id = self._store_id or self._make_known()
        return self.place.beanstalkd.client(tubes.name(tubes.beginning(self.prefix, self._store_id), type))

    def _make_known(self) -> str:
        """The id of the store, which gets one if it has none, so that no process of the case has to make it."""
        store = self.store(shared=True)
        with self.tap.unheard():
            try:
                return store.identity()
            finally:
                store.close()

    @property
    def _path(self) -> Path:
        return self.folder / "jobs.db"

    def _clear(self, new: bool) -> None:
        if self.place.client is None:
            if not new:
                shutil.copy(self.place.template, self._path)
            return
        # The transactions of processes that were killed; the server would end them later.
        self.place.client.admin.command("killAllSessions", [])
        database = self.place.client["steps"]
        for name in (JOBS, NOTES):
            database[name].delete_many({})
        database[META].delete_many({} if new else {"_id": {"$ne": "schema"}})
        if new:  # to make all indexes would take long
            with suppress(OperationFailure):
                database[JOBS].drop_index(LOST)


def database_url(mongod: Mongod) -> str:
    """Of the one that all cases use in turn."""
    return mongod.url("steps", "&w=1&journal=false")


def shared_client(mongod: Mongod) -> MongoClient[dict[str, Any]]:
    """A client as the store makes its own."""
    target = read_url(database_url(mongod))
    return MongoClient(target.url, **target.options)


def _payload(label: str, size: int) -> dict[str, str]:
    return {"label": label, "filling": (label * (size // len(label) + 1))[:size]}


def _quiet_logger() -> logging.Logger:
    logger = logging.Logger("steps")
    logger.disabled = True
    return logger
