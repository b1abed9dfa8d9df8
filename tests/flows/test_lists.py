"""Handlers that get a list of jobs in one call: each job has its own outcome, wherever the call runs."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kqueue import (
    Died,
    Event,
    Finished,
    JobInHand,
    KQueue,
    LeaseLost,
    LostLease,
    Retried,
    RetryPolicy,
    RunReport,
    Snooze,
    Started,
    Verdict,
)
from kqueue.contracts.budget import Budget
from kqueue.contracts.runs import LeaseKey, Selection
from kqueue.stores.sqlite.store import SqliteStore
from kqueue.system.clock import ManualClock
from kqueue.system.mint import IdMint
from tests.flows.conftest import MakeQueue
from tests.flows.processes import KILLED, run_in_child
from tests.flows.working import counted, with_suspicion
from tests.renewal.peers import renewed
from tests.tubes import await_true

Batch = list[JobInHand]
RunQueue = Callable[[KQueue], RunReport]
WAYS = ["run_jobs", "run_jobs and a coroutine", "threads", "coroutines"]


class Lists:
    """A handler of lists, as a function or a coroutine, and what it was given."""

    def __init__(self, queue: KQueue, way: str, do: Callable[[Batch], Any], **options: Any) -> None:
        self._queue = queue
        self._way = way
        self._lock = threading.Lock()
        #: The payloads of each list, in the order in which they came.
        self.lists: list[list[Any]] = []
        given = {"batch": 10, **options}

        def function(jobs: Batch) -> Any:
            with self._lock:
                self.lists.append([job.payload for job in jobs])
            return do(jobs)

        async def coroutine(jobs: Batch) -> Any:
            returned = function(jobs)
            await asyncio.sleep(0)
            return await returned if asyncio.iscoroutine(returned) else returned

        queue.add_handler("t", coroutine if "coroutine" in way else function, **given)

    def run(self, **limits: Any) -> RunReport:
        if self._way.startswith("run_jobs"):
            return self._queue.run_jobs(**limits)
        return self._queue.work(threads=2, wait=False, **limits)


def delete_all(jobs: Batch) -> None:
    for job in jobs:
        job.delete()


@pytest.mark.parametrize("way", WAYS)
def test_a_call_gets_a_list_and_each_job_of_it_counts(make_queue: MakeQueue, way: str) -> None:
    queue = make_queue()
    told: list[Event] = []
    queue.subscribe(told.append)
    batches = Lists(queue, way, delete_all)
    ids = queue.add_jobs("t", range(25))
    queue.flush()
    report = batches.run()
    assert sorted(one for batch in batches.lists for one in batch) == list(range(25))
    assert all(batch == sorted(batch) for batch in batches.lists)
    assert max(map(len, batches.lists)) == 10
    # Each claim has a whole list at least, and a part of another where jobs take long.
    assert 3 <= len(batches.lists) <= 5
    assert (report.count, report.deleted) == (25, 25)
    stats = queue.stats().types["t"]
    assert (stats.run, stats.finished) == (25, 25)
    for kind in (Started, Finished):
        assert {one.job_id for one in told if isinstance(one, kind)} == set(ids)
    assert sum(queue.counts().values()) == 0


@pytest.mark.parametrize("way", WAYS)
def test_of_a_call_that_raises_what_it_has_settled_stays_and_the_others_are_retried(
    make_queue: MakeQueue, way: str
) -> None:
    queue = make_queue(retry_delay=600)
    told: list[Event] = []
    queue.subscribe(told.append)

    def half(jobs: Batch) -> None:
        delete_all(jobs[:3])
        jobs[3].unget(delay=600)
        raise KeyError("half")

    batches = Lists(queue, way, half, batch=8)
    queue.add_jobs("t", range(8))
    queue.flush()
    report = batches.run()
    assert batches.lists == [list(range(8))]
    assert (report.count, report.deleted, report.ungot, report.retried) == (8, 3, 1, 4)
    left = {job.payload: job for job in queue.jobs("t", state="delayed")}
    assert sorted(left) == [3, 4, 5, 6, 7]
    assert (left[3].tries, left[4].tries) == (0, 1)
    assert all("KeyError: 'half'" in str(left[n].reason) for n in (4, 5, 6, 7))
    errors = [one.exception for one in told if isinstance(one, Retried)]
    assert len(errors) == 4
    assert all(isinstance(one, KeyError) for one in errors)


@pytest.mark.parametrize("way", WAYS)
def test_each_job_has_the_answer_that_stands_at_its_place(way: str) -> None:
    queue = KQueue("memory:", retry_delay=600)
    said = [Verdict.OK, Verdict.FAILED, Snooze(600), ValueError("mine"), "404 none", 200, None, Verdict.RETRY]
    batches = Lists(queue, way, lambda jobs: said)
    queue.add_jobs("t", range(8))
    report = batches.run()
    assert (report.deleted, report.dead, report.ungot, report.retried) == (2, 2, 1, 3)
    reasons = {job.payload: job.reason for state in ("dead", "delayed") for job in queue.jobs("t", state=state)}
    assert reasons[1] == "the handler returned FAILED"
    assert reasons[2] == "snoozed for 600 s"
    assert str(reasons[3]).startswith("ValueError: mine")
    assert reasons[4] == "the handler answered 404 none"
    assert reasons[6] == "not deleted"
    assert reasons[7] == "the handler returned RETRY"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("deletes", [True, False])
def test_a_list_that_nobody_has_settled(way: str, deletes: bool, caplog: pytest.LogCaptureFixture) -> None:
    queue = KQueue("memory:", retry_delay=600)
    batches = Lists(queue, way, lambda jobs: None, delete_on_success=deletes)
    queue.add_jobs("t", range(4))
    report = batches.run()
    assert (report.deleted, report.retried) == ((4, 0) if deletes else (0, 4))
    told = [one for one in caplog.records if "returned without having settled it" in one.getMessage()]
    assert len(told) == (0 if deletes else 1)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("settle_ms", [0, 20])
def test_a_lease_that_is_lost_costs_that_job_alone(make_queue: MakeQueue, way: str, settle_ms: float) -> None:
    queue = make_queue(settle_ms=settle_ms, sweep_interval=3600)
    told: list[Event] = []
    queue.subscribe(told.append)

    def lose_second(jobs: Batch) -> None:
        lost = jobs[1]
        now = queue.store.now()
        queue.pause("t", here=True)  # no thread is to take it
        queue.store.renew([LeaseKey(lost.id, lost.fence, 0.0)], now)
        queue.store.recover(queue.store.now(), 3, 10)
        assert queue.store.claim(Selection(("t",), (lost.id,)), Budget(1), IdMint().make(1)[0], now, False).rows
        for job in jobs:
            try:
                job.delete()
            except LeaseLost:
                assert job.id == lost.id

    batches = Lists(queue, way, lose_second)
    ids = queue.add_jobs("t", range(4))
    queue.flush()
    report = batches.run()
    assert (report.count, report.deleted, report.lost_lease) == (4, 3, 1)
    assert [one.job_id for one in told if isinstance(one, LostLease)] == [ids[1]]
    assert queue.counts()["running"] == 1


@pytest.mark.parametrize("way", WAYS)
def test_limits_hold_for_each_job(make_queue: MakeQueue, way: str) -> None:
    queue = make_queue()
    batches = Lists(queue, way, delete_all)
    queue.limit("t", running=5, running_per_key=2)
    for n in range(9):
        queue.add_job("t", n, limit_key=f"{n % 3}")
    queue.flush()
    assert batches.run().deleted == 9
    assert max(map(len, batches.lists)) <= 5
    assert all(len([n for n in batch if n % 3 == key]) <= 2 for batch in batches.lists for key in range(3))


@pytest.mark.parametrize("way", WAYS)
def test_a_count_limit_cuts_a_list(make_queue: MakeQueue, way: str) -> None:
    queue = make_queue()
    batches = Lists(queue, way, delete_all)
    queue.add_jobs("t", range(30))
    queue.flush()
    if way.startswith("run_jobs"):
        assert batches.run(count_limit=13).deleted == 13
    else:
        queue.registry.max_jobs = 13
        assert batches.run().deleted == 13
    assert max(map(len, batches.lists)) == 10
    assert queue.counts()["ready"] == 17


def test_bytes_cut_a_list(make_queue: MakeQueue) -> None:
    queue = make_queue()
    batches = Lists(queue, "run_jobs", delete_all)
    queue.add_jobs("t", [bytes(3 * 2**20)] * 5)
    queue.flush()
    assert batches.run().deleted == 5
    assert [len(batch) for batch in batches.lists] == [2, 2, 1]


def test_urgent_jobs_of_other_types_are_not_kept_waiting() -> None:
    queue = KQueue("memory:")
    ran: list[Any] = []
    Lists(queue, "run_jobs", lambda jobs: (ran.append([job.payload for job in jobs]), delete_all(jobs)))

    @queue.handler("other")
    def other(job: JobInHand) -> None:
        ran.append(job.payload)
        job.delete()

    other_first = queue.add_job("other", "warm")
    queue.run_jobs()
    assert queue.get_job(other_first) is None
    queue.add_job("t", 1)
    queue.add_job("other", "same")
    queue.add_job("t", 2)
    queue.add_job("other", "low", priority="low")
    queue.add_job("t", 3, priority="bulk")
    queue.run_jobs()
    assert ran == ["warm", [1, 2], "same", "low", [3]]


def test_what_goes_around_a_call_is_given_its_list() -> None:
    queue = KQueue("memory:")
    seen: list[Any] = []

    @queue.around
    def around(jobs: Any) -> Any:
        seen.append(len(jobs))
        yield
        seen.append("after")

    batches = Lists(queue, "run_jobs", delete_all)
    queue.add_jobs("t", range(12))
    batches.run()
    assert seen == [10, "after", 2, "after"]


def test_a_pause_from_inside_ends_with_the_call() -> None:
    queue = KQueue("memory:")

    def pause(jobs: Batch) -> None:
        delete_all(jobs)
        queue.pause("t", here=True)

    batches = Lists(queue, "run_jobs", pause)
    queue.add_jobs("t", range(25))
    assert batches.run().deleted == 10
    assert queue.counts()["ready"] == 15


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_ends_the_loop_after_each_has_its_outcome(
    interrupt: type[BaseException], tmp_path: Path
) -> None:
    queue = KQueue(f"sqlite:///{tmp_path}/jobs.db", retry_delay=600)

    def stop(jobs: Batch) -> None:
        delete_all(jobs[:2])
        raise interrupt

    batches = Lists(queue, "run_jobs", stop, batch=5)
    queue.add_jobs("t", range(10))
    with pytest.raises(interrupt):
        batches.run()
    counts = queue.counts()
    assert counts["running"] == 0
    assert (counts["ready"], counts["delayed"]) == ((8, 0) if interrupt is KeyboardInterrupt else (5, 3))
    queue.close()


# -- blame ---------------------------------------------------------------------------------------------------


def test_when_a_batch_kills_its_process_all_of_it_become_suspects_and_run_alone(
    make_unswept_queue: MakeQueue,
) -> None:
    queue = make_unswept_queue(max_crashes=3)
    ids = queue.add_jobs("t", range(6))
    queue.flush()

    def die() -> None:
        mine = make_unswept_queue()

        def kill(jobs: Batch) -> None:
            jobs[0].delete()
            mine.flush()
            os.kill(os.getpid(), signal.SIGKILL)

        mine.add_handler("t", kill, batch=6)
        mine.run_jobs()

    assert run_in_child(die) == KILLED
    rows = queue.store.get(ids)
    assert len(rows) == 5, "the first was deleted, and that was written"
    queue.store.renew([LeaseKey(row.id, row.fence, 0.0) for row in rows], queue.store.now())
    queue.sweep()
    assert {(row.suspicion, row.crashes, row.alone) for row in queue.store.get(ids)} == {(1, 0, False)}
    batches = Lists(queue, "run_jobs", delete_all)
    queue.add_jobs("t", ["good", "other"])
    queue.flush()
    assert batches.run().deleted == 7
    assert sorted(batches.lists, key=len) == [[n] for n in range(1, 6)] + [["good", "other"]]


@pytest.mark.parametrize("way", WAYS)
def test_a_suspect_comes_in_a_list_of_one(way: str, tmp_path: Path) -> None:
    clock = ManualClock()
    queue = KQueue(store=SqliteStore(tmp_path / "jobs.db", clock=clock))
    suspects = queue.add_jobs("t", ["a", "b"], ttr=50)
    with_suspicion(queue, clock, suspects, 1)
    queue.add_jobs("t", range(4), priority="high")
    queue.add_jobs("t", range(4, 8), priority="low")
    batches = Lists(queue, way, delete_all)
    assert batches.run().deleted == 10
    assert ["a"] in batches.lists
    assert ["b"] in batches.lists
    queue.close()


# -- leases --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("renewing_often")
@pytest.mark.parametrize("way", WAYS)
def test_with_auto_renew_the_leases_of_all_of_a_list_are_renewed(way: str, tmp_path: Path) -> None:
    queue = KQueue(f"sqlite:///{tmp_path}/jobs.db")

    async def wait(jobs: Batch) -> None:
        await asyncio.to_thread(lambda: [renewed(queue.store, job.id, 2) for job in jobs])
        delete_all(jobs)

    def hold(jobs: Batch) -> Any:
        if "coroutine" in way:
            return wait(jobs)
        for job in jobs:
            renewed(queue.store, job.id, 2)
        return delete_all(jobs)

    batches = Lists(queue, way, hold, auto_renew=True)
    queue.add_jobs("t", range(3), ttr=600)
    assert batches.run().deleted == 3
    queue.close()


@pytest.mark.parametrize("way", ["run_jobs and a coroutine", "coroutines"])
def test_a_coroutine_has_the_shortest_ttr_of_its_list(way: str) -> None:
    queue = KQueue("memory:", retry_delay=600)

    async def hang() -> None:
        await asyncio.sleep(3600)

    def begin(jobs: Batch) -> Any:
        jobs[0].delete()
        return hang()

    batches = Lists(queue, way, begin)
    queue.add_jobs("t", range(2), ttr=600)
    queue.add_job("t", 2, ttr=1)
    report = batches.run()
    assert (report.count, report.deleted, report.retried) == (3, 1, 2)
    reasons = {job.reason for job in queue.jobs("t", state="delayed")}
    assert reasons == {"its lease ran out after 1 s; its coroutine was cancelled"}


def test_a_final_error_ends_all_that_it_did_not_settle() -> None:
    queue = KQueue("memory:")
    told: list[Event] = []
    queue.subscribe(told.append)
    batches = Lists(queue, "run_jobs", lambda jobs: 1 / 0, retry=RetryPolicy(final=ZeroDivisionError))
    queue.add_jobs("t", range(3))
    assert batches.run().dead == 3
    assert len([one for one in told if isinstance(one, Died)]) == 3


@pytest.mark.parametrize("threads", [2, 4])
def test_while_one_call_runs_others_have_their_places(threads: int) -> None:
    """A call takes one thread, however many jobs it has."""
    queue = KQueue("memory:")
    together = threading.Barrier(threads)

    def meet(jobs: Batch) -> None:
        together.wait(60)
        delete_all(jobs)

    queue.add_handler("t", meet, batch=5)
    queue.add_jobs("t", range(5 * threads))
    assert queue.work(threads=threads, wait=False).deleted == 5 * threads


def test_a_long_single_job_beside_batches_does_not_make_others_wait_in_its_loop() -> None:
    queue = KQueue("memory:")
    sizes: list[int] = []
    begun, done = threading.Event(), threading.Event()

    @queue.handler("long")
    def long(job: JobInHand) -> None:
        begun.set()
        assert done.wait(60)
        job.delete()

    @queue.handler("t", batch=7)
    def lists(jobs: Batch) -> None:
        sizes.append(len(jobs))
        assert begun.wait(60)
        delete_all(jobs)
        if sum(sizes) == 21:
            done.set()

    queue.add_jobs("long", [1])
    queue.add_jobs("t", range(21))
    assert queue.work(threads=2, wait=False).deleted == 22
    await_true(done.is_set)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch": 0}, "^batch: at least 1, got 0"),
        ({"batch": 513}, "^batch: at most 512, got 513"),
        ({"batch": 5, "auto_renew": True, "max_runtime": 9}, "^max_runtime: not with batch"),
    ],
)
def test_what_a_batch_cannot_have_is_refused(options: Any, said: str) -> None:
    queue = KQueue("memory:")
    with pytest.raises(ValueError, match=said):
        queue.add_handler("t", delete_all, **options)
    with pytest.raises(TypeError, match="^batch: "):
        queue.add_handler("t", delete_all, batch="5")  # type: ignore[arg-type]


def test_a_list_costs_one_claim_and_one_settle(tmp_path: Path) -> None:
    """However long its calls take: the time of the first is learned, and 100 jobs are claimed for the next all the
    same.
    """
    clock = ManualClock()
    queue = KQueue(store=SqliteStore(tmp_path / "jobs.db", clock=clock))
    claims, settles = counted(queue, "settle_and_claim"), counted(queue, "settle")

    def take_long(jobs: Batch) -> None:
        clock.advance(5)
        delete_all(jobs)

    batches = Lists(queue, "run_jobs", take_long, batch=100)
    queue.add_jobs("t", range(500))
    assert batches.run().deleted == 500
    assert [len(batch) for batch in batches.lists] == [100] * 5
    assert len(claims) + len(settles) <= 12
    queue.close()
