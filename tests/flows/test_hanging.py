"""Coroutines that are cancelled, and such that hang: each frees its place, and is ended once."""

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from kqueue import JobInHand, KQueue, KQueueError, RetryPolicy
from kqueue.admin.hanging import hanging_in
from kqueue.assembly import assemble
from kqueue.execution import overtime
from kqueue.model.job import State
from kqueue.stores.memory.store import MemoryStore
from kqueue.system.clock import ManualClock
from tests.closing import Closes
from tests.flows.conftest import MakeQueue
from tests.flows.working import Working
from tests.tubes import PATIENCE_S, await_true

Handle = Callable[[JobInHand], Awaitable[None]]
#: Seconds of a lease, by a clock that tests turn: so none runs out while a machine stands still.
TTR = 1
#: Seconds of one that runs out by the host's clock, on a machine that stands still for a second too.
LONG_TTR = 5
#: Of a lease: after so much a coroutine has had its time, and the lease is not over yet.
HAD = 0.95
TWO_TRIES = RetryPolicy(max_tries=2, delay=0)


async def for_ever() -> None:
    await asyncio.get_running_loop().create_future()


async def hang(job: JobInHand) -> None:
    await for_ever()


async def swallow(job: JobInHand) -> None:
    """Goes on whatever it is told."""
    with suppress(GeneratorExit):
        while True:
            with suppress(asyncio.CancelledError):
                await for_ever()


async def settle_and_hang(job: JobInHand) -> None:
    job.retry("settled")
    await for_ever()


async def return_when_cancelled(job: JobInHand) -> None:
    with suppress(asyncio.CancelledError):
        await for_ever()


async def hang_in_a_group(job: JobInHand) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(for_ever())
        group.create_task(for_ever())


async def hang_with_a_timeout(job: JobInHand) -> None:
    async with asyncio.timeout(600):
        await for_ever()


async def hang_in_the_end(job: JobInHand) -> None:
    try:
        raise ValueError
    finally:
        await for_ever()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def still(make_queue: MakeQueue, clock: ManualClock) -> KQueue:
    """A queue with that clock. It writes what has ended without a wait, which would not end."""
    return make_queue(clock=clock, settle_ms=0)


def states(queue: KQueue) -> dict[str, int]:
    return {state: count for state, count in queue.counts().items() if count}


# -- cancelled ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("store", ["memory:", "sqlite"])
def test_a_task_that_is_cancelled_before_its_first_step_is_given_back(
    store: str, tmp_path: Any, closes: Closes
) -> None:
    """Ten places; the first that begins cancels all others, which have boarded with it and not begun."""
    queue = closes(KQueue(store if store == "memory:" else f"sqlite:///{tmp_path}/jobs.db"))
    begun: Counter[int] = Counter()
    cancelled: list[int] = []

    @queue.handler("t", concurrency=10)
    async def handle(job: JobInHand) -> None:
        begun[job.payload] += 1
        if not cancelled:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            cancelled.append(sum(task.cancel() for task in others))
        await asyncio.sleep(0)
        job.delete()

    queue.add_jobs("t", range(10))
    report = queue.work(wait=False)
    assert cancelled == [9]
    assert begun == Counter(range(10))
    assert (report.count, report.deleted, report.ungot, report.retried) == (19, 10, 9, 0)
    assert states(queue) == {}


def test_work_ends_after_stop_although_tasks_were_cancelled_before_their_first_step(queue: KQueue) -> None:
    """A storm: whatever begins cancels whatever there is, itself too."""
    begun: Counter[int] = Counter()

    @queue.handler("t", concurrency=7)
    async def handle(job: JobInHand) -> None:
        begun[job.payload] += 1
        if begun[job.payload] == 1:
            for task in asyncio.all_tasks():
                task.cancel()
        await asyncio.sleep(0)
        job.delete()

    queue.options("t", retry=RetryPolicy(delay=0))
    ids = queue.add_jobs("t", range(40))
    with Working(queue) as working:
        # By their ids: who counts by state may miss one that goes from one state to another meanwhile.
        await_true(lambda: queue.store.get(ids) == [])
        working.stop()
    report = working.report
    assert set(begun) == set(range(40))
    assert (report.deleted, report.lost_lease) == (40, 0)
    assert report.count == report.deleted + report.ungot + report.retried


async def stop_the_loop(job: JobInHand) -> None:
    asyncio.get_running_loop().stop()
    await asyncio.sleep(0.01)
    job.delete()


async def cancel_oneself_and_return(job: JobInHand) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    job.delete()


