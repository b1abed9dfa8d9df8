"""The store is locked, full, frozen or killed: what was acknowledged runs, and nothing else does.

The clock of the rows is turned by hand. The lock is another process's, the full disk a small file system of its
own, the MongoDB a genuine one.
"""

import os
import secrets
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kqueue import AddFailed, JobInHand, KQueue, StoreUnavailable
from kqueue.dispatch.pointers import MAX_TUBE_DELAY_S
from kqueue.stores.mongo.store import MongoStore
from kqueue.stores.sqlite.store import SqliteStore
from kqueue.system.clock import ManualClock
from tests.faults.conftest import TTR_S, House
from tests.faults.obstacles import FullDisk, Lock, Obstacle, small_disk
from tests.faults.sites import MONGOD, PATIENCE_S, SQLITE, abandon, assert_over, house_at, looping, wait_until
from tests.mongod import Mongod
from tests.tubes import run

#: Seconds that a store waits for a lock.
BUSY_S = 0.05
#: A delay in seconds that is too long for a tube, which counts real seconds.
LONG_S = 2 * MAX_TUBE_DELAY_S


class Site:
    """A house on a SQLite file, and what will come between the two."""

    def __init__(self, house: House, obstacle: Obstacle) -> None:
        self.house = house
        self.obstacle = obstacle
        #: Jobs that were claimed, under a lease and not settled when the fault struck.
        self.at_risk = 0

    def strike(self) -> None:
        """Let the fault begin."""
        running = self.house.queue.store.find("t", "running", None, 1000)
        self.at_risk = sum((row.lease_until or 0) > self.house.clock.time() for row in running)
        self.obstacle.begin()

    def strike_before(self, call: str) -> None:
        """Let the fault begin just before the next time that the queue's store is asked to ``call``."""
        store = self.house.queue.store
        method = getattr(store, call)

        def struck(*args: Any, **options: Any) -> Any:
            setattr(store, call, method)
            self.strike()
            return method(*args, **options)

        setattr(store, call, struck)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with little room."""
    folder = tmp_path / "disk"
    folder.mkdir()
    with small_disk(folder):
        yield folder


@pytest.fixture(params=SQLITE)
def on(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def locked(on: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """To be locked by another process for longer than the time-out."""
    yield from _site(on, request, tmp_path / "jobs.db", Lock)


@pytest.fixture
def full(on: str, request: pytest.FixtureRequest, disk: Path) -> Iterator[Site]:
    """On a disk that is to be filled."""
    yield from _site(on, request, disk / "jobs.db", FullDisk)


def _site(
    on: str, request: pytest.FixtureRequest, path: Path, make_obstacle: Callable[[Path], Obstacle]
) -> Iterator[Site]:
    def make_store(clock: ManualClock) -> SqliteStore:
        return SqliteStore(path, clock=clock, busy_timeout=BUSY_S)

    obstacle = make_obstacle(path)
    yield Site(house_at(on, request, make_store), obstacle)
    obstacle.end()


# -- while adding ------------------------------------------------------------------------------------------


def test_the_database_locked_by_another_process_while_adding(locked: Site) -> None:
    adds_are_refused(locked)


def test_the_disk_of_the_database_full_while_adding(full: Site) -> None:
    adds_are_refused(full)


def adds_are_refused(site: Site) -> None:
    """What was refused is not there, and is not to come later."""
    house = site.house
    house.add("before", "also before")
    site.strike()
    for payloads in (["refused"], ["refused", b"a large one" * 10_000]):
        with pytest.raises(AddFailed, match=site.obstacle.said) as failed:
            house.queue.add_jobs("t", payloads)
        assert (failed.value.taken, failed.value.unknown) == ((), ())
        assert len(failed.value.not_taken) == len(payloads)
        assert house.queue.store.get(failed.value.not_taken) == []
    site.obstacle.end()
    house.add("after")
    assert_over(house)


# -- before each write of a run ----------------------------------------------------------------------------

#: The store's writes in a run that also sweeps, on each site. Only a sweep with tubes marks rows.
WRITES = [
    (on, call)
    for on in SQLITE
    for call in ("take_sweep", "promote", "recover", "mark", "claim", "renew", "settle")
    if call != "mark" or "beanstalkd" in on
]


@pytest.mark.parametrize(("on", "call"), WRITES)
def test_the_database_locked_by_another_process_before_each_write(locked: Site, call: str) -> None:
    a_run_is_struck_before(locked, call)


@pytest.mark.parametrize(("on", "call"), WRITES)
def test_the_disk_of_the_database_full_before_each_write(full: Site, call: str) -> None:
    a_run_is_struck_before(full, call)


def a_run_is_struck_before(site: Site, call: str) -> None:
    """It ends with an error that names the file. Only what was in hand may run once more."""
    house, queue = site.house, site.house.queue
    unrenewed = something_to_do(house)
    site.strike_before(call)
    with pytest.raises(StoreUnavailable, match=site.obstacle.said):
        queue.run_jobs()
    site.obstacle.end()
    assert len(unrenewed) == (call == "renew")
    # A sweep shares its time with the jobs, so where rings are late some are in hand before it has ended.
    assert site.at_risk > 0 or call not in {"renew", "settle"}
    assert_over(house, more_runs=site.at_risk)


def something_to_do(house: House) -> list[str]:
    """For every call in ``WRITES``: jobs that are ready, abandoned, delayed and due; and a handler that renews.

    Returns where it will be said what came of a renewal that failed.
    """
    unrenewed: list[str] = []

    def handle(job: JobInHand) -> None:
        house.ran(job)
        if job.payload == "renews":
            try:
                job.renew()
            except StoreUnavailable as error:  # its lease still holds, so it goes on
                unrenewed.append(str(error))
        job.delete()

    (abandoned,) = house.add("its worker has died before it began")
    abandon(house, abandoned)
    house.add("due", delay=LONG_S)
    house.clock.advance(LONG_S)
    house.add("renews", *range(20))
    house.queue.remove_handler("t")
    house.queue.add_handler("t", handle)
    return unrenewed


# -- and a loop that waits ---------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["claim", "renew", "settle"])
def test_a_waiting_loop_goes_on_after_the_database_was_locked(locked: Site, call: str, caplog: Any) -> None:
    a_waiting_loop_goes_on(locked, call, caplog)


@pytest.mark.parametrize("call", ["claim", "renew", "settle"])
def test_a_waiting_loop_settles_later_what_a_full_disk_did_not_take(full: Site, call: str, caplog: Any) -> None:
    a_waiting_loop_goes_on(full, call, caplog)


def has_nothing_left(queue: KQueue) -> bool:
    """A store whose timeout is short may also be busy with what its own threads do meanwhile."""
    try:
        counts = queue.counts("t")
    except StoreUnavailable:
        return False
    return not counts["ready"] + counts["running"]


def a_waiting_loop_goes_on(site: Site, call: str, caplog: Any) -> None:
    """What was in hand is kept and settled once there is room: nothing runs twice."""
    house, queue = site.house, site.house.queue
    unrenewed = something_to_do(house)
    site.strike_before(call)
    with looping(queue) as loop:
        wait_until(lambda: "trying again" in caplog.text, loop)
        site.obstacle.end()
        wait_until(lambda: has_nothing_left(queue), loop)
    assert len(unrenewed) == (call == "renew")
    assert_over(house)


# -- a MongoDB that goes away ------------------------------------------------------------------------------

#: So that who meets a frozen server knows it soon.
IMPATIENT = "&socketTimeoutMS=500&serverSelectionTimeoutMS=500&connectTimeoutMS=500"


class Outage:
    """A MongoDB that is frozen, or killed; and comes back on the same data."""

    def __init__(self, server: Mongod, kind: str) -> None:
        self._server = server
        self._kind = kind
        with server.client() as client:
            self._pid: int = client.admin.command("serverStatus")["pid"]

    def begin(self) -> None:
        if self._kind == "frozen":
            os.kill(self._pid, signal.SIGSTOP)
        else:
            self._server.kill()

    def end(self) -> None:
        if self._kind == "frozen":
            os.kill(self._pid, signal.SIGCONT)
        else:
            self._server.restart()


@pytest.fixture(scope="module")
def own_mongod(start_mongod: Callable[[], Mongod]) -> Iterator[Mongod]:
    """One that other files' tests do not use."""
    server = start_mongod()
    yield server
    server.stop()


