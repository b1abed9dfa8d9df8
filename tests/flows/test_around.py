"""What goes around each run, and what is called when a process begins and ends to run jobs."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

import pytest

from kqueue import JobInHand, KQueue
from tests.flows.conftest import MakeQueue


@pytest.fixture
def queue(make_queue: MakeQueue) -> KQueue:
    return make_queue(retry_delay=0, max_tries=1)


def test_what_was_given_first_is_the_outermost_and_sees_what_is_raised(queue: KQueue) -> None:
    told: list[str] = []

    @queue.handler("good", "bad")
    def handle(job: JobInHand) -> None:
        told.append(job.type)
        if job.type == "bad":
            raise OSError("down")
        job.delete()

    @queue.around
    def outer(job: JobInHand) -> Iterator[None]:
        told.append("outer begins")
        try:
            yield
        except OSError as error:
            told.append(f"outer saw {error}")
            raise
        told.append("outer ends")

    @queue.around
    def inner(job: JobInHand) -> Iterator[None]:
        with_it = f"inner of {job.id == jobs[job.type]}"
        try:
            yield
        finally:
            told.append(with_it)

    jobs = {"good": queue.add_job("good", priority=1)}
    assert queue.run_jobs().deleted == 1
    assert told == ["outer begins", "good", "inner of True", "outer ends"]
    told.clear()
    jobs["bad"] = queue.add_job("bad")
    assert queue.run_jobs().dead == 1
    assert told == ["outer begins", "bad", "inner of True", "outer saw down"]
    job = queue.get_job(jobs["bad"])
    assert job is not None
    assert str(job.reason).startswith("OSError: down (test_around.py:")


def test_what_it_raises_is_the_runs_failure_and_the_handler_is_not_called(queue: KQueue) -> None:
    @queue.around
    def refuse(job: JobInHand) -> Iterator[None]:
        raise ConnectionError("no database")
        yield

    queue.add_handler("t", lambda job: pytest.fail("it was called"))
    job_id = queue.add_job("t")
    assert queue.run_jobs().dead == 1
    job = queue.get_job(job_id)
    assert job is not None
    assert str(job.reason).startswith("ConnectionError: no database")


@pytest.mark.parametrize("calls", ["run_jobs", "work"])
def test_coroutines_have_plain_ones_and_async_ones_around_them(queue: KQueue, calls: str) -> None:
    told: list[str] = []

    @queue.around
    def plain(job: JobInHand) -> Iterator[None]:
        told.append("plain begins")
        yield
        told.append("plain ends")

    @queue.around
    async def asynchronous(job: JobInHand) -> AsyncIterator[None]:
        await asyncio.sleep(0)
        told.append("async begins")
        yield
        told.append("async ends")

    @queue.handler("coroutine")
    async def handle(job: JobInHand) -> None:
        await asyncio.sleep(0)
        told.append("runs")
        job.delete()

    @queue.handler("function")
    def function(job: JobInHand) -> None:
        told.append("function")
        job.delete()

    queue.add_job("coroutine")
    run = queue.run_jobs if calls == "run_jobs" else lambda: queue.work(wait=False)
    assert run().deleted == 1
    assert told == ["plain begins", "async begins", "runs", "async ends", "plain ends"]
    told.clear()
    queue.add_job("function")
    assert run().deleted == 1
    assert told == ["plain begins", "function", "plain ends"]


def test_it_is_around_what_a_plain_function_returns_to_be_awaited(queue: KQueue) -> None:
    told: list[str] = []

    @queue.around
    def around(job: JobInHand) -> Iterator[None]:
        yield
        told.append("ends")

    async def later(job: JobInHand) -> None:
        await asyncio.sleep(0)
        told.append("runs")
        job.delete()

    queue.add_handler("t", lambda job: later(job))  # noqa: PLW0108 (a plain function)
    queue.add_job("t")
    assert queue.run_jobs().deleted == 1
    assert told == ["runs", "ends"]


def test_the_hooks_of_a_process_are_called_once_for_all_its_loops(queue: KQueue) -> None:
    told: list[str] = []
    queue.on_start(lambda: told.append("pool"))
    queue.on_start(lambda: told.append("cache"))
    queue.on_stop(lambda: told.append("pool closed"))

    @queue.on_stop
    def fails() -> None:
        told.append("cache fails")
        raise OSError("busy")

    meet = threading.Barrier(2)

    @queue.handler("t", delete_on_success=True)
    def handle(job: JobInHand) -> None:
        told.append("job")
        meet.wait(60)

    queue.add_jobs("t", range(2))
    assert queue.work(threads=2, wait=False).deleted == 2
    assert told == ["pool", "cache", "job", "job", "cache fails", "pool closed"]


def test_a_start_that_fails_ends_the_run_before_anything_is_claimed(queue: KQueue) -> None:
    @queue.on_start
    def fails() -> None:
        raise OSError(28, "No space left on device")

    queue.add_handler("t", lambda job: pytest.fail("it ran"))
    job_id = queue.add_job("t")
    with pytest.raises(OSError, match="No space left"):
        queue.run_jobs()
    job = queue.get_job(job_id)
    assert job is not None
    assert (job.state, job.fence) == ("ready", 0)


def test_what_goes_around_nothing_is_refused(queue: KQueue) -> None:
    with pytest.raises(TypeError, match="^around: expected a function of the job that yields once"):
        queue.around(lambda job: None)  # type: ignore[arg-type,return-value]
    with pytest.raises(TypeError, match="^on_start: "):
        queue.on_start(lambda job: None)  # type: ignore[misc,arg-type]
    with pytest.raises(TypeError, match="^type: expected at least one type"):
        queue.handler()
    with pytest.raises(ValueError, match="^type: each once"):
        queue.handler("t", "t")
