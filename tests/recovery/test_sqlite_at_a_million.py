"""What the calls of the SQLite store cost beside a million rows: as many steps as beside a thousand.

SQLite counts the steps of its own virtual machine, so nothing here looks at a clock. Each step is a read of one
row, one comparison or the like: a scan of the backlog would take a million of them.
"""

import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from kqueue import KQueue
from kqueue.contracts.broker import Pointer
from kqueue.contracts.budget import Budget
from kqueue.contracts.repair import Head
from kqueue.contracts.rules import GRACE_S
from kqueue.contracts.runs import LeaseKey, Selection
from kqueue.contracts.settlements import Delete, Retry
from kqueue.model.job import Row
from kqueue.stores.sqlite.store import SqliteStore
from kqueue.system.clock import ManualClock
from kqueue.upkeep.sweep import BATCH
from tests.beanstalkd import Beanstalkd
from tests.recovery.backlog import AGE_S, FIRST_DUE_S, LEASE_S, NOW, PRIORITIES, TYPES, fill
from tests.recovery.steps import describe, plans, watched, wrong_steps

FEW = 1_000
#: Jobs that one call is to get.
JOBS = 10
WINDOW = Budget(jobs=JOBS, job_s=dict.fromkeys(TYPES, 0.0))
#: The deeper trees of a large file cost no steps, but a range may end at a row that a small file has not.
SPARE = 1.1


