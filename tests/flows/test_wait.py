"""Waiting for the ends of jobs, the same on every store and broker: every wait ends, and none is missed."""

import asyncio
import math
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from kqueue import End, JobInHand, KQueue, StoreError
from kqueue.admin import ends
from tests.flows.conftest import MakeQueue
from tests.tubes import PATIENCE_S, await_true

ID = "0" * 28


@pytest.fixture
def kept(queue: KQueue) -> KQueue:
    """Its jobs say in their payload how they end."""
    queue.options("t", tombstone=60)

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        if job.payload == "die":
            raise ValueError("enough")
        if job.payload != "wait":
            job.delete(result={"of": job.payload})

    return queue


@pytest.fixture
def running(kept: KQueue) -> Any:
    """A loop that runs them."""
    runner = threading.Thread(target=kept.run_jobs, kwargs={"wait": True})
    runner.start()
    yield runner
    kept.stop()
    runner.join(PATIENCE_S)


def test_the_end_and_the_result_of_a_job_that_another_thread_runs(kept: KQueue, running: object) -> None:
    assert kept.wait(kept.add_job("t", 1), timeout=PATIENCE_S) == End("done", {"of": 1})


def test_of_one_that_has_ended_before(kept: KQueue) -> None:
    job_id = kept.add_job("t", 1)
    kept.run_jobs()
    assert kept.wait(job_id) == kept.wait(job_id, timeout=0) == End("done", {"of": 1})


def test_of_one_that_dies(make_queue: MakeQueue) -> None:
    queue = make_queue(max_tries=1)
    queue.add_handler("t", lambda job: 1 / 0)
    job_id = queue.add_job("t", tombstone=1)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(queue.wait, job_id, PATIENCE_S)
        queue.run_jobs()
        end = waiting.result()
    assert (end.state, end.result) == ("dead", None)
    assert end.reason is not None
    assert end.reason.startswith("ZeroDivisionError")


def test_of_one_that_somebody_deletes_meanwhile(kept: KQueue) -> None:
    job_id = kept.add_job("t", delay=3600)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(kept.wait, job_id, PATIENCE_S)
        await_true(lambda: bool(kept.parts.ends._waits))
        kept.delete_job(job_id)
        assert waiting.result() == End("deleted")


def test_of_one_that_does_not_end_in_time(kept: KQueue) -> None:
    job_id = kept.add_job("t", delay=3600)
    assert kept.wait(job_id, timeout=0) == kept.wait(job_id, timeout=0.05) == End("timeout")
    assert kept.wait(job_id, timedelta(milliseconds=50)) == End("timeout")
    assert kept.parts.ends._waits == []


def test_of_none(kept: KQueue) -> None:
    assert kept.wait(ID) == kept.wait("no id") == End("unknown")
    assert kept.wait_all([]) == []


def test_of_one_that_was_not_kept_and_has_ended(queue: KQueue) -> None:
    queue.add_handler("t", lambda job: job.delete())
    job_id = queue.add_job("t")
    queue.run_jobs()
    assert queue.wait(job_id) == End("unknown")


def test_what_nobody_keeps_cannot_be_waited_for(queue: KQueue) -> None:
    job_id = queue.add_job("t")
    kept_job = queue.add_job("t", tombstone=9)
    with pytest.raises(ValueError, match=f"^id: nobody keeps the end of {job_id}.*tombstone=.*queue.options"):
        queue.wait_all([kept_job, job_id])
    assert queue.wait(kept_job, timeout=0) == End("timeout")
    assert queue.parts.ends._waits == []


@pytest.mark.parametrize("timeout", [-1, math.inf, math.nan, "1", None, True])
def test_a_bad_time_out_is_refused(kept: KQueue, timeout: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="^timeout: "):
        kept.wait(kept.add_job("t"), timeout=timeout)


@pytest.mark.parametrize("ids", ["abc", 7, [7], None])
def test_bad_ids_are_refused(kept: KQueue, ids: Any) -> None:
    with pytest.raises(TypeError, match=r"^ids?(\[\d+\])?: "):
        kept.wait_all(ids)


def test_of_many_each_has_its_own(kept: KQueue, running: object) -> None:
    ids = kept.add_jobs("t", range(30))
    later = kept.add_job("t", delay=3600)
    assert kept.wait_all([*ids, ids[0], ID], timeout=PATIENCE_S) == [
        *(End("done", {"of": number}) for number in range(30)),
        End("done", {"of": 0}),
        End("unknown"),
    ]
    assert kept.wait_all([ids[3], later], timeout=0.01) == [End("done", {"of": 3}), End("timeout")]


def test_in_coroutines(kept: KQueue, running: object) -> None:
    async def wait() -> list[End]:
        ids = kept.add_jobs("t", [1, 2, 3])
        later = kept.add_job("t", delay=3600)
        one = kept.wait_async(ids[0], PATIENCE_S)
        return [
            *await asyncio.gather(one, kept.wait_async(later, 0.05)),
            *await kept.wait_all_async(ids, PATIENCE_S),
        ]

    assert asyncio.run(wait()) == [
        End("done", {"of": 1}),
        End("timeout"),
        *(End("done", {"of": number}) for number in (1, 2, 3)),
    ]


