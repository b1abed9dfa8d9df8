"""What befalls a beanstalkd: killed, frozen, without room, in drain mode, with too small a limit, off the clock.

None of it is a fault of the store, so no job may run twice: each test ends even, with nothing left in any tube.
"""

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import greenstalk
import pytest

from kqueue import BrokerUnavailable, JobInHand
from kqueue.brokers.beanstalk.subscription import MAX_RESERVES
from kqueue.contracts.rules import GRACE_S
from kqueue.system.clock import ManualClock
from tests.beanstalkd import Beanstalkd
from tests.faults.conftest import EMPTY, House, entries
from tests.faults.obstacles import small_disk
from tests.faults.peers import Proxy
from tests.machines.broker import FakeBroker
from tests.machines.server import DELAYED, RESERVED, FakeServer
from tests.tubes import await_true, run

StartBeanstalkd = Callable[..., Beanstalkd]
MakeHouse = Callable[..., House]

#: With a binlog every pointer survives; without one every pointer is gone.
BINLOG = pytest.mark.parametrize("binlog", [False, True], ids=["without -b", "with -b"])


def assert_over(house: House, server: Beanstalkd, jobs: int) -> None:
    """The fault is over, and the server has seen the end of every connection that it broke."""
    await_true(lambda: entries(server, house.queue.prefix)["reserved"] == 0)
    house.recover()
    house.assert_even()
    assert len(house.runs()) == jobs
    await_true(lambda: house.meets(lambda: entries(server, house.queue.prefix) == EMPTY))


# -- killed -------------------------------------------------------------------------------------------------


@BINLOG
def test_beanstalkd_killed_while_jobs_are_added(
    make_house: MakeHouse, start_beanstalkd: StartBeanstalkd, binlog: bool
) -> None:
    server = start_beanstalkd(binlog=binlog)
    house = make_house(server.url)
    added: list[str] = []
    ended = threading.Event()

    def produce(first: int) -> None:
        for number in itertools.count(first, 2):
            if ended.is_set():
                return
            added.extend(house.add(number))

    producers = [run(lambda first=first: produce(first)) for first in range(2)]  # type: ignore[misc]

    def await_adds() -> None:
        enough = len(added) + 15
        await_true(lambda: len(added) >= enough)

    for _ in range(3):
        await_adds()
        server.kill()
        await_adds()
        server.restart()
    await_adds()
    ended.set()
    for producer in producers:
        producer.join(30)
    assert_over(house, server, len(added))


@BINLOG
def test_beanstalkd_killed_while_jobs_run(
    make_house: MakeHouse, start_beanstalkd: StartBeanstalkd, binlog: bool
) -> None:
    server = start_beanstalkd(binlog=binlog)
    house = make_house(server.url)

    kills: list[int] = []

    def handle(job: JobInHand) -> None:
        if job.payload % 10 == 5:
            server.kill()
            kills.append(job.payload)
        house.handle(job)

    house.queue.remove_handler("t")
    house.queue.add_handler("t", handle)
    house.add(*range(36))
    while house.queue.counts()["ready"]:
        house.queue.run_jobs(count_limit=10)
        server.restart()
        house.clock.advance(GRACE_S)
        house.queue.sweep()
    assert sorted(kills) == [5, 15, 25, 35]
    assert_over(house, server, 36)


@BINLOG
def test_a_waiting_worker_outlives_each_kill_of_beanstalkd(
    make_house: MakeHouse, start_beanstalkd: StartBeanstalkd, binlog: bool
) -> None:
    """It is told, reconnects and watches its tubes again: what is added after each restart runs by itself."""
    server = start_beanstalkd(binlog=binlog)
    house = make_house(server.url)
    producer = house.another()
    loop = threading.Thread(target=house.queue.run_jobs, kwargs={"wait": True})
    loop.start()
    for number in range(3):
        house.add(number, queue=producer)
        await_true(lambda done=number: len(house.runs()) > done)  # type: ignore[misc]
        server.restart()
    house.add(3, queue=house.another())
    await_true(lambda: len(house.runs()) == 4)
    house.queue.stop()
    loop.join(30)
    assert not loop.is_alive()
    assert_over(house, server, 4)


