"""What a network does between a queue and its beanstalkd. A real server, behind a proxy that misbehaves.

None of it is a fault of the store, so no job may run twice: each test ends even, with nothing left in any tube.
"""

import random
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from kqueue import BrokerUnavailable
from kqueue.contracts.rules import GRACE_S
from kqueue.stores.sqlite.store import SqliteStore
from kqueue.system.clock import ManualClock
from tests.beanstalkd import Beanstalkd
from tests.faults.conftest import EMPTY, House, entries
from tests.faults.peers import Cut, Link, Proxy, Replace, ResetInstead, byte_by_byte, unchanged
from tests.machines.process import quiet
from tests.tubes import await_true

#: Seconds of delay of a job that has no pointer until a sweep puts it.
LONG_S = 7200.0
#: Of the positions to cut at, one of so many without ``--proof``.
SAMPLE = 15
#: What the server says in :func:`talk`.
WORDS = (b"OK ", b"USING", b"INSERTED", b"WATCHING", b"RESERVED", b"DELETED", b"TIMED_OUT", b"NOT_FOUND")


@pytest.fixture
def proxy(beanstalkd: Beanstalkd, start_proxy: Callable[..., Proxy]) -> Proxy:
    """In front of that server. Lets all pass until it is told otherwise."""
    return start_proxy(beanstalkd.address)


@pytest.fixture
def house(make_house: Callable[..., House], proxy: Proxy, tmp_path: Path) -> House:
    """Behind the proxy. The network is at fault and never the disk, so nothing waits for it."""
    clock = ManualClock()
    store = SqliteStore(str(tmp_path / "jobs.db"), clock=clock, synchronous="OFF")
    return make_house(proxy.url, clock=clock, make_store=lambda _: store)


def talk(house: House) -> None:
    """All that a service says to a beanstalkd, on new connections: two adds, two runs, and a sweep that puts.

    The limit keeps the conversation short: without one, fast jobs are reserved by the dozen.
    """
    queue = house.another("t", logger=quiet())
    house.add("now", queue=queue)
    house.add("later", queue=queue, delay=LONG_S)
    attempt(lambda: queue.run_jobs(count_limit=2))
    house.clock.advance(LONG_S)
    attempt(queue.sweep)
    attempt(lambda: queue.run_jobs(count_limit=2))
    queue.broker.close()


def attempt(call: Callable[[], object]) -> None:
    """A call that may meet the fault; how it ends must not matter."""
    with suppress(BrokerUnavailable):
        call()


def assert_over(house: House, server: Beanstalkd, jobs: int) -> None:
    """The fault is over, and the server has seen the end of every connection that it broke."""
    await_true(lambda: entries(server, house.queue.prefix)["reserved"] == 0)
    house.recover()
    house.assert_even()
    assert len(house.runs()) == jobs
    await_true(lambda: house.meets(lambda: entries(server, house.queue.prefix) == EMPTY))


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("side", "end"),
    [("replies", Link.hang_up), ("requests", Link.reset)],
    ids=["replies end", "requests are reset"],
)
def test_a_conversation_cut_at_each_of_its_bytes(
    house: House,
    proxy: Proxy,
    beanstalkd: Beanstalkd,
    side: str,
    end: Callable[[Link], None],
    request: pytest.FixtureRequest,
) -> None:
    """Every position, from the first byte to the end of the whole conversation: also within lines and bodies.

    Without ``--proof`` one of so many, drawn by a seed.
    """
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    widest = 1 if request.config.getoption("--proof") else 2 * SAMPLE
    position, talks, has_ended = 0, 0, False
    while not has_ended:
        position += dice.randint(1, widest) if talks else 0
        cut = Cut(position, end)
        setattr(proxy, side, cut)
        talk(house)
        talks, has_ended = talks + 1, not cut.struck
    setattr(proxy, side, unchanged)
    assert position > {"replies": 1000, "requests": 400}[side]
    assert_over(house, beanstalkd, 2 * talks)


@pytest.mark.parametrize("word", WORDS, ids=[word.decode().strip() for word in WORDS])
def test_a_connection_reset_in_the_place_of_each_reply(
    house: House, proxy: Proxy, beanstalkd: Beanstalkd, word: bytes
) -> None:
    """First the first reply of its kind, then all of them for as long as the conversation lasts."""
    for times in (1, 1000):
        instead = proxy.replies = ResetInstead(word, times)
        talk(house)
        assert instead.left < times
    proxy.replies = unchanged
    assert_over(house, beanstalkd, 4)


