"""Jobs that are claimed past the tube: their rings never came, or a beanstalkd is down, frozen or forgetful."""

import threading

import pytest

from kqueue import JobInHand, KQueue
from kqueue.dispatch import ringing
from tests.beanstalkd import Beanstalkd
from tests.faults.sites import looping
from tests.flows.conftest import MakeQueue
from tests.tubes import PATIENCE_S, await_true, no_thread


def never_rung(queue: KQueue) -> KQueue:
    """It dies before each of its rings."""
    queue.broker.put = lambda pointers: None  # type: ignore[method-assign]
    return queue


def test_a_job_whose_ring_never_came_is_found_by_whoever_looks(make_unswept_queue: MakeQueue) -> None:
    producer, worker = never_rung(make_unswept_queue()), make_unswept_queue()
    worker.add_handler("t", JobInHand.delete)
    producer.add_job("t")
    report = worker.run_jobs()
    assert (report.deleted, report.stale_pointers) == (1, 0)


def test_a_ring_that_comes_late_points_to_nothing_and_is_deleted(make_unswept_queue: MakeQueue) -> None:
    producer, worker = make_unswept_queue(), make_unswept_queue()
    worker.add_handler("t", JobInHand.delete)
    put, late = producer.broker.put, []
    producer.broker.put = late.append  # type: ignore[method-assign]
    producer.add_job("t")
    producer.flush()
    assert worker.run_jobs().deleted == 1
    for pointers in late:
        put(pointers)
    report = worker.run_jobs()
    assert (report.count, report.stale_pointers) == (0, 1)
    assert worker.broker.depths(["t"])["t"]["ready"] == 0


def test_it_goes_by_priority_and_keeps_pauses_limits_and_the_types_served(make_unswept_queue: MakeQueue) -> None:
    producer, worker = never_rung(make_unswept_queue()), make_unswept_queue()
    ran: list[tuple[str, int]] = []

    def handle(job: JobInHand) -> None:
        ran.append((job.type, job.payload))
        job.delete()

    for type in ("free", "limited", "paused"):
        worker.add_handler(type, handle)
    worker.limit("limited", running=1)
    worker.pause("paused")
    for type in ("free", "limited", "paused", "unserved"):
        producer.add_jobs(type, [1, 2], priority=10)
        producer.add_jobs(type, [3], priority=5)
    report = worker.run_jobs()
    assert report.deleted == 6
    assert [job for job in ran if job[0] == "free"] == [("free", 3), ("free", 1), ("free", 2)]
    assert sorted(job for job in ran if job[0] == "limited") == [("limited", number) for number in (1, 2, 3)]
    assert {"free", "limited"} == {type for type, _ in ran}
    assert (producer.counts("paused")["ready"], producer.counts("unserved")["ready"]) == (3, 3)


@pytest.mark.usefixtures("rings_at_once")  # or a pointer may come to it after it has forgotten all
def test_after_a_beanstalkd_has_forgotten_all_work_goes_on_and_nothing_is_put(
    make_unswept_queue: MakeQueue, beanstalkd: Beanstalkd
) -> None:
    queue = make_unswept_queue()
    queue.add_handler("t", JobInHand.delete)
    queue.add_jobs("t", range(500))
    assert queue.run_jobs(count_limit=100).deleted == 100
    beanstalkd.restart()
    assert queue.run_jobs().deleted == 400
    with beanstalkd.client() as client:
        assert client.stats()["cmd-put"] == 0


def test_a_beanstalkd_that_is_not_there_stops_no_run(
    make_unswept_queue: MakeQueue, beanstalkd: Beanstalkd, caplog: pytest.LogCaptureFixture
) -> None:
    queue = make_unswept_queue()
    queue.add_handler("t", JobInHand.delete)
    beanstalkd.kill()
    queue.add_jobs("t", range(3))
    assert queue.run_jobs().deleted == 3
    assert "jobs run from the store until the broker is back" in caplog.text


@pytest.mark.parametrize("fault", ["killed", "frozen"])
def test_a_worker_that_waits_beside_a_beanstalkd_that_is_away_picks_up_what_others_add(
    make_unswept_queue: MakeQueue, beanstalkd: Beanstalkd, fault: str
) -> None:
    producer, worker = make_unswept_queue(), make_unswept_queue()
    ran = []
    worker.add_handler("t", lambda job: (ran.append(job.payload), job.delete()))
    with looping(worker):
        producer.add_job("t", 0)
        await_true(lambda: ran == [0])
        beanstalkd.kill() if fault == "killed" else beanstalkd.pause()
        for number in range(1, 4):
            producer.add_job("t", number)
            await_true(lambda: len(ran) == number + 1)  # noqa: B023
        beanstalkd.restart() if fault == "killed" else beanstalkd.resume()
        producer.flush()
        producer.add_job("t", 4)
        await_true(lambda: len(ran) == 5)
    assert ran == list(range(5))


def test_a_run_sends_what_its_process_has_rung_first(
    make_unswept_queue: MakeQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So its order holds beside what stands in the tube, although the sender would take its time."""
    monkeypatch.setattr(ringing, "GAP_S", PATIENCE_S)
    monkeypatch.setattr(ringing, "PATIENCE_S", PATIENCE_S)
    other, queue = make_unswept_queue(), make_unswept_queue()
    with monkeypatch.context() as patch:
        patch.setattr(ringing, "Background", no_thread)
        other.add_jobs("t", ["other"] * 3, priority=10)
    ran: list[str] = []
    queue.add_handler("t", lambda job: (ran.append(job.payload), job.delete()))
    queue.add_job("t", "last", priority=20)
    queue.flush()
    for number in (3, 2, 1):
        queue.add_job("t", f"own {number}", priority=number)
    assert queue.run_jobs().deleted == 7
    assert ran == ["own 1", "own 2", "own 3", "other", "other", "other", "last"]


def test_loops_of_two_processes_run_what_was_never_rung_once_each(make_unswept_queue: MakeQueue) -> None:
    producer, workers = never_rung(make_unswept_queue()), [make_unswept_queue() for _ in range(2)]
    ran: list[int] = []
    for worker in workers:
        worker.add_handler("t", lambda job: (ran.append(job.payload), job.delete()))
    producer.add_jobs("t", range(300))
    loops = [threading.Thread(target=worker.run_jobs) for worker in workers]
    for loop in loops:
        loop.start()
    for loop in loops:
        loop.join(PATIENCE_S)
    assert sorted(ran) == list(range(300))
