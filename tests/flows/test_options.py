"""Options per type, where jobs are added: a call's own arguments win."""

import pytest

from kqueue import Job, KQueue, Priority
from tests.flows.conftest import MakeQueue


def added(queue: KQueue, job_id: str) -> tuple[int, float, float]:
    job = queue.get_job(job_id)
    assert isinstance(job, Job)
    assert job.state == ("delayed" if job.delay else "ready")
    return job.priority, job.delay, job.ttr


def test_a_job_has_the_options_of_its_type(queue: KQueue) -> None:
    queue.options("resize", priority="high", delay=100, ttr=30)
    assert added(queue, queue.add_job("resize")) == (Priority.HIGH, 100, 30)
    assert [added(queue, id) for id in queue.add_jobs("resize", [1, 2])] == [(Priority.HIGH, 100, 30)] * 2
    assert added(queue, queue.add_job("other")) == (Priority.NORMAL, 0, 60)


def test_a_calls_own_arguments_win_also_where_they_are_the_defaults(queue: KQueue) -> None:
    queue.options("t", priority="high", delay=100, ttr=30)
    assert added(queue, queue.add_job("t", priority=0, delay=0, ttr=60)) == (0, 0, 60)
    assert added(queue, queue.add_jobs("t", [1], priority="normal")[0]) == (Priority.NORMAL, 100, 30)


def test_options_change_nothing_that_was_added_before(queue: KQueue) -> None:
    job_id = queue.add_job("t")
    queue.options("t", priority="bulk", ttr=5)
    assert added(queue, job_id) == (Priority.NORMAL, 0, 60)


def test_bad_options_are_refused_before_the_store_is_opened(make_queue: MakeQueue) -> None:
    queue = make_queue()
    for type, options in (("a\tb", {}), ("t", {"ttr": 0}), ("t", {"prioritty": 5})):
        with pytest.raises(ValueError, match="^(type|ttr|options): "):
            queue.options(type, **options)  # type: ignore[arg-type]
