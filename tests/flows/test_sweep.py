"""Each row of the design's table of faults, on a real beanstalkd and a real SQLite file.

The store's clock is turned by hand, so that no test waits for a lease or for the grace.
"""

import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kqueue import BrokerUnavailable, JobInHand, KQueue, Priority
from kqueue.contracts.broker import Pointer
from kqueue.contracts.rules import GRACE_S
from kqueue.dispatch import ringing
from kqueue.model.job import Row, State
from kqueue.stores.sqlite.store import SqliteStore
from kqueue.system.clock import ManualClock
from kqueue.system.mint import IdMint
from kqueue.system.threads import Background
from kqueue.upkeep.sweep import BATCH, PAGE_TYPES
from tests.beanstalkd import Beanstalkd
from tests.closing import Closes
from tests.flows.processes import KILLED, die, run_in_child

#: Its tests look into the tubes.
pytestmark = pytest.mark.usefixtures("rings_at_once")


class House:
    """A queue on a store whose clock is turned by hand, and on a beanstalkd."""

    def __init__(self, path: Path, server: Beanstalkd, closes: Closes) -> None:
        self.clock = ManualClock()
        self.server = server
        self._path = path
        self._closes = closes
        self.queue = self.another()
        self.runs: list[tuple[Any, int]] = []
        self.queue.add_handler("t", self.run)

    def another(self) -> KQueue:
        """Another queue on the same store and broker, as another process has it."""
        store = SqliteStore(str(self._path), clock=self.clock)
        return self._closes(KQueue(store=store, broker=self.server.url, sweep_interval=15))

    def run(self, job: JobInHand) -> None:
        self.runs.append((job.payload, job.fence))
        job.delete()

    def row(self, type: str) -> Row:
        """A new job of the type, as the store keeps it, just put."""
        now = self.clock.time()
        [job_id] = IdMint().make(1)
        return Row(job_id, type, b"1", "json", 100, State.READY, 0.0, now, 60.0, created_at=now, put_at=now)

    def pointers(self, type: str = "t") -> int:
        """Entries in the type's tube, whatever their state."""
        return sum(self.queue.broker.depths([type])[type].values())


@pytest.fixture
def house(tmp_path: Path, beanstalkd: Beanstalkd, closes: Closes) -> House:
    return House(tmp_path / "jobs.db", beanstalkd, closes)


@pytest.fixture
def durable_house(tmp_path: Path, start_beanstalkd: Callable[..., Beanstalkd], closes: Closes) -> House:
    return House(tmp_path / "jobs.db", start_beanstalkd(binlog=True, flags=["-f0"]), closes)


