"""``async def`` handlers under ``run_jobs``: each to its end before the next one starts, in one event loop."""

import asyncio
import gc
import os
import signal
import threading
from functools import partial
from typing import Any

import pytest

from kqueue import AlreadySettled, JobInHand, KQueue, KQueueError
from tests.tubes import await_true, run


async def deleting(job: JobInHand) -> None:
    await asyncio.sleep(0)
    job.delete()


def test_each_coroutine_runs_to_its_end_before_the_next_starts(queue: KQueue) -> None:
    order: list[str] = []

    @queue.handler("t")
    async def handle(job: JobInHand) -> None:
        order.append(f"begin {job.payload}")
        await asyncio.sleep(0.001)
        order.append(f"end {job.payload}")
        job.delete()

    queue.add_handler("u", lambda job: (order.append("plain"), job.delete()))
    queue.add_jobs("t", range(3))
    queue.add_job("u", priority="low")
    assert queue.run_jobs().deleted == 4
    assert order == ["begin 0", "end 0", "begin 1", "end 1", "begin 2", "end 2", "plain"]


async def cancel_oneself(job: JobInHand) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


async def fail(job: JobInHand) -> None:
    await asyncio.sleep(0)
    raise ValueError("no")


async def fail_in_a_group(job: JobInHand) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(fail(job))
        group.create_task(asyncio.sleep(60))


async def run_out_of_time(job: JobInHand) -> None:
    async with asyncio.timeout(0.001):
        await asyncio.sleep(60)


async def retry(job: JobInHand) -> None:
    await asyncio.sleep(0)
    job.retry("busy")
    raise ValueError("too late to matter")


async def delete_twice(job: JobInHand) -> None:
    job.delete()
    job.delete()
    with pytest.raises(AlreadySettled, match="it was deleted before"):
        job.retry("again")


async def do_nothing(job: JobInHand) -> None:
    await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("handler", "options", "outcome", "reason"),
    [
        (deleting, {}, "deleted", None),
        (delete_twice, {}, "deleted", None),
        (do_nothing, {"delete_on_success": True}, "deleted", None),
        (do_nothing, {}, "retried", "not deleted"),
        (fail, {}, "retried", "ValueError: no"),
        (fail_in_a_group, {}, "retried", "ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception)"),
        (run_out_of_time, {}, "retried", "TimeoutError"),
        (cancel_oneself, {}, "retried", "CancelledError"),
        (retry, {}, "retried", "busy"),
    ],
)
@pytest.mark.parametrize("how", ["run_jobs", "work"])
def test_each_end_of_a_coroutine_has_one_outcome(
    how: str, handler: Any, options: Any, outcome: str, reason: str | None
) -> None:
    queue = KQueue("memory:")
    queue.add_handler("t", handler, **options)
    job_id = queue.add_job("t")
    report = queue.run_jobs() if how == "run_jobs" else queue.work(wait=False)
    assert (report.count, getattr(report, outcome)) == (1, 1)
    job = queue.get_job(job_id)
    assert (job is None) == (reason is None)
    assert job is None or reason is None or (job.reason or "").startswith(reason)


def test_a_run_keeps_one_event_loop_and_closes_it(queue: KQueue) -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    @queue.handler("t")
    async def handle(job: JobInHand) -> None:
        loops.append(asyncio.get_running_loop())
        job.delete()

    for _ in range(2):
        queue.add_jobs("t", range(3))
        queue.run_jobs()
    assert loops[0] is loops[1] is loops[2]
    assert loops[3] is not loops[0]
    assert all(loop.is_closed() for loop in loops)


def test_each_loop_has_an_event_loop_of_its_own(queue: KQueue) -> None:
    loops: dict[int, asyncio.AbstractEventLoop] = {}

    @queue.handler("t")
    async def handle(job: JobInHand) -> None:
        loops.setdefault(threading.get_ident(), asyncio.get_running_loop())
        while len(loops) < 2:
            await asyncio.sleep(0.001)
        job.delete()

    queue.add_jobs("t", range(2))
    threads = [run(partial(queue.run_jobs, wait=True)) for _ in range(2)]
    await_true(lambda: not sum(queue.counts("t").values()))
    queue.stop()
    for thread in threads:
        thread.join(60)
    assert len(set(map(id, loops.values()))) == 2


def test_what_a_coroutine_leaves_in_the_background_is_cancelled_when_the_run_ends(queue: KQueue) -> None:
    seen: list[str] = []
    kept: list[asyncio.Task[None]] = []

    async def background() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    @queue.handler("t")
    async def handle(job: JobInHand) -> None:
        kept.append(asyncio.create_task(background()))
        await asyncio.sleep(0)
        job.delete()
        seen.append("deleted")

    queue.add_job("t")
    queue.run_jobs()
    assert seen == ["deleted", "cancelled"]


class Asynchronous:
    """To be called."""

    async def __call__(self, job: JobInHand) -> None:
        await deleting(job)


def returning(job: JobInHand) -> Any:
    """A plain function, which tells nobody that it returns a coroutine."""
    return deleting(job)


