"""Many processes that sweep one store at once: nothing is put twice, and nobody waits for another's whole sweep."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeAlias

import pytest

from kqueue import JobInHand, KQueue
from kqueue.contracts.repair import Due
from kqueue.model.job import Priority
from tests.recovery.children import Child, Gate, freeze
from tests.recovery.conftest import INTERVAL_S, Site

SWEEPERS = 8
TYPES = ["mail", "resize"]
#: Rows that a sweep marks at once: fewer than it does elsewhere, so that fewer jobs are many batches.
BATCH = 200
SHARE = 240
OF_A_TYPE = SHARE * len(Priority)

StartChild: TypeAlias = Callable[..., Child]


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kqueue.upkeep.sweep.BATCH", BATCH)


def lose_jobs(site: Site) -> list[str]:
    """Ids of jobs of each type and priority whose pointers are all lost."""
    queue = site.queue()
    ids = [
        id
        for type in TYPES
        for priority in Priority
        for id in queue.add_jobs(type, range(SHARE), priority=priority)
    ]
    site.lose_everything()
    queue.close()
    return ids


def marked_by(queue: KQueue) -> list[str]:
    """A list that gets the id of each row that a sweep of ``queue`` marks from now on, to put it."""
    mark, ids = queue.store.mark, []

    def watched(dues: Sequence[Due], put_at: float) -> list[Due]:
        marked = mark(dues, put_at)
        ids.extend(due.id for due in marked)
        return marked

    queue.store.mark = watched  # type: ignore[method-assign]
    return ids


def test_of_many_that_sweep_at_once_each_row_is_put_by_one(site: Site, start_child: StartChild) -> None:
    ids = lose_jobs(site)
    gate = Gate()
    sweepers = [start_child(lambda: site.queue().sweep().put, gate) for _ in range(SWEEPERS)]
    gate.open()
    put = [sweeper.result() for sweeper in sweepers]
    assert sum(put) == len(ids)
    assert sorted(site.ids_in_tubes(TYPES)) == sorted(ids)


def test_workers_run_jobs_while_many_sweep(site: Site, start_child: StartChild) -> None:
    ids = lose_jobs(site)

    def sweep() -> list[str]:
        queue = site.queue()
        marked = marked_by(queue)
        queue.sweep()
        return marked

    def work() -> tuple[list[str], list[str]]:
        queue, ran = site.queue(), []
        marked = marked_by(queue)
        for type in TYPES:
            queue.add_handler(type, lambda job: (ran.append(job.id), job.delete()))
        while any(queue.counts().values()):
            queue.run_jobs()
        return marked, ran

    gate = Gate()
    sweepers = [start_child(sweep, gate) for _ in range(4)]
    workers = [start_child(work, gate) for _ in range(3)]
    gate.open()
    marked = [id for sweeper in sweepers for id in sweeper.result()]
    ran: list[str] = []
    for worker in workers:
        marked_there, ran_there = worker.result()
        marked += marked_there
        ran += ran_there
    # What a worker that found the tubes empty has claimed past them needed no pointer.
    assert len(marked) == len(set(marked))
    assert set(marked) <= set(ids)
    assert sorted(ran) == sorted(ids)
    assert site.entries(TYPES) == 0


def test_a_sweeper_that_is_frozen_in_the_middle_holds_up_nobody(site: Site, start_child: StartChild) -> None:
    """It has marked its second batch and not put it. What it put before hides the rest of that type until that has
    run; then the store is asked, which has all that is left, the second batch too.
    """
    ids = lose_jobs(site)

    def sweep_and_freeze() -> int:
        queue, puts = site.queue(), []
        put = queue.broker.put
        queue.broker.put = lambda pointers: (  # type: ignore[method-assign]
            puts.append(pointers),
            len(puts) == 2 and freeze(),
            put(pointers),
        )
        return queue.sweep().put

    frozen = start_child(sweep_and_freeze)
    frozen.wait_until_frozen()
    site.clock.advance(INTERVAL_S)

    ran: Counter[str] = Counter()

    def worker() -> KQueue:
        """One that comes anew, as cron starts it."""
        queue = site.queue()
        for type in TYPES:
            queue.add_handler(type, lambda job: (ran.update([job.id]), job.delete()))
        return queue

    assert worker().run_jobs().deleted == 2 * OF_A_TYPE
    assert ran == Counter(ids)

    frozen.thaw()
    assert frozen.result() == 2 * BATCH
    late = site.queue()
    for type in TYPES:
        late.add_handler(type, JobInHand.delete)
    report = late.run_jobs()
    assert report.count == 0
    assert report.stale_pointers > 0
    assert site.entries(TYPES) == 0
