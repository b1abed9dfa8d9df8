"""``work``: coroutines side by side in one event loop, beside plain functions in threads."""

import asyncio
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kqueue import AlreadySettled, JobInHand, KQueue, KQueueError, LeaseLost, StoreUnavailable
from kqueue.assembly import assemble
from kqueue.contracts.budget import Budget
from kqueue.contracts.runs import Selection
from kqueue.model.job import Row
from kqueue.stores.memory.store import MemoryStore
from kqueue.stores.sqlite.store import SqliteStore
from kqueue.system.clock import ManualClock
from tests.beanstalkd import Beanstalkd
from tests.closing import Closes
from tests.flows.conftest import MakeQueue
from tests.flows.processes import KILLED, die, run_in_child
from tests.flows.working import PATIENCE_S, Suspects, Working, counted, is_drained, with_suspicion
from tests.tubes import await_true


class Door:
    """What coroutines wait at until another thread opens it."""

    def __init__(self) -> None:
        self.inside: list[Any] = []
        self._open = asyncio.Event()
        self._loops: set[asyncio.AbstractEventLoop] = set()

    async def wait(self, who: Any) -> None:
        self._loops.add(asyncio.get_running_loop())
        self.inside.append(who)
        await self._open.wait()

    def is_open(self) -> bool:
        return self._open.is_set()

    def open(self) -> None:
        for loop in self._loops:
            loop.call_soon_threadsafe(self._open.set)


# -- side by side ------------------------------------------------------------------------------------------


def test_as_many_coroutines_as_allowed_are_in_hand_at_once_and_never_more(queue: KQueue) -> None:
    """None ends before 7 are there, and the 8th never comes."""
    seven = asyncio.Barrier(7)
    running, most = 0, 0

    @queue.handler("t", concurrency=7)
    async def handle(job: JobInHand) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await seven.wait()
        running -= 1
        job.delete()

    queue.add_jobs("t", range(70))
    report = queue.work(wait=False)
    assert (report.count, report.deleted, most) == (70, 70, 7)
    assert is_drained(queue, "t")


def test_when_all_places_are_taken_nothing_is_reserved_or_claimed(queue: KQueue) -> None:
    door = Door()

    @queue.handler("t", concurrency=3)
    async def handle(job: JobInHand) -> None:
        await door.wait(job.payload)
        job.delete()

    claims = counted(queue, "claim")
    queue.add_jobs("t", range(10))
    with Working(queue):
        await_true(lambda: len(door.inside) == 3)
        before = len(claims)
        threading.Event().wait(0.3)
        assert len(claims) == before
        assert queue.counts("t") == {"delayed": 0, "ready": 7, "held": 0, "running": 3, "dead": 0, "done": 0}
        assert all(states["reserved"] == 0 for states in queue.broker.depths(["t"]).values())
        assert len(door.inside) == 3
        door.open()
        await_true(lambda: is_drained(queue, "t"))
    assert sorted(door.inside) == list(range(10))


def test_a_slow_type_does_not_hold_up_others_nor_a_coroutine_a_plain_function(queue: KQueue) -> None:
    """Each slow one waits for all of the fast ones."""
    fast: list[str] = []
    slow_door = Door()

    @queue.handler("slow", concurrency=2)
    async def slow(job: JobInHand) -> None:
        await slow_door.wait(job.payload)
        job.delete()

    @queue.handler("fast", concurrency=2)
    async def handle(job: JobInHand) -> None:
        await asyncio.sleep(0)
        fast.append("coroutine")
        job.delete()

    queue.add_handler("plain", lambda job: (fast.append("plain"), job.delete()))
    queue.add_jobs("slow", range(5))
    queue.add_jobs("fast", range(50))
    queue.add_jobs("plain", range(50))
    with Working(queue, threads=2) as working:
        await_true(lambda: len(fast) == 100 and len(slow_door.inside) == 2)
        slow_door.open()
        await_true(lambda: is_drained(queue, "slow", "fast", "plain"))
    assert working.report.deleted == 105


def test_coroutines_share_one_thread_and_plain_functions_have_others(queue: KQueue) -> None:
    threads: dict[str, set[int]] = {"a": set(), "b": set(), "plain": set()}
    both = threading.Barrier(2)

    async def note(job: JobInHand) -> None:
        threads[job.type].add(threading.get_ident())
        await asyncio.sleep(0)
        job.delete()

    def plain(job: JobInHand) -> None:
        threads["plain"].add(threading.get_ident())
        both.wait(PATIENCE_S)
        job.delete()

    queue.add_handler("a", note, concurrency=3)
    queue.add_handler("b", note)
    queue.add_handler("plain", plain)
    queue.add_jobs("a", range(10))
    queue.add_jobs("b", range(10))
    queue.add_jobs("plain", range(2))
    with Working(queue, threads=2) as working:
        await_true(lambda: is_drained(queue, *threads))
    assert (working.report.count, working.report.deleted) == (22, 22)
    assert threads["a"] == threads["b"]
    assert len(threads["a"]) == 1
    assert len(threads["plain"]) == 2
    assert not threads["a"] & threads["plain"]
    assert threading.get_ident() not in threads["a"] | threads["plain"]


