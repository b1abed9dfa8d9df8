"""What limits, unique keys and done rows cost beside very many of them: as many steps as beside a few."""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from kqueue.contracts.admission import Limit
from kqueue.contracts.budget import Budget
from kqueue.contracts.runs import Selection
from kqueue.contracts.settlements import Finish
from kqueue.model.job import Row, State
from kqueue.stores.sqlite.expire import MOST_LOOKS
from kqueue.stores.sqlite.store import SqliteStore
from kqueue.system.clock import ManualClock
from kqueue.testing.contracts.rows import add_unique
from tests.recovery.steps import describe, plans, watched, wrong_steps

NOW = 1_700_000_000.0
FEW = 2_000
#: Jobs that one call is to get.
JOBS = 10
WINDOW = Budget(jobs=JOBS, job_s={"t": 0.0})
#: Rows that run, whatever the backlog, and the limit keys at whose gates rows are held.
RUNNING, KEYS = 5, [f"k{number}" for number in range(7)]
FULL = Limit("t", running=RUNNING, running_per_key=0, starts=999, period=60.0)
ROOM = Limit("t", running=RUNNING + 3 * JOBS, running_per_key=0, starts=999, period=60.0)
#: What `ahead` counts is bounded by its limit. The others are one row, and a list that was given.
BOUNDED = {"SCAN (subquery-2)", "SCAN CONSTANT ROW", "SCAN one VIRTUAL TABLE INDEX 1:"}
#: As in the test beside this one.
SPARE = 1.1

#: Half of all rows wait at the gate of their type, each with a unique key. The others wait at those of keys, or are
#: ready and come before all that wait, or are done.
_FILL = """
    WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < :rows)
    INSERT INTO kqueue_jobs (
        id, type, payload_or_size, payload_encoding, priority, state, delay, run_at, ttr,
        fence, tries, failures, crashes, suspicion, alone, gate, keep_until, created_at, put_at, limit_key
    )
    SELECT
        printf('%028d', n), 't', x'31', 'json', iif(n % 10 IN (7, 8), 1, 50),
        CASE WHEN n % 10 < 7 THEN 'held' WHEN n % 10 < 9 THEN 'ready' ELSE 'done' END,
        0.0, :now, 30.0, 0, 0, 0, 0, 0, 0,
        CASE WHEN n % 10 < 5 THEN 't' WHEN n % 10 < 7 THEN 't k' || (n / 10 % 7) END,
        iif(n % 10 = 9, :now + 100 + n * 0.001, NULL),
        :now, iif(n % 10 IN (7, 8), :now, NULL), iif(n % 10 IN (5, 6), 'k' || (n / 10 % 7), NULL)
    FROM numbers
"""
_KEYS = """
    INSERT INTO kqueue_unique (type, key, job_id, until)
    SELECT type, 'user ' || id, id, :now FROM kqueue_jobs WHERE state = 'held' AND gate = 't'
"""


