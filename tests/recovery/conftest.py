"""A store and a beanstalkd that several queues share, on a clock that is turned by hand."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from kqueue import KQueue
from kqueue.assembly import assemble
from kqueue.brokers.beanstalk.broker import BeanstalkBroker
from kqueue.contracts.rules import GRACE_S
from kqueue.contracts.store import JobStore
from kqueue.stores.mongo.store import MongoStore
from kqueue.stores.sqlite.store import SqliteStore
from kqueue.system.clock import ManualClock
from tests.beanstalkd import Beanstalkd
from tests.recovery.children import Child
from tests.tubes import await_true, reserve_all

#: Seconds that a server may take on a busy machine.
PATIENCE_S = 240.0
#: Of every queue here, in seconds.
INTERVAL_S = 15.0


@pytest.fixture(autouse=True)
def pointers_at_once(rings_at_once: None) -> None:
    """The tests look into the tubes right after an add."""


class Site:
    """Makes queues, each with a store and connections of its own, as another process has them."""

    def __init__(self, make_store: Callable[[ManualClock], JobStore], server: Beanstalkd) -> None:
        self.clock = ManualClock()
        self.server = server
        self._make_store = make_store
        self._made: list[KQueue] = []

    def queue(self, wrap: Callable[[JobStore], Any] = lambda store: store, **options: Any) -> KQueue:
        """``wrap`` may put something between the queue and its store."""
        store = wrap(self._make_store(self.clock))
        broker = BeanstalkBroker(self.server.address, timeout=PATIENCE_S)
        self._made.append(KQueue.from_parts(assemble(store, broker, sweep_interval=INTERVAL_S, **options)))
        return self._made[-1]

    def lose_everything(self) -> None:
        """Beanstalkd comes back empty, and the grace passes."""
        self.server.restart()
        self.clock.advance(GRACE_S)

    def ids_in_tubes(self, types: Sequence[str]) -> list[str]:
        """The job ids that the ready entries of the tubes hold, however often each, in the order served."""
        queue = self.queue()
        queue.open()
        subscription = queue.broker.subscribe(types)
        entries = reserve_all(subscription)  # type: ignore[arg-type]
        subscription.close()
        # The server may not have seen yet that the connection is closed.
        await_true(lambda: not sum(depths["reserved"] for depths in queue.broker.depths(types).values()))
        return [id for entry in entries for id in entry.pointer.ids]

    def entries(self, types: Sequence[str]) -> int:
        """Entries in the tubes, whatever their state."""
        queue = self.queue()
        queue.open()
        return sum(sum(depths.values()) for depths in queue.broker.depths(types).values())

    def close(self) -> None:
        for queue in self._made:
            queue.close()


@pytest.fixture(params=["sqlite", "mongod"])
def site(request: pytest.FixtureRequest, tmp_path: Path, beanstalkd: Beanstalkd) -> Iterator[Site]:
    """On each kind of store that processes can share."""

    def sqlite(clock: ManualClock) -> JobStore:
        return SqliteStore(tmp_path / "jobs.db", synchronous="OFF", busy_timeout=60, clock=clock)

    def mongod(clock: ManualClock) -> JobStore:
        return MongoStore(url, clock=clock)

    if request.param == "mongod":
        url = request.getfixturevalue("mongod").url(request.getfixturevalue("mongo_database"))
    site = Site(mongod if request.param == "mongod" else sqlite, beanstalkd)
    yield site
    site.close()


@pytest.fixture
def start_child() -> Iterator[Callable[..., Child]]:
    """Call it with the arguments of :class:`Child`. None outlives the test."""
    started: list[Child] = []

    def start(*arguments: Any) -> Child:
        started.append(Child(*arguments))
        return started[-1]

    yield start
    for child in started:
        child.kill()
