"""Windows: a slow job strands no other, and only the guilty are blamed."""

import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from kqueue import JobInHand, KQueue, LeaseLost
from kqueue.assembly import assemble
from kqueue.contracts.budget import SOLITUDE_S, Budget
from kqueue.contracts.runs import Selection
from kqueue.execution.inflight import BOUND_S
from kqueue.stores.memory.store import MemoryStore
from kqueue.stores.sqlite.store import SqliteStore
from kqueue.system.clock import ManualClock
from tests.beanstalkd import Beanstalkd
from tests.closing import Closes
from tests.flows.conftest import MakeQueue
from tests.flows.processes import KILLED, die, run_in_child


def warmed_up(queue: KQueue, handle: Any) -> None:
    """Register ``handle`` behind 100 fast jobs, so that windows are large when it comes to the others."""
    queue.add_handler("t", lambda job: job.delete() if job.payload == "warm" else handle(job))
    queue.add_jobs("t", ["warm"] * 100, priority=0)


def test_a_slow_job_does_not_strand_its_window(queue: KQueue) -> None:
    """While it runs, another loop gets the jobs that were claimed with it."""
    fast: list[Any] = []
    all_fast_ran = threading.Event()

    def handle(job: JobInHand) -> None:
        if job.payload == "slow":
            assert all_fast_ran.wait(30)
        else:
            fast.append(job.payload)
            if len(fast) == 50:
                all_fast_ran.set()
        job.delete()

    warmed_up(queue, handle)
    queue.add_jobs("t", ["slow", *range(50)])
    loops = [threading.Thread(target=queue.run_jobs, kwargs={"wait": True}) for _ in range(2)]
    for loop in loops:
        loop.start()
    assert all_fast_ran.wait(30)
    queue.stop()
    for loop in loops:
        loop.join(60)
    assert not any(loop.is_alive() for loop in loops)
    assert sorted(fast) == list(range(50))
    assert sum(queue.counts("t").values()) == 0


def test_a_handler_that_overruns_has_what_is_finished_settled_and_the_rest_given_back(queue: KQueue) -> None:
    seen: list[dict[str, int]] = []

    def handle(job: JobInHand) -> None:
        if job.payload == 10:
            patience = threading.Event()
            for _ in range(200):
                if queue.counts("t")["running"] == 1:
                    break
                patience.wait(BOUND_S / 4)
            seen.append(queue.counts("t"))
        job.delete()

    warmed_up(queue, handle)
    ids = queue.add_jobs("t", range(30))
    given_back = ids[11:]
    queue.run_jobs(count_limit=111)
    assert seen == [{"delayed": 0, "ready": 19, "held": 0, "running": 1, "dead": 0, "done": 0}]
    rows = queue.store.get(given_back)
    assert [row.tries for row in rows] == [0] * 19
    assert queue.run_jobs().deleted == 19


def test_a_job_with_under_half_its_lease_left_is_renewed_or_given_back_and_never_started(
    tmp_path: Path, closes: Closes
) -> None:
    """The worker is frozen between its claim and its first handler, and then in a handler."""
    clock = ManualClock()
    queue = closes(KQueue.from_parts(assemble(SqliteStore(tmp_path / "jobs.db", clock=clock), clock=clock)))
    seen: list[tuple[Any, int, float]] = []

    def handle(job: JobInHand) -> None:
        lease_until = queue.store.get([job.id])[0].lease_until
        assert lease_until is not None
        seen.append((job.payload, job.fence, lease_until - clock.time()))
        if job.payload == "freezes":
            clock.advance(5.1)
        job.delete()

    warmed_up(queue, handle)
    queue.run_jobs()
    queue.add_job("t", "claimed slowly", ttr=10)
    claim = queue.store.claim

    def claim_and_freeze(*args: Any) -> Any:
        got = claim(*args)
        clock.advance(5.1)
        queue.store.claim = claim  # type: ignore[method-assign]
        return got

    queue.store.claim = claim_and_freeze  # type: ignore[method-assign]
    queue.run_jobs()
    queue.add_jobs("t", ["warm"] * 73, ttr=10)
    queue.add_jobs("t", ["freezes", "beside it"], ttr=10)
    queue.run_jobs()
    assert seen == [("claimed slowly", 1, 10), ("freezes", 1, 10), ("beside it", 2, 10)]