class Awaitable:
    """What can be awaited and is no coroutine."""

    def __init__(self, job: JobInHand) -> None:
        self._job = job

    def __await__(self) -> Any:
        return deleting(self._job).__await__()


async def delete(job: JobInHand, *, really: bool) -> None:
    assert really
    await deleting(job)


@pytest.mark.parametrize(
    "handler",
    [Asynchronous(), partial(delete, really=True), returning, Awaitable],
    ids=["object", "partial", "function", "class"],
)
@pytest.mark.parametrize("how", ["run_jobs", "work"])
def test_whatever_can_be_awaited_is(how: str, handler: Any) -> None:
    queue = KQueue("memory:")
    queue.add_handler("t", handler)
    queue.add_jobs("t", range(3))
    report = queue.run_jobs() if how == "run_jobs" else queue.work(wait=False)
    assert report.deleted == 3


def test_inside_a_running_event_loop_coroutines_are_refused_before_work_starts_and_a_thread_helps(
    queue: KQueue,
) -> None:
    queue.add_handler("t", deleting)
    queue.add_jobs("t", range(3))

    async def main() -> int:
        for call in (queue.run_jobs, queue.work):
            with pytest.raises(KQueueError, match=rf"await asyncio.to_thread\(queue.{call.__name__}\)"):
                call()
        assert queue.counts("t")["ready"] == 3
        report = await asyncio.to_thread(queue.run_jobs)
        return report.deleted

    assert asyncio.run(main()) == 3


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_inside_a_running_event_loop_plain_functions_run_but_what_they_return_is_not_awaited(queue: KQueue) -> None:
    queue.add_handler("t", lambda job: job.delete())
    queue.add_handler("u", returning)
    queue.add_job("t")
    job_id = queue.add_job("u")

    async def main() -> None:
        report = queue.run_jobs()
        assert (report.deleted, report.retried) == (1, 1)

    asyncio.run(main())
    gc.collect()
    job = queue.get_job(job_id)
    assert job is not None
    assert job.reason is not None
    assert "await asyncio.to_thread(queue.run_jobs)" in job.reason


async def raise_it(error: type[BaseException]) -> None:
    await asyncio.sleep(0)
    raise error("now")


async def raise_it_in_a_task(error: type[BaseException]) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(raise_it(error))
        await asyncio.sleep(60)


@pytest.mark.parametrize("how", [raise_it, raise_it_in_a_task])
@pytest.mark.parametrize(("error", "tries"), [(KeyboardInterrupt, 0), (SystemExit, 1)])
def test_interrupts_give_back_what_has_not_started_and_go_on_up(
    queue: KQueue, caplog: pytest.LogCaptureFixture, how: Any, error: type[BaseException], tries: int
) -> None:
    @queue.handler("t")
    async def handle(job: JobInHand) -> None:
        if job.payload == 100:
            await how(error)
        job.delete()

    ids = queue.add_jobs("t", range(150))
    with pytest.raises(error):
        queue.run_jobs()
    # A machine that is slow may have given some before it back unrun, so that they stand behind it.
    left = {row.id: row.tries for row in queue.store.get(ids)}
    assert left.pop(ids[100]) == tries
    assert set(left.values()) == {0}
    assert queue.counts("t")["running"] == 0
    gc.collect()
    assert [record for record in caplog.records if record.name == "asyncio"] == []


def test_ctrl_c_cancels_the_coroutine_and_gives_its_job_back(queue: KQueue) -> None:
    seen: list[str] = []

    @queue.handler("t")
    async def handle(job: JobInHand) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    job_id = queue.add_job("t")
    with pytest.raises(KeyboardInterrupt):
        queue.run_jobs()
    assert seen == ["cancelled"]
    [row] = queue.store.get([job_id])
    assert (row.state, row.tries, row.reason) == ("ready", 0, "its run was interrupted")


@pytest.mark.parametrize("way_out", ["return", "raise"])
def test_a_child_that_a_coroutine_forks_leaves_its_parents_event_loop_and_jobs_alone(
    queue: KQueue, way_out: str
) -> None:
    parent = os.getpid()
    ran: list[int] = []

    @queue.handler("t")
    async def handle(job: JobInHand) -> None:
        ran.append(job.payload)
        if job.payload == 10:
            child = os.fork()
            if child == 0:
                with pytest.raises(KQueueError, match="in hand in process"):
                    job.delete()
                if way_out == "raise":
                    raise ValueError
                return
            _, status = os.waitpid(child, 0)
            assert os.waitstatus_to_exitcode(status) == 7
        await asyncio.to_thread(ran.append, -1)  # it wakes the loop from another thread
        job.delete()

    queue.add_jobs("t", range(30))
    try:
        report = queue.run_jobs()
    finally:
        if os.getpid() != parent:
            gc.collect()
            os._exit(7)
    assert (report.deleted, report.lost_lease) == (30, 0)
    assert [payload for payload in ran if payload >= 0] == list(range(30))
