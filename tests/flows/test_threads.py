"""``work`` with several threads: one dispatcher claims for all of them."""

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from kqueue import JobInHand, KQueue, KQueueError, LeaseLost, RunReport
from kqueue.contracts.budget import Budget
from kqueue.contracts.runs import Selection
from kqueue.stores.memory.store import MemoryStore
from tests.closing import Closes
from tests.flows.conftest import MakeQueue
from tests.flows.working import PATIENCE_S, Gate, Suspects, Working, counted, is_drained
from tests.renewal.peers import renewed
from tests.tubes import await_true


def tries_of_waiting(queue: KQueue) -> list[int]:
    """Of each job that is in nobody's hand."""
    return [row.failures for state in ("ready", "delayed") for row in queue.store.find("t", state, None, 100)]


def test_as_many_run_side_by_side_as_there_are_threads_and_each_runs_once(queue: KQueue) -> None:
    """None ends before 7 are there, and the 8th never comes."""
    seven = threading.Barrier(7)
    running: set[Any] = set()
    most: list[int] = []
    ran: list[Any] = []

    def handle(job: JobInHand) -> None:
        running.add(job.payload)
        most.append(len(running))
        seven.wait(PATIENCE_S)
        running.discard(job.payload)
        ran.append(job.payload)
        job.delete()

    queue.add_handler("t", handle)
    queue.add_handler("u", handle)
    queue.add_jobs("t", range(35))
    queue.add_jobs("u", range(35, 70))
    report = queue.work(threads=7, wait=False)
    assert (report.count, report.deleted, max(most)) == (70, 70, 7)
    assert sorted(ran) == list(range(70))
    assert is_drained(queue, "t", "u")


def test_of_jobs_that_take_long_none_is_claimed_before_a_thread_is_free(queue: KQueue) -> None:
    gate = Gate()

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        gate.wait(job.payload)
        job.delete()

    claims = counted(queue, "claim")
    queue.add_jobs("t", range(10))
    with Working(queue, threads=3):
        await_true(lambda: len(gate.inside) == 3)
        await_true(lambda: tries_of_waiting(queue) == [0] * 7)
        before = len(claims)
        threading.Event().wait(0.3)
        assert len(claims) == before
        assert queue.counts("t") == {"delayed": 0, "ready": 7, "held": 0, "running": 3, "dead": 0, "done": 0}
        gate.open()
        await_true(lambda: is_drained(queue, "t"))
    assert sorted(gate.inside) == list(range(10))


def test_what_waits_behind_jobs_that_suddenly_take_long_goes_back_at_no_try(queue: KQueue) -> None:
    gate = Gate()

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        if job.payload == "long":
            gate.wait(job.id)
        job.delete()

    queue.add_jobs("t", ["short"] * 200 + ["long"] * 2 + ["last"] * 30)
    with Working(queue, threads=2) as working:
        await_true(lambda: len(gate.inside) == 2)
        await_true(lambda: tries_of_waiting(queue) == [0] * 30)  # perhaps they are claimed once before that
        gate.open()
        await_true(lambda: is_drained(queue, "t"))
    assert working.report.deleted == 232


def test_one_that_was_alone_when_its_worker_died_does_not_wait_for_one_that_runs_for_minutes(
    closes: Closes,
) -> None:
    """Nor does it keep others waiting."""
    queue, gate = closes(KQueue(store=MemoryStore())), Gate()

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        if job.payload in ("long", "crashed"):
            gate.wait(job.payload)
        job.delete()

    job_id = queue.add_job("t", "crashed")
    store = queue.store
    store.claim(Selection(("t",), (job_id,)), Budget(1), "the dead", store.now(), True)
    store.recover(store.now() + 1_000, 3, 10)
    assert [row.crashes for row in store.get([job_id])] == [1]
    queue.add_job("t", "long", priority="high")
    with Working(queue, threads=3):
        await_true(lambda: gate.inside == ["long", "crashed"])
        queue.add_jobs("t", range(20))
        await_true(lambda: sum(queue.counts("t").values()) == 2)
        gate.open()


def test_what_threads_end_is_written_together_and_no_later_than_settle_ms(make_queue: MakeQueue) -> None:
    queue = make_queue()
    settles, gate = counted(queue, "settle"), Gate()

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        if job.payload == "last":
            gate.wait(job.id)
        job.delete()

    queue.add_jobs("t", ["first"] * 100 + ["last"])
    with Working(queue, threads=8):
        await_true(lambda: queue.counts("t")["running"] == 1)  # although one of them goes on
        gate.open()
        await_true(lambda: is_drained(queue, "t"))
    assert len(settles) <= 50


def test_with_settle_ms_0_a_delete_is_durable_when_it_returns_and_a_lost_lease_is_raised(
    make_queue: MakeQueue,
) -> None:
    """Of deletes that share a write, a MongoDB says only how many found nothing."""
    queue = make_queue(settle_ms=0)
    found: list[Any] = []
    raised: list[LeaseLost] = []

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        if job.payload == "lost":
            queue.store.delete([job.id])
        try:
            job.delete()
        except LeaseLost as error:
            raised.append(error)
        found.append(queue.get_job(job.id))

    queue.add_jobs("t", ["mine", "lost"] * 10)
    report = queue.work(threads=4, wait=False)
    assert (report.deleted, report.lost_lease) == (10, 10)
    assert found == [None] * 20
    assert len(raised) == 10 or queue.store.address.startswith("mongodb")


