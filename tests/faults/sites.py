"""The pairs of store and broker on which a fault may strike, and what must hold on each of them afterwards."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from kqueue import KQueue
from kqueue.contracts.budget import Budget
from kqueue.contracts.runs import Selection
from kqueue.contracts.store import JobStore
from kqueue.stores.mongo.store import MongoStore
from tests.faults.conftest import House
from tests.tubes import await_true

#: Those on a SQLite file, and those on a genuine MongoDB.
SQLITE = ("sqlite", "sqlite+beanstalkd")
MONGOD = ("mongod", "mongod+beanstalkd")
#: Seconds after which what does not happen counts as hung. Nothing waits that long otherwise.
PATIENCE_S = 240.0
#: Seconds between two looks.
LOOK_S = 0.01


def house_at(site: str, request: pytest.FixtureRequest, make_store: Callable[..., JobStore] | None = None) -> House:
    """A house on the pair that ``site`` names. ``make_store``: its store, if it is to have one of its own."""
    if make_store is None and "mongod" in site:
        url = request.getfixturevalue("mongod").url(request.getfixturevalue("mongo_database"))

        def make_store(clock: object) -> JobStore:
            return MongoStore(url, clock=clock)  # type: ignore[arg-type]

    broker = request.getfixturevalue("beanstalkd").url if "beanstalkd" in site else None
    house: House = request.getfixturevalue("make_house")(broker, make_store=make_store)
    return house


def abandon(house: House, *ids: str) -> None:
    """Claim these as a worker does that dies before it begins the first."""
    claim = house.queue.store.claim(
        Selection(("t",), ids), Budget(len(ids), job_s={"t": 0.0}), "dead", house.clock.time(), False
    )
    assert len(claim.rows) == len(ids)


def entries_left(house: House) -> int:
    """Entries in the tubes of all types that the house runs."""
    queue = house.queue
    depths = queue.broker.depths(queue.types())
    return sum(sum(of_tube.values()) for of_tube in depths.values())


def assert_over(house: House, more_runs: int = 0) -> None:
    """The fault is over: everything runs, as often as it may, and no row and no entry is left."""
    house.recover()
    house.assert_even(more_runs)
    await_true(lambda: house.meets(lambda: entries_left(house) == 0))


@contextmanager
def looping(queue: KQueue) -> Iterator[threading.Thread]:
    """A thread that runs the queue's jobs and waits for more, until the block ends."""
    loop = threading.Thread(target=queue.run_jobs, kwargs={"wait": True}, daemon=True)
    loop.start()
    try:
        yield loop
    finally:
        queue.stop()
        loop.join(PATIENCE_S)
    assert not loop.is_alive()


def wait_until(condition: Callable[[], object], by: threading.Thread) -> None:
    """Wait for what the living thread ``by`` is to bring about."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert by.is_alive(), "it has ended before"
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(LOOK_S)
