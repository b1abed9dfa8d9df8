"""MongoDB's store on a server of the run's, its commands, and what may lose its replies."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from kqueue.stores.mongo.store import MongoStore
from kqueue.system.clock import ManualClock
from tests.mongod import Mongod
from tests.stores.mongo_helpers import NOW, Commands, LossyProxy


@pytest.fixture
def store(mongod: Mongod, mongo_database: str) -> Iterator[MongoStore]:
    with closing(MongoStore(mongod.url(mongo_database), clock=ManualClock(NOW))) as store:
        store.open()
        yield store


@pytest.fixture
def commands() -> Commands:
    return Commands()


@pytest.fixture
def watched(mongod: Mongod, mongo_database: str, commands: Commands) -> Iterator[MongoStore]:
    """A store whose commands are seen."""
    with mongod.client(event_listeners=[commands]) as client:
        store = MongoStore(mongod.url(mongo_database), clock=ManualClock(NOW), client=client)
        store.open()
        commands.sent.clear()
        yield store


@pytest.fixture
def proxy(mongod: Mongod) -> Iterator[LossyProxy]:
    with closing(LossyProxy(mongod.port)) as proxy:
        yield proxy


@pytest.fixture
def behind_proxy(proxy: LossyProxy, mongo_database: str) -> Iterator[MongoStore]:
    url = f"mongodb://127.0.0.1:{proxy.port}/{mongo_database}?directConnection=true"
    with closing(MongoStore(url, clock=ManualClock(NOW))) as store:
        store.open()
        yield store
