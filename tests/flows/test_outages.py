"""A store or a broker that goes away while jobs run."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kqueue import (
    AddFailed,
    JobInHand,
    KQueue,
    LeaseLost,
    RunReport,
    StoreError,
    StoreUnavailable,
)
from kqueue.stores.sqlite.store import SqliteStore
from kqueue.system.clock import ManualClock
from tests.beanstalkd import Beanstalkd
from tests.closing import Closes
from tests.flows.locked import Lock


@pytest.fixture
def queue(tmp_path: Path, closes: Closes) -> KQueue:
    return closes(KQueue(store=SqliteStore(tmp_path / "jobs.db", busy_timeout=0.25)))


def test_a_locked_store_is_an_error_that_names_it_and_nothing_is_lost(
    queue: KQueue, tmp_path: Path, closes: Closes
) -> None:
    queue.add_handler("t", JobInHand.delete)
    kept = queue.add_job("t", "kept")
    lock = closes(Lock(tmp_path / "jobs.db"))
    lock.take()
    with pytest.raises(AddFailed, match=r"jobs.db: locked by another process") as caught:
        queue.add_jobs("t", [1, 2])
    assert (len(caught.value.taken), len(caught.value.not_taken), len(caught.value.unknown)) == (0, 2, 0)
    for call in (queue.run_jobs, queue.sweep, lambda: queue.delete_job(kept), lambda: queue.purge_jobs("t")):
        with pytest.raises(StoreUnavailable, match=r"jobs.db: locked by another process for more than 0.25 s"):
            call()
    lock.free()
    assert queue.run_jobs().deleted == 1


@pytest.mark.parametrize("wait", [False, True])
def test_a_store_that_goes_away_before_the_settle(
    queue: KQueue, tmp_path: Path, wait: bool, closes: Closes
) -> None:
    """Without ``wait`` it is raised, and the leases run out. With it, what has ended is settled later."""
    runs: list[int] = []
    lock = closes(Lock(tmp_path / "jobs.db"))

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        runs.append(job.payload)
        if job.payload == 100:
            lock.take()
            if wait:
                threading.Timer(0.6, lock.free).start()
        job.delete()

    queue.add_jobs("t", range(150))
    if wait:
        report = queue.run_jobs(count_limit=150, wait=True)
        assert (report.count, report.deleted, report.lost_lease) == (150, 150, 0)
        assert sorted(runs) == list(range(150))
        assert sum(queue.counts().values()) == 0
        return
    with pytest.raises(StoreUnavailable):
        queue.run_jobs()
    lock.free()
    counts = queue.counts("t")
    assert counts["running"] > 0
    assert counts["running"] + counts["ready"] + runs.index(100) >= 150 - 100
    queue.flush()  # no batch is left in hand
    assert queue.counts("t") == counts


def test_an_immediate_settle_that_cannot_be_stored_is_raised_in_the_handler_and_kept(
    tmp_path: Path, closes: Closes
) -> None:
    queue = closes(KQueue(store=SqliteStore(tmp_path / "jobs.db", busy_timeout=0.25), settle_ms=0))
    lock = closes(Lock(tmp_path / "jobs.db"))
    raised: list[str] = []

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        lock.take()
        try:
            job.delete()
        except StoreError as error:
            raised.append(str(error))
        lock.free()

    queue.add_job("t")
    assert queue.run_jobs().deleted == 1
    assert len(raised) == 1
    assert sum(queue.counts().values()) == 0


def test_a_beanstalkd_that_dies_between_reserve_and_settle_of_the_pointers(
    tmp_path: Path, start_beanstalkd: Callable[..., Beanstalkd], caplog: Any, closes: Closes
) -> None:
    """The claim stands: the jobs run, and the entries that came back are deleted as stale."""
    server = start_beanstalkd(binlog=True, flags=["-f0"])
    queue = closes(KQueue(f"sqlite:///{tmp_path}/jobs.db", server.url))
    queue.add_handler("t", JobInHand.delete)
    queue.add_job("t")
    claim = queue.store.claim

    def claim_and_restart(*args: Any) -> Any:
        got = claim(*args)
        if got.rows:
            server.restart()
        return got

    queue.store.claim = claim_and_restart  # type: ignore[method-assign]
    reports: list[RunReport] = [queue.run_jobs(), queue.run_jobs()]
    assert sum(report.deleted for report in reports) == 1
    assert sum(report.stale_pointers for report in reports) in {0, 1, 2}
    assert queue.broker.depths(["t"])["t"] == {"ready": 0, "delayed": 0, "reserved": 0, "buried": 0}


def test_a_loop_without_handlers_waits_for_one(queue: KQueue) -> None:
    queue.add_job("t")
    assert queue.run_jobs(wait=True, time_limit_ms=20).count == 0
    done = threading.Event()
    loop = threading.Thread(target=queue.run_jobs, kwargs={"wait": True})
    loop.start()
    queue.add_handler("t", lambda job: (job.delete(), done.set()))
    assert done.wait(30)
    queue.stop()
    loop.join(30)
    assert not loop.is_alive()


def test_a_retry_and_an_unget_after_the_lease_is_lost_change_nothing(tmp_path: Path, closes: Closes) -> None:
    clock = ManualClock()
    queue = closes(KQueue(store=SqliteStore(tmp_path / "jobs.db", clock=clock)))
    other = closes(KQueue(store=SqliteStore(tmp_path / "jobs.db", clock=clock)))
    other.add_handler("t", lambda job: job.retry("the other's", 1000))

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        clock.advance(10)
        other.sweep()
        other.run_jobs()
        with pytest.raises(LeaseLost):
            {"retry": lambda: job.retry("mine"), "unget": job.unget, "renew": job.renew}[job.payload]()

    for what in ("retry", "unget", "renew"):
        job_id = queue.add_job("t", what, ttr=5)
        report = queue.run_jobs()
        assert (report.count, report.lost_lease) == (1, 1)
        job = queue.get_job(job_id)
        assert job is not None
        assert (job.reason, job.fence, job.state) == ("the other's", 2, "delayed")


@pytest.mark.parametrize("wait", [False, True])
@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_a_store_that_is_down_hides_no_interrupt(
    queue: KQueue, tmp_path: Path, error: type[BaseException], wait: bool, closes: Closes
) -> None:
    lock = closes(Lock(tmp_path / "jobs.db"))

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        lock.take()
        raise error

    queue.add_job("t")
    with pytest.raises(error):
        queue.run_jobs(wait=wait)
    lock.free()


@pytest.mark.parametrize("broker", [False, True])
def test_an_interrupted_claim_is_given_back_at_once(
    tmp_path: Path, request: pytest.FixtureRequest, broker: bool, closes: Closes
) -> None:
    url = request.getfixturevalue("beanstalkd").url if broker else None
    queue = closes(KQueue(f"sqlite:///{tmp_path}/jobs.db", url))
    queue.add_handler("t", JobInHand.delete)
    ids = queue.add_jobs("t", range(3))
    claim = queue.store.claim

    def claim_and_be_interrupted(*args: Any) -> Any:
        claim(*args)
        raise KeyboardInterrupt

    queue.store.claim = claim_and_be_interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        queue.run_jobs()
    queue.store.claim = claim  # type: ignore[method-assign]
    assert [(row.state, row.tries, row.crashes) for row in queue.store.get(ids)] == [("ready", 0, 0)] * 3
    assert queue.run_jobs().deleted == 3


def test_the_watchdog_survives_errors_and_a_slow_job_still_strands_nobody(queue: KQueue, caplog: Any) -> None:
    settle = queue.store.settle
    seen: list[int] = []

    def fail(*_: Any) -> Any:
        queue.store.settle = settle  # type: ignore[method-assign]
        raise RuntimeError("unknown to KQueue")

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        if job.payload == "slow":
            queue.store.settle = fail  # type: ignore[method-assign]
            patience = threading.Event()
            while queue.counts("t")["running"] > 1:
                patience.wait(0.005)
            seen.append(queue.counts("t")["ready"])
        job.delete()

    queue.add_jobs("t", ["warm"] * 100, priority=0)
    queue.add_jobs("t", ["slow", *range(20)])
    queue.run_jobs(count_limit=101)
    assert seen == [20]
    assert "not settled yet: unknown to KQueue" in caplog.text


def test_a_store_that_fails_at_once_is_not_asked_without_end(queue: KQueue, caplog: Any) -> None:
    """A slow handler, an ended job to be settled, and a disk that is full: one warning, and a back-off."""
    calls: list[int] = []
    settle = queue.store.settle

    def fail(*_: Any) -> Any:
        calls.append(1)
        raise StoreUnavailable("no room left on the disk")

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        job.delete()
        if job.payload == "slow":
            queue.store.settle = fail  # type: ignore[method-assign]
            threading.Event().wait(0.5)
            queue.store.settle = settle  # type: ignore[method-assign]

    queue.add_jobs("t", ["warm"] * 100, priority=0)
    queue.add_jobs("t", ["slow", *range(20)])
    assert queue.run_jobs().deleted == 121
    assert len(calls) <= 5  # when it was to be settled, when the window's bound was reached, after back-offs
    assert caplog.text.count("not settled yet") == 1


def test_an_interrupt_anywhere_in_the_loop_is_not_hidden_by_a_store_that_is_down(queue: KQueue) -> None:
    queue.add_handler("t", JobInHand.delete)
    queue.add_job("t")

    def interrupted(*_: Any) -> Any:
        queue.store.settle = down  # type: ignore[method-assign]
        raise KeyboardInterrupt

    def down(*_: Any) -> Any:
        raise StoreUnavailable("down")

    settle = queue.store.settle
    queue.store.settle = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        queue.run_jobs(wait=True)
    queue.store.settle = settle  # type: ignore[method-assign]


def test_a_handler_that_came_meanwhile_does_not_end_the_back_off(
    tmp_path: Path, caplog: Any, closes: Closes
) -> None:
    queue = closes(KQueue(f"sqlite:///{tmp_path}/later/jobs.db"))
    queue.add_handler("t", JobInHand.delete)
    loop = threading.Thread(target=queue.run_jobs, kwargs={"wait": True, "time_limit_ms": 700})
    loop.start()
    while "trying again" not in caplog.text:
        assert loop.is_alive()
    for n in range(3):
        queue.add_handler(f"u{n}", JobInHand.delete)
    loop.join(30)
    assert caplog.text.count("trying again") <= 5


def test_a_delete_that_could_not_be_stored_is_tried_again_when_it_is_asked_again(
    tmp_path: Path, closes: Closes
) -> None:
    queue = closes(KQueue(f"sqlite:///{tmp_path}/jobs.db", settle_ms=0))
    settle = queue.store.settle
    left: list[int] = []

    def down(*_: Any) -> Any:
        raise StoreUnavailable("down")

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        queue.store.settle = down  # type: ignore[method-assign]
        with pytest.raises(StoreUnavailable):
            job.delete()
        queue.store.settle = settle  # type: ignore[method-assign]
        job.delete()
        left.append(sum(queue.counts().values()))

    queue.add_job("t")
    assert queue.run_jobs().deleted == 1
    assert left == [0]


def test_an_operators_delete_that_fails_strands_no_job(queue: KQueue) -> None:
    ids: list[str] = []

    def down(*_: Any) -> Any:
        raise StoreUnavailable("down")

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        if job.payload == 100:
            delete, queue.store.delete = queue.store.delete, down  # type: ignore[method-assign]
            with pytest.raises(StoreUnavailable):
                queue.delete_job(ids[101])
            queue.store.delete = delete  # type: ignore[method-assign]
        job.delete()

    ids += queue.add_jobs("t", range(110))
    assert queue.run_jobs().deleted == 110


def test_a_second_loop_may_begin_while_the_store_is_down(queue: KQueue, tmp_path: Path, closes: Closes) -> None:
    lock = closes(Lock(tmp_path / "jobs.db"))
    holds, may_end = threading.Event(), threading.Event()

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        holds.set()
        may_end.wait(30)
        job.delete()

    job_id = queue.add_job("t", ttr=600)
    first = threading.Thread(target=queue.run_jobs)
    first.start()
    assert holds.wait(30)
    onlooker = SqliteStore(tmp_path / "jobs.db")
    assert onlooker.get([job_id])[0].alone
    lock.take()
    threading.Timer(0.8, lock.free).start()
    second = threading.Thread(target=queue.run_jobs, kwargs={"wait": True})
    second.start()
    while onlooker.get([job_id])[0].alone:
        assert second.is_alive()
    onlooker.close()
    may_end.set()
    first.join(30)
    queue.stop()
    second.join(30)
    assert not second.is_alive()


def test_a_waiting_loop_waits_for_a_store_that_is_not_there_yet(
    tmp_path: Path, caplog: Any, closes: Closes
) -> None:
    folder = tmp_path / "later"
    queue = closes(KQueue(f"sqlite:///{folder}/jobs.db"))
    queue.add_handler("t", JobInHand.delete)
    with pytest.raises(StoreUnavailable):
        queue.run_jobs()
    loop = threading.Thread(target=queue.run_jobs, kwargs={"wait": True, "count_limit": 1})
    loop.start()
    while "trying again in 1 s" not in caplog.text:
        assert loop.is_alive()
    folder.mkdir()
    queue.add_job("t")
    loop.join(30)
    assert not loop.is_alive()
    assert sum(queue.counts().values()) == 0
