"""Leases by the server's own clock, while that clock is set, or another member with another clock takes over."""

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress

import pytest
from pymongo.errors import PyMongoError

from kqueue import JobInHand, KQueue
from kqueue.contracts.admission import Limit
from kqueue.contracts.budget import Budget
from kqueue.contracts.repair import Abandoned
from kqueue.contracts.runs import Claim, LeaseKey, Selection
from kqueue.stores.mongo.schema import JOBS
from kqueue.stores.mongo.store import MongoStore
from kqueue.system.clock import SystemClock
from tests.mongod import PATIENCE_S, Mongod
from tests.stores.mongo_helpers import ids_of, new_rows

#: Seconds of a lease: more than any test takes.
LEASE_S = 300.0
#: Seconds that the server's clock is set forward by: more than a lease.
JUMP = 400.0
#: Seconds that two looks at a clock may differ by on a busy machine.
NEAR_S = 60.0


class Server:
    """One whose clock jumps."""

    def __init__(self, mongod: Mongod) -> None:
        self.mongod = mongod
        self._shift = 0.0

    def jump(self) -> None:
        self._shift += JUMP
        self.mongod.set_clock(self._shift)

    def time(self) -> float:
        return time.time() + self._shift

    def elect_anew(self) -> None:
        """The same member is the primary, by another election."""
        with self.mongod.client() as patient:
            before = patient.admin.command("hello")["electionId"]
        with self.mongod.client(serverSelectionTimeoutMS=100) as client:
            deadline = time.monotonic() + PATIENCE_S
            while time.monotonic() < deadline:
                with suppress(PyMongoError):
                    hello = client.admin.command("hello")
                    if hello["isWritablePrimary"]:
                        if hello["electionId"] != before:
                            return
                        self.mongod.step_down()  # which a busy one may refuse
                time.sleep(0.05)
        raise AssertionError("it was not elected")


@pytest.fixture(scope="module")
def server(start_mongod: Callable[..., Mongod]) -> Server:
    return Server(start_mongod(shift=0))


@pytest.fixture
def url(server: Server) -> Iterator[str]:
    """Of a database for each test."""
    name = f"test_{secrets.token_hex(6)}"
    yield server.mongod.url(name)
    with server.mongod.client() as client:
        client.drop_database(name)


@pytest.fixture
def store(url: str) -> Iterator[MongoStore]:
    """Knows the server's clock as it is before the test sets it."""
    with closing(MongoStore(url)) as store:
        store.now()
        yield store


@pytest.fixture
def other(url: str) -> Iterator[MongoStore]:
    """Of another process, that looks at the server's clock once the test has set it."""
    with closing(MongoStore(url)) as store:
        yield store


class Host(SystemClock):
    """This host's clock."""

    def __init__(self, *, asleep: float = 0.0) -> None:
        self._asleep = asleep
        #: Seconds that its time of day was set forward by.
        self.set_by = 0.0
        #: Seconds that it slept.
        self._slept = 0.0

    def time(self) -> float:
        return super().time() + self._slept + self.set_by

    def monotonic(self) -> float:
        """It falls asleep for ``asleep`` seconds after the first who asks."""
        now = super().monotonic() + self._slept
        self._slept = self._asleep
        return now


@pytest.fixture
def ahead(url: str) -> Iterator[MongoStore]:
    """Of a process whose host slept while it looked at the server's clock: it takes that to be ahead by a jump."""
    with closing(MongoStore(url, host=Host(asleep=2 * JUMP))) as store:
        yield store


def claim(store: MongoStore, *limits: Limit, jobs: int = 9) -> Claim:
    budget = Budget(jobs, job_s={"t": 0.0})
    return store.claim(Selection(("t",), None, limits), budget, f"window {time.monotonic()}", store.now(), False)


def test_a_lease_is_granted_by_the_servers_clock_and_not_by_what_is_known_of_it(
    server: Server, store: MongoStore, other: MongoStore
):
    rows = new_rows(3, ttr=LEASE_S)
    store.add(rows)
    server.jump()
    before = other.now()
    held = claim(store).rows
    assert len(held) == 3
    assert [
        row.lease_until
        for row in other.get(ids_of(rows))
        if not (row.lease_until or 0) >= before + LEASE_S - NEAR_S
    ] == []
    assert other.recover(other.now(), 3, 9) == (0, ()), "not one of them is over"
    # What it knows of them itself is no later than what is so.
    assert all(
        (row.lease_until or 0) <= (mine.lease_until or 0)
        for row, mine in zip(held, store.get(ids_of(rows)), strict=True)
    )


def test_a_lease_is_renewed_by_the_servers_clock(server: Server, store: MongoStore, other: MongoStore):
    first, second = rows = new_rows(2, ttr=LEASE_S)
    store.add(rows)
    claim(store)
    server.jump()
    assert store.renew([LeaseKey(first.id, 1, LEASE_S)], store.now()) == frozenset()
    recovered = other.recover(other.now(), 3, 9)
    assert (recovered.ready, recovered.dead) == (1, 0), "only the one that was not renewed is over"
    assert [row.state for row in other.get(ids_of(rows))] == ["running", "ready"]
    assert store.renew([LeaseKey(second.id, 1, LEASE_S)], store.now()) == frozenset(), "nobody has taken it yet"
    assert other.recover(other.now(), 3, 9) == (0, ())


