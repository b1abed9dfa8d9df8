"""The stores and brokers that the suites of ``kqueue.testing.contracts`` are run over."""

import pytest

from kqueue.brokers.beanstalk.broker import BeanstalkBroker
from kqueue.brokers.embedded import EmbeddedBroker
from kqueue.contracts.broker import Broker
from kqueue.contracts.store import JobStore
from kqueue.testing.contracts.broker import MakeBroker, Shelf
from kqueue.testing.contracts.fixtures import *
from kqueue.testing.contracts.rows import MakeStore
from tests.contracts.stores import STORES, each_store
from tests.machines.broker import FakeBroker
from tests.machines.server import FakeServer

make_store = each_store(lambda kind: True)
make_shared_store = each_store(lambda kind: kind.shared)
make_any_atomic_store = each_store(lambda kind: kind.atomic)


@pytest.fixture
def make_atomic_store(make_any_atomic_store: MakeStore, often_switched: None) -> MakeStore:
    return make_any_atomic_store


@pytest.fixture(params=[name for name, kind in STORES.items() if kind.absent])
def absent_store(request: pytest.FixtureRequest) -> JobStore:
    absent = STORES[request.param].absent
    assert absent is not None
    return absent(request)


@pytest.fixture(params=["beanstalk", "embedded", "fake"])
def make_broker(request: pytest.FixtureRequest) -> MakeBroker:
    def make(shelf: Shelf) -> Broker:
        if request.param == "beanstalk":
            return BeanstalkBroker(request.getfixturevalue("beanstalkd").address)
        if request.param == "fake":
            return FakeBroker(FakeServer())
        return EmbeddedBroker(shelf)  # type: ignore[arg-type]

    return make
