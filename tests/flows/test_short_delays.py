"""Delays beside a beanstalkd, which counts whole seconds: a job runs at its time, not at the tube's.

No clock decides these tests. The rest of a delay is made a quarter of an hour in the tube, so that a job which
waited for its tube would not come.
"""

import math

import pytest

from kqueue import JobInHand, KQueue
from kqueue.brokers.beanstalk import subscription
from tests.faults.sites import looping
from tests.flows.conftest import MakeQueue
from tests.tubes import await_true

NOTHING_LEFT = {"ready": 0, "delayed": 0, "reserved": 0, "buried": 0}


@pytest.fixture
def long_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is given back for a moment comes back a quarter of an hour later."""
    monkeypatch.setattr(subscription, "whole_delay", lambda seconds: 900 * math.ceil(seconds))


class Starts:
    """Notes when jobs start, by the store's clock, and ends them."""

    def __init__(self, queue: KQueue, failures: int = 0) -> None:
        self._queue = queue
        self._failures = failures
        #: (When it was due, when it started).
        self.noted: list[tuple[float, float]] = []
        self.ended = 0
        queue.add_handler("t", self.note)

    def note(self, job: JobInHand) -> None:
        self.noted.append((job.run_at, self._queue.store.now()))
        if job.tries <= self._failures:
            job.retry("again", delay=0.1)
        else:
            job.delete()
            self.ended += 1

    def none_was_early(self) -> bool:
        return all(due <= started for due, started in self.noted)


@pytest.mark.usefixtures("long_seconds")
@pytest.mark.parametrize("delay", [0.05, 0.3, 1.2])
def test_what_another_process_has_added_runs_at_its_time(make_unswept_queue: MakeQueue, delay: float) -> None:
    producer, worker = make_unswept_queue(), make_unswept_queue()
    starts = Starts(worker)
    with looping(worker):
        for number in range(2):
            producer.add_job("t", delay=delay)
            await_true(lambda: starts.ended == number + 1)  # noqa: B023
    assert starts.none_was_early()
    assert worker.broker.depths(["t"])["t"] == NOTHING_LEFT


@pytest.mark.usefixtures("long_seconds")
def test_a_retry_runs_at_its_time(make_unswept_queue: MakeQueue) -> None:
    producer, worker = make_unswept_queue(), make_unswept_queue()
    starts = Starts(worker, failures=2)
    with looping(worker) as loop:
        producer.add_job("t")
        await_true(lambda: starts.ended == 1)
        assert loop.is_alive()
    assert starts.none_was_early()
    assert len(starts.noted) == 3
    assert worker.broker.depths(["t"])["t"] == NOTHING_LEFT


@pytest.mark.usefixtures("long_seconds")
def test_who_does_not_wait_finds_what_is_due_and_no_more(make_unswept_queue: MakeQueue) -> None:
    """As without a beanstalkd."""
    queue = make_unswept_queue()
    starts = Starts(queue)
    job_id = queue.add_job("t", delay=0.2)
    while queue.run_jobs().deleted == 0:
        pass
    assert starts.none_was_early()
    assert queue.get_job(job_id) is None


def test_where_the_one_that_knows_its_time_ends_it_comes_by_the_tube(make_unswept_queue: MakeQueue) -> None:
    producer, first, second = make_unswept_queue(), make_unswept_queue(), make_unswept_queue()
    Starts(first)
    starts = Starts(second)
    producer.add_job("t", delay=0.5)
    producer.flush()
    first.run_jobs()  # where that took long it has run the job
    first.close()
    if producer.counts("t")["delayed"]:
        with looping(second):
            await_true(lambda: starts.ended == 1)
        assert starts.none_was_early()
