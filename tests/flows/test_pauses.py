"""Pause and resume: kept in the store, seen by every worker within a second, and no hindrance to adding."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kqueue import JobInHand, KQueue
from kqueue.upkeep.pauses import LOOK_S
from tests.beanstalkd import Beanstalkd
from tests.closing import Closes
from tests.flows.conftest import MakeQueue
from tests.tubes import await_true


@contextmanager
def running(*queues: KQueue) -> Iterator[None]:
    """Each waits for jobs in a thread of its own."""
    loops = [threading.Thread(target=queue.run_jobs, kwargs={"wait": True}) for queue in queues]
    for loop in loops:
        loop.start()
    try:
        yield
    finally:
        for queue in queues:
            queue.stop()
        for loop in loops:
            loop.join(60)
    assert not any(loop.is_alive() for loop in loops)


def test_a_paused_type_does_not_run_and_others_do(queue: KQueue) -> None:
    seen: list[Any] = []
    for type in ("a", "b"):
        queue.add_handler(type, lambda job: (seen.append(job.payload), job.delete()))
    assert queue.pause("a")
    queue.add_jobs("a", [1, 2])  # adding goes on
    queue.add_jobs("b", [3])
    assert queue.run_jobs().count == 1
    assert seen == [3]
    assert list(queue.paused()) == ["a"]
    assert queue.resume("a")
    assert queue.run_jobs().count == 2
    assert queue.paused() == {}


def test_the_whole_queue_is_paused_and_what_was_paused_by_name_stays_so(queue: KQueue) -> None:
    for type in ("a", "b"):
        queue.add_handler(type, lambda job: job.delete())
        queue.add_job(type)
    queue.pause()
    queue.pause("a")
    assert set(queue.paused()) == {None, "a"}
    assert queue.run_jobs().count == 0
    assert queue.resume()
    assert queue.run_jobs().count == 1
    assert queue.counts("a")["ready"] == 1


def test_to_pause_twice_and_to_resume_what_is_not_paused_changes_nothing(queue: KQueue) -> None:
    assert queue.pause("a")
    since = queue.paused()["a"]
    assert not queue.pause("a")
    assert queue.paused() == {"a": since}
    assert not queue.resume()
    assert queue.resume("a")
    assert not queue.resume("a")


def test_a_pause_of_another_process_is_seen_by_all_that_wait_and_so_is_its_end(make_queue: MakeQueue) -> None:
    workers, operator = [make_queue(), make_queue()], make_queue()
    seen: list[Any] = []
    for worker in workers:
        worker.add_handler("a", lambda job: (seen.append(job.payload), job.delete()))
    with running(*workers):
        operator.add_job("a", "before")
        await_true(lambda: seen == ["before"])
        operator.pause("a")
        await_true(lambda: all(worker._parts.maintenance.paused() == {"a"} for worker in workers))
        # Whoever began a wait with the tube in view has been woken by now, or is about to be.
        await_true(lambda: all(not_subscribed(worker) for worker in workers))
        operator.add_job("a", "after")
        assert not threading.Event().wait(0.2)
        assert operator.counts("a")["ready"] == 1
        operator.resume("a")
        await_true(lambda: seen == ["before", "after"])


def not_subscribed(queue: KQueue) -> bool:
    loops = queue.registry._loops
    return bool(loops) and all(loop._subscription is None for loop in loops)  # type: ignore[attr-defined]


def test_a_look_is_taken_twice_a_second() -> None:
    assert LOOK_S <= 0.5


def test_a_paused_tube_is_not_watched(beanstalkd: Beanstalkd, tmp_path: Path, closes: Closes) -> None:
    queue = closes(KQueue(store=f"sqlite:///{tmp_path}/jobs.db", broker=beanstalkd.url))
    for type in ("a", "b"):
        queue.add_handler(type, lambda job: job.delete())
    queue.pause("a")

    def watching(type: str) -> int:
        with beanstalkd.client() as client:
            tubes = client.tubes()
            name = queue.prefix + type
            return int(client.stats_tube(name)["current-watching"]) if name in tubes else 0

    with running(queue):
        await_true(lambda: watching("b") == 1)
        assert watching("a") == 0
        queue.resume("a")
        await_true(lambda: watching("a") == 1)


def test_a_window_in_hand_is_finished_and_no_other_begins(queue: KQueue) -> None:
    def handle(job: JobInHand) -> None:
        queue.pause("t")
        job.delete()

    queue.add_handler("t", handle)
    queue.add_jobs("t", range(500))
    first = queue.run_jobs().count
    assert 1 <= first < 500
    assert queue.counts("t")["ready"] == 500 - first
    assert queue.run_jobs().count == 0


def test_a_pause_outlives_the_process_that_asked_for_it(tmp_path: Path) -> None:
    code = f"from kqueue import KQueue; KQueue(store='sqlite:///{tmp_path}/jobs.db').pause('t')"
    subprocess.run([sys.executable, "-c", code], check=True)
    with KQueue(store=f"sqlite:///{tmp_path}/jobs.db") as queue:
        queue.add_handler("t", lambda job: job.delete())
        queue.add_job("t")
        assert queue.run_jobs().count == 0


@pytest.mark.parametrize("bad", ["", "a\tb", "*", "x" * 191])
def test_a_type_that_cannot_be_is_refused(queue: KQueue, bad: str) -> None:
    with pytest.raises(ValueError, match="type: "):
        queue.pause(bad)
    with pytest.raises(ValueError, match="type: "):
        queue.resume(bad)