def test_a_producer_killed_between_commit_and_put(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.queue.open()
    with monkeypatch.context() as patch:
        patch.setattr(house.queue.broker, "put", lambda pointers: die())
        assert run_in_child(lambda: house.queue.add_job("t", "mine")) == KILLED
    assert house.queue.counts("t")["ready"] == 1
    assert house.pointers() == 0
    assert house.queue.sweep().put == 0  # it may still be under way
    house.clock.advance(GRACE_S)
    assert house.queue.sweep().put == 1
    house.queue.run_jobs()
    assert house.runs == [("mine", 1)]


def test_a_lost_reply_to_a_put_may_make_two_pointers_and_never_two_runs(house: House) -> None:
    job_id = house.queue.add_job("t", "once")
    row = house.queue.store.get([job_id])[0]
    assert row.put_at is not None
    house.queue.broker.put([(Pointer("t", row.priority, row.put_at, (job_id,)), 0.0)])
    assert house.pointers() == 2
    report = house.queue.run_jobs()
    assert (report.count, report.stale_pointers) == (1, 1)
    assert house.runs == [("once", 1)]
    assert house.pointers() == 0


def test_a_beanstalkd_that_lost_its_memory_gets_every_pointer_again(house: House) -> None:
    for n in range(25):
        house.queue.add_job("t", n, priority=n % 3)
    house.queue.add_job("t", "later", delay=60)
    house.queue.add_jobs("u", range(5))
    house.server.restart()
    house.clock.advance(GRACE_S)
    assert house.queue.sweep().put == 30
    assert house.queue.sweep().put == 0
    assert house.queue.run_jobs().deleted == 25
    house.clock.advance(60 + GRACE_S)
    assert house.queue.sweep().put == 1
    assert house.queue.run_jobs().deleted == 1
    assert sorted(house.runs, key=str) == sorted([*((n, 1) for n in range(25)), ("later", 1)], key=str)


def test_a_memory_lost_is_also_seen_behind_what_was_added_since(house: House) -> None:
    house.queue.add_jobs("t", ["old", "older"])
    house.server.restart()
    house.clock.advance(GRACE_S + 0.1)
    house.queue.add_job("t", "new")
    assert house.queue.sweep().put == 2
    assert house.queue.run_jobs().deleted == 3


def test_a_better_priority_that_was_lost_is_seen_although_others_wait(house: House) -> None:
    house.queue.add_job("t", "urgent", priority="urgent")
    house.server.restart()
    house.queue.add_job("t", "bulk", priority="bulk")
    house.clock.advance(GRACE_S)
    assert house.queue.sweep().put == 1
    house.queue.run_jobs()
    assert [payload for payload, _ in house.runs] == ["urgent", "bulk"]


def test_a_memory_lost_with_more_than_a_batch_of_every_priority_is_put_in_one_sweep(house: House) -> None:
    for priority in ("urgent", "normal", "bulk"):
        house.queue.add_jobs("t", range(BATCH + 1), priority=priority)
    house.server.restart()
    house.clock.advance(GRACE_S)
    assert house.queue.sweep().put == 3 * (BATCH + 1)
    assert house.queue.sweep().put == 0
    assert house.queue.run_jobs().deleted == 3 * (BATCH + 1)


def test_a_restart_whose_binlog_survived_puts_nothing(durable_house: House) -> None:
    house = durable_house
    house.queue.add_jobs("t", range(500))
    house.queue.add_job("t", "later", delay=30)
    house.clock.advance(1000)
    house.server.restart()
    report = house.queue.sweep()
    assert (report.promoted, report.put) == (1, 0)
    assert house.queue.run_jobs(count_limit=500).deleted == 500


def test_waiting_is_not_lost_however_long(house: House) -> None:
    for _ in range(10):
        house.queue.add_jobs("t", [None] * 1000)
        house.clock.advance(0.5)
    before = house.pointers()
    assert before == 100
    for days in (0, 1, 100):
        house.clock.advance(days * 86400 + GRACE_S)
        assert house.queue.sweep().put == 0
    assert house.pointers() == before


def test_a_type_without_a_handler_is_put_nothing_twice(house: House) -> None:
    house.queue.add_jobs("nobody", range(300))
    house.queue.add_jobs("t", range(10))
    house.clock.advance(3600)
    for _ in range(3):
        house.clock.advance(20)
        house.queue.run_jobs()
    assert house.queue.sweep().put == 0
    assert house.pointers("nobody") == 3


def test_a_paused_tube_is_put_nothing_twice(house: House) -> None:
    house.queue.add_jobs("t", range(30))
    with house.server.client() as foreign:
        foreign.pause_tube(house.queue.prefix + "t", 3600)
        house.clock.advance(600)
        assert house.queue.sweep().put == 0
        assert house.pointers() == 1
        assert house.queue.run_jobs().deleted == 30, "past the tube: it is not KQueue that has paused it"
        foreign.pause_tube(house.queue.prefix + "t", 0)
    assert house.queue.run_jobs().stale_pointers == 1
    assert house.pointers() == 0


def test_a_worker_killed_while_a_handler_runs(house: House) -> None:
    other = house.another()
    other.add_handler("t", lambda job: die())
    job_id = house.queue.add_job("t", "survivor", ttr=60)
    assert run_in_child(other.run_jobs) == KILLED
    house.clock.advance(59)
    assert house.queue.sweep().recovered == 0
    assert house.queue.run_jobs().count == 0
    house.clock.advance(1)
    report = house.queue.sweep()
    assert (report.recovered, report.put) == (1, 1)
    job = house.queue.get_job(job_id)
    assert job is not None
    assert (job.state, job.crashes, job.tries) == ("ready", 1, 1)
    house.queue.run_jobs()
    assert house.runs == [("survivor", 2)]


def test_a_worker_killed_after_the_handler_and_before_its_settle(house: House, tmp_path: Path) -> None:
    other = house.another()
    log = tmp_path / "log"

    @other.handler("t")
    def handle(job: JobInHand) -> None:
        log.write_text(f"ran with fence {job.fence}")

    def crash(*_: object) -> None:
        die()

    other.store.settle = crash  # type: ignore[method-assign,assignment]
    house.queue.add_job("t", "twice", ttr=10)
    assert run_in_child(other.run_jobs) == KILLED
    assert log.read_text() == "ran with fence 1"
    house.clock.advance(10)
    house.queue.sweep()
    assert house.queue.run_jobs().count == 1
    assert house.runs == [("twice", 2)]


def test_a_late_holder_is_fenced(house: House) -> None:
    """It holds the job past its lease, another one runs it, and what the first settles changes nothing."""
    late = house.another()

    @late.handler("t")
    def handle(job: JobInHand) -> None:
        house.clock.advance(job.ttr)
        house.queue.sweep()
        assert house.queue.run_jobs().count == 1
        job.delete()

    house.queue.add_job("t", "contested", ttr=5)
    report = late.run_jobs()
    assert (report.count, report.deleted, report.lost_lease) == (1, 0, 1)
    assert house.runs == [("contested", 2)]


def test_a_pointer_whose_row_is_gone_or_leased_is_deleted_and_counted(house: House) -> None:
    gone, leased = house.queue.add_job("t", "gone"), house.queue.add_job("t", "leased")
    house.queue.delete_job(gone)
    other = house.another()

    @other.handler("t")
    def hold(job: JobInHand) -> None:
        row = house.queue.store.get([leased])[0]
        house.queue.broker.put([(Pointer("t", row.priority, row.put_at or 0.0, (leased,)), 0.0)])
        report = house.queue.run_jobs()
        assert (report.count, report.stale_pointers) == (0, 1)
        job.delete()

    report = other.run_jobs()
    assert (report.deleted, report.stale_pointers) == (1, 1)
    assert house.pointers() == 0


def test_adds_go_on_while_beanstalkd_is_down_and_the_sweep_puts_them(house: House, caplog: Any) -> None:
    house.queue.open()
    house.server.kill()
    ids = [house.queue.add_job("t", n) for n in range(50)]
    assert house.queue.counts("t")["ready"] == 50
    assert len([record for record in caplog.records if "until the broker is back" in record.message]) == 1
    # Only the first found it out; the others knew, and wrote that they have no pointer.
    assert [row.put_at is None for row in house.queue.store.get(ids)] == [False] + [True] * 49
    with pytest.raises(BrokerUnavailable, match=house.server.url):
        house.queue.sweep()
    house.server.restart()
    house.clock.advance(GRACE_S)
    assert house.queue.sweep().put == 50
    assert house.queue.run_jobs().deleted == 50
    house.queue.add_job("t", "heard again")
    assert house.queue.run_jobs().deleted == 1


def test_a_silent_beanstalkd_costs_one_short_wait(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.queue.open()
    house.server.pause()
    puts: list[int] = []
    put = house.queue.broker.put
    monkeypatch.setattr(house.queue.broker, "put", lambda pointers: (puts.append(1), put(pointers)))
    for n in range(20):
        house.queue.add_job("t", n)
    house.server.resume()
    assert len(puts) == 1
    assert house.queue.counts("t")["ready"] == 20


def test_of_many_threads_none_waits_for_a_silent_beanstalkd(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ringing, "Background", Background)
    house.queue.open()
    house.server.pause()
    puts: list[int] = []
    put = house.queue.broker.put
    monkeypatch.setattr(house.queue.broker, "put", lambda pointers: (puts.append(1), put(pointers)))
    threads = [threading.Thread(target=house.queue.add_job, args=("t", n)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    house.queue.close()
    assert len(puts) == 1
    assert house.queue.counts("t")["ready"] == 12
    house.server.resume()


def test_a_large_repair_delays_no_job_for_long(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes in batches, and a window of jobs runs when the sweep's part of the time is over: here at once."""
    monkeypatch.setattr("kqueue.loops.runner.WORK_S", 0.0)
    house.server.kill()
    house.queue.add_jobs("other", range(5 * BATCH))
    house.server.restart()
    house.clock.advance(GRACE_S)
    worker = house.another()
    worker.add_handler("t", JobInHand.delete)
    worker.add_job("t")
    assert worker.run_jobs(count_limit=1).count == 1
    assert house.pointers("other") < 5 * BATCH / 100


def test_many_types_with_nothing_to_repair_hold_up_no_job(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of them is a step, so a limit is seen in between, and the next loop goes on with the sweep."""
    monkeypatch.setattr("kqueue.upkeep.sweep.PART_WORK_S", math.inf)  # however slow the machine
    types = [f"type-{n:03d}" for n in range(2 * PAGE_TYPES)]
    for type in types:
        house.queue.store.add([house.row(type)])
    house.queue.add_job("t")
    peeked: list[str] = []
    peek = house.queue.broker.peek
    house.queue.broker.peek = lambda types: (peeked.extend(types), house.queue.stop(), peek(types))[-1]  # type: ignore[method-assign]
    house.queue.run_jobs()
    assert len(peeked) == PAGE_TYPES
    house.queue.broker.peek = lambda types: (peeked.extend(types), peek(types))[-1]  # type: ignore[method-assign]
    house.queue.run_jobs()
    assert sorted(set(peeked) - {"t"}) == types, "its job may have run before"
    assert len(peeked) == len(set(peeked))


def test_a_clock_that_goes_back_during_a_sweep_puts_nothing_without_end(house: House) -> None:
    house.queue.add_jobs("t", range(3 * BATCH))
    house.server.restart()
    house.clock.advance(GRACE_S)
    mark = house.queue.store.mark

    def mark_and_go_back(*args: Any) -> Any:
        house.clock.jump(-3600)
        return mark(*args)

    house.queue.store.mark = mark_and_go_back  # type: ignore[method-assign]
    assert house.queue.sweep().put == 3 * BATCH


def test_a_long_delay_has_no_pointer_until_near_its_time(house: House) -> None:
    house.queue.add_job("t", "in a day", delay=86400)
    assert house.pointers() == 0
    assert house.queue.sweep().put == 0
    house.clock.advance(86400 - 20)
    assert house.queue.sweep().put == 1
    assert house.queue.broker.depths(["t"])["t"]["delayed"] == 1
    assert house.queue.sweep().put == 0
    house.clock.advance(20 + GRACE_S)
    # The tube counts real seconds; the store's clock is ahead of it. The head rule then puts a spare.
    assert house.queue.sweep().put == 1
    assert house.queue.run_jobs().deleted == 1


def test_a_delayed_job_whose_pointer_comes_early_waits_for_the_rest(house: House) -> None:
    job_id = house.queue.add_job("t", "early", delay=500)
    house.queue.broker.put([(Pointer("t", Priority.NORMAL, 1.0, (job_id,)), 0.0)])
    assert house.queue.run_jobs().count == 0
    assert house.queue.broker.depths(["t"])["t"]["delayed"] == 2


def test_of_many_workers_one_sweeps(house: House) -> None:
    queues = [house.another() for _ in range(4)]
    swept = [queue._parts.sweeper.begin_if_due() is not None for queue in queues]
    assert swept.count(True) == 1


def test_short_runs_sweep_too_when_it_is_due(house: House) -> None:
    house.queue.run_jobs()
    house.queue.add_job("t", "lost")
    house.server.restart()
    house.clock.advance(14)
    assert house.another().run_jobs().count == 0
    for _ in range(2):
        house.clock.advance(15)
        cron = house.another()
        cron.add_handler("t", house.run)
        cron.run_jobs(time_limit_ms=60_000)
    assert house.runs == [("lost", 1)]


def test_two_stores_on_one_beanstalkd_never_meet(house: House, tmp_path: Path, closes: Closes) -> None:
    other = House(tmp_path / "other.db", house.server, closes)
    house.queue.add_jobs("t", range(10))
    other.queue.add_jobs("t", range(10, 20))
    assert house.queue.prefix != other.queue.prefix
    assert house.queue.run_jobs().count == 10
    assert sorted(payload for payload, _ in house.runs) == list(range(10))
    assert other.queue.run_jobs().count == 10
    assert house.another().prefix == house.queue.prefix


def test_foreign_entries_are_buried_and_never_end_the_loop(house: House, caplog: Any) -> None:
    house.queue.open()
    with house.server.client(house.queue.prefix + "t") as foreign:
        for body in (b"", b"garbage\r\ndelete 1", b"KQ1 t 1 1.000000 short", b"\xff" * 100, b'{"$ne": 1}'):
            foreign.put(body, priority=0)
    house.queue.add_jobs("t", range(3))
    report = house.queue.run_jobs()
    assert (report.count, report.foreign_pointers) == (3, 5)
    assert house.queue.broker.depths(["t"])["t"] == {"ready": 0, "delayed": 0, "reserved": 0, "buried": 5}
    told = [record for record in caplog.records if "not ours" in record.message]
    assert len(told) in {1, 2}  # once by the loop; and once by its sweep, if that comes to one first


def test_a_well_formed_pointer_to_rows_of_another_type_runs_nothing(house: House) -> None:
    secret = house.queue.add_job("secret", 1)
    with house.server.client(house.queue.prefix + "t") as foreign:
        foreign.put(f"KQ1 t 1 1.000000 {secret}".encode(), priority=0)
    assert house.queue.run_jobs().count == 0
    assert house.queue.counts("secret")["ready"] == 1


def test_a_waiting_loop_reconnects_and_watches_again(house: House) -> None:
    done = threading.Event()
    house.queue.remove_handler("t")
    house.queue.add_handler("t", lambda job: (job.delete(), job.payload == "after" and done.set()))
    loop = threading.Thread(target=house.queue.run_jobs, kwargs={"wait": True})
    loop.start()
    house.queue.add_job("t", "before")
    house.server.restart()
    producer = house.another()
    producer.add_job("t", "after")
    assert done.wait(60)
    house.queue.stop()
    loop.join(30)
    assert not loop.is_alive()
