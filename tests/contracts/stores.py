"""The stores that the contract is run over. One more store is one more row of the table."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import pytest

from kqueue.store import JobStore
from kqueue.stores.memory import MemoryStore
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


STORES = {
    "memory": Kind(memory, shared=False),
    "sqlite": Kind(sqlite, shared=True),
}
