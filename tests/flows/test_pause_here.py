"""A pause of one process alone, also from inside a handler."""

import asyncio
import threading
from pathlib import Path

import pytest

from kqueue import JobInHand, KQueue
from kqueue.model.job import Row, State
from tests.closing import Closes
from tests.flows.working import PATIENCE_S, Working
from tests.tubes import await_true


@pytest.mark.parametrize("threads", [None, 1, 3])
def test_a_handler_ends_the_share_of_its_process(queue: KQueue, threads: int | None) -> None:
    ran: list[int] = []

    @queue.handler("t", delete_on_success=True)
    def handle(job: JobInHand) -> None:
        if not ran:
            assert queue.pause("t", here=True)
            assert not queue.pause("t", here=True), "it is already"
        ran.append(job.payload)

    @queue.handler("u", delete_on_success=True)
    def other(job: JobInHand) -> None:
        """Runs on."""

    queue.add_jobs("t", range(20))
    queue.add_jobs("u", range(5), priority="bulk")
    run = queue.run_jobs if threads is None else lambda: queue.work(threads=threads, wait=False)
    run()
    assert len(ran) <= (threads or 1), "no more than ran at that moment"
    assert sum(queue.counts("u").values()) == 0
    assert queue.counts("t")["ready"] == 20 - len(ran)
    assert all(
        row.tries == row.failures == 0 for row in queue.store.get([job.id for job in queue.jobs(state="ready")])
    )
    assert queue.paused() == {}, "it is nobody else's"
    assert queue.resume("t", here=True)
    assert not queue.resume("t", here=True)
    run()
    assert sorted(ran) == list(range(20))


def test_all_types_and_those_that_come_meanwhile(queue: KQueue) -> None:
    assert queue.pause(here=True)
    queue.add_handler("t", lambda job: job.delete())
    queue.add_job("t")
    assert queue.types() == ["t"]
    assert queue.run_jobs().count == 0
    assert not queue.resume("t", here=True), "it is the whole queue that is paused"
    assert queue.resume(here=True)
    assert queue.run_jobs().count == 1


def test_a_loop_that_waits_goes_on_with_a_resume() -> None:
    """Also for a coroutine whose type was paused before its loop began."""
    queue = KQueue("memory:")
    done = threading.Event()

    @queue.handler("t", delete_on_success=True)
    async def handle(job: JobInHand) -> None:
        await asyncio.sleep(0)
        done.set()

    queue.pause("t", here=True)
    queue.add_job("t")
    thread = threading.Thread(target=queue.work)
    thread.start()
    await_true(lambda: bool(queue.registry.loops()))
    assert not done.is_set()
    queue.resume("t", here=True)
    assert done.wait(60)
    queue.stop()
    thread.join(60)
    assert not thread.is_alive()


@pytest.mark.parametrize("call", ["pause", "resume"])
def test_what_is_no_flag_or_no_type_is_refused(call: str) -> None:
    queue = KQueue("memory:")
    with pytest.raises(TypeError, match="here"):
        getattr(queue, call)("t", here="yes")
    with pytest.raises(ValueError, match="type"):
        getattr(queue, call)("", here=True)


def test_a_suspect_that_waits_while_all_is_paused_here_goes_back_before_its_lease_is_over(
    tmp_path: Path, closes: Closes
) -> None:
    """Else it would count as one more that died."""
    queue = closes(KQueue(f"sqlite:///{tmp_path}/jobs.db"))
    started, gone = threading.Event(), threading.Event()

    async def wait(job: JobInHand) -> None:
        started.set()
        while not gone.is_set():
            await asyncio.sleep(0.01)
        job.delete()

    queue.add_handler("some", wait, concurrency=600)
    queue.open()
    id = f"{1:028d}"

    def suspect() -> Row:
        [row] = queue.store.get([id])
        return row

    with Working(queue, threads=1):
        queue.add_job("some")
        assert started.wait(PATIENCE_S)
        now = queue.store.now()
        row = Row(id, "some", b"1", "json", 100, State.READY, 0.0, now, 2.0, suspicion=3, created_at=now)
        queue.store.add([row])
        await_true(lambda: suspect().state == "running")
        queue.pause(here=True)
        await_true(lambda: bool(queue.sweep()) and suspect().state != "running")
        suspicion = suspect().suspicion
        gone.set()
        queue.resume(here=True)
        await_true(lambda: not any(queue.counts("some").values()))
    assert suspicion == 3