def test_a_reset_between_put_and_reply_may_make_two_pointers_and_never_two_runs(
    house: House, proxy: Proxy, beanstalkd: Beanstalkd
) -> None:
    """The pointer is there and was not told of; while another client holds it, the sweep cannot know that."""
    proxy.replies = ResetInstead(b"INSERTED")
    house.add("mine")
    assert entries(beanstalkd, house.queue.prefix) == {**EMPTY, "ready": 1}
    house.clock.advance(GRACE_S)
    assert house.queue.sweep().put == 0  # it is there to be seen
    with beanstalkd.client(house.queue.prefix + "t") as other:
        other.reserve(0)
        house.clock.advance(GRACE_S)
        assert house.queue.sweep().put == 1
    assert house.queue.run_jobs().deleted == 1
    assert_over(house, beanstalkd, 1)


def test_replies_and_requests_that_come_byte_by_byte(house: House, proxy: Proxy, beanstalkd: Beanstalkd) -> None:
    proxy.replies = proxy.requests = byte_by_byte
    house.add(*range(20))
    house.acknowledged(house.queue.add_jobs("t", ["€" * 100])[0], "€" * 100)
    assert house.queue.run_jobs().deleted == 21
    assert_over(house, beanstalkd, 21)


def test_a_server_that_accepts_and_never_answers(
    make_house: Callable[..., House], start_beanstalkd: Callable[..., Beanstalkd]
) -> None:
    """Adds go on after one short wait, with no pointer; then a beanstalkd comes on that very port."""
    server = start_beanstalkd()
    house = make_house(server.url + "?timeout=0.5")
    server.kill()
    with socket.create_server(("127.0.0.1", server.port)):
        ids = house.add(*range(5))
        assert [row.put_at is None for row in house.queue.store.get(ids)] == [False] + [True] * 4
        with pytest.raises(BrokerUnavailable, match=f"{server.port}: no answer within 0.5 s"):
            house.queue.sweep()
        assert house.queue.run_jobs().deleted == 5
    server.restart()
    assert_over(house, server, 5)


def test_a_connection_that_is_led_to_another_server(
    house: House, proxy: Proxy, beanstalkd: Beanstalkd, start_beanstalkd: Callable[..., Beanstalkd]
) -> None:
    """As a failover by address does: the tubes of the old one are gone, and ids are given again."""
    house.add(*range(10))
    other = start_beanstalkd()
    proxy.target = other.address
    beanstalkd.kill()
    house.add(*range(10, 20))
    assert_over(house, other, 20)


def test_a_server_that_says_it_takes_larger_entries_than_it_does(
    make_house: Callable[..., House],
    start_beanstalkd: Callable[..., Beanstalkd],
    start_proxy: Callable[..., Proxy],
    caplog: Any,
) -> None:
    """It answers JOB_TOO_BIG: nothing is put, nothing is lost, and each call says so and goes on."""
    server = start_beanstalkd(flags=["-z", "200"])
    lie = Replace(b"max-job-size: 200", b"max-job-size: 999")
    house = make_house(start_proxy(server.address, replies=lie).url)
    ids = house.queue.add_jobs("t", range(10))
    for number, job_id in enumerate(ids):
        house.acknowledged(job_id, number)
    assert "JOB_TOO_BIG" in caplog.text
    house.clock.advance(GRACE_S)
    with pytest.raises(BrokerUnavailable, match="JOB_TOO_BIG"):
        house.queue.sweep()
    assert house.queue.run_jobs().deleted == 10
    lie.is_on = False
    house.queue.broker.close()  # what a server takes is asked for by each new connection
    assert_over(house, server, 10)


def test_no_queue_must_be_made_anew_after_a_fault(house: House, proxy: Proxy, beanstalkd: Beanstalkd) -> None:
    """The one queue that met every fault is as good as a new one once they are over."""
    for number, word in enumerate(WORDS):
        proxy.replies = ResetInstead(word)
        house.add(number)
        attempt(house.queue.run_jobs)
        proxy.replies = unchanged
    assert_over(house, beanstalkd, len(WORDS))
