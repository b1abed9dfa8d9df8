"""The stores that the contract is run over. One more store is one more row of the table."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import mongomock
import pytest

from kqueue.clock import SystemClock
from kqueue.store import JobStore
from kqueue.stores.memory import MemoryStore
from kqueue.stores.mongo import MongoStore
from kqueue.stores.sqlite import SqliteStore

#: Opens one more handle on the data of this test, as another process would. All are closed after the test.
MakeStore: TypeAlias = Callable[[], JobStore]


class Kind(NamedTuple):
    """A kind of store."""

    make: Callable[[pytest.FixtureRequest], MakeStore]
    #: Whether other processes reach the same data.
    shared: bool


def memory(request: pytest.FixtureRequest) -> MakeStore:
    only = MemoryStore()
    return lambda: only


def sqlite(request: pytest.FixtureRequest) -> MakeStore:
    path = request.getfixturevalue("tmp_path") / "jobs.db"

    def make() -> JobStore:
        store = SqliteStore(path, synchronous="OFF", busy_timeout=30)
        request.addfinalizer(store.close)
        return store

    return make


def mongomocked(request: pytest.FixtureRequest) -> MakeStore:
    client = mongomock.MongoClient()
    return lambda: MongoStore("mongodb://mongomock/app", clock=SystemClock(), client=client)


def mongodb(request: pytest.FixtureRequest) -> MakeStore:
    url = request.getfixturevalue("mongod").url(request.getfixturevalue("mongo_database"))

    def make() -> JobStore:
        store = MongoStore(url)
        request.addfinalizer(store.close)
        return store

    return make


STORES = {
    "memory": Kind(memory, shared=False),
    "sqlite": Kind(sqlite, shared=True),
    "mongomock": Kind(mongomocked, shared=False),
    "mongod": Kind(mongodb, shared=True),
}