# -- frozen -------------------------------------------------------------------------------------------------


def test_beanstalkd_frozen_beyond_every_time_out_and_continued(
    make_house: MakeHouse, beanstalkd: Beanstalkd
) -> None:
    """What was given up on is done after all, late: puts of which nobody was told, and reserves for nobody."""
    house = make_house(beanstalkd.url + "?timeout=0.5")
    house.add(*range(5))
    assert house.queue.run_jobs(count_limit=2).count == 2  # both connections are there
    beanstalkd.pause()
    house.add(*range(5, 10))
    house.clock.advance(GRACE_S)
    with pytest.raises(BrokerUnavailable, match="no answer within 0.5 s"):
        house.queue.sweep()
    assert house.queue.run_jobs().deleted == 8
    beanstalkd.resume()
    assert_over(house, beanstalkd, 10)


def test_beanstalkd_frozen_between_reserve_and_settle_of_the_pointers(
    make_house: MakeHouse, beanstalkd: Beanstalkd
) -> None:
    """The claim stands and its job runs. The delete of the entry, given up on, is done when the server goes on."""
    house = make_house(beanstalkd.url + "?timeout=0.5")
    house.add(*range(3))
    claim = house.queue.store.claim

    def claim_and_freeze(*args: Any) -> Any:
        beanstalkd.pause()
        return claim(*args)

    house.queue.store.claim = claim_and_freeze  # type: ignore[method-assign,assignment]
    assert house.queue.run_jobs().deleted == 3
    house.queue.store.claim = claim  # type: ignore[method-assign]
    beanstalkd.resume()
    await_true(lambda: entries(beanstalkd, house.queue.prefix) == {**EMPTY, "ready": 2})
    assert_over(house, beanstalkd, 3)


# -- an entry's own time ------------------------------------------------------------------------------------


def shorten(client: "greenstalk.Client[bytes]", jobs: int) -> int:
    """Put our entries again with the shortest TTR that there is, as a foreign client may. The id of the last."""
    for _ in range(jobs):
        entry = client.reserve(0)
        client.delete(entry)
        last = client.put(entry.body, priority=65536, ttr=1)
    return last


@pytest.mark.parametrize("wait", [False, True])
def test_entries_whose_time_is_nearly_up(house: House, beanstalkd: Beanstalkd, wait: bool) -> None:
    """DEADLINE_SOON: once nothing else is ready, who holds such an entry hears this at once, and again without end.

    What came before it is settled as always. No loop spins, and none ends that was to run all that is ready.
    """
    house.add(*range(30))
    with beanstalkd.client(house.queue.prefix + "t") as client:
        shorten(client, 30)
        with beanstalkd.client(house.queue.prefix + "t") as other, pytest.raises(greenstalk.DeadlineSoonError):
            while True:
                other.reserve(0)
        await_true(lambda: entries(beanstalkd, house.queue.prefix) == {**EMPTY, "ready": 30})
        before = int(client.stats()["cmd-reserve-with-timeout"])
        worker = house.another("t")
        loop = threading.Thread(target=worker.run_jobs, kwargs={"wait": wait})
        loop.start()
        if wait:
            await_true(lambda: len(house.runs()) == 30)
            worker.stop()
        loop.join(30)
        assert len(house.runs()) == 30
        # At worst each job comes in a batch of its own.
        assert int(client.stats()["cmd-reserve-with-timeout"]) - before <= 31 * (MAX_RESERVES + 1)
    assert_over(house, beanstalkd, 30)


def test_a_claim_that_takes_longer_than_the_entrys_ttr(house: House, beanstalkd: Beanstalkd) -> None:
    """The entry's time is over before it is settled: another worker may have it then, and finds no row to claim."""
    house.add("slow to claim")
    with beanstalkd.client(house.queue.prefix + "t") as client:
        entry = shorten(client, 1)
        claim = house.queue.store.claim

        def claim_late(*args: Any) -> Any:
            await_true(lambda: client.stats_job(entry)["time-left"] == 0)
            return claim(*args)

        house.queue.store.claim = claim_late  # type: ignore[method-assign,assignment]
        house.queue.run_jobs(count_limit=1)
    assert_over(house, beanstalkd, 1)