def test_renew_holds_the_job_for_another_ttr(tmp_path: Path, closes: Closes) -> None:
    clock = ManualClock()
    queue = closes(KQueue(store=SqliteStore(str(tmp_path / "jobs.db"), clock=clock)))

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        clock.advance(9)
        job.renew()
        clock.advance(9)
        queue.renew_job(job)
        assert queue.sweep().recovered == 0
        assert queue.store.get([job.id])[0].lease_until == clock.time() + 10
        clock.advance(10)
        assert queue.sweep().recovered == 1
        job.renew()  # nobody has taken it yet
        clock.advance(10)
        queue.sweep()
        queue.store.delete([job.id])
        with pytest.raises(LeaseLost, match=job.id):
            job.renew()
        with pytest.raises(LeaseLost, match=job.id):
            job.delete()

    queue.add_job("t", ttr=10)
    report = queue.run_jobs()
    assert (report.count, report.lost_lease) == (1, 1)


def test_a_lost_lease_in_a_window_of_many_is_counted_and_logged(queue: KQueue, caplog: Any) -> None:
    def handle(job: JobInHand) -> None:
        if job.payload == 5:
            queue.store.delete([job.id])
        job.delete()

    warmed_up(queue, handle)
    queue.add_jobs("t", range(20))
    report = queue.run_jobs()
    assert (report.count, report.deleted, report.lost_lease) == (120, 119, 1)
    assert len([record for record in caplog.records if "lost" in record.message]) == 1


class SlowStore:
    """A memory store whose commits take long, by a clock that is turned by hand."""

    def __init__(self, clock: ManualClock, claim_s: float, settle_s: float) -> None:
        self._store, self._clock = MemoryStore(), clock
        self._seconds = {"claim": claim_s, "settle": settle_s}
        self.calls: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if not callable(method):
            return method

        def call(*args: Any, **options: Any) -> Any:
            self.calls[name] += 1
            self._clock.advance(self._seconds.get(name, 0))
            return method(*args, **options)

        return call


@pytest.mark.parametrize(("claim_s", "settle_s"), [(0.02, 0.02), (0.2, 0.06), (1.0, 1.0)])
def test_a_slow_store_gets_larger_windows_not_smaller_ones(claim_s: float, settle_s: float, closes: Closes) -> None:
    """What the store takes is not the handler's, and does not count toward the window's bound."""
    clock = ManualClock()
    store = SlowStore(clock, claim_s, settle_s)
    queue = closes(KQueue.from_parts(assemble(store, clock=clock)))  # type: ignore[arg-type]
    order: list[int] = []
    queue.add_handler("t", lambda job: (order.append(job.payload), job.delete()))
    queue.add_jobs("t", range(1000))
    assert queue.run_jobs().deleted == 1000
    assert order == list(range(1000))
    assert store.calls["claim"] <= 7  # 1, 8, 64, 512, the rest, and some to spare


def test_a_large_settle_ms_does_not_strand_the_window_of_a_slow_job(make_queue: MakeQueue) -> None:
    queue = make_queue(settle_ms=60_000)
    seen: list[int] = []

    def handle(job: JobInHand) -> None:
        if job.payload == "slow":
            patience = threading.Event()
            while queue.counts("t")["running"] > 1:
                patience.wait(0.005)
            seen.append(queue.counts("t")["ready"])
        job.delete()

    warmed_up(queue, handle)
    queue.add_jobs("t", ["slow", *range(20)])
    queue.run_jobs()
    assert seen == [20]


def test_delete_by_id_of_a_running_job_whose_lease_was_lost_deletes_it_all_the_same(
    tmp_path: Path, closes: Closes
) -> None:
    """It runs in a window of several here and under a newer fence elsewhere; the operator wants it gone."""
    clock = ManualClock()
    queue = closes(KQueue(store=SqliteStore(tmp_path / "jobs.db", clock=clock)))
    other = closes(KQueue(store=SqliteStore(tmp_path / "jobs.db", clock=clock)))
    answers: list[bool] = []

    def handle(job: JobInHand) -> None:
        if job.payload == "contested":
            clock.advance(10)
            other.sweep()
            other.store.claim(Selection(("t",), (job.id,)), Budget(1), "elsewhere", clock.time(), False)
            operator = threading.Thread(target=lambda: answers.append(queue.delete_job(job.id)))
            operator.start()
            operator.join(30)
            assert other.get_job(job.id) is None

    warmed_up(queue, handle)
    queue.add_jobs("t", ["contested", 1, 2, 3], ttr=10)
    queue.run_jobs(count_limit=101)
    assert answers == [True]


# -- blame --------------------------------------------------------------------------------------------------


class Ward:
    """Workers that die of a poison job, each a real process, on a store whose clock is turned by hand."""

    def __init__(self, path: Path, broker: str | None) -> None:
        self.clock = ManualClock()
        self.queue = KQueue(store=SqliteStore(str(path), clock=self.clock), broker=broker, max_crashes=3)
        self.queue.add_handler("t", self.handle)
        self.deaths = 0

    def handle(self, job: JobInHand) -> None:
        if job.payload == "poison":
            die()
        job.delete()

    def run_until_dead(self, poison: str, at_most: int) -> None:
        while self.deaths < at_most:
            self.clock.advance(16)
            status = run_in_child(self.queue.run_jobs)
            if status != KILLED:
                assert status == 0
                return
            self.deaths += 1
            self.clock.advance(60)


