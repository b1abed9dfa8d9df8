"""Jobs that wait and are given another priority or time, the same on every store and broker."""

from datetime import timedelta
from typing import Any

import pytest

from kqueue import JobInHand, KQueue
from tests.beanstalkd import Beanstalkd
from tests.flows.conftest import MakeQueue


def records(queue: KQueue, type: str = "t") -> list[Any]:
    """The payloads of its jobs, in the order in which they run from now on."""
    ran: list[Any] = []

    @queue.handler(type)
    def record(job: JobInHand) -> None:
        ran.append(job.payload)
        job.delete()

    return ran


def test_a_job_that_waits_runs_at_its_new_priority(make_queue: MakeQueue) -> None:
    queue = make_queue()
    ran = records(queue)
    first, second, third = (queue.add_job("t", payload) for payload in ("first", "second", "third"))
    queue.flush()
    assert queue.change_job(first, priority="bulk")
    assert queue.change_job(third, priority="urgent")
    job = queue.get_job(first)
    assert job is not None
    assert (job.priority, job.state) == (2**20, "ready")
    assert queue.run_jobs().deleted == 3
    assert ran == ["third", "second", "first"]
    assert not queue.change_job(second, priority=1)


def test_a_job_that_waits_runs_at_its_new_time(make_queue: MakeQueue) -> None:
    queue = make_queue()
    ran = records(queue)
    later, sooner, other = (
        queue.add_job("t", name, delay=delay) for name, delay in (("a", 0), ("b", 600), ("c", 600))
    )
    queue.flush()
    assert queue.change_job(later, delay=timedelta(hours=2))
    assert queue.change_job(sooner, delay=0)
    assert queue.change_job(other, run_at=1)
    assert queue.run_jobs().deleted == 2
    assert sorted(ran) == ["b", "c"]
    job = queue.get_job(later)
    assert job is not None
    assert job.state == "delayed"
    assert round(job.run_at - queue.store.now(), -2) == 7200
    assert queue.change_job(job, delay=0)
    assert queue.run_jobs().deleted == 1


@pytest.mark.usefixtures("rings_at_once")
def test_the_pointer_of_before_serves_it_no_more(beanstalkd: Beanstalkd, tmp_path: Any) -> None:
    """It comes first in the tube, and the job stands behind all others."""
    with KQueue(f"sqlite:///{tmp_path}/jobs.db", beanstalkd.url) as queue:
        ran = records(queue)
        job_id = queue.add_job("t", "urgent", priority=1)
        queue.add_jobs("t", range(5))
        assert queue.change_job(job_id, priority=2**32 - 1)
        report = queue.run_jobs(count_limit=1)
        assert (ran, report.stale_pointers) == ([0], 1)
        assert queue.run_jobs().deleted == 5
        assert ran == [0, 1, 2, 3, 4, "urgent"]
        assert queue.broker.depths(["t"])["t"]["ready"] == 0


@pytest.mark.usefixtures("rings_at_once")
def test_a_change_whose_pointer_is_lost_is_put_by_the_sweep(beanstalkd: Beanstalkd, tmp_path: Any) -> None:
    with KQueue(f"sqlite:///{tmp_path}/jobs.db", beanstalkd.url) as queue:
        job_id = queue.add_job("t", delay=600)
        put, queue.broker.put = queue.broker.put, lambda pointers: None  # type: ignore[method-assign]
        assert queue.change_job(job_id, priority=3, delay=0)
        queue.broker.put = put  # type: ignore[method-assign]
        (due,) = queue.store.find_lost({"t": None}, queue.store.now() + 60, 5.0, 9)
        assert (due.id, due.priority) == (job_id, 3)


def test_what_runs_has_ended_or_is_not_there_is_not_changed(make_queue: MakeQueue) -> None:
    queue = make_queue(max_tries=1)
    changed: list[bool] = []

    @queue.handler("t")
    def fail(job: JobInHand) -> None:
        changed.append(queue.change_job(job, delay=5))
        raise ValueError

    job_id = queue.add_job("t")
    queue.run_jobs()
    assert changed == [False]
    assert not queue.change_job(job_id, priority="high")
    assert not queue.change_job("0" * 28, delay=0)
    assert not queue.change_job("no id'; --", delay=0)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "change_job: give a priority, a delay or a run_at"),
        ({"delay": 1, "run_at": 5}, "run_at: either it or delay"),
        ({"priority": "asap"}, "priority: one of"),
        ({"delay": -1}, "delay: a finite number"),
    ],
    ids=["nothing", "both", "priority", "delay"],
)
def test_what_makes_no_sense_is_refused(given: dict[str, Any], said: str) -> None:
    with KQueue("memory:") as queue, pytest.raises(ValueError, match=f"^{said}"):
        queue.change_job(queue.add_job("t"), **given)