def test_a_lease_is_judged_by_the_servers_clock(server: Server, store: MongoStore, ahead: MongoStore):
    """A process that takes the clock to be ahead takes nothing from anybody."""
    rows = new_rows(2, ttr=LEASE_S)
    store.add(rows)
    claim(store)
    assert abs(ahead.now() - JUMP - server.time()) < NEAR_S
    assert len(ahead.find_abandoned(ahead.now(), 9)) == 2, "they look so"
    assert ahead.recover(ahead.now(), 3, 9) == (0, ())
    assert [row.state for row in store.get(ids_of(rows))] == ["running", "running"]


def test_a_place_is_taken_until_the_servers_clock_says_that_its_lease_is_over(store: MongoStore, ahead: MongoStore):
    one = Limit("t", running=1)
    store.add(new_rows(2, ttr=LEASE_S))
    assert len(claim(store, one).rows) == 1
    assert len(claim(ahead, one).rows) == 0


def test_what_is_abandoned_is_found_however_old_the_look_at_the_clock_is(server: Server, store: MongoStore):
    rows = new_rows(2, ttr=LEASE_S)
    store.add(rows)
    claim(store)
    server.jump()
    recovered = store.recover(store.now(), 3, 9)
    assert (recovered.ready, recovered.dead) == (2, 0)


# -- another primary -------------------------------------------------------------------------------------


def test_a_primary_with_another_clock_takes_no_lease_from_who_holds_it(
    server: Server, store: MongoStore, other: MongoStore
):
    rows = new_rows(2, ttr=LEASE_S)
    store.add(rows)
    claim(store)
    server.jump()
    server.elect_anew()
    now = other.now()
    assert [found.id for found in other.find_abandoned(now, 9)] == list(ids_of(rows)), "they look so"
    assert other.recover(now, 3, 9) == (0, ())
    assert [(row.lease_until or 0) >= now + LEASE_S - NEAR_S for row in store.get(ids_of(rows))] == [True, True], (
        "a whole TTR"
    )
    server.jump()
    recovered = other.recover(other.now(), 3, 9)
    assert recovered.ready == 2, "the same primary: now they are over"


def test_a_primary_whose_clock_is_behind_does_not_make_leases_long(server: Server, store: MongoStore, url: str):
    (row,) = new_rows(1, ttr=LEASE_S)
    store.add([row])
    claim(store)
    with server.mongod.client() as client:  # as one before it has written it, whose clock was ahead
        jobs = client[url.rpartition("/")[2].partition("?")[0]][JOBS]
        jobs.update_one({"_id": row.id}, {"$inc": {"lease_until": JUMP}})
    server.elect_anew()
    assert store.recover(store.now(), 3, 9) == (0, ())
    assert (store.get([row.id])[0].lease_until or 0) <= server.time() + LEASE_S + NEAR_S


def test_the_clock_is_looked_at_again_when_there_is_another_primary(server: Server, store: MongoStore):
    server.jump()
    server.elect_anew()
    store.add(new_rows(1))
    deadline = time.monotonic() + PATIENCE_S
    while abs(store.now() - server.time()) > NEAR_S and time.monotonic() < deadline:
        time.sleep(0.01)
    assert abs(store.now() - server.time()) < NEAR_S


def test_the_clock_is_looked_at_again_once_this_hosts_was_set(server: Server, url: str):
    """As that of a virtual machine is that was paused."""
    host = Host()
    with closing(MongoStore(url, host=host)) as store:
        assert abs(store.now() - server.time()) < NEAR_S
        for _ in range(9):
            server.jump()
            if abs(store.now() - server.time()) > NEAR_S:
                break
            # The driver tells of the primary that it has found in a thread of its own; then it is asked again.
        assert abs(store.now() + JUMP - server.time()) < NEAR_S
        host.set_by = 3600.0
        assert abs(store.now() - server.time()) < NEAR_S


def test_a_job_is_started_once_whatever_the_clocks_are(server: Server, url: str):
    """Whole queues: one that holds the job and knows the old clock, and others that sweep all the while."""
    starts: list[int] = []
    with (
        KQueue(url, sweep_interval=0.1) as queue,
        KQueue(url, sweep_interval=0.1) as peer,
    ):

        def handle(job: JobInHand) -> None:
            starts.append(job.fence)
            for _ in range(2):
                server.jump()
                server.elect_anew()
                peer.sweep()
                peer.run_jobs()
            job.delete()

        queue.add_handler("t", handle)
        peer.add_handler("t", handle)
        queue.add_job("t", ttr=LEASE_S)
        server.jump()
        server.elect_anew()
        report = queue.run_jobs()
    assert (starts, report.deleted) == ([1], 1)


def test_what_looks_abandoned_is_told_as_it_looks(store: MongoStore):
    (row,) = new_rows(1, ttr=LEASE_S)
    store.add([row])
    claim(store)
    found = store.find_abandoned(store.now() + 2 * LEASE_S, 9)
    assert [(one.id, isinstance(one, Abandoned)) for one in found] == [(row.id, True)]