@pytest.fixture(params=["embedded", "beanstalkd"])
def ward(request: pytest.FixtureRequest, tmp_path: Path, closes: Closes) -> Ward:
    broker = request.getfixturevalue("beanstalkd").url if request.param == "beanstalkd" else None
    ward = Ward(tmp_path / "jobs.db", broker)
    closes(ward.queue)
    return ward


def test_a_poison_job_alone_is_dead_after_max_crashes_deaths(ward: Ward) -> None:
    poison = ward.queue.add_job("t", "poison", ttr=30)
    ward.run_until_dead(poison, 10)
    assert ward.deaths == 3
    job = ward.queue.get_job(poison)
    assert job is not None
    assert (job.state, job.crashes) == ("dead", 3)
    assert job.reason is not None
    assert ward.queue.counts("t")["dead"] == 1
    assert ward.queue.retry_job(poison, "try once more") is True
    row = ward.queue.store.get([poison])[0]
    assert (row.crashes, row.suspicion, row.tries, row.fence) == (0, 0, 0, 3)


def test_a_poison_job_among_many_dies_and_no_innocent_does(ward: Ward) -> None:
    payloads = ["innocent"] * 200
    payloads[120] = "poison"
    ids = ward.queue.add_jobs("t", payloads, ttr=30)
    ward.run_until_dead(ids[120], 12)
    # One death in a large window, one in a window of 32, one of 2, and three alone.
    assert 3 <= ward.deaths <= 6
    job = ward.queue.get_job(ids[120])
    assert job is not None
    assert (job.state, job.crashes) == ("dead", 3)
    assert ward.queue.counts("t") == {"delayed": 0, "ready": 0, "held": 0, "running": 0, "dead": 1, "done": 0}


def test_a_settle_clears_crashes_and_suspicion(tmp_path: Path, closes: Closes) -> None:
    clock = ManualClock()
    queue = closes(KQueue(store=SqliteStore(str(tmp_path / "jobs.db"), clock=clock), retry_delay=0))
    mood = {"die": True}
    queue.add_handler("t", lambda job: die() if mood["die"] else job.retry("survived", 1000))
    job_id = queue.add_job("t", ttr=5)
    assert run_in_child(queue.run_jobs) == KILLED
    clock.advance(6)
    queue.sweep()
    assert queue.store.get([job_id])[0].crashes == 1
    mood["die"] = False
    assert queue.run_jobs().retried == 1
    row = queue.store.get([job_id])[0]
    assert (row.crashes, row.suspicion, row.failures, row.tries) == (0, 0, 1, 2)


def test_with_two_loops_in_a_process_a_death_is_blamed_on_nobody_at_first_and_a_suspect_is_taken_aside(
    tmp_path: Path,
    closes: Closes,
) -> None:
    clock = ManualClock()
    queue = closes(KQueue(store=SqliteStore(str(tmp_path / "jobs.db"), clock=clock), max_crashes=2))
    both_in = threading.Barrier(2)

    def handle(job: JobInHand) -> None:
        if job.payload == "meet":
            both_in.wait(30)
        die()

    queue.add_handler("t", handle)

    def two_loops() -> None:
        second = threading.Thread(target=queue.run_jobs, kwargs={"wait": True})
        second.start()
        queue.run_jobs(wait=True)

    meeting = queue.add_jobs("t", ["meet", "meet"], ttr=30)
    assert run_in_child(two_loops) == KILLED
    clock.advance(31)
    queue.sweep()
    assert [(row.crashes, row.suspicion) for row in queue.store.get(meeting)] == [(0, 1), (0, 1)]
    queue.delete_job(meeting[0])
    queue.delete_job(meeting[1])

    poison = queue.add_job("t", "poison", ttr=30)
    history = []
    for _ in range(10):
        assert run_in_child(two_loops) == KILLED
        clock.advance(31)
        queue.sweep()
        row = queue.store.get([poison])[0]
        history.append((row.state, row.crashes))
        if row.state == "dead":
            break
    assert history[-1] == ("dead", 2)