@pytest.mark.parametrize("how", ["work", "run_jobs"])
@pytest.mark.parametrize("handle", [stop_the_loop, cancel_oneself_and_return])
def test_what_a_handler_does_to_its_loop_or_task_does_not_matter(how: str, handle: Handle) -> None:
    queue = KQueue("memory:")
    queue.add_handler("t", handle, concurrency=5)
    queue.add_jobs("t", range(20))
    report = queue.work(wait=False) if how == "work" else queue.run_jobs()
    assert (report.count, report.deleted) == (20, 20)


def test_an_event_loop_that_fails_ends_work_and_gives_all_back() -> None:
    """Its selector raises, so that nothing in it is ever called again."""
    queue = KQueue("memory:")

    def broken(timeout: float | None) -> Any:
        raise OSError("no such descriptor")

    @queue.handler("t", concurrency=5)
    async def handle(job: JobInHand) -> None:
        if job.payload == 4:
            asyncio.get_running_loop()._selector.select = broken  # type: ignore[attr-defined]
        await for_ever()

    ids = queue.add_jobs("t", range(5))
    with pytest.raises(KQueueError, match="the event loop has failed"):
        queue.work()
    rows = queue.store.get(ids)
    assert [(row.state, row.failures) for row in rows] == [(State.READY, 0)] * 5
    assert {row.reason for row in rows} == {rows[0].reason}
    assert (rows[0].reason or "").startswith("the event loop has failed: ")


def test_one_loop_that_waits_for_jobs_ends_once_too_many_coroutines_have_not_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To wait longer brings nothing: the process has to be started anew, and who runs it must hear of it."""
    monkeypatch.setattr("kqueue.loops.lazy_asyncio.MOST_ABANDONED", 2)
    queue = KQueue("memory:")
    queue.add_handler("t", swallow, retry=RetryPolicy(max_tries=1), auto_renew=True, max_runtime=0.2)
    queue.add_jobs("t", range(3))
    with pytest.raises(KQueueError, match="has to be started anew"):
        queue.run_jobs(wait=True)
    assert states(queue) == {"dead": 2, "ready": 1}


def test_a_task_factory_that_fails_costs_each_job_a_try() -> None:
    """A handler may set one, as libraries do. Only the first job comes to it."""
    queue = KQueue("memory:")

    def refuse(*_: object, **__: object) -> Any:
        raise ValueError("no task today")

    @queue.handler("t")
    async def handle(job: JobInHand) -> None:
        asyncio.get_running_loop().set_task_factory(refuse)
        job.delete()

    ids = queue.add_jobs("t", range(3))
    report = queue.work(wait=False)
    assert (report.count, report.deleted, report.retried) == (3, 1, 2)
    assert [(row.reason or "")[:25] for row in queue.store.get(ids)] == ["ValueError: no task today"] * 2


def test_an_interrupt_that_comes_out_of_a_delay_function_ends_work() -> None:
    """It comes after the handler, so nobody but the task's end sees it."""
    queue = KQueue("memory:")

    def delay(failures: int, error: BaseException | None) -> float:
        raise KeyboardInterrupt

    @queue.handler("t", retry=RetryPolicy(delay=delay))
    async def handle(job: JobInHand) -> None:
        raise ValueError

    job_id = queue.add_job("t")
    with pytest.raises(KeyboardInterrupt):
        queue.work()
    [row] = queue.store.get([job_id])
    assert (row.state, row.failures) == (State.READY, 0)


