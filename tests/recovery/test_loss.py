"""A beanstalkd that comes back empty while a hundred thousand jobs wait."""

import tracemalloc
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest

from kqueue import JobInHand, KQueue
from kqueue.brokers.beanstalk.wire import MAX_IDS
from kqueue.contracts.broker import Pointer
from kqueue.contracts.budget import Budget
from kqueue.contracts.repair import Recovered
from kqueue.contracts.rules import GRACE_S
from kqueue.contracts.runs import Selection
from kqueue.contracts.store import JobStore
from kqueue.model.job import Priority
from kqueue.upkeep.sweep import BATCH
from tests.recovery.conftest import INTERVAL_S, Site

TYPES = ["index", "mail", "resize"]


def test_what_is_added_during_a_long_repair_makes_it_put_nothing_twice(site: Site) -> None:
    """The last batches are put long after the first, and behind the jobs that were added in between."""
    queue = site.queue()
    queue.add_jobs("mail", range(3 * BATCH))
    site.lose_everything()
    sweep = queue._parts.sweeper.begin_if_due()
    assert sweep is not None
    while sweep.report().put < BATCH:
        assert sweep.step()
    site.clock.advance(2 * GRACE_S)
    queue.add_job("mail", "in between")
    while sweep.step():
        pass
    assert sweep.report().put == 3 * BATCH
    queue.add_handler("mail", JobInHand.delete)
    assert queue.run_jobs(count_limit=BATCH).deleted == BATCH  # now the one in between is served next
    site.clock.advance(GRACE_S)
    assert queue.sweep().put == 0


class Watched:
    """A store that keeps account of what each of its calls takes and gives."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self.calls: Counter[str] = Counter()
        #: The most rows that one call took or gave.
        self.rows: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if not callable(method):
            return method

        def call(*args: Any, **options: Any) -> Any:
            given = method(*args, **options)
            self.calls[name] += 1
            self.rows[name] = max(self.rows[name], *map(rows_of, (given, *args)), 0)
            return given

        return call


def rows_of(value: object) -> int:
    """How many rows a call's argument or result stands for."""
    if isinstance(value, list):
        return len(value)
    return value.ready + value.dead if isinstance(value, Recovered) else 0


class Chain:
    """One job at a time that adds its successor, so that each run shows how far the repair had come by then."""

    def __init__(self, queue: KQueue, ends_at: int) -> None:
        self._queue = queue
        #: It ends when so many were put.
        self._ends_at = ends_at
        #: Ids put by the queue's broker, and the number of them at each run.
        self.put = 0
        self.seen: list[int] = []
        broker_put = queue.broker.put

        def put(pointers: Sequence[tuple[Pointer, float]]) -> None:
            self.put += sum(len(pointer.ids) for pointer, _ in pointers if pointer.type != "chain")
            broker_put(pointers)

        queue.broker.put = put  # type: ignore[method-assign]
        queue.add_handler("chain", self.run)
        queue.add_job("chain")

    def run(self, job: JobInHand) -> None:
        if not self.seen or self.seen[-1] < self.put:
            self.seen.append(self.put)
        if self.put < self._ends_at:
            self._queue.add_job("chain")
        job.delete()


def add_waiting(site: Site, rows: int) -> list[str]:
    """Jobs of several types and priorities: most ready, some delayed, some in the hands of a dead worker."""
    queue = site.queue()
    ids: list[str] = []
    share = rows // (len(TYPES) * len(Priority) * 2)
    for type in TYPES:
        for priority in Priority:
            delay = GRACE_S + 1 if priority == Priority.LOW else 0
            ids += queue.add_jobs(type, range(share), priority=priority, ttr=GRACE_S)
            ids += queue.add_jobs(type, range(share), priority=priority, delay=delay)
    limits = Budget(jobs=share, job_s=dict.fromkeys(TYPES, 0.0))
    held = queue.store.claim(Selection(("mail",)), limits, "the dead", queue.store.now(), False)
    assert len(held.rows) == share
    return ids


@pytest.fixture(params=[3_000, pytest.param(100_000, marks=pytest.mark.proof)])
def waiting(site: Site, request: pytest.FixtureRequest) -> list[str]:
    """Ids of so many jobs; of 20,000 at most on MongoDB, which the journal makes slower."""
    return add_waiting(site, min(request.param, 20_000) if "mongod" in request.node.callspec.id else request.param)


def test_all_that_a_beanstalkd_lost_is_put_again_in_bounded_batches_while_jobs_run(
    site: Site, waiting: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kqueue.loops.runner.WORK_S", 0.0)  # so that each turn does one step of the sweep
    site.server.restart()
    # The latest that all can be found: somebody has swept just before the grace was over.
    site.clock.advance(GRACE_S - 0.001)
    assert site.queue().sweep().put == 0
    site.clock.advance(INTERVAL_S)

    worker = site.queue(Watched)
    chain = Chain(worker, ends_at=len(waiting))
    tracemalloc.start()
    worker.run_jobs()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert chain.put == len(waiting)
    assert sorted(site.ids_in_tubes(TYPES)) == sorted(waiting)
    # A batch for each thousand, a rest for each type and for what had no pointer, and one that finds nothing.
    batches = len(waiting) // BATCH + 2 * (len(TYPES) + 1)
    watched: Any = worker.store
    assert watched.calls["mark"] <= batches
    assert max(watched.rows[name] for name in ("find_lost", "find_unput", "mark", "recover")) == BATCH
    assert site.entries(TYPES) <= len(waiting) // MAX_IDS + batches + len(TYPES) * len(Priority)
    # Other jobs ran before, after and between all batches.
    gaps = [after - before for before, after in pairwise([0, *chain.seen, len(waiting)])]
    assert max(gaps) <= BATCH
    # All rows at once, as bare ``Due`` values, take 30 MB.
    assert most < 4 * 2**20

    ran: Counter[str] = Counter()
    for type in TYPES:
        worker.add_handler(type, lambda job: (ran.update([job.id]), job.delete()))
    assert worker.run_jobs().deleted == len(waiting)
    assert ran == Counter(waiting)
    assert site.entries(TYPES) == 0
    assert not any(worker.counts().values())