def test_a_handler_may_keep_things_of_the_event_loop_and_add_jobs(queue: KQueue) -> None:
    locks: list[asyncio.Lock] = []

    @queue.handler("t", concurrency=4)
    async def handle(job: JobInHand) -> None:
        if not locks:
            locks.append(asyncio.Lock())
        async with locks[0]:
            await asyncio.sleep(0)
            if job.payload:
                await asyncio.to_thread(queue.add_job, "t", job.payload - 1)
        job.delete()

    queue.add_jobs("t", [10, 10, 10])
    assert queue.work(wait=False).deleted == 33
    assert is_drained(queue, "t")


def test_a_retry_at_once_runs_again_before_work_ends(queue: KQueue) -> None:
    @queue.handler("t", concurrency=4)
    async def handle(job: JobInHand) -> None:
        await asyncio.sleep(0)
        if job.tries == 1:
            job.retry("once more", delay=0)
        else:
            job.delete()

    queue.add_jobs("t", range(10))
    report = queue.work(wait=False)
    assert (report.count, report.deleted, report.retried) == (20, 10, 10)
    assert is_drained(queue, "t")


# -- settling ----------------------------------------------------------------------------------------------


def test_a_retry_whose_pointer_is_put_slowly_runs_again_before_work_ends(
    beanstalkd: Beanstalkd, monkeypatch: pytest.MonkeyPatch, closes: Closes
) -> None:
    """The watchdog has written it, and is about to put it, when the loop's thread finds the tube empty."""
    queue = closes(KQueue("memory:", broker=beanstalkd.url))
    tries: list[int] = []

    @queue.handler("t")
    async def handle(job: JobInHand) -> None:
        tries.append(job.tries)
        if job.tries < 4:
            job.retry("again", delay=0)
        else:
            job.delete()

    queue.add_job("t")
    put = queue.broker.put

    def put_slowly(*arguments: Any) -> None:
        time.sleep(0.2)
        put(*arguments)

    monkeypatch.setattr(queue.broker, "put", put_slowly)
    assert queue.work(wait=False).deleted == 1
    assert tries == [1, 2, 3, 4]


def test_what_many_coroutines_end_with_is_written_together(queue: KQueue) -> None:
    settles = counted(queue, "settle")
    with_a_claim = counted(queue, "settle_and_claim") if hasattr(queue.store, "settle_and_claim") else []

    @queue.handler("t", concurrency=100)
    async def handle(job: JobInHand) -> None:
        await asyncio.sleep(0.001)
        job.delete()

    queue.add_jobs("t", range(200))
    assert queue.work(wait=False).deleted == 200
    ends = [*settles, *with_a_claim]
    # Of what a slow server did not answer in time a part is sent again.
    assert len({one.id for settlements, *_ in ends for one in settlements}) == 200
    assert len(ends) <= 20


def test_a_delete_is_durable_after_settle_ms_although_others_are_in_hand(queue: KQueue) -> None:
    door = Door()

    @queue.handler("t", concurrency=3)
    async def handle(job: JobInHand) -> None:
        if job.payload == 0:
            job.delete()
        await door.wait(job.payload)
        if job.payload:
            job.delete()

    ids = queue.add_jobs("t", range(3))
    with Working(queue):
        await_true(lambda: len(door.inside) == 3)
        await_true(lambda: queue.get_job(ids[0]) is None)
        assert queue.counts("t")["running"] == 2
        door.open()


def test_flush_writes_at_once_what_would_wait(make_queue: MakeQueue) -> None:
    queue = make_queue(settle_ms=600_000)
    door = Door()

    @queue.handler("t", concurrency=3)
    async def handle(job: JobInHand) -> None:
        if job.payload == 0:
            job.delete()
        await door.wait(job.payload)
        if job.payload:
            job.delete()

    ids = queue.add_jobs("t", range(3))
    with Working(queue) as working:
        await_true(lambda: len(door.inside) == 3)
        assert queue.get_job(ids[0]) is not None
        queue.flush()
        assert queue.get_job(ids[0]) is None
        door.open()
    assert working.report.deleted == 3


def test_a_job_that_is_alone_in_hand_is_settled_at_once(make_queue: MakeQueue) -> None:
    queue = make_queue(settle_ms=600_000)
    door = Door()

    @queue.handler("t", concurrency=3)
    async def handle(job: JobInHand) -> None:
        job.delete()
        await door.wait(job.payload)

    job_id = queue.add_job("t")
    with Working(queue):
        await_true(lambda: queue.get_job(job_id) is None)
        door.open()


