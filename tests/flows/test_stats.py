"""Counts and seconds by type, in one snapshot."""

import os
import threading
from pathlib import Path

import pytest

from kqueue import JobInHand, KQueue, Stats, TypeStats
from tests.closing import Closes
from tests.flows.conftest import MakeQueue
from tests.flows.processes import run_in_child


def counted(stats: TypeStats) -> tuple[int, ...]:
    return stats.added, stats.run, stats.finished, stats.failed, stats.died, stats.given_back, stats.lost_lease


def test_nothing_yet(queue: KQueue) -> None:
    stats = queue.stats()
    assert isinstance(stats, Stats)
    assert dict(stats.types) == {}
    assert stats.seconds >= 0
    assert abs(stats.at - queue.store.now()) < 60


def test_each_end_is_counted_for_its_type(make_queue: MakeQueue) -> None:
    queue = make_queue(max_tries=2, retry_delay=0)

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        if job.payload == "lose":
            queue.store.delete([job.id])
            job.retry("too late")
        if job.payload == "unget":
            job.unget(delay=600)
        if job.payload == "delete":
            job.delete()

    queue.add_handler("u", JobInHand.delete)
    queue.add_jobs("t", ["delete"] * 30 + ["lose", "unget", "fail"])
    queue.add_jobs("u", range(100))
    queue.add_job("nobody")
    report = queue.run_jobs()
    types = queue.stats().types
    assert list(types) == ["nobody", "t", "u"]
    assert counted(types["t"]) == (33, 34, 30, 2, 1, 1, 1)
    assert counted(types["u"]) == (100, 100, 100, 0, 0, 0, 0)
    assert counted(types["nobody"]) == (1, 0, 0, 0, 0, 0, 0)
    assert sum(stats.run for stats in types.values()) == report.count
    assert types["nobody"].seconds == 0
    assert 0 < types["t"].seconds + types["u"].seconds <= report.seconds


def test_the_seconds_are_those_of_handlers(queue: KQueue) -> None:
    @queue.handler("slow")
    def handle(job: JobInHand) -> None:
        threading.Event().wait(0.05)
        job.delete()

    queue.add_jobs("slow", range(2))
    report = queue.run_jobs()
    assert 0.1 <= queue.stats().types["slow"].seconds <= report.seconds


def test_a_run_that_was_interrupted_counts(queue: KQueue) -> None:
    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        if job.payload == 30:
            raise KeyboardInterrupt
        job.delete()

    queue.add_jobs("t", range(50))
    with pytest.raises(KeyboardInterrupt):
        queue.run_jobs()
    assert counted(queue.stats().types["t"]) == (50, 31, 30, 0, 0, 1, 0)


def test_what_waits_and_for_how_long(make_queue: MakeQueue) -> None:
    queue, another = make_queue(), make_queue()
    now = queue.store.now()
    ids = another.add_jobs("t", range(5))
    another.add_jobs("t", range(3), delay=600)
    another.add_job("later", delay=600)
    queue.add_handler("t", JobInHand.delete)
    queue.run_jobs(count_limit=2)
    stats = queue.stats()
    assert {type: one.waiting for type, one in stats.types.items()} == {"later": 0, "t": 3}
    assert (stats.types["t"].added, stats.types["t"].finished) == (0, 2)
    assert another.stats().types["t"].added == 8
    oldest = queue.get_job(ids[2])
    assert oldest is not None
    assert stats.types["t"].oldest_age == pytest.approx(stats.at - oldest.created_at, abs=0.001)
    assert 0 <= stats.at - now < 60
    assert stats.types["later"].oldest_age is None
    queue.run_jobs()
    assert queue.stats().types["t"].oldest_age is None


def test_a_snapshot_stays_as_it_is(queue: KQueue) -> None:
    queue.add_job("t")
    before = queue.stats()
    queue.add_job("t")
    queue.add_job("u")
    assert dict(before.types) == {"t": before.types["t"]}
    assert before.types["t"].added == 1


def test_threads_are_counted_together(queue: KQueue) -> None:
    queue.add_handler("t", JobInHand.delete)
    queue.add_jobs("t", range(300))
    threads = [threading.Thread(target=queue.run_jobs) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert counted(queue.stats().types["t"]) == (300, 300, 300, 0, 0, 0, 0)


def test_a_child_counts_its_own(tmp_path: Path, closes: Closes) -> None:
    queue = closes(KQueue(f"sqlite:///{tmp_path}/jobs.db"))
    queue.add_handler("t", JobInHand.delete)
    queue.add_jobs("t", range(3))
    queue.run_jobs(count_limit=1)

    def work() -> None:
        queue.run_jobs()
        assert counted(queue.stats().types["t"]) == (0, 2, 2, 0, 0, 0, 0)

    assert run_in_child(work) == 0
    assert counted(queue.stats().types["t"]) == (3, 1, 1, 0, 0, 0, 0)


def test_a_child_that_comes_back_into_the_loop_counts_nothing_of_its_parents_window(
    tmp_path: Path, closes: Closes
) -> None:
    queue = closes(KQueue(f"sqlite:///{tmp_path}/jobs.db"))
    parent = os.getpid()
    children: list[int] = []

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        children.append(os.fork())
        if children[-1]:
            job.delete()

    queue.add_job("t")
    try:
        queue.run_jobs()
    finally:
        if os.getpid() != parent:
            os._exit(sum(sum(counted(one)) for one in queue.stats().types.values()))
    assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 0
    assert counted(queue.stats().types["t"]) == (1, 1, 1, 0, 0, 0, 0)
