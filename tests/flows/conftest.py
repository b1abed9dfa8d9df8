"""Whole queues, on each pair of store and broker that a user may have."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kqueue import KQueue
from kqueue.stores.memory.store import MemoryStore
from tests.flows.copies import Databases, Files

MakeQueue = Callable[..., KQueue]


@pytest.fixture(params=["memory", "sqlite", "beanstalkd", "mongod", "mongod+beanstalkd"])
def make_queue(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeQueue]:
    """Makes queues on one store, alone or with a beanstalkd: in memory, on SQLite, on a genuine MongoDB."""
    options: dict[str, Any] = {"store": f"sqlite:///{tmp_path}/jobs.db"}
    if request.param == "memory":
        options = {"store": MemoryStore()}
    elif "mongod" in request.param:
        server, database = request.getfixturevalue("mongod"), request.getfixturevalue("mongo_database")
        options["store"] = server.url(database)
    if "beanstalkd" in request.param:
        options["broker"] = request.getfixturevalue("beanstalkd").url
    made: list[KQueue] = []

    def make(**more: Any) -> KQueue:
        made.append(KQueue(**{**options, **more}))
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