# -- no room ------------------------------------------------------------------------------------------------


class SmallBinlog:
    """The folder of a binlog, on a disk that can be filled to the last byte and emptied again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        #: Small files, so that the last one is soon full too.
        self.flags = ["-b", str(folder), "-s", "8192", "-f0"]
        self._ballast = folder / "ballast"

    def fill_disk(self) -> None:
        """As another program does that shares the disk."""
        with pytest.raises(OSError, match="No space left"), self._ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    def fill(self, server: Beanstalkd) -> None:
        """Also what room is left in the file that ``server`` is writing."""
        self.fill_disk()
        with server.client("filler") as client, pytest.raises(greenstalk.OutOfMemoryError):
            while True:
                client.put(b"")

    def make_room(self) -> None:
        self._ballast.unlink()

    def lose_the_last_file(self) -> None:
        """Its blocks are gone, so that the next write to it needs room."""
        logs = self.folder.glob("binlog.*")
        with max(logs, key=lambda path: int(path.suffix[1:])).open("rb+") as last:
            last.truncate()


@pytest.fixture
def binlog(tmp_path: Path) -> Iterator[SmallBinlog]:
    """Ask for it before any server, so that the server has ended when the disk is taken away."""
    folder = tmp_path / "binlog"
    folder.mkdir()
    with small_disk(folder):
        yield SmallBinlog(folder)


def test_a_binlog_on_a_full_disk(
    binlog: SmallBinlog, start_beanstalkd: StartBeanstalkd, make_house: MakeHouse, caplog: Any
) -> None:
    """Puts and delayed releases answer OUT_OF_MEMORY. The latter strand their entries: nobody sees them until a
    restart.
    """
    server = start_beanstalkd(flags=binlog.flags)
    house = make_house(server.url)
    house.add(*[f"later {number}" for number in range(40)], delay=300)
    with server.client(house.queue.prefix + "t") as client:
        assert client.kick(40) == 40
    binlog.fill(server)
    house.add(*range(20))
    assert caplog.text.count("OUT_OF_MEMORY") == 1
    house.clock.advance(GRACE_S)
    with pytest.raises(BrokerUnavailable, match="OUT_OF_MEMORY"):
        house.queue.sweep()
    # The 40 come far too early, and are to be released for the rest of their delay. The 20 run past the tube.
    assert house.queue.run_jobs().deleted == 20
    assert sum(entries(server, house.queue.prefix).values()) < 10
    assert house.queue.counts() == {"delayed": 40, "ready": 0, "held": 0, "running": 0, "dead": 0, "done": 0}

    binlog.make_room()
    house.clock.advance(300)
    house.recover()
    house.assert_even()
    assert len(house.runs()) == 60

    # A restart brings the stranded ones back, and shows that they are nothing more than stale.
    server.restart()
    with server.client(house.queue.prefix + "t") as client:
        client.kick(100)
    assert house.queue.run_jobs().stale_pointers == 40
    assert_over(house, server, 60)


def test_a_purge_while_the_binlogs_disk_is_full(
    binlog: SmallBinlog, start_beanstalkd: StartBeanstalkd, make_house: MakeHouse
) -> None:
    """The server says KICKED of delayed entries that it has no room to kick. The purge ends, and they are stale."""
    server = start_beanstalkd(flags=binlog.flags)
    house = make_house(server.url)
    house.queue.add_jobs("t", range(5))
    for _ in range(40):
        house.queue.add_job("t", delay=300)
    binlog.fill(server)
    purged: list[int] = []
    run(lambda: purged.append(house.queue.purge_jobs("t"))).join(30)
    assert purged == [45]
    left = entries(server, house.queue.prefix)
    assert left == {**EMPTY, "delayed": left["delayed"]}
    binlog.make_room()
    assert house.queue.purge_jobs("t") == 0
    server.restart()  # which brings back those that were stranded
    house.queue.purge_jobs("t")
    assert_over(house, server, 0)


def test_a_write_error_after_which_the_binlog_is_silently_off(
    binlog: SmallBinlog, start_beanstalkd: StartBeanstalkd, make_house: MakeHouse, caplog: Any
) -> None:
    """One put answers BURIED, and all later ones INSERTED, though a restart forgets them. Their jobs come again."""
    server = start_beanstalkd(flags=binlog.flags)
    house = make_house(server.url)
    house.add(*range(3))
    binlog.lose_the_last_file()
    binlog.fill_disk()
    house.add("buried")
    assert "1 BURIED" in caplog.text
    queue = house.another()  # one that knows of no outage
    house.add(*range(3, 10), queue=queue)
    assert caplog.text.count("BURIED") == 1
    binlog.make_room()
    server.restart()
    assert sum(entries(server, house.queue.prefix).values()) <= 3
    assert_over(house, server, 11)


@BINLOG
def test_drain_mode_until_a_fresh_server_takes_over(
    make_house: MakeHouse, start_beanstalkd: StartBeanstalkd, binlog: bool, caplog: Any
) -> None:
    """Adds are acknowledged; what the old server still has is run, and the rest past it."""
    server = start_beanstalkd(binlog=binlog)
    house = make_house(server.url)
    house.add(*range(10))
    server.drain_mode()
    house.add(*range(10, 20))
    assert caplog.text.count("DRAINING") == 1
    assert house.queue.run_jobs(count_limit=5).deleted == 5
    house.clock.advance(GRACE_S)
    assert house.another("t").run_jobs().deleted == 15
    server.restart()
    house.add("after")
    assert_over(house, server, 21)


def test_a_server_that_takes_no_pointer_at_all(
    make_house: MakeHouse, start_beanstalkd: StartBeanstalkd, start_proxy: Callable[..., Proxy], caplog: Any
) -> None:
    """``-z 60``: jobs run past the tube, and the sweep says what to do, until a server with room takes over."""
    small, large = start_beanstalkd(flags=["-z", "60"]), start_beanstalkd(flags=["-z", "150"])
    proxy = start_proxy(small.address)
    house = make_house(proxy.url)
    house.add(*range(5))
    ids = house.queue.add_jobs("t", range(5, 30))
    for number, job_id in enumerate(ids, 5):
        house.acknowledged(job_id, number)
    house.clock.advance(GRACE_S)
    house.queue.sweep()
    assert "max-job-size of 60 bytes" in caplog.text
    assert house.queue.run_jobs().deleted == 30
    house.add("after")
    proxy.target = large.address
    small.kill()
    with suppress(BrokerUnavailable):
        house.queue.sweep()  # a connection may only now show that its server has gone
    assert_over(house, large, 31)


# -- off the clock ------------------------------------------------------------------------------------------


def test_the_servers_wall_clock_an_hour_forward(make_house: MakeHouse) -> None:
    """All that is reserved or delayed is ready at once. On the fake server: no test may set a host's clock."""
    clock = ManualClock()
    server = FakeServer(clock)
    house = make_house(FakeBroker(server))
    house.add(*range(10))
    house.add(*[f"later {number}" for number in range(10)], delay=600)
    late = house.another("t", broker=FakeBroker(server))
    claim = late.store.claim

    def claim_after_the_jump(*args: Any) -> Any:
        assert {item.state for item in server.items()} >= {RESERVED, DELAYED}
        clock.jump(3600)
        assert {item.state for item in server.items()} == {"ready"}
        assert house.queue.run_jobs().deleted == 10  # also what the late one has just reserved
        late.store.claim = claim  # type: ignore[method-assign]
        return claim(*args)

    late.store.claim = claim_after_the_jump  # type: ignore[method-assign,assignment]
    assert late.run_jobs().count == 0
    house.clock.advance(600)
    clock.advance(3600)
    house.recover()
    house.assert_even()
    assert len(house.runs()) == 20
    assert server.items() == []


def test_the_servers_wall_clock_an_hour_back(make_house: MakeHouse) -> None:
    """Delayed entries come an hour late; the store knows when their jobs are due, and has them put again."""
    clock = ManualClock()
    server = FakeServer(clock)
    house = make_house(FakeBroker(server))
    house.add(*range(10), delay=60)
    clock.jump(-3600)
    house.clock.advance(60)
    clock.advance(60)
    house.recover()
    house.assert_even()
    assert len(house.runs()) == 10
    clock.advance(3600)
    assert house.queue.run_jobs().stale_pointers == 10
    assert server.items() == []
