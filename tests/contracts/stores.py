"""The stores that the contract is run over. One more store is one more row of the table."""

import threading
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import mongomock
import pytest

from kqueue.contracts.store import JobStore
from kqueue.stores.memory.store import MemoryStore
from kqueue.stores.mongo.store import MongoStore
from kqueue.stores.sqlite.store import SqliteStore
from kqueue.system.clock import SystemClock
from kqueue.testing.contracts.rows import MakeStore
from tests.beanstalkd import free_port


class Kind(NamedTuple):
    """A kind of store."""

    make: Callable[[pytest.FixtureRequest], MakeStore]
    #: Whether other processes reach the same data.
    shared: bool
    #: Whether calls that threads make at once are kept apart. mongomock lets them see each other half done.
    atomic: bool = True
    #: Whether it has transactions, as unique keys, ticks and limits need them. mongomock has none.
    transactions: bool = True
    #: Whether it adds to histories. mongomock copies no field into an array.
    histories: bool = True
    #: One that is not there: every call fails. None if it cannot be away.
    absent: Callable[[pytest.FixtureRequest], JobStore] | None = None


def memory(request: pytest.FixtureRequest) -> MakeStore:
    only = MemoryStore()
    return lambda: only


def sqlite(request: pytest.FixtureRequest) -> MakeStore:
    path = request.getfixturevalue("tmp_path") / "jobs.db"

    def make() -> JobStore:
        store = SqliteStore(path, synchronous="OFF", busy_timeout=30, clock=StoppedWatch())
        request.addfinalizer(store.close)
        return store

    return make


class StoppedWatch(SystemClock):
    """The time of day, and no time passes within a call: so a lease is as long as the test says."""

    def monotonic(self) -> float:
        return 0.0


def absent_sqlite(request: pytest.FixtureRequest) -> JobStore:
    return SqliteStore(request.getfixturevalue("tmp_path") / "no such folder" / "jobs.db")


class OneCallAtATime:
    """A store that its threads take turns on: mongomock copies a row while another thread changes it."""

    def __init__(self, store: JobStore, lock: threading.Lock) -> None:
        self._store, self._lock = store, lock

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        def call(*args: Any, **options: Any) -> object:
            with self._lock:
                return method(*args, **options)

        return call if callable(method) else method


def mongomocked(request: pytest.FixtureRequest) -> MakeStore:
    # It knows no command of this name.
    request.getfixturevalue("monkeypatch").setattr(mongomock.Database, "command", lambda self, name: {})
    client, lock = mongomock.MongoClient(), threading.Lock()
    url = "mongodb://mongomock/app"
    return lambda: cast(JobStore, OneCallAtATime(MongoStore(url, clock=SystemClock(), client=client), lock))


def mongodb(request: pytest.FixtureRequest) -> MakeStore:
    url = request.getfixturevalue("mongod").url(request.getfixturevalue("mongo_database"))

    def make() -> JobStore:
        # The contract says what time it is: tests/stores/test_mongo_clock.py has the server's own.
        store = MongoStore(url, clock=SystemClock())
        request.addfinalizer(store.close)
        return store

    return make


def absent_mongodb(request: pytest.FixtureRequest) -> JobStore:
    store = MongoStore(f"mongodb://127.0.0.1:{free_port()}/app?serverSelectionTimeoutMS=50")
    request.addfinalizer(store.close)
    return store


STORES = {
    "memory": Kind(memory, shared=False),
    "sqlite": Kind(sqlite, shared=True, absent=absent_sqlite),
    "mongomock": Kind(mongomocked, shared=False, atomic=False, transactions=False, histories=False),
    "mongod": Kind(mongodb, shared=True, absent=absent_mongodb),
}


def each_store(suits: Callable[[Kind], bool]) -> Callable[..., MakeStore]:
    """A fixture: opens handles on each store whose kind suits. All are closed after the test."""

    @pytest.fixture(params=[name for name, kind in STORES.items() if suits(kind)])
    def make(request: pytest.FixtureRequest) -> MakeStore:
        return STORES[request.param].make(request)

    return make