@pytest.fixture(params=MONGOD)
def far(request: pytest.FixtureRequest, own_mongod: Mongod) -> Iterator[House]:
    """A house on that MongoDB."""
    database = f"test_{secrets.token_hex(6)}"
    yield house_at(request.param, request, lambda clock: MongoStore(own_mongod.url(database), clock=clock))
    with own_mongod.client() as client:
        client.drop_database(database)


@contextmanager
def impatient(house: House, mongod: Mongod) -> Iterator[KQueue]:
    """Another queue on the same store and broker, that does not wait long for the store."""
    database = house.queue.store.address.rpartition("/")[2]
    broker = house.queue.broker
    store = MongoStore(mongod.url(database, IMPATIENT), clock=house.clock)
    with KQueue(store, broker.address if broker.carries_pointers else None) as queue:
        yield queue


@pytest.mark.parametrize("kind", ["frozen", "killed"])
def test_a_mongodb_stopped_and_started_while_adding(far: House, own_mongod: Mongod, kind: str) -> None:
    """What was acknowledged is there, what was refused is not, and the rest may be."""
    outage = Outage(own_mongod, kind)
    stopped = threading.Event()
    acknowledged: list[str] = []
    refused: list[AddFailed] = []

    def produce() -> None:
        with impatient(far, own_mongod) as producer:
            while not stopped.is_set():
                try:
                    for id in producer.add_jobs("t", ["p"] * 3, ttr=TTR_S):
                        acknowledged.append(far.acknowledged(id, "p"))
                except AddFailed as error:
                    refused.append(error)

    thread = run(produce)
    try:
        wait_until(lambda: len(acknowledged) > 30, thread)
        outage.begin()
        try:
            wait_until(lambda: len(refused) >= 2, thread)
        finally:
            outage.end()
        before = len(acknowledged)
        wait_until(lambda: len(acknowledged) > before + 30, thread)
    finally:
        stopped.set()
        thread.join(PATIENCE_S)
    assert not thread.is_alive()
    for id in (id for error in refused for id in error.taken):
        acknowledged.append(far.acknowledged(id, "p"))
    assert len(far.queue.store.get(acknowledged)) == len(acknowledged)
    assert far.queue.store.get([id for error in refused for id in error.not_taken]) == []
    far.recover()
    unknown = {id for error in refused for id in error.unknown}
    for id in {job.id for job in far.runs()} & unknown:
        far.acknowledged(id, "p")
    assert_over(far)


@pytest.mark.parametrize("kind", ["frozen", "killed"])
def test_a_mongodb_stopped_and_started_while_running(
    far: House, own_mongod: Mongod, kind: str, caplog: Any
) -> None:
    """A waiting loop goes on by itself. Only what was in hand may run once more."""
    outage = Outage(own_mongod, kind)
    at_risk: list[str] = []

    def handle(job: JobInHand) -> None:
        far.ran(job)
        if job.payload == 100 and not at_risk:
            at_risk.extend(row.id for row in far.queue.store.find("t", "running", None, 1000))
            outage.begin()
        job.delete()

    far.add(*range(200))
    with impatient(far, own_mongod) as worker:
        worker.add_handler("t", handle)
        with looping(worker) as loop:
            try:
                wait_until(lambda: "trying again" in caplog.text, loop)
            finally:
                outage.end()
            before = len(far.runs())
            wait_until(lambda: len(far.runs()) > before or not far.queue.counts("t")["ready"], loop)
    assert at_risk
    far.recover()
    twice = {id for id, count in Counter(one.id for one in far.runs()).items() if count > 1}
    assert twice <= set(at_risk)
    assert_over(far, more_runs=len(at_risk))
