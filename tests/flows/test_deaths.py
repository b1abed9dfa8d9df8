"""Every death is told alike: one ERROR record, one event, and in the counters and the report."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kqueue import (
    Added,
    Died,
    Event,
    JobInHand,
    KQueue,
    LeaseLost,
    LostLease,
    Retried,
    RetryPolicy,
    Started,
    Swept,
    Verdict,
)
from kqueue.contracts.budget import Budget
from kqueue.contracts.runs import LeaseKey, Selection
from kqueue.renewal.client import Client
from kqueue.system.mint import IdMint
from kqueue.upkeep.sweep import MOST_READ
from tests.flows.conftest import MakeQueue
from tests.tubes import await_true


def by_tries(queue: KQueue) -> None:
    queue.add_handler("t", lambda job: 1 / 0, retry=RetryPolicy(max_tries=1))
    queue.add_job("t")


def by_a_final_error(queue: KQueue) -> None:
    queue.add_handler("t", lambda job: 1 / 0, retry=RetryPolicy(final=ZeroDivisionError))
    queue.add_job("t")


def by_its_word(queue: KQueue) -> None:
    queue.add_handler("t", lambda job: Verdict.FAILED)
    queue.add_job("t")


def by_a_crash(queue: KQueue) -> None:
    """As after its worker died while it ran alone."""
    queue.add_handler("t", JobInHand.delete)
    crash(queue)


def by_its_renewer(queue: KQueue) -> None:
    """Which is another process, or a thread, and writes it while the handler goes on."""

    @queue.handler("t", auto_renew=True, max_runtime=0.2, retry=RetryPolicy(max_tries=1))
    def goes_on(job: JobInHand) -> None:
        await_true(lambda: job.cancelled)

    queue.add_job("t")


def crash(queue: KQueue) -> None:
    job_id = queue.add_job("t")
    now = queue.store.now()
    budget = Budget(1, job_s={"t": 0.0})
    assert queue.store.claim(Selection(("t",)), budget, IdMint().make(1)[0], now, True).rows
    queue.store.renew([LeaseKey(job_id, 1, 0.0)], now)  # its lease is over at once


@pytest.mark.parametrize("death", [by_tries, by_a_final_error, by_its_word, by_a_crash, by_its_renewer])
def test_a_death_is_told_once_whatever_it_came_by(
    make_queue: MakeQueue, caplog: Any, death: Callable[[KQueue], None]
) -> None:
    queue = make_queue(max_crashes=1)
    told: list[Event] = []
    death(queue)
    queue.subscribe(told.append)
    with caplog.at_level(logging.INFO, "kqueue"):
        report = queue.run_jobs()
    (job,) = queue.jobs("t", state="dead")
    (event,) = [one for one in told if isinstance(one, Died)]
    assert event == Died(event.at, job.id, "t", 1, 1, event.seconds, str(job.reason))
    (record,) = [one for one in caplog.records if one.levelno >= logging.ERROR]
    assert (record.job_id, record.job_type, record.job_try, record.job_reason) == (job.id, "t", 1, job.reason)
    assert f"job {job.id} (t): try 1 failed, it is dead: {job.reason}" in record.getMessage()
    assert (report.dead, report.lost_lease) == (1, 0)
    stats = queue.stats().types["t"]
    assert (stats.died, stats.failed, stats.lost_lease) == (1, 1, 0)


@pytest.mark.parametrize("threads", [None, 2])
@pytest.mark.parametrize("is_heard", [True, False])
@pytest.mark.parametrize("tries", [1, None])
def test_a_run_that_its_renewer_ends_is_told_once_though_its_message_comes_late_or_never(
    tries: int | None,
    is_heard: bool,
    threads: int | None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: Any,
) -> None:
    """As where the renewer dies between the write and the message: its end is found when the handler's is lost."""
    late: list[Callable[[], None]] = []
    if not is_heard:
        note = Client._note_end
        monkeypatch.setattr(Client, "_note_end", lambda *said: late.append(lambda: note(*said)))
    told: list[Event] = []
    with KQueue(f"sqlite:///{tmp_path}/jobs.db", sweep_interval=3600) as queue:
        queue.subscribe(lambda one: None if isinstance(one, Swept) else told.append(one))
        seen: list[bool] = []

        @queue.handler("t", auto_renew=True, max_runtime=0.2, retry=RetryPolicy(max_tries=tries, delay=600))
        def goes_on(job: JobInHand) -> None:
            await_true(lambda: queue.store.get([job.id])[0].state != "running")
            await_true(lambda: len(told) == 3 if is_heard else bool(late))
            with pytest.raises(LeaseLost):
                job.renew()
            await_true(lambda: job.lease_lost)  # it may be a second late
            seen.append(True)

        job_id = queue.add_job("t")
        report = queue.run_jobs() if threads is None else queue.work(threads=threads, wait=False)
        for message in late:
            message()
        stats = queue.stats().types["t"]
    assert seen == [True]
    kind = Retried if tries is None else Died
    assert [type(one) for one in told] == [Added, Started, kind]
    ended = told[2]
    assert isinstance(ended, Retried | Died)
    assert (ended.job_id, ended.seconds, ended.reason) == (job_id, 0.2, "ran longer than max_runtime (0.2 s)")
    assert (report.count, report.retried + report.dead, report.lost_lease) == (1, 1, 0)
    assert report.dead == stats.died == (0 if tries is None else 1)
    assert (stats.failed, stats.lost_lease) == (1, 0)
    level = logging.WARNING if tries is None else logging.ERROR
    records = [one for one in caplog.records if hasattr(one, "job_reason")]
    assert [(one.levelno, one.job_reason) for one in records] == [(level, ended.reason)]


def test_one_that_was_taken_by_another_is_lost_and_not_called_too_long(make_queue: MakeQueue) -> None:
    """Though its handler has a bound, and failed at the last time with that very reason."""
    queue = make_queue()
    told: list[Event] = []
    queue.subscribe(told.append)

    @queue.handler("t", auto_renew=True, max_runtime=600)
    def is_late(job: JobInHand) -> None:
        queue.store.renew([LeaseKey(job.id, job.fence, 0.0)], queue.store.now())
        queue.sweep()
        other = Selection(("t",), (job.id,))
        assert queue.store.claim(other, Budget(1), IdMint().make(1)[0], queue.store.now(), False).rows

    queue.add_job("t")
    report = queue.run_jobs(count_limit=1)
    assert (report.lost_lease, report.retried) == (1, 0)
    assert [type(one) for one in told if not isinstance(one, Swept)] == [Added, Started, LostLease]


def test_a_sweep_has_few_of_the_dead_in_memory_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are read with their payloads, which may be what has killed their workers."""
    queue = KQueue("memory:", max_crashes=1)
    for _ in range(2 * MOST_READ + 1):
        crash(queue)
    told: list[Event] = []
    queue.subscribe(told.append)
    read: list[int] = []
    get = queue.store.get
    monkeypatch.setattr(queue.store, "get", lambda ids: read.append(len(ids)) or get(ids))
    assert queue.sweep().dead == sum(isinstance(one, Died) for one in told) == 2 * MOST_READ + 1
    assert read == [MOST_READ, MOST_READ, 1]