def test_a_coroutine_that_is_cancelled_waits_no_more(kept: KQueue) -> None:
    async def wait() -> None:
        waiting = asyncio.create_task(kept.wait_async(kept.add_job("t", delay=3600), PATIENCE_S))
        while not kept.parts.ends._waits:
            await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(wait())
    assert kept.parts.ends._waits == []


def counted(queue: KQueue, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many states each look asks for."""
    asked: list[int] = []
    states = queue.store.states

    def count(ids: Any) -> dict[str, str]:
        asked.append(len(ids))
        return states(ids)

    monkeypatch.setattr(queue.store, "states", count)
    return asked


def test_many_that_wait_cost_one_look(kept: KQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = counted(kept, monkeypatch)
    ids = kept.add_jobs("t", range(200), delay=3600)
    with ThreadPoolExecutor(50) as pool:
        waiting = [pool.submit(kept.wait_all, ids[first::50], PATIENCE_S) for first in range(50)]
        await_true(lambda: len(kept.parts.ends._waits) == 50)
        del asked[:]
        kept.add_job("t", delay=3600)  # so that something has changed
        await_true(lambda: asked[:1] == [200])
        for job_id in ids:
            kept.delete_job(job_id)
        assert all(end == End("deleted") for one in waiting for end in one.result())


def test_an_idle_wait_asks_for_no_states_where_the_store_says_that_nothing_changed(
    kept: KQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kept.store.pulse() is None:
        pytest.skip("this store does not tell")
    job_id = kept.add_job("t", delay=3600)
    asked = counted(kept, monkeypatch)
    assert kept.wait(job_id, timeout=0.3) == End("timeout")
    assert len(asked) <= 2


def test_an_end_at_any_moment_is_not_missed(make_queue: MakeQueue) -> None:
    """Between the first look, the coming of the wait, and each later look."""
    queue, worker = make_queue(settle_ms=0), make_queue(settle_ms=0)
    worker.add_handler("t", lambda job: job.delete(job.payload))
    states, get = queue.store.states, queue.store.get

    def ends_between(call: Callable[..., Any]) -> Callable[..., Any]:
        def then(*args: Any) -> Any:
            found = call(*args)
            worker.run_jobs()
            return found

        return then

    for name, call in (("get", get), ("states", states)):
        job_id = queue.add_job("t", name, tombstone=60)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(queue.store, name, ends_between(call))
            assert queue.wait(job_id, PATIENCE_S) == End("done", name)


def test_a_worker_that_dies_meanwhile_is_waited_out(make_queue: MakeQueue) -> None:
    queue, other = make_queue(), make_queue()
    job_id = queue.add_job("t", tombstone=60)
    (row,) = other.store.get([job_id])
    assert queue.wait(row.id, timeout=0.05) == End("timeout")
    other.add_handler("t", lambda job: job.delete("next"))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(queue.wait, job_id, PATIENCE_S)
        other.run_jobs()
        assert waiting.result() == End("done", "next")


def test_a_store_that_goes_away_ends_no_wait_and_is_waited_for_no_longer_than_asked(
    kept: KQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ends, "AWAY_S", 0.01)
    job_id = kept.add_job("t", 1)
    is_away = threading.Event()
    is_away.set()
    states = kept.store.states

    def away(ids: Any) -> dict[str, str]:
        if is_away.is_set():
            raise StoreError("it is not there")
        return states(ids)

    monkeypatch.setattr(kept.store, "states", away)
    assert kept.wait(job_id, timeout=0.1) == End("timeout")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(kept.wait, job_id, PATIENCE_S)
        kept.run_jobs()
        is_away.clear()
        assert waiting.result() == End("done", {"of": 1})


def test_what_is_kept_for_less_than_nobody_has_looked_is_unknown(
    kept: KQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = kept.add_job("u", tombstone=0.001, delay=3600)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(kept.wait, job_id, PATIENCE_S)
        await_true(lambda: bool(kept.parts.ends._waits))
        await_true(lambda: kept.parts.ends._waits[0].is_looked_at)
        kept.delete_job(job_id)
        assert waiting.result().state in {"unknown", "deleted"}


def test_after_a_fork_the_child_waits_by_itself(make_queue: MakeQueue) -> None:
    queue = make_queue()
    if queue.store.shared_url is None:
        pytest.skip("it lives in one process")
    queue.add_handler("t", lambda job: job.delete("parent"))
    first, second = queue.add_jobs("t", [1, 2], tombstone=60)
    assert queue.wait(first, timeout=0.01) == End("timeout")
    child = os.fork()
    if not child:
        try:
            is_right = queue.wait(second, PATIENCE_S) == End("done", "parent")
            os._exit(0 if is_right else 1)
        finally:
            os._exit(2)
    queue.run_jobs()
    assert os.waitpid(child, 0)[1] == 0