@pytest.fixture(scope="module", params=[10_000, pytest.param(100_000, marks=pytest.mark.proof)])
def files(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[dict[int, Path]]:
    """Not to be written to."""
    folder = tmp_path_factory.mktemp("limits")
    made = {rows: folder / f"{rows}.db" for rows in (FEW, request.param)}
    for rows, path in made.items():
        store = SqliteStore(path, synchronous="OFF")
        store.open()
        store.close()
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(_FILL, {"rows": rows, "now": NOW})
            connection.execute(_KEYS, {"now": NOW})
            connection.commit()
    yield made
    shutil.rmtree(folder)


@pytest.fixture
def stores(files: dict[int, Path], tmp_path: Path) -> Iterator[dict[int, SqliteStore]]:
    """A store on a copy of each file, in which some jobs run."""
    opened = {}
    for rows, path in files.items():
        copy = tmp_path / path.name
        shutil.copy(path, copy)
        opened[rows] = SqliteStore(copy, synchronous="OFF", clock=ManualClock(NOW))
        running = Selection(("t",), None, (ROOM,))
        assert len(opened[rows].claim(running, Budget(RUNNING, job_s={"t": 0.0}), "w", NOW, False).rows) == RUNNING
    yield opened
    for store in opened.values():
        store.close()


def calls(store: SqliteStore) -> Iterator[tuple[str, Callable[[], object]]]:
    """Each new call that runs again and again; what it gives must be true."""
    yield "held_types", lambda: store.held_types(["t", "u"]) == ["t"]
    yield "admit, all gates are full", lambda: store.admit(FULL, None, NOW, NOW, JOBS) == ([], NOW + 30)
    yield "admit, some gates", lambda: store.admit(FULL, KEYS[:2], NOW, NOW, JOBS) == ([], NOW + 30)
    yield "admit", lambda: len(store.admit(ROOM, KEYS, NOW, NOW, JOBS).dues) == JOBS
    yield "admit, all keys", lambda: len(store.admit(Limit("t", running=0), None, NOW, NOW, JOBS).dues) == JOBS
    taken: list[Row] = []

    def claim(ids: tuple[str, ...] | None = None, limit: Limit = ROOM) -> int:
        found = store.claim(Selection(("t",), ids, (limit,)), WINDOW, "worker", NOW, False)
        taken[:] = found.rows or taken
        return len(found.rows) or found.held

    yield "limited claim", lambda: claim() == JOBS
    finishes = [Finish(row.id, row.fence, NOW + 50) for row in taken]
    yield "finish", lambda: not store.settle(finishes, NOW).lost
    ready = tuple(row.id for row in store.find("t", State.READY, None, 3 * JOBS) if row.gate is None)[:JOBS]
    yield "limited claim that holds", lambda: claim(ready, FULL) == JOBS
    yield "limited claim by ids", lambda: claim(ready[:1]) == 0
    [some] = store.find("t", State.READY, None, 1)
    yield "ahead", lambda: store.ahead(some._replace(priority=40), JOBS) == JOBS
    held = next(row for row in store.find("t", State.HELD, None, 5 * JOBS) if row.gate == "t")
    new = some._replace(id="9" * 28, unique_key=f"user {held.id}")
    yield "add_unique, taken", lambda: add_unique(store, new) == held.id
    yield "add_unique", lambda: add_unique(store, new._replace(unique_key="x")) == new.id
    yield "expire, nothing", lambda: store.expire(NOW, JOBS) == 0
    yield "expire", lambda: store.expire(NOW + 50, 2 * JOBS) == JOBS


def test_a_call_costs_as_much_beside_very_many_as_beside_a_few(stores: dict[int, SqliteStore]) -> None:
    steps: dict[str, list[int]] = {}
    for store in stores.values():
        for name, call in calls(store):
            with watched(store) as cost:
                assert call(), name
                steps.setdefault(name, []).append(cost().steps)
    grown = {name: both for name, both in steps.items() if both[1] > both[0] * SPARE}
    assert not grown, steps
    # Each unique key that is looked at costs some thirty, and there are so many looks at most in one call.
    keys = 2 * MOST_LOOKS * JOBS
    assert max(steps.pop("expire")[1], steps.pop("expire, nothing")[1]) < 50 * keys, steps
    # Each gate that is looked at costs about two hundred.
    assert max(many for _, many in steps.values()) < 200 * (JOBS + len(KEYS)), steps


def test_no_plan_of_theirs_reads_a_backlog(stores: dict[int, SqliteStore]) -> None:
    store = stores[FEW]
    for name, call in calls(store):
        with watched(store) as cost:
            assert call(), name
            statements = cost().statements
        found = plans(store, statements)
        wrong = [step for plan in found.values() for step in wrong_steps(plan)]
        assert not [step for step in wrong if step not in BOUNDED], describe(found)
