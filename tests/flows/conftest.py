"""Whole queues, on each pair of store and broker that a user may have."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kqueue import KQueue
from kqueue.assembly import assemble
from kqueue.contracts.store import JobStore
from kqueue.stores.memory.store import MemoryStore
from kqueue.stores.mongo.store import MongoStore
from kqueue.stores.sqlite.store import SqliteStore
from kqueue.system.clock import ManualClock
from tests.beanstalkd import Beanstalkd
from tests.flows.copies import Databases, Files

MakeQueue = Callable[..., KQueue]


@pytest.fixture(params=["memory", "sqlite", "beanstalkd", "mongod", "mongod+beanstalkd"])
def make_queue(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeQueue]:
    """Makes queues on one store, alone or with a beanstalkd: in memory, on SQLite, on a genuine MongoDB. With
    ``clock`` it has that one, and so has its store.
    """
    options: dict[str, Any] = {"store": f"sqlite:///{tmp_path}/jobs.db"}
    if request.param == "memory":
        options = {"store": MemoryStore()}
    elif "mongod" in request.param:
        server, database = request.getfixturevalue("mongod"), request.getfixturevalue("mongo_database")
        options["store"] = server.url(database)
    if "beanstalkd" in request.param:
        options["broker"] = request.getfixturevalue("beanstalkd").url
    made: list[KQueue] = []

    def make(*, clock: ManualClock | None = None, **more: Any) -> KQueue:
        given = {**options, **more}
        if clock is None:
            made.append(KQueue(**given))
        else:
            given["store"] = _at(given["store"], tmp_path, clock)
            made.append(KQueue.from_parts(assemble(**given, clock=clock)))
        return made[-1]

    yield make
    for queue in made:
        queue.close()


def _at(store: object, folder: Path, clock: ManualClock) -> JobStore:
    """One at the same place with this clock; in memory, a new one."""
    if not isinstance(store, str):
        return MemoryStore(clock)
    if store.startswith("sqlite:"):
        return SqliteStore(folder / "jobs.db", clock=clock)
    return MongoStore(store, clock=clock)


@pytest.fixture(params=["sqlite", "mongod"])
def make_unswept_queue(
    request: pytest.FixtureRequest, tmp_path: Path, beanstalkd: Beanstalkd
) -> Iterator[MakeQueue]:
    """Makes queues on one store and that beanstalkd, each as of another process. None sweeps meanwhile."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/jobs.db"
    else:
        url = request.getfixturevalue("mongod").url(request.getfixturevalue("mongo_database"))
    made: list[KQueue] = []

    def make(**options: Any) -> KQueue:
        made.append(KQueue(url, beanstalkd.url, sweep_interval=3600, **options))
        return made[-1]

    yield make
    for queue in made:
        queue.close()


@pytest.fixture
def queue(make_queue: MakeQueue) -> KQueue:
    return make_queue()


@pytest.fixture(params=["sqlite", "mongod"])
def places(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Files | Databases]:
    if request.param == "sqlite":
        yield Files(tmp_path)
        return
    databases = Databases(request.getfixturevalue("mongod"), request.getfixturevalue("new_mongo_database"))
    yield databases
    databases.drop()