@pytest.fixture(scope="module", params=[20_000, pytest.param(1_000_000, marks=pytest.mark.proof)])
def files(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[dict[int, Path]]:
    """A file of few rows and one of many. Not to be written to."""
    folder = tmp_path_factory.mktemp("backlog")
    made = {rows: folder / f"{rows}.db" for rows in (FEW, request.param)}
    for rows, path in made.items():
        fill(path, rows)
    yield made
    shutil.rmtree(folder)


#: What ANALYZE, which a user may run on the file, says of other days: (table, index, figures). SQLite goes by it.
STATISTICS = {
    "none": [],
    "of one row": [
        ("kqueue_jobs", "sqlite_autoindex_kqueue_jobs_1", "1 1"),
        ("kqueue_jobs", "kqueue_jobs_delayed", "1 1 1"),
    ],
    "of few rows": [
        ("kqueue_jobs", "sqlite_autoindex_kqueue_jobs_1", "1000 1"),
        ("kqueue_jobs", "kqueue_jobs_put", "400 40 8 8"),
    ],
    "of none with a pointer": [
        ("kqueue_jobs", "sqlite_autoindex_kqueue_jobs_1", "5000 1"),
        ("kqueue_jobs", "kqueue_jobs_unput", "5000 5000 5000"),
        ("kqueue_jobs", "kqueue_jobs_delayed", "5000 5000 1667"),
    ],
}


@pytest.fixture(params=STATISTICS)
def stores(
    files: dict[int, Path], tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[dict[int, SqliteStore]]:
    """A store on a copy of each file."""
    opened = {}
    for rows, path in files.items():
        copy = tmp_path / path.name
        shutil.copy(path, copy)
        with closing(sqlite3.connect(copy)) as connection:
            connection.execute("ANALYZE sqlite_master")  # makes the table of statistics
            connection.executemany("INSERT INTO sqlite_stat1 VALUES (?, ?, ?)", STATISTICS[request.param])
            connection.commit()
        opened[rows] = SqliteStore(copy, synchronous="OFF", clock=ManualClock(NOW))
        opened[rows].open()
    yield opened
    for store in opened.values():
        store.close()
    shutil.rmtree(tmp_path)


# -- a sweep that finds nothing to do --------------------------------------------------------------------


@pytest.fixture
def idle(stores: dict[int, SqliteStore], beanstalkd: Beanstalkd) -> Iterator[dict[int, tuple[SqliteStore, KQueue]]]:
    """Each store with a queue, whose tubes would serve next what nothing in the store stands before."""
    queues = {rows: KQueue(store, beanstalkd.url, prefix=f"n{rows}.") for rows, store in stores.items()}
    for rows, queue in queues.items():
        queue.open()
        for type in TYPES:
            (best,) = stores[rows].find_lost({type: None}, NOW, GRACE_S, 1)
            queue.broker.put([(Pointer(type, best.priority, NOW - AGE_S, (best.id,)), 0.0)])
    yield {rows: (stores[rows], queue) for rows, queue in queues.items()}
    for queue in queues.values():
        queue.close()


def test_a_sweep_with_nothing_to_do_costs_a_few_indexed_queries(
    idle: dict[int, tuple[SqliteStore, KQueue]],
) -> None:
    costs = {}
    for rows, (store, queue) in idle.items():
        with watched(store) as cost:
            report = queue.sweep()
            costs[rows] = cost()
        assert (report.promoted, report.recovered, report.dead, report.put) == (0, 0, 0, 0)
    few, many = costs.values()
    found = plans(idle[max(idle)][0], many.statements)
    assert not [step for plan in found.values() for step in wrong_steps(plan)], describe(found)
    # One for each type; the time of the last sweep, what is due, abandoned, ready and unput; and what may be
    # forgotten: done jobs, unique keys and where to go on with them, starts, workers. And nine for times that lie
    # ahead, one of which looks at each type and priority.
    assert len(found) <= len(TYPES) + 12, describe(found)
    assert [len(many.statements), few.steps] == [len(few.statements), pytest.approx(many.steps, rel=SPARE - 1)]
    assert many.steps < 100 * (len(TYPES) + 12) + 60 * len(TYPES) * len(PRIORITIES)


# -- every call on the way of a job ----------------------------------------------------------------------


def jobs_through(store: SqliteStore) -> Iterator[tuple[str, Callable[[], object]]]:
    """Each call of the contract that runs again and again, for so many jobs; what it gives must be true.

    Not ``claimed_by``, which reads all that runs: it is for a claim that was interrupted.
    """
    yield "has_ready", lambda: store.has_ready(TYPES)
    yield "next_run_at", store.next_run_at
    yield "take_sweep", lambda: store.take_sweep(NOW, 15)
    yield "take_sweep, too soon", lambda: not store.take_sweep(NOW + 1, 15)
    yield "ready_types", lambda: store.ready_types("", JOBS) == TYPES
    yield "find_unput", lambda: store.find_unput(NOW + FIRST_DUE_S + JOBS, JOBS)
    lost = store.find_lost({TYPES[3]: None}, NOW, GRACE_S, JOBS)
    yield "find_lost", lambda: store.find_lost({TYPES[3]: None}, NOW, GRACE_S, JOBS) == lost
    yield "find_lost, nothing", lambda: store.find_lost({TYPES[3]: best_head()}, NOW, GRACE_S, BATCH) == []
    yield "mark", lambda: len(store.mark(lost, NOW)) == JOBS
    held: list[Row] = []

    def claim(selection: Selection) -> bool:
        held[:] = store.claim(selection, WINDOW, "worker", NOW, False).rows
        return len(held) == JOBS

    yield "claim by ids", lambda: claim(Selection(tuple(TYPES), tuple(due.id for due in lost)))
    yield "renew", lambda: not store.renew([LeaseKey(row.id, row.fence, row.ttr) for row in held], NOW)
    yield "settle deletes", lambda: not store.settle([Delete(row.id, row.fence) for row in held], NOW).lost
    yield "claim of one type", lambda: claim(Selection((TYPES[5],)))
    retries = [Retry(row.id, row.fence, NOW + AGE_S, "again", NOW) for row in held]
    yield "settle retries", lambda: not store.settle(retries, NOW).lost
    yield "claim of all types", lambda: claim(Selection(tuple(TYPES)))
    retried = tuple(retry.id for retry in retries)
    yield "claim of what is not due", lambda: len(later_of(store, retried)) == JOBS
    yield "promote", lambda: store.promote(NOW + FIRST_DUE_S + JOBS, JOBS) == JOBS
    yield "recover", lambda: store.recover(NOW + LEASE_S + 1, 3, JOBS).ready == JOBS


def best_head() -> Head:
    return Head(PRIORITIES[0], NOW - AGE_S)


def later_of(store: SqliteStore, ids: tuple[str, ...]) -> Mapping[str, float]:
    return store.claim(Selection(tuple(TYPES), ids), WINDOW, "worker", NOW, False).later


def test_a_call_costs_as_much_beside_a_million_rows_as_beside_a_thousand(stores: dict[int, SqliteStore]) -> None:
    steps: dict[str, list[int]] = {}
    for store in stores.values():
        for name, call in jobs_through(store):
            with watched(store) as cost:
                assert call(), name
                steps.setdefault(name, []).append(cost().steps)
    grown = {name: both for name, both in steps.items() if both[1] > both[0] * SPARE}
    assert not grown, steps
    # A column that is read or written is a step, and so is each question whether a job has anything rare: 16 of
    # these are cheaper than ten columns that are handed out. What goes behind all others is written to each index.
    assert max(many for _, many in steps.values()) < 300 * JOBS, steps