def test_a_handler_deletes_its_own_job_by_its_id(make_queue: MakeQueue) -> None:
    queue = make_queue(settle_ms=600_000)
    answers: list[bool] = []

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        answers.append(queue.delete_job(job.id))
        answers.append(job.lease_lost)

    queue.add_jobs("t", range(20))
    assert queue.work(threads=4, wait=False).deleted == 20
    assert sorted(answers) == [False] * 20 + [True] * 20


def test_stop_lets_what_runs_end_and_gives_back_the_rest(queue: KQueue) -> None:
    gate = Gate()

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        gate.wait(job.payload)
        job.delete()

    queue.add_jobs("t", range(10))
    with Working(queue, threads=4) as working:
        await_true(lambda: len(gate.inside) == 4)
        working.stop()
        gate.open()
    assert (working.report.count, working.report.deleted) == (4, 4)
    assert sum(queue.counts("t")[state] for state in ("ready", "delayed")) == 6


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_loop_ends_all_threads_and_is_raised(queue: KQueue, interrupt: type[BaseException]) -> None:
    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        if job.payload == 30:
            raise interrupt
        job.delete()

    queue.add_jobs("t", range(100))
    with pytest.raises(interrupt):
        queue.work(threads=4, wait=False)
    assert queue.counts("t")["running"] == 0
    assert len(queue.store.find("t", "ready", None, 200)) + len(queue.store.find("t", "delayed", None, 200)) >= 1


def test_max_jobs_counts_those_of_all_threads(queue: KQueue) -> None:
    queue.registry.max_jobs = 50
    queue.add_handler("t", JobInHand.delete)
    queue.add_jobs("t", range(200))
    reports: list[RunReport] = [queue.work(threads=8)]
    assert [report.deleted for report in reports] == [50]
    assert queue.counts("t")["ready"] + queue.counts("t")["delayed"] == 150


def test_a_child_that_a_handler_forks_leaves_its_parent_alone(queue: KQueue) -> None:
    children: list[int] = []

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        if job.payload == "fork":
            pid = os.fork()
            if pid:
                children.append(pid)
                assert os.waitpid(pid, 0)[1] == 0
        time.sleep(0.001)
        job.delete()

    queue.add_jobs("t", [*range(10), "fork", *range(10)])
    assert queue.work(threads=4, wait=False).deleted == 21
    assert len(children) == 1
    assert is_drained(queue, "t")


@pytest.mark.parametrize(("deaths", "most"), [(2, 2), (3, 1)])
def test_suspects_run_in_small_groups_down_to_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deaths: int, most: int, closes: Closes
) -> None:
    # On a slow machine what waits would go back, to a time that the store's clock, which stands still, never has.
    monkeypatch.setattr("kqueue.execution.concurrent_jobs.BOUND_S", 60.0)
    suspects = Suspects(tmp_path, deaths)
    closes(suspects.queue)

    @suspects.queue.handler("t")
    def handle(job: JobInHand) -> None:
        suspects.begin(job)
        for _ in range(3):
            time.sleep(0.001)
            suspects.look()
        suspects.end(job)

    report = suspects.queue.work(threads=8, wait=False)
    assert (report.deleted, report.retried) == (43, 0)
    assert max(suspects.beside) <= most
    assert suspects.alone == [most == 1] * 3


def test_a_job_that_is_kept_stays_when_its_handler_deletes_it_again_by_its_id(make_queue: MakeQueue) -> None:
    queue = make_queue(settle_ms=0)  # its end is written by then
    queue.options("t", keep_done=3600)
    answers: list[bool] = []

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        job.delete()
        answers.append(queue.delete_job(job.id))

    queue.add_jobs("t", range(20))
    assert queue.work(threads=4, wait=False).deleted == 20
    assert answers == [True] * 20
    assert queue.counts("t")["done"] == 20


@pytest.mark.usefixtures("renewing_often")
def test_leases_follow_the_handlers_of_all_threads(make_queue: MakeQueue) -> None:
    """Each runs until its lease has begun anew three times, beside sweeps that would take it."""
    queue, other = make_queue(), make_queue()
    starts: list[Any] = []

    @queue.handler("t", auto_renew=True)
    def handle(job: JobInHand) -> None:
        starts.append(job.payload)
        for _ in range(3):
            renewed(other.store, job.id, 1)
            assert other.sweep().recovered == 0
        job.delete()

    queue.add_jobs("t", range(3), ttr=600)
    report = queue.work(threads=3, wait=False)
    assert (report.deleted, report.lost_lease, report.retried) == (3, 0, 0)
    assert sorted(starts) == [0, 1, 2]


def test_no_more_threads_run_a_type_than_its_limit_says(queue: KQueue) -> None:
    running: list[Any] = []
    most: list[int] = []
    queue.limit("t", running=2)

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        running.append(job.payload)
        most.append(len(running))
        time.sleep(0.001)
        running.remove(job.payload)
        job.delete()

    queue.add_jobs("t", range(40))
    with Working(queue, threads=8):
        await_true(lambda: is_drained(queue, "t"))
    assert sorted(most)[-1] == 2


def test_a_thread_that_the_system_refuses_ends_work_with_what_it_lacks(
    queue: KQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may refuse the one that starts a loop's too, of which nobody hears but by its end."""
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "kqueue-loop-1":
            raise RuntimeError("can't start new thread")
        start(thread)

    queue.add_handler("t", lambda job: job.delete())
    queue.add_job("t")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        patch.setattr(threading, "excepthook", lambda arguments: None)
        patch.setattr("sys.unraisablehook", lambda arguments: None)
        with pytest.raises(KQueueError, match="lacks what it needs"):
            queue.work(threads=2, wait=False)
    assert queue.work(threads=2, wait=False).deleted == 1