def test_a_slow_store_does_not_make_the_event_loop_stand_still(tmp_path: Path, closes: Closes) -> None:
    """The settle of one job goes on only once another coroutine has gone round a few times meanwhile."""
    queue = closes(KQueue(store=f"sqlite:///{tmp_path}/jobs.db"))
    rounds = threading.Semaphore(0)
    settled = threading.Event()
    settle = queue.store.settle

    def slow(*arguments: Any) -> Any:
        for _ in range(5):
            assert rounds.acquire(timeout=PATIENCE_S), "the event loop stands still"
        settled.set()
        return settle(*arguments)

    queue.store.settle = slow  # type: ignore[method-assign]

    @queue.handler("t", concurrency=3)
    async def handle(job: JobInHand) -> None:
        if job.payload == "goes round":
            while not settled.is_set():
                await asyncio.sleep(0.001)
                rounds.release()
            for _ in range(100):
                rounds.release()
        elif job.payload == "retry":
            job.retry("busy", delay=60)
            return
        elif job.payload == "unget":
            job.unget(delay=60)
            return
        job.delete()

    queue.add_jobs("t", ["goes round", "delete", "retry", "unget"])
    report = queue.work(wait=False)
    assert (report.deleted, report.retried, report.ungot) == (2, 1, 1)


