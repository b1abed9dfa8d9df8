"""How many of a type run at once in a process: ``concurrency`` of plain functions."""

import threading
from pathlib import Path
from typing import Any

import pytest

from kqueue import JobInHand, KQueue
from kqueue.stores.sqlite.store import SqliteStore
from kqueue.system.clock import ManualClock
from tests.closing import Closes
from tests.flows.processes import KILLED, die, run_in_child
from tests.flows.working import PATIENCE_S, Gate, Working, is_drained
from tests.tubes import await_true, run


class Bounded:
    """A queue with a bounded type "few", whose jobs wait at a gate, and a type "many" without a bound."""

    def __init__(self, queue: KQueue, concurrency: int) -> None:
        self.queue = queue
        self.gate = Gate()
        self.many: list[Any] = []
        self.lock = threading.Lock()
        self.running = 0
        #: Most of "few" that ran at once.
        self.most = 0
        queue.add_handler("few", self.run_few, concurrency=concurrency)
        queue.add_handler("many", self.run_many)

    def run_few(self, job: JobInHand) -> None:
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        self.gate.wait(job.payload)
        with self.lock:
            self.running -= 1
        job.delete()

    def run_many(self, job: JobInHand) -> None:
        self.many.append(job.payload)
        job.delete()


def test_no_more_threads_than_its_bound_run_a_type_and_others_go_on(queue: KQueue) -> None:
    """What is at its bound is not claimed, so none of it has been given back."""
    bounded = Bounded(queue, 2)
    queue.add_jobs("few", range(20), priority="urgent")
    with Working(queue, threads=4):
        await_true(lambda: len(bounded.gate.inside) == 2)
        queue.add_jobs("many", range(300))
        await_true(lambda: len(bounded.many) == 300)
        waiting = queue.store.find("few", "ready", None, 100)
        assert [row.fence for row in waiting] == [0] * 18
        bounded.gate.open()
        await_true(lambda: is_drained(queue, "few", "many"))
    assert bounded.most == 2


def test_where_all_threads_are_kept_a_bounded_type_gets_the_next(queue: KQueue) -> None:
    """One thread at a time gets free."""
    bounded = Bounded(queue, 1)
    bounded.gate.open()
    locks = [threading.Semaphore(0) for _ in range(6)]
    inside: list[int] = []

    @queue.handler("long")
    def work_long(job: JobInHand) -> None:
        number = int(str(job.payload))
        inside.append(number)
        assert locks[number].acquire(timeout=PATIENCE_S)
        job.delete()

    queue.add_jobs("long", range(2))
    with Working(queue, threads=2):
        await_true(lambda: sorted(inside) == [0, 1])
        queue.add_jobs("few", range(5))
        locks[0].release()
        await_true(lambda: not sum(queue.counts("few").values()))
        locks[1].release()
        await_true(lambda: is_drained(queue, "long"))
    assert bounded.most == 1


def test_two_run_jobs_share_what_a_process_may_run(queue: KQueue) -> None:
    """The second one does not serve the type, as long as the first one does."""
    bounded = Bounded(queue, 1)
    queue.add_jobs("few", range(3))
    first = run(queue.run_jobs)
    await_true(lambda: bounded.gate.inside == [0])
    queue.add_jobs("many", range(5))
    report = queue.run_jobs()
    assert (report.deleted, sorted(bounded.many)) == (5, list(range(5)))
    bounded.gate.open()
    first.join(PATIENCE_S)
    assert sorted(bounded.gate.inside) == [0, 1, 2]
    assert bounded.most == 1
    queue.add_job("few", 3)
    assert queue.run_jobs().deleted == 1


def test_a_loop_that_waits_serves_a_bounded_type_once_another_has_ended(queue: KQueue) -> None:
    bounded = Bounded(queue, 1)
    queue.add_job("few", 0)
    first = run(lambda: queue.run_jobs(count_limit=1))
    await_true(lambda: bounded.gate.inside == [0])
    with Working(queue, threads=2):
        queue.add_jobs("many", range(5))
        await_true(lambda: len(bounded.many) == 5)
        queue.add_job("few", 1)
        bounded.gate.open()
        first.join(PATIENCE_S)
        await_true(lambda: is_drained(queue, "few", "many"))
    assert bounded.most == 1


def test_a_bound_that_changes_holds_for_what_starts_then(queue: KQueue) -> None:
    bounded = Bounded(queue, 1)
    queue.add_jobs("few", range(6))
    with Working(queue, threads=4):
        await_true(lambda: bounded.gate.inside == [0])
        queue.remove_handler("few")
        queue.add_handler("few", bounded.run_few, concurrency=3)
        await_true(lambda: len(bounded.gate.inside) == 3)
        bounded.gate.open()
        await_true(lambda: is_drained(queue, "few"))
    assert bounded.most == 3


@pytest.mark.parametrize("threads", [1, 3])
def test_only_bounded_types_run_too(queue: KQueue, threads: int) -> None:
    bounded = Bounded(queue, 2)
    queue.remove_handler("many")
    bounded.gate.open()
    queue.add_jobs("few", range(10))
    assert queue.work(threads=threads, wait=False).deleted == 10
    assert bounded.most <= min(threads, 2)


@pytest.mark.parametrize("bound", [{}, {"concurrency": 2}])
def test_a_poison_job_among_those_of_many_threads_dies_and_no_innocent_does(
    tmp_path: Path, closes: Closes, bound: Any
) -> None:
    """Each worker is a real process of eight threads, and each dispatcher has jobs in hand when it dies."""
    clock = ManualClock()
    queue = closes(KQueue(store=SqliteStore(tmp_path / "jobs.db", clock=clock), max_crashes=3))

    def handle(job: JobInHand) -> None:
        if job.payload == "poison":
            die()
        job.delete()

    queue.add_handler("few", handle, **bound)
    queue.add_handler("many", handle)
    payloads = ["innocent"] * 60
    payloads[20] = "poison"
    ids = queue.add_jobs("few", payloads, ttr=30)
    queue.add_jobs("many", ["innocent"] * 60, ttr=30)
    deaths = 0
    while deaths < 15 and any(queue.counts()[state] for state in ("ready", "delayed", "running")):
        clock.advance(60)
        deaths += run_in_child(lambda: queue.work(threads=8, wait=False)) == KILLED
    [job] = queue.store.get([ids[20]])
    assert (job.state, job.crashes) == ("dead", 3)
    assert {state: count for state, count in queue.counts().items() if count} == {"dead": 1}