def test_a_suspect_beside_a_long_job_stops_no_other_loop_and_holds_no_pointer(
    tmp_path: Path, beanstalkd: Beanstalkd, closes: Closes
) -> None:
    queue = closes(KQueue(f"sqlite:///{tmp_path}/jobs.db", beanstalkd.url))
    long_runs, long_may_end, suspect_ran = threading.Event(), threading.Event(), threading.Event()
    reserved: list[int] = []

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        if job.payload == "long":
            long_runs.set()
            assert long_may_end.wait(60)
        if job.payload == "suspect":
            reserved.append(queue.broker.depths(["t"])["t"]["reserved"])
            suspect_ran.set()
        if job.payload == "last":
            assert not suspect_ran.is_set()
            long_may_end.set()
        job.delete()

    loops = [threading.Thread(target=queue.run_jobs, kwargs={"wait": True}) for _ in range(3)]
    queue.add_job("t", "long", ttr=600)
    loops[0].start()
    assert long_runs.wait(30)
    suspect = queue.add_job("t", "suspect", priority="urgent")
    row = queue.store.get([suspect])[0]
    queue.store.delete([suspect])
    queue.store.add([row._replace(suspicion=3)])
    for loop in loops[1:]:
        loop.start()
    queue.add_jobs("t", range(500))
    queue.add_job("t", "last", priority="bulk")
    assert suspect_ran.wait(60)
    queue.stop()
    for loop in loops:
        loop.join(60)
    assert not any(loop.is_alive() for loop in loops)
    assert reserved == [0]


def test_a_suspect_that_takes_long_is_not_waited_for_without_end(tmp_path: Path, closes: Closes) -> None:
    """Its handler may itself wait for a job that another loop is to run."""
    clock = ManualClock()
    queue = closes(KQueue.from_parts(assemble(f"sqlite:///{tmp_path}/jobs.db", clock=clock)))
    child_ran = threading.Event()
    alone: list[bool] = []

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        if job.payload == "child":
            child_ran.set()
        else:
            alone.append(queue.store.get([job.id])[0].alone)
            queue.add_job("t", "child")
            clock.advance(SOLITUDE_S)
            assert child_ran.wait(120)
            alone.append(queue.store.get([job.id])[0].alone)
        job.delete()

    suspect = queue.add_job("t", "suspect", ttr=600)
    row = queue.store.get([suspect])[0]
    queue.store.delete([suspect])
    loops = [threading.Thread(target=queue.run_jobs, kwargs={"wait": True}) for _ in range(2)]
    for loop in loops:
        loop.start()
    queue.store.add([row._replace(suspicion=3)])
    assert child_ran.wait(30)
    while queue.counts("t")["running"]:
        threading.Event().wait(0.01)
    queue.stop()
    for loop in loops:
        loop.join(30)
    assert alone == [True, False]


def test_a_loop_that_drains_runs_what_its_watchdog_puts_back(
    tmp_path: Path, beanstalkd: Beanstalkd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watchdog gives the window back while a handler keeps the loop, and its put is slow."""
    with KQueue(f"sqlite:///{tmp_path}/jobs.db", beanstalkd.url) as queue:
        queue.add_jobs("t", range(300))
        overran, put = threading.Event(), queue.broker.put

        def slow_put(pointers: Any) -> None:
            if threading.current_thread() is not threading.main_thread():
                overran.set()
                time.sleep(0.3)  # stands for a thread that the system does not let go on
            put(pointers)

        def handle(job: JobInHand) -> None:
            if job.payload == 100 and job.fence == 1:
                assert overran.wait(60)
            job.delete()

        monkeypatch.setattr(queue.broker, "put", slow_put)
        queue.add_handler("t", handle)
        assert queue.run_jobs().deleted == 300


def test_what_a_slow_claim_has_taken_of_a_lease_is_given_back_to_the_handler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()
    with KQueue.from_parts(assemble(SqliteStore(tmp_path / "jobs.db", clock=clock), clock=clock)) as queue:
        left: list[float] = []

        def handle(job: JobInHand) -> None:
            (row,) = queue.store.get([job.id])
            left.append((row.lease_until or 0.0) - clock.time())
            job.delete()

        claim = queue.store.claim

        def slow_claim(*args: Any) -> Any:
            got = claim(*args)
            clock.advance(4.0)  # as when the pointers' server hangs
            return got

        monkeypatch.setattr(queue.store, "claim", slow_claim)
        queue.add_handler("t", handle)
        queue.add_job("t", ttr=60)
        assert queue.run_jobs().deleted == 1
        assert left == [60.0]


def test_a_job_that_ended_in_its_window_is_deleted_by_its_id_as_its_own_delete(queue: KQueue) -> None:
    ended: list[str] = []

    def handle(job: JobInHand) -> None:
        job.delete()
        if ended and len(ended) % 10 == 0:
            assert queue.delete_job(ended[-1])
        ended.append(job.id)

    queue.add_handler("t", handle)
    queue.add_jobs("t", range(100))
    report = queue.run_jobs()
    assert (report.deleted, report.lost_lease) == (100, 0)
