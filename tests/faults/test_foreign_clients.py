"""Other programs on the same beanstalkd: it has no users and no passwords, so any of them may do anything.

They may delay a job. None is lost and none runs twice: each test ends even, with nothing of ours left in a tube.
"""

import threading
from collections.abc import Callable, Iterator

import greenstalk
import pytest

from tests.beanstalkd import Beanstalkd
from tests.faults.conftest import EMPTY, House, entries
from tests.tubes import await_true

Client = greenstalk.Client[bytes]

#: Entries that are not ours.
GARBAGE = (b"", b"garbage\r\ndelete 1", b"KQ1 t 1 1.000000 short", b"\xff" * 100, b'{"$ne": 1}', b"x" * 65000)
#: Seconds that a pause may last: as long as there is.
FOR_EVER_S = 2**32 - 1


@pytest.fixture
def stranger(house: House, beanstalkd: Beanstalkd) -> Iterator[Client]:
    """A foreign client that uses and watches our tube."""
    client = beanstalkd.client(house.queue.prefix + "t")
    yield client
    client.close()


def put_garbage(house: House, stranger: Client) -> None:
    for body in GARBAGE:
        stranger.put(body, priority=0)


def delete_all(house: House, stranger: Client) -> None:
    for _ in range(20):
        stranger.delete(stranger.reserve(0))


def bury_all(house: House, stranger: Client) -> None:
    for _ in range(20):
        stranger.bury(stranger.reserve(0), priority=0)


def hold_all(house: House, stranger: Client) -> None:
    for _ in range(20):
        stranger.reserve(0)


def hide_all(house: House, stranger: Client) -> None:
    """Released for an hour, and as the most urgent of all."""
    for _ in range(20):
        stranger.release(stranger.reserve(0), priority=0, delay=3600)


def turn_round(house: House, stranger: Client) -> None:
    """Put again in the opposite order."""
    bodies = []
    for _ in range(20):
        entry = stranger.reserve(0)
        stranger.delete(entry)
        bodies.append(entry.body)
    for body in reversed(bodies):
        stranger.put(body, priority=65536)


def copy_all(house: House, stranger: Client) -> None:
    """Each three times: as it is, as the most urgent, and into the tube of another type."""
    bodies = []
    for _ in range(20):
        entry = stranger.reserve(0)
        bodies.append(entry.body)
    for body in bodies:
        stranger.put(body, priority=65536)
        stranger.put(body, priority=0)
    stranger.use(house.queue.prefix + "u")
    for body in bodies:
        stranger.put(body)


def forge(house: House, stranger: Client) -> None:
    """Pointers to our jobs with times and priorities of their own, to mislead the sweep."""
    for number, job in enumerate(house.queue.jobs("t", "ready")):
        put_at = (0.0, 9e10)[number % 2]
        stranger.put(f"KQ1 t {number} {put_at:.6f} {job.id}".encode(), priority=number)


DEEDS = [put_garbage, delete_all, bury_all, hold_all, hide_all, turn_round, copy_all, forge]


def leave(house: House, stranger: Client, server: Beanstalkd) -> None:
    """It hangs up, and an operator kicks whatever is buried or delayed, so that it shows what it is."""
    stranger.close()
    await_true(lambda: entries(server, house.queue.prefix)["reserved"] == 0)
    with server.client(house.queue.prefix + "t") as client:
        while client.kick(1000):
            pass
    house.queue.run_jobs()


@pytest.mark.parametrize("deed", DEEDS, ids=[deed.__name__ for deed in DEEDS])
def test_a_foreign_client_among_our_entries(
    house: House, beanstalkd: Beanstalkd, stranger: Client, deed: Callable[[House, Client], None]
) -> None:
    """All our jobs run while it is still there, and what it leaves of ours is found to be stale."""
    house.queue.add_handler("u", house.handle)
    house.add(*range(20))
    deed(house, stranger)
    house.recover()
    house.assert_even()
    assert len(house.runs()) == 20
    leave(house, stranger, beanstalkd)
    assert len(house.runs()) == 20
    garbage = len(GARBAGE) if deed is put_garbage else 0
    assert entries(beanstalkd, house.queue.prefix) == {**EMPTY, "buried": garbage}


def test_a_foreign_client_that_kicks_delayed_entries(
    house: House, beanstalkd: Beanstalkd, stranger: Client
) -> None:
    """They come early, no job does, and none is forgotten."""
    house.add(*range(20), delay=30)
    assert stranger.kick(100) == 20
    assert house.queue.run_jobs().count == 0
    assert entries(beanstalkd, house.queue.prefix) == {**EMPTY, "delayed": 20}
    house.recover()
    house.assert_even()
    leave(house, stranger, beanstalkd)
    assert len(house.runs()) == 20
    assert entries(beanstalkd, house.queue.prefix) == EMPTY


def test_a_foreign_client_that_pauses_our_tube_for_ever(
    house: House, beanstalkd: Beanstalkd, stranger: Client
) -> None:
    """Its jobs run past the tube, and are put nothing twice."""
    house.queue.add_handler("u", house.handle)
    house.add(*range(20))
    stranger.pause_tube(house.queue.prefix + "t", FOR_EVER_S)
    house.add("another type", type="u")
    house.recover()
    house.assert_even()
    assert len(house.runs()) == 21
    assert entries(beanstalkd, house.queue.prefix) == {**EMPTY, "ready": 20}
    stranger.pause_tube(house.queue.prefix + "t", 0)
    assert house.queue.run_jobs().stale_pointers == 20
    assert entries(beanstalkd, house.queue.prefix) == EMPTY


def test_a_worker_that_waits_at_a_paused_tube_goes_on_by_itself(
    house: House, beanstalkd: Beanstalkd, stranger: Client
) -> None:
    stranger.pause_tube(house.queue.prefix + "t", 1)
    house.add(*range(20))
    loop = threading.Thread(target=house.queue.run_jobs, kwargs={"wait": True, "count_limit": 20})
    loop.start()
    loop.join(60)
    assert not loop.is_alive()
    house.assert_even()
    stranger.pause_tube(house.queue.prefix + "t", 0)
    house.queue.run_jobs()
    assert entries(beanstalkd, house.queue.prefix) == EMPTY


def test_two_stores_on_one_beanstalkd(
    make_house: Callable[..., House], house: House, beanstalkd: Beanstalkd
) -> None:
    """With the same types, in turns, through restarts, while one sweeps and its clock runs ahead by days."""
    other = make_house(beanstalkd.url, name="other")
    for number in range(12):
        for one in (house, other):
            one.add(*[f"{number} {letter}" for letter in "abc"])
        other.clock.advance(86_400)
        other.queue.sweep()
        if number in {3, 7}:
            beanstalkd.restart()
        for one in (house, other):
            one.queue.run_jobs(count_limit=2)
    for one in (house, other):
        one.recover()
        one.assert_even()
        assert len(one.runs()) == 36
        assert entries(beanstalkd, one.queue.prefix) == EMPTY