# -- hanging -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["work", "run_jobs"])
@pytest.mark.parametrize(
    ("handle", "options", "reason"),
    [
        (hang, {}, "its lease ran out after 1 s; its coroutine was cancelled"),
        (swallow, {}, "its lease ran out after 1 s; its coroutine was cancelled and did not end"),
        (settle_and_hang, {}, "settled"),
        (return_when_cancelled, {}, "its lease ran out after 1 s; its coroutine was cancelled"),
        (return_when_cancelled, {"delete_on_success": True}, "its lease ran out after 1 s; its coroutine was"),
        (hang_in_a_group, {}, "its lease ran out after 1 s; its coroutine was cancelled"),
        (hang_with_a_timeout, {}, "its lease ran out after 1 s; its coroutine was cancelled"),
        (hang_in_the_end, {}, "its lease ran out after 1 s; its coroutine was cancelled"),
        (hang, {"auto_renew": True, "max_runtime": 600}, "ran longer than max_runtime (600 s); its coroutine was"),
        (swallow, {"auto_renew": True, "max_runtime": 600}, "ran longer than max_runtime (600 s); its coroutine"),
        (settle_and_hang, {"auto_renew": True}, "settled"),
    ],
)
def test_a_coroutine_that_hangs_ends_as_a_failed_run(
    how: str,
    handle: Handle,
    options: dict[str, Any],
    reason: str,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    queue = KQueue.from_parts(assemble(MemoryStore(clock), clock=clock))
    if "auto_renew" in options:
        queue = KQueue("memory:")  # the renewer goes by the host's clock, and ends it too: after ten minutes
    if "max_runtime" in options:  # the coroutine after half a second
        for name, value in {"MARGIN_S": 599.5, "MARGIN_PART": 1.0, "ENDING_PART": 1e-4}.items():
            monkeypatch.setattr(overtime, name, value)

    async def has_its_time(job: JobInHand) -> None:
        clock.advance(HAD * TTR)
        await handle(job)

    queue.add_handler("t", has_its_time, **options)
    job_id = queue.add_job("t", ttr=600 if "max_runtime" in options else TTR)
    report = queue.work(wait=False) if how == "work" else queue.run_jobs()
    assert (report.count, report.retried, report.lost_lease) == (1, 1, 0)
    [row] = queue.store.get([job_id])
    assert (row.state, row.failures, row.suspicion) == (State.DELAYED, 1, 0)
    assert (row.reason or "").startswith(reason)


@pytest.mark.parametrize("handle", [hang, swallow])
def test_eleven_silent_jobs_with_two_tries_are_started_twice_each_and_end_dead(
    still: KQueue, clock: ManualClock, handle: Handle
) -> None:
    """As a field report had it, whose queue started them for ever."""
    queue = still
    starts: Counter[str] = Counter()

    @queue.handler("silent", concurrency=11, retry=TWO_TRIES)
    async def silent(job: JobInHand) -> None:
        starts[job.id] += 1
        if starts.total() in (11, 22):
            clock.advance(HAD * TTR)
        await handle(job)

    ids = queue.add_jobs("silent", range(11), ttr=TTR)
    report = queue.work(wait=False)
    assert starts == Counter(dict.fromkeys(ids, 2))
    assert (report.count, report.retried, report.dead, report.lost_lease) == (22, 11, 11, 0)
    assert [row.state for row in queue.store.get(ids)] == [State.DEAD] * 11


def test_places_that_hang_get_free_while_work_goes_on(still: KQueue, clock: ManualClock) -> None:
    """Two that never end had kept their type for ever."""
    queue = still
    hang: list[JobInHand] = []

    @queue.handler("t", concurrency=2)
    async def handle(job: JobInHand) -> None:
        if job.payload == "hang":
            hang.append(job)
            if len(hang) == 2:
                clock.advance(HAD * TTR)
            await for_ever()
        job.delete()

    queue.add_jobs("t", ["hang", "hang"], ttr=TTR, priority="urgent")
    queue.add_jobs("t", range(20))
    with Working(queue) as working:
        await_true(lambda: queue.counts("t")["ready"] + queue.counts("t")["running"] == 0)
        working.stop()
    assert (working.report.deleted, working.report.retried) == (20, 2)


def test_work_ends_after_its_time_limit_although_coroutines_hang(clock: ManualClock) -> None:
    queue = KQueue.from_parts(assemble(MemoryStore(clock), clock=clock))
    begun: list[JobInHand] = []

    @queue.handler("t", concurrency=2)
    async def handle(job: JobInHand) -> None:
        begun.append(job)
        if len(begun) % 2 == 0:
            clock.advance(HAD * TTR)
        await for_ever()

    ids = queue.add_jobs("t", range(50), ttr=TTR)
    report = queue.work(time_limit_ms=2000)
    assert report.count == report.retried == len(begun)
    assert [row.state for row in queue.store.get(ids)].count(State.READY) == 50 - len(begun)


def test_a_coroutine_that_renews_goes_on(closes: Closes, clock: ManualClock) -> None:
    """While its neighbour, which began when it did, is cancelled."""
    queue = closes(KQueue.from_parts(assemble("memory:", clock=clock)))
    is_cancelled = asyncio.Event()

    @queue.handler("t", concurrency=2)
    async def handle(job: JobInHand) -> None:
        if job.payload == "hang":
            try:
                await for_ever()
            finally:
                is_cancelled.set()
        while not is_cancelled.is_set():
            clock.advance(TTR / 4)
            await asyncio.to_thread(job.renew)
            await asyncio.sleep(0.01)
        job.delete()

    queue.add_jobs("t", ["hang", "renew"], ttr=TTR)
    report = queue.work(wait=False)
    assert (report.deleted, report.retried, report.lost_lease) == (1, 1, 0)


def test_what_a_coroutine_does_with_its_job_when_it_is_cancelled_counts(still: KQueue, clock: ManualClock) -> None:
    queue = still
    begun: list[JobInHand] = []

    @queue.handler("t", concurrency=3, retry=RetryPolicy(delay=600))
    async def handle(job: JobInHand) -> None:
        begun.append(job)
        if len(begun) == 3:
            clock.advance(HAD * TTR)
        try:
            await for_ever()
        except asyncio.CancelledError:
            if job.payload == "raise":
                raise ValueError("torn down") from None
            getattr(job, job.payload)(*(["why"] if job.payload == "retry" else []))
            raise

    ids = queue.add_jobs("t", ["delete", "retry", "raise"], ttr=TTR)
    report = queue.work(wait=False)
    assert (report.deleted, report.retried) == (1, 2)
    assert [(row.reason or "").partition(" (")[0] for row in queue.store.get(ids)] == [
        "why",
        "ValueError: torn down",
    ]


def test_what_an_abandoned_coroutine_does_with_its_job_changes_nothing(
    still: KQueue, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """It goes on in its event loop, and ends there, while the job's next run succeeds."""
    queue = still
    caplog.set_level(logging.INFO)
    second_ran, told = threading.Event(), list[BaseException]()

    @queue.handler("t", retry=TWO_TRIES)
    async def handle(job: JobInHand) -> None:
        if job.tries == 2:
            job.delete()
            second_ran.set()
            return
        clock.advance(HAD * TTR)
        while not second_ran.is_set():
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)
        for settle in (job.delete, job.renew, lambda: job.retry("late")):
            try:
                settle()
            except Exception as error:
                told.append(error)

    job_id = queue.add_job("t", ttr=TTR)
    with Working(queue) as working:
        await_true(lambda: len(told) == 3)
        await_true(lambda: not queue.registry.abandoned)
        working.stop()
    assert (working.report.count, working.report.deleted, working.report.retried) == (2, 1, 1)
    assert {type(error).__name__ for error in told} == {"AlreadySettled"}
    warnings = [record.message for record in caplog.records if "abandoned" in record.message.partition(": ")[2]]
    assert (
        f"job {job_id} (t): its lease ran out after 1 s; its coroutine was cancelled and did not end"
        in (warnings[0])
    )
    assert warnings[-1] == f"job {job_id} (t): its coroutine, which was abandoned, has ended"


def test_one_that_keeps_the_event_loop_fails_and_its_neighbours_are_given_back(queue: KQueue) -> None:
    """By the host's clock: what is claimed again meanwhile goes back after a while."""
    begun: Counter[str] = Counter()
    kept, go_on = threading.Event(), threading.Event()

    @queue.handler("t", concurrency=3, retry=RetryPolicy(delay=600))
    async def handle(job: JobInHand) -> None:
        begun[job.payload] += 1
        if job.payload == "keeps":
            while begun.total() < 3:
                await asyncio.sleep(0.001)
            kept.set()
            assert go_on.wait(PATIENCE_S)
        elif begun[job.payload] == 1:
            await for_ever()
        job.delete()

    keeps, *others = queue.add_jobs("t", ["keeps", "waits", "waits too"], ttr=LONG_TTR)

    def is_settled() -> bool:
        [guilty, *innocent] = queue.store.get([keeps, *others])
        return guilty.failures == 1 and all(row.state == State.READY and row.reason for row in innocent)

    with Working(queue) as working:
        assert kept.wait(PATIENCE_S)
        await_true(is_settled)
        hanging = hanging_in(queue.registry, time.monotonic() + 10)
        assert {one.job_id for one in hanging.abandoned} == {keeps, *others}
        assert hanging.event_loop_s > 10
        [guilty, *innocent] = queue.store.get([keeps, *others])
        assert guilty.reason == (
            "its lease ran out after 5 s; its coroutine keeps the event loop and cannot be cancelled"
        )
        assert {row.reason for row in innocent} == {
            "its lease ran out after 5 s while another coroutine kept the event loop"
        }
        assert [row.failures for row in innocent] == [0, 0]
        go_on.set()
        await_true(lambda: states(queue) == {"delayed": 1})
        await_true(lambda: not queue.registry.abandoned)
        working.stop()
    assert (working.report.deleted, working.report.lost_lease) == (2, 0)


def test_a_task_that_keeps_the_event_loop_and_is_nobodys_costs_its_holder_a_try(queue: KQueue) -> None:
    """A child of a handler's task: whose it is, is not known."""
    kept, go_on = threading.Event(), threading.Event()

    async def keep() -> None:
        kept.set()
        assert go_on.wait(PATIENCE_S)

    @queue.handler("t", retry=RetryPolicy(delay=600))
    async def handle(job: JobInHand) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(keep())
        job.delete()

    job_id = queue.add_job("t", ttr=LONG_TTR)
    with Working(queue) as working:
        assert kept.wait(PATIENCE_S)
        await_true(lambda: queue.store.get([job_id])[0].failures == 1)
        go_on.set()
        working.stop()
    [row] = queue.store.get([job_id])
    assert row.reason == "its lease ran out after 5 s; the event loop did not come to cancel its coroutine"
    assert (working.report.retried, working.report.lost_lease) == (1, 0)