class Overheard:
    """A store that notes which threads call it."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.callers: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        def call(*arguments: Any) -> Any:
            self.callers.add(threading.current_thread().name)
            return method(*arguments)

        return call


def test_the_event_loop_asks_the_store_for_nothing(closes: Closes) -> None:
    store = Overheard(MemoryStore())
    queue = closes(KQueue(store=store))  # type: ignore[arg-type]

    @queue.handler("t", concurrency=3)
    async def handle(job: JobInHand) -> None:
        await asyncio.sleep(0)
        if job.payload == "retry":
            job.retry("busy")
        elif job.payload == "unget":
            job.unget(delay=60)
        elif job.payload == "raise":
            raise ValueError
        elif job.payload == "by id":
            assert queue.delete_job(job.id) is True
        elif job.payload == "delete":
            job.delete()

    queue.add_jobs("t", ["retry", "unget", "raise", "by id", "delete", "nothing"])
    store.callers.clear()
    report = queue.work(wait=False)
    assert (report.deleted, report.retried, report.ungot) == (2, 3, 1)
    assert "kqueue-loop-1" in store.callers
    assert store.callers <= {"kqueue-loop-1", "kqueue-watchdog"}


def test_renew_is_durable_when_it_returns_and_can_be_awaited(tmp_path: Path, closes: Closes) -> None:
    clock = ManualClock()
    queue = closes(KQueue(store=SqliteStore(tmp_path / "jobs.db", clock=clock)))
    leases: list[float] = []

    @queue.handler("t", concurrency=2)
    async def handle(job: JobInHand) -> None:
        clock.advance(7)
        await asyncio.to_thread(job.renew)
        leases.append((queue.store.get([job.id])[0].lease_until or 0.0) - clock.time())
        clock.advance(8)
        assert queue.sweep().recovered == 0
        job.delete()
        with pytest.raises(AlreadySettled, match="it was deleted before"):
            job.renew()

    queue.add_job("t", ttr=10)
    assert queue.work(wait=False).deleted == 1
    assert leases == [10]


def test_a_late_coroutine_is_fenced(tmp_path: Path, closes: Closes) -> None:
    """Its lease runs out while it waits, and another process takes the job."""
    clock = ManualClock()
    queue = closes(KQueue(store=SqliteStore(tmp_path / "jobs.db", clock=clock)))
    other = closes(KQueue(store=SqliteStore(tmp_path / "jobs.db", clock=clock)))
    seen: list[str] = []

    @queue.handler("t", concurrency=3)
    async def handle(job: JobInHand) -> None:
        if job.payload == "late":
            clock.advance(600)
            other.sweep()
            claim = other.store.claim(Selection(("t",), (job.id,)), Budget(1), "elsewhere", clock.time(), False)
            assert len(claim.rows) == 1
            with pytest.raises(LeaseLost):
                await asyncio.to_thread(job.renew)
            seen.append("told")
        job.delete()

    late = queue.add_job("t", "late", ttr=600)
    queue.add_jobs("t", range(2), ttr=10_000)
    report = queue.work(wait=False)
    assert seen == ["told"]
    assert (report.deleted, report.lost_lease) == (2, 1)
    [row] = queue.store.get([late])
    assert (row.state, row.fence, row.lease_owner) == ("running", 2, "elsewhere")


def test_a_coroutine_whose_run_is_over_changes_nothing(queue: KQueue) -> None:
    kept: list[JobInHand] = []

    @queue.handler("t", concurrency=2)
    async def handle(job: JobInHand) -> None:
        kept.append(job)

    queue.add_job("t")
    assert queue.work(wait=False).retried == 1
    for late in (kept[0].delete, kept[0].renew, kept[0].unget, lambda: kept[0].retry("x")):
        with pytest.raises(AlreadySettled, match="its run is over"):
            late()


def test_a_store_that_is_down_when_jobs_have_ended_gets_them_once_it_is_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, closes: Closes
) -> None:
    queue = closes(KQueue(store=f"sqlite:///{tmp_path}/jobs.db"))
    settle, failures, more = queue.store.settle, [0], threading.Event()

    def fail_at_first(*arguments: Any) -> Any:
        if failures[0] < 2:
            failures[0] += 1
            more.set()
            raise StoreUnavailable("down")
        return settle(*arguments)

    queue.store.settle = fail_at_first  # type: ignore[method-assign]
    ran: Counter[int] = Counter()

    @queue.handler("t", concurrency=5)
    async def handle(job: JobInHand) -> None:
        ran[job.payload] += 1
        await asyncio.sleep(0)
        job.delete()

    queue.add_jobs("t", range(10))
    with Working(queue) as working:
        assert more.wait(PATIENCE_S)
        await_true(lambda: not sum(queue.counts().values()))
    assert working.report.deleted == 10
    assert ran == Counter(range(10))
    assert any("not settled yet: down" in record.message for record in caplog.records)


def test_without_wait_a_store_that_is_down_is_raised_once_all_in_hand_have_ended(
    tmp_path: Path, closes: Closes
) -> None:
    queue = closes(KQueue(store=f"sqlite:///{tmp_path}/jobs.db"))
    door, raised = Door(), threading.Event()
    claim = queue.store.claim

    def fail_later(*arguments: Any) -> Any:
        if len(door.inside) < 2:
            return claim(*arguments)
        raised.set()
        raise StoreUnavailable("down")

    queue.store.claim = fail_later  # type: ignore[method-assign]

    @queue.handler("t", concurrency=3)
    async def handle(job: JobInHand) -> None:
        await door.wait(job.payload)
        job.delete()

    queue.add_jobs("t", range(2))
    errors: list[BaseException] = []

    def work() -> None:
        try:
            queue.work(wait=False)
        except StoreUnavailable as error:
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    await_true(lambda: len(door.inside) == 2)
    queue.add_job("t", 3)
    with KQueue(store=f"sqlite:///{tmp_path}/jobs.db") as other:
        assert raised.wait(PATIENCE_S)
        assert thread.is_alive()
        door.open()
        thread.join(PATIENCE_S)
        assert [str(error) for error in errors] == ["down"]
        assert other.counts("t") == {"delayed": 0, "ready": 1, "held": 0, "running": 0, "dead": 0, "done": 0}


def test_a_beanstalkd_that_is_killed_while_coroutines_run_costs_a_wait_and_no_job(
    tmp_path: Path, start_beanstalkd: Callable[..., Beanstalkd], closes: Closes
) -> None:
    server = start_beanstalkd()
    queue = closes(KQueue(f"sqlite:///{tmp_path}/jobs.db", server.url, sweep_interval=0.5))
    door, ran = Door(), Counter[int]()

    @queue.handler("t", concurrency=3)
    async def handle(job: JobInHand) -> None:
        ran[job.payload] += 1
        if not door.is_open():
            await door.wait(job.payload)
        job.delete()

    queue.add_jobs("t", range(20))
    with Working(queue):
        await_true(lambda: len(door.inside) == 3)
        server.kill()
        door.open()
        await_true(lambda: queue.counts("t")["running"] == 0)
        server.restart()
        await_true(lambda: is_drained(queue, "t"))
    assert ran == Counter(range(20))


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_a_store_that_is_down_hides_no_interrupt(
    tmp_path: Path, error: type[BaseException], closes: Closes
) -> None:
    queue = closes(KQueue(store=f"sqlite:///{tmp_path}/jobs.db"))

    def down(*_: Any) -> Any:
        raise StoreUnavailable("down")

    @queue.handler("t")
    async def handle(job: JobInHand) -> None:
        for name in ("claim", "settle", "take_sweep", "has_ready"):
            setattr(queue.store, name, down)
        raise error

    queue.add_job("t")
    with pytest.raises(error):
        queue.work()


# -- ends --------------------------------------------------------------------------------------------------


def test_stop_takes_nothing_new_and_lets_coroutines_end(queue: KQueue) -> None:
    door = Door()

    @queue.handler("t", concurrency=4)
    async def handle(job: JobInHand) -> None:
        await door.wait(job.payload)
        job.delete()

    ids = queue.add_jobs("t", range(20))
    with Working(queue) as working:
        await_true(lambda: len(door.inside) == 4)
        working.stop()
        door.open()
    assert (working.report.count, working.report.deleted) == (4, 4)
    rows = queue.store.get(ids)
    assert [(row.state, row.tries) for row in rows] == [("ready", 0)] * 16
    assert queue.work(wait=False).deleted == 16
    assert is_drained(queue, "t")


def test_what_is_claimed_and_not_started_when_the_loop_ends_goes_back_at_no_try(queue: KQueue) -> None:
    """The event loop is kept busy, so that what is claimed meanwhile cannot start; then ``stop`` comes."""
    busy, go_on = threading.Event(), threading.Event()

    @queue.handler("t", concurrency=10)
    async def handle(job: JobInHand) -> None:
        if job.payload == "busy":
            busy.set()
            assert go_on.wait(PATIENCE_S)
        job.delete()

    queue.add_job("t", "busy")
    with Working(queue) as working:
        assert busy.wait(PATIENCE_S)
        ids = queue.add_jobs("t", range(5))
        await_true(lambda: all(row.fence == 1 for row in queue.store.get(ids)))
        working.stop()
        await_true(lambda: queue.counts("t")["ready"] == 5)
        go_on.set()
    assert (working.report.count, working.report.deleted) == (1, 1)
    assert [row.tries for row in queue.store.get(ids)] == [0] * 5
    assert queue.work(wait=False).deleted == 5
    assert is_drained(queue, "t")


def test_what_waits_for_a_busy_event_loop_is_given_back(queue: KQueue) -> None:
    """A coroutine that does not give way hurts itself and what is in hand, and strands no other job."""

    def is_given_back(row: Row) -> bool:
        return (row.state, row.fence, row.tries) == ("ready", 1, 0)

    @queue.handler("t", concurrency=10)
    async def handle(job: JobInHand) -> None:
        if job.payload == "busy":
            ids = queue.add_jobs("t", range(5))
            await_true(lambda: all(map(is_given_back, queue.store.get(ids))))
        job.delete()

    queue.add_job("t", "busy")
    report = queue.work(wait=False)
    assert (report.count, report.deleted, report.retried) == (6, 6, 0)
    assert is_drained(queue, "t")


@pytest.mark.parametrize(("error", "tries"), [(KeyboardInterrupt, 0), (SystemExit, 1)])
def test_an_interrupt_of_a_coroutine_ends_all_loops_and_goes_on_up(
    queue: KQueue, error: type[BaseException], tries: int
) -> None:
    both = asyncio.Barrier(2)

    @queue.handler("t", concurrency=2)
    async def handle(job: JobInHand) -> None:
        await both.wait()
        if job.payload == 0:
            raise error("now")
        await asyncio.sleep(0.01)
        job.delete()

    queue.add_handler("plain", lambda job: job.delete())
    ids = queue.add_jobs("t", range(20))
    with pytest.raises(error, match="now"):
        queue.work()
    rows = queue.store.get(ids)
    assert [row.tries for row in rows] == [tries] + [0] * 18
    assert queue.counts("t")["running"] == 0


def test_an_interrupt_of_a_plain_function_lets_coroutines_end(queue: KQueue) -> None:
    door = Door()

    @queue.handler("t", concurrency=2)
    async def handle(job: JobInHand) -> None:
        await door.wait(job.payload)
        job.delete()

    @queue.handler("plain")
    def plain(job: JobInHand) -> None:
        await_true(lambda: len(door.inside) == 2)
        door.open()
        raise SystemExit(3)

    queue.add_jobs("t", range(2))
    queue.add_job("plain")
    with pytest.raises(SystemExit):
        queue.work()
    assert queue.counts("t")["running"] == 0


def test_ctrl_c_in_the_waiting_thread_lets_coroutines_end(queue: KQueue) -> None:
    door, interrupted = Door(), threading.Event()

    @queue.handler("t", concurrency=2)
    async def handle(job: JobInHand) -> None:
        await door.wait(job.payload)
        job.delete()

    def interrupt() -> None:
        await_true(lambda: len(door.inside) == 2)
        os.kill(os.getpid(), signal.SIGINT)
        interrupted.set()
        door.open()

    queue.add_jobs("t", range(6))
    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        queue.work()
    assert interrupted.is_set()
    counts = queue.counts("t")
    assert counts["running"] == 0
    assert counts["ready"] <= 4


def test_work_ends_at_its_time_limit_and_by_a_stop_that_came_before_it(queue: KQueue) -> None:
    queue.add_handler("t", fine, concurrency=2)
    queue.add_handler("plain", lambda job: job.delete())
    assert queue.work(threads=3, time_limit_ms=50).count == 0
    queue.add_jobs("t", range(3))
    queue.stop()
    assert queue.work(threads=3).count == 0
    assert queue.work(wait=False).count == 3


async def fine(job: JobInHand) -> None:
    job.delete()


def test_work_of_one_kind_starts_no_loop_of_the_other(queue: KQueue) -> None:
    names: set[str] = set()

    def note() -> None:
        names.update(thread.name.rpartition("-")[0] for thread in threading.enumerate())

    @queue.handler("t")
    async def handle(job: JobInHand) -> None:
        names.update(thread.name for thread in threading.enumerate())
        job.delete()

    queue.add_job("t")
    queue.work(threads=3, wait=False)
    assert {name for name in names if "loop" in name} == {"kqueue-loop-1", "kqueue-event-loop"}
    names.clear()
    queue.remove_handler("t")
    queue.add_handler("t", lambda job: (note(), job.delete()))
    queue.add_job("t")
    queue.work(threads=1, wait=False)
    assert {name for name in names if "loop" in name} == {"kqueue-loop"}


def test_work_with_no_handlers_waits_for_some(queue: KQueue) -> None:
    queue.add_job("t")
    with Working(queue) as working:
        queue.add_handler("t", lambda job: job.delete())
        await_true(lambda: not sum(queue.counts("t").values()))
    assert working.report.deleted == 1


def test_a_handler_removed_meanwhile_leaves_its_jobs_to_others(queue: KQueue) -> None:
    ran: list[int] = []

    @queue.handler("t", concurrency=2)
    async def handle(job: JobInHand) -> None:
        ran.append(job.payload)
        if len(ran) == 4:
            queue.remove_handler("t")
        job.delete()

    queue.add_jobs("t", range(20))
    report = queue.work(wait=False)
    assert report.deleted == len(ran) <= 6
    assert queue.counts("t")["ready"] == 20 - len(ran)


@pytest.mark.parametrize("number", [0, -1, 1.5, "3", None, True])
def test_bad_numbers_are_refused(number: Any) -> None:
    queue = KQueue("memory:")
    with pytest.raises((ValueError, TypeError), match="^concurrency: .*at least 1"):
        queue.add_handler("t", fine, concurrency=number)
    with pytest.raises((ValueError, TypeError), match="^threads: .*at least 1"):
        queue.work(threads=number)
    assert queue.types() == []


# -- the operator ------------------------------------------------------------------------------------------


def test_a_job_claimed_slowly_has_its_lease_renewed_before_it_starts(tmp_path: Path, closes: Closes) -> None:
    clock = ManualClock()
    queue = closes(KQueue.from_parts(assemble(SqliteStore(tmp_path / "jobs.db", clock=clock), clock=clock)))
    claim, left = queue.store.claim, list[tuple[int, float]]()

    def claim_and_freeze(*arguments: Any) -> Any:
        got = claim(*arguments)
        clock.advance(5.1)
        return got

    queue.store.claim = claim_and_freeze  # type: ignore[method-assign]

    @queue.handler("t")
    async def handle(job: JobInHand) -> None:
        lease_until = queue.store.get([job.id])[0].lease_until
        left.append((job.fence, (lease_until or 0.0) - clock.time()))
        job.delete()

    queue.add_job("t", ttr=10)
    queue.work(wait=False)
    assert left == [(1, 10)]


@pytest.mark.parametrize("who", ["operator", "another coroutine"])
def test_delete_by_id_of_a_job_in_hand_is_its_own_delete(queue: KQueue, who: str) -> None:
    door = Door()

    @queue.handler("t", concurrency=3)
    async def handle(job: JobInHand) -> None:
        if job.payload == "deletes":
            await door.wait(job.payload)
            if who == "another coroutine":
                assert queue.delete_job(ids[0]) is True
        else:
            await door.wait(job.payload)
        job.delete()

    ids = queue.add_jobs("t", ["wanted away", "deletes", "waits"])
    with Working(queue) as working:
        await_true(lambda: len(door.inside) == 3)
        if who == "operator":
            assert queue.delete_job(ids[0]) is True
            assert queue.get_job(ids[0]) is None
            assert queue.delete_job(ids[0]) is False
        door.open()
    assert (working.report.count, working.report.deleted) == (3, 3)
    assert is_drained(queue, "t")


def test_delete_by_id_of_a_job_whose_lease_was_lost_deletes_it_all_the_same(tmp_path: Path, closes: Closes) -> None:
    clock = ManualClock()
    queue = closes(KQueue(store=SqliteStore(tmp_path / "jobs.db", clock=clock)))
    other = closes(KQueue(store=SqliteStore(tmp_path / "jobs.db", clock=clock)))
    door = Door()

    @queue.handler("t", concurrency=3)
    async def handle(job: JobInHand) -> None:
        await door.wait(job.payload)

    job_id = queue.add_job("t", ttr=10)
    with Working(queue):
        await_true(lambda: len(door.inside) == 1)
        clock.advance(10)
        other.sweep()
        other.store.claim(Selection(("t",), (job_id,)), Budget(1), "elsewhere", clock.time(), False)
        assert queue.delete_job(job_id) is True
        assert other.get_job(job_id) is None
        door.open()


# -- blame -------------------------------------------------------------------------------------------------


class Ward:
    """Workers that die of a poison job, each a real process, on a store whose clock is turned by hand."""

    def __init__(self, path: Path, broker: str | None) -> None:
        self.clock = ManualClock()
        self.queue = KQueue(store=SqliteStore(str(path), clock=self.clock), broker=broker, max_crashes=3)
        self.queue.add_handler("t", self.handle, concurrency=50)
        self.deaths = 0

    async def handle(self, job: JobInHand) -> None:
        await asyncio.sleep(0.001)
        if job.payload == "poison":
            die()
        job.delete()

    def run_until_dead(self, at_most: int) -> None:
        while self.deaths < at_most:
            self.clock.advance(16)
            status = run_in_child(lambda: self.queue.work(wait=False))
            if status != KILLED:
                assert status == 0
                counts = self.queue.counts()
                if not counts["delayed"] and not counts["ready"]:
                    return
                continue  # some had gone back for a moment, and the run has not waited for them
            self.deaths += 1
            self.clock.advance(60)


@pytest.fixture(params=["embedded", "beanstalkd"])
def ward(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ward]:
    broker = request.getfixturevalue("beanstalkd").url if request.param == "beanstalkd" else None
    ward = Ward(tmp_path / "jobs.db", broker)
    yield ward
    ward.queue.close()


def test_a_poison_job_among_many_in_hand_dies_and_no_innocent_does(ward: Ward) -> None:
    payloads = ["innocent"] * 200
    payloads[120] = "poison"
    ids = ward.queue.add_jobs("t", payloads, ttr=30)
    ward.run_until_dead(12)
    # One death among 50, one among 32, one among 2, and three alone.
    assert 4 <= ward.deaths <= 6
    job = ward.queue.get_job(ids[120])
    assert job is not None
    assert (job.state, job.crashes) == ("dead", 3)
    assert ward.queue.counts("t") == {"delayed": 0, "ready": 0, "held": 0, "running": 0, "dead": 1, "done": 0}


@pytest.mark.parametrize(("deaths", "most"), [(2, 2), (3, 1), (5, 1)])
def test_suspects_fly_in_small_groups_down_to_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deaths: int, most: int, closes: Closes
) -> None:
    # On a slow machine what waits would go back, to a time that the store's clock, which stands still, never has.
    monkeypatch.setattr("kqueue.execution.concurrent_jobs.BOUND_S", 60.0)
    suspects = Suspects(tmp_path, deaths)
    closes(suspects.queue)

    @suspects.queue.handler("t", concurrency=20)
    async def handle(job: JobInHand) -> None:
        suspects.begin(job)
        for _ in range(5):
            await asyncio.sleep(0)
            suspects.look()
        suspects.end(job)

    assert suspects.queue.work(wait=False).deleted == 43
    assert max(suspects.beside) == most
    assert suspects.alone == [most == 1] * 3


def test_a_suspect_waits_for_those_in_hand_and_they_are_not_refilled(tmp_path: Path, closes: Closes) -> None:
    clock = ManualClock()
    queue = closes(KQueue(store=SqliteStore(tmp_path / "jobs.db", clock=clock)))
    door, order = Door(), []

    @queue.handler("t", concurrency=4)
    async def handle(job: JobInHand) -> None:
        order.append(job.payload)
        if job.payload == "first":
            await door.wait(job.payload)
        job.delete()

    [suspect] = queue.add_jobs("t", ["suspect"], ttr=50)
    with_suspicion(queue, clock, [suspect], 3)
    queue.add_job("t", "first", priority="urgent")
    queue.add_job("t", "last", priority="bulk")
    with Working(queue):
        await_true(lambda: queue.store.get([suspect])[0].state == "running" and bool(door.inside))
        assert order == ["first"]
        door.open()
        await_true(lambda: is_drained(queue))
    assert order == ["first", "suspect", "last"]


def test_a_suspect_that_another_type_keeps_from_being_alone_goes_back_for_a_while(
    tmp_path: Path, closes: Closes
) -> None:
    clock = ManualClock()
    queue = closes(KQueue(store=SqliteStore(tmp_path / "jobs.db", clock=clock)))
    door, ran = Door(), []

    @queue.handler("u", concurrency=4)
    async def wait(job: JobInHand) -> None:
        await door.wait(job.payload)
        job.delete()

    @queue.handler("t", concurrency=4)
    async def handle(job: JobInHand) -> None:
        ran.append(queue.store.get([job.id])[0].alone)
        job.delete()

    [suspect] = queue.add_jobs("t", ["suspect"], ttr=50)
    with_suspicion(queue, clock, [suspect], 3)
    queue.add_job("u", ttr=1000)
    queue.remove_handler("t")
    with Working(queue):
        await_true(lambda: bool(door.inside))
        with Working(serving(queue, "t", handle)):
            await_true(lambda: queue.store.get([suspect])[0].state == "delayed")
            assert ran == []
            [row] = queue.store.get([suspect])
            assert (row.tries, row.suspicion) == (3, 3)
            door.open()
            await_true(lambda: queue.counts("u")["running"] == 0)
            clock.advance(2)
            await_true(lambda: bool(ran))
    assert ran == [True]


def serving(queue: KQueue, type: str, handler: Any) -> KQueue:
    """The queue, with one more handler."""
    queue.add_handler(type, handler, concurrency=4)
    return queue


# -- forks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way_out", ["return", "raise", "sys.exit"])
def test_a_child_that_a_coroutine_forks_ends_with_it_and_leaves_its_parent_alone(
    queue: KQueue, way_out: str
) -> None:
    parent = os.getpid()
    ran: list[int] = []

    @queue.handler("t", concurrency=5)
    async def handle(job: JobInHand) -> None:
        ran.append(job.payload)
        if job.payload == 10:
            child = os.fork()
            if child == 0:
                signal.alarm(30)  # ends it if it hangs
                with pytest.raises(KQueueError, match="in hand in process"):
                    job.delete()
                if way_out == "raise":
                    raise ValueError
                if way_out == "sys.exit":
                    raise SystemExit(5)
                return
            _, status = await asyncio.to_thread(os.waitpid, child, 0)
            assert os.waitstatus_to_exitcode(status) == (5 if way_out == "sys.exit" else 0)
        await asyncio.sleep(0)
        assert os.getpid() == parent
        job.delete()

    queue.add_jobs("t", range(30))
    report = queue.work(wait=False)
    assert (report.count, report.deleted, report.lost_lease) == (30, 30, 0)
    assert sorted(ran) == list(range(30))
    assert is_drained(queue, "t")


# -- every call of the store that fails ----------------------------------------------------------------------


CALLS = ["now", "claim", "settle", "claimed_by", "renew", "has_ready", "promote", "take_sweep"]


class Failing:
    """A store of which one call fails: before its effect, or after it."""

    def __init__(self, store: MemoryStore, name: str, nth: int, after: bool) -> None:
        self._store = store
        self._name, self._nth, self._after = name, nth, after
        self._lock = threading.Lock()
        self.failed = False

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        return self._call(method) if name == self._name else method

    def recover(self) -> None:
        """No call fails any more."""
        with self._lock:
            self._nth = -1

    def _call(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            with self._lock:
                self._nth -= 1
                fails = self._nth == -1
            if not fails:
                return method(*arguments)
            self.failed = True
            if self._after:
                method(*arguments)
            raise StoreUnavailable(f"{self._name} failed")

        return call


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", CALLS)
def test_no_call_of_the_store_that_fails_loses_a_job_or_runs_one_twice(
    name: str, after: bool, closes: Closes
) -> None:
    """Each of the first calls in turn. What was claimed is settled, or given back at no try."""
    for nth in range(8):
        clock = ManualClock()
        store = MemoryStore(clock=clock)
        setup = closes(KQueue(store=store))
        ids = setup.add_jobs("t", [*range(10), "retry"], ttr=50)
        with_suspicion(setup, clock, ids[:1], 3)
        failing = Failing(store, name, nth, after)
        queue = closes(KQueue(store=failing))  # type: ignore[arg-type]
        ran: Counter[Any] = Counter()

        @queue.handler("t", concurrency=3)
        async def handle(job: JobInHand, ran: Counter[Any] = ran) -> None:
            ran[job.payload] += 1
            await asyncio.sleep(0)
            if job.payload == "retry" and ran["retry"] == 1:
                job.retry("once more", delay=0)
            else:
                job.delete()

        for _ in range(4):
            try:
                queue.work(wait=False)
            except StoreUnavailable:
                continue
            clock.advance(3)
        failing.recover()  # how often it is called there is the threads' matter: perhaps it has not failed yet
        clock.advance(60)
        queue.work(wait=False)
        assert sum(setup.counts().values()) == 0, (name, nth)
        assert ran == Counter({**dict.fromkeys(range(10), 1), "retry": 2}), (name, nth)
        if not failing.failed:
            return
