"""Every death is told alike: one ERROR record, one event, and in the counters and the report."""

import logging
from collections.abc import Callable
from typing import Any

import pytest

from kqueue import Died, Event, JobInHand, KQueue, RetryPolicy, Verdict
from kqueue.contracts.budget import Budget
from kqueue.contracts.runs import LeaseKey, Selection
from kqueue.system.mint import IdMint
from kqueue.upkeep.sweep import MOST_READ
from tests.flows.conftest import MakeQueue


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


def crash(queue: KQueue) -> None:
    job_id = queue.add_job("t")
    now = queue.store.now()
    budget = Budget(1, job_s={"t": 0.0})
    assert queue.store.claim(Selection(("t",)), budget, IdMint().make(1)[0], now, True).rows
    queue.store.renew([LeaseKey(job_id, 1, 0.0)], now)  # its lease is over at once


@pytest.mark.parametrize("death", [by_tries, by_a_final_error, by_its_word, by_a_crash])
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
    assert (record.job_id, record.job_type, record.job_try) == (job.id, "t", 1)
    assert f"job {job.id} (t): try 1 failed, it is dead: {job.reason}" in record.getMessage()
    assert report.dead == 1
    assert queue.stats().types["t"].died == 1


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
