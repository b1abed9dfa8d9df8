"""What only the SQLite store has: its indexes, its transactions, its file, its errors."""

import ctypes
import errno
import gc
import json
import os
import re
import resource
import sqlite3
import threading
import traceback
import tracemalloc
import weakref
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from kqueue.contracts.admission import Limit
from kqueue.contracts.budget import Budget
from kqueue.contracts.intake import Tick
from kqueue.contracts.repair import Head
from kqueue.contracts.runs import LeaseKey, Selection
from kqueue.contracts.settlements import Delete, Die, Finish, Settled
from kqueue.contracts.stored_times import CHANGED
from kqueue.contracts.workers import WorkerRecord
from kqueue.model.errors import AddFailed, StoreError, StoreUnavailable
from kqueue.model.history import Run
from kqueue.model.history import read as runs_of
from kqueue.model.job import Row, State
from kqueue.stores import open_store
from kqueue.stores.sqlite import admission, claim_limited, expire, gate_counts, schema, side_tables, times
from kqueue.stores.sqlite import statements as sql
from kqueue.stores.sqlite.intake import INSERT_NEW, MANY
from kqueue.stores.sqlite.payloads import APART, MOST_IN_ROW
from kqueue.stores.sqlite.store import SqliteStore
from kqueue.system.clock import ManualClock
from kqueue.testing.contracts.rows import add_unique

NOW = 1_700_000_000.0


@pytest.fixture
def path(tmp_path):
    return tmp_path / "jobs.db"


@pytest.fixture
def store(path):
    store = SqliteStore(path, busy_timeout=0.05)
    yield store
    store.close()


@pytest.fixture
def outsider(path, store):
    """A connection of another program to the same file."""
    store.open()
    connection = sqlite3.connect(path, isolation_level=None, timeout=0)
    yield connection
    connection.close()


def row(number, **fields):
    plain = Row(f"{number:028d}", "t", b"{}", "json", 100, State.READY, 0.0, NOW, 30.0, created_at=NOW, put_at=NOW)
    return plain._replace(**fields)


def claim(store, *ids):
    return store.claim(Selection(("t",), ids or None), Budget(jobs=100, job_s={"t": 0.0}), "w", NOW, False)


def text(path, query):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


# -- no query reads the backlog --------------------------------------------------------------------------

LEASE = {"owner": "w", "start": NOW, "now": NOW, "fence_floor": 0}
IDS_AND_TYPES = {"ids": '["a"]', "types": '["t"]', **LEASE}
LOST = {"heads": json.dumps([["t", 1, NOW], ["u", 2, NOW]]), "until": NOW, "most": 9}
PAGE = {"type": None, "after": "", "most": 9}
OF_TYPE = {"type": "t", "most": 9}
AHEAD = {"latest": NOW, "most": 9}
UNIQUE = {"type": "t", "key": "k", "job_id": "a", "until": NOW, "now": NOW}

#: Statement, values, and the indexes that it must use, in any order.
#: How SQLite says that it goes to the end of the table, and reads nothing else.
LAST_ROW = "SEARCH kqueue_jobs"
PLANS = {
    "has_ready": (sql.HAS_READY, ('["t"]',), {"ready"}),
    "claim by ids": (sql.CANDIDATES_BY_ID, IDS_AND_TYPES, {"id"}),
    "claim what is ready": (sql.CANDIDATES_OF_TYPE, {"type": "t"}, {"ready"}),
    "claim: heads of types": (sql.HEADS_OF_TYPES, {"types": '["t"]', "heads": 2}, {"ready", "key"}),
    "claim: what follows": (sql.PLACES_AFTER, {"type": "t", "priority": 1, "key": 1}, {"ready"}),
    "claim: what is ready of several types": (sql.CANDIDATES_AT, {"keys": "[1]"}, {"key"}),
    "claim: later": (sql.LATER, IDS_AND_TYPES, {"id"}),
    "claim: write": (sql.CLAIM, {"keys": "[1]", "alone": 0, **LEASE}, {"key"}),
    "claim: write a range": (sql.CLAIM_RANGE, {"first": 1, "last": 9, "alone": 0, **LEASE}, {"key"}),
    "claimed_by": (sql.CLAIMED_BY, ("w",), {"lease"}),
    "claimed_by_process": (sql.CLAIMED_BY_PROCESS, {"tail": "w"}, {"lease"}),
    "renew": (sql.RENEW, (NOW, None, "a", 1), {"id"}),
    "settle: delete": (sql.SETTLE_DELETE, ("a", 1), {"id"}),
    "settle: deletes": (sql.SETTLE_DELETES, ('["a"]', 1), {"id"}),
    "settle: range": (sql.SETTLE_RANGE, (1, 9, "w", 1), {"key"}),
    "settle: retry": (sql.SETTLE_RETRY, ("ready", NOW, NOW, NOW, NOW, "r", "[null, 1, 2]", "a", 1), {"id"}),
    "settle: finish": (sql.SETTLE_FINISH, (NOW, NOW, NOW, "[null, 1, 2]", "a", 1), {"id"}),
    "settle: unget": (sql.SETTLE_UNGET, ("ready", NOW, NOW, NOW, NOW, None, None, "a", 1), {"id"}),
    "settle: unget, started": (sql.SETTLE_UNGET_STARTED, ("ready", NOW, NOW, NOW, NOW, None, None, "a", 1), {"id"}),
    "settle: die": (sql.SETTLE_DIE, (NOW, NOW, "r", "[null, 1, 2]", "a", 1), {"id"}),
    "next_run_at": (sql.NEXT_RUN_AT, (), {"delayed"}),
    "promote": (sql.PROMOTE, (NOW, 9), {"delayed", "key"}),
    "recover": (sql.FIND_ABANDONED, (30.0, NOW), {"lease"}),
    "recover: TTRs": (sql.TTRS_ABANDONED, (NOW,), {"lease"}),
    "recover: write": (sql.RECOVER, ("ready", "r", "[null, 1, 2]", NOW, NOW, "a"), {"id"}),
    "find_unput": (sql.FIND_UNPUT, {"until": NOW, "most": 9}, {"unput"}),
    "ready_types": (sql.READY_TYPES, {"after": "", "most": 9}, {"ready"}),
    "find_lost": (sql.FIND_LOST, LOST, {"put"}),
    "mark": (sql.MARK, (NOW, "a", NOW), {"id"}),
    "get": (sql.GET, {"ids": '["a"]'}, {"id"}),
    "delete": (sql.DELETE, ("a",), {"id"}),
    "revive": (sql.FIND_DEAD, {"ids": '["a"]'}, {"ended"}),
    "find dead": (sql.FINDS["dead"], PAGE, {"ended"}),
    "find done": (sql.FINDS["done"], PAGE | {"type": "t"}, {"ended"}),
    "counts": (sql.COUNT_ALL, (), {"ready", "delayed", "gate", "lease", "ended"}),
    "counts of a type": (sql.COUNT_TYPE, {"type": "t"}, {"ready", "delayed", "gate", "lease", "ended"}),
    "ahead": (sql.AHEAD, {"type": "t", "priority": 1, "key": 1, "most": 9}, {"ready"}),
    "purge ready": (sql.PURGES[0], OF_TYPE, {"ready", "key"}),
    "purge delayed": (sql.PURGES[1], OF_TYPE, {"delayed", "key"}),
    "purge dead": (sql.PURGES[2], OF_TYPE, {"ended", "key"}),
    "purge done": (sql.PURGES[3], OF_TYPE, {"ended", "key"}),
    "purge held": (sql.PURGES[4], OF_TYPE, {"gate", "key"}),
    "limited claim by ids": (claim_limited.RECORDS_BY_ID, IDS_AND_TYPES, {"id"}),
    "limited claim": (claim_limited.RECORDS_OF_TYPE, {"type": "t"}, {"ready"}),
    "limited claim: hold": (claim_limited.HOLD, ("t", 1), {"key"}),
    "limited claim: write": (
        claim_limited.CLAIM,
        {"keys": "[1]", "alone": 0, "limited": "{}", **LEASE},
        {"key"},
    ),
    "gates: what runs": (gate_counts.RUNNING, {"type": "t", "now": NOW}, {"gate"}),
    "gates: is anybody there": (gate_counts.IS_ANY_WAITING, {"type": "t"}, {"gate"}),
    "gates: the admitted": (gate_counts.ADMITTED, ("t",), {"gate"}),
    "gates: who is held": (gate_counts.HELD_PLACES, ("t",), {"gate"}),
    "gates: who is admitted": (gate_counts.ADMITTED_PLACES, ("t",), {"gate"}),
    "admit": (admission.FIND_HELD, {"gate": "t", "most": 9}, {"gate"}),
    "admit: write": (admission.ADMIT, (NOW, NOW, "[1]"), {"key"}),
    "admit: is any held": (admission.HOLDS, ("t",), {"gate"}),
    "admit: gates of a type": (admission.HELD_GATES, {"first": "t", "last": "t!"}, {"gate"}),
    "held_types": (admission.HELD_TYPES, ('["t"]',), {"gate"}),
    "expire": (expire.EXPIRE, {"now": NOW, "rows": 9}, {"kept", "key"}),
    "expire: is there any": (expire.FIND_KEPT, {"now": NOW}, {"kept"}),
    "expire: look at keys": (expire.LOOK_AT_KEYS, {"now": NOW, "after": "", "most": 9}, {"id"}),
    "expire: forget keys": (expire.FORGET_KEYS, {"now": NOW, "ids": "[]"}, {"id"}),
    "misdated: no pointer": (times.FIND_OTHERS[0], AHEAD, {"unput"}),
    "misdated: held": (times.FIND_OTHERS[1], AHEAD, {"unput"}),
    "misdated: asked for": (times.FIND_OTHERS[2], AHEAD, {"asked"}),
    "misdated: leases": (times.FIND_OTHERS[3], AHEAD, {"lease"}),
    "misdated: put": (times.FIND_PUT, AHEAD | {"types": '["t"]'}, {"put"}),
    "misdated: write": (times.REDATE, {"key": 1, **dict.fromkeys(CHANGED, NOW)}, {"key"}),
    "unique: take": (side_tables.TAKE_KEY, UNIQUE, {"id"}),
    "purge: free keys": (side_tables.FREE_KEYS_WITHOUT_JOB, {"type": "t", "most": 9}, {"id"}),
}
#: How a plan names each index.
INDEXES = {
    "key": "USING INTEGER PRIMARY KEY",
    "id": "sqlite_autoindex_kqueue_jobs_1 (id=?)",
    **{
        name: f"INDEX kqueue_jobs_{name}"
        for name in ("ready", "put", "unput", "lease", "delayed", "ended", "gate", "kept", "asked")
    },
}


@pytest.mark.parametrize("analyzed", [False, True], ids=["no statistics", "statistics"])
@pytest.mark.parametrize("name", PLANS)
def test_a_query_uses_its_index_and_sorts_nothing(store, outsider, name, analyzed):
    statement, values, indexes = PLANS[name]
    if analyzed:
        store.add([row(number, priority=number % 3) for number in range(50)])
        outsider.execute("ANALYZE")
        outsider.execute("ANALYZE sqlite_master")
    steps = [step for *_, step in outsider.execute(f"EXPLAIN QUERY PLAN {statement}", values)]
    assert not [step for step in steps if "TEMP B-TREE" in step or "AUTOMATIC" in step]
    steps = [step for step in steps if step != LAST_ROW]
    of_jobs = [step for step in steps if "kqueue_jobs" in step or "SEARCH job" in step or "SCAN job" in step]
    assert of_jobs
    for step in of_jobs:
        assert any(INDEXES[index] in step for index in indexes), steps
    for index in indexes:
        assert any(INDEXES[index] in step for step in of_jobs), steps


@pytest.mark.parametrize(
    ("name", "terms"),
    [
        ("claim what is ready", "(type=?)"),
        ("promote", "(run_at<?)"),
        ("recover", "(ttr=? AND lease_until<?)"),
        ("recover: TTRs", "(ttr>?)"),
        ("recover: TTRs", "(ttr=?)"),
        ("misdated: no pointer", "(state=? AND run_at>?)"),
        ("misdated: asked for", "(<expr>>?)"),
        ("misdated: leases", "(ttr=? AND lease_until>?)"),
        ("misdated: put", "(type=? AND priority=? AND put_at>?)"),
        ("misdated: put", "(type=? AND priority>?)"),
        ("find_unput", "(state=? AND run_at<?)"),
        ("ready_types", "(type>?)"),
        ("find_lost", "(type=? AND priority>?)"),
        ("find_lost", "(type=? AND priority=? AND put_at<?)"),
        ("find dead", "(state=? AND id>?)"),
        ("ahead", "(type=? AND priority<?)"),
        ("ahead", "(type=? AND priority=? AND rowid<?)"),
        ("counts of a type", "kqueue_jobs_gate (state=? AND gate>? AND gate<?)"),
        ("purge held", "(state=? AND gate>? AND gate<?)"),
        ("gates: what runs", "COVERING INDEX kqueue_jobs_gate (state=? AND gate>? AND gate<?)"),
        ("gates: is anybody there", "COVERING INDEX kqueue_jobs_gate (state=? AND gate>? AND gate<?)"),
        ("gates: who is held", "COVERING INDEX kqueue_jobs_gate (state=? AND gate=?)"),
        ("held_types", "COVERING INDEX kqueue_jobs_gate (state=? AND gate>? AND gate<?)"),
        ("expire", "(keep_until<?)"),
        ("expire: look at keys", "SEARCH kqueue_unique USING INDEX kqueue_unique_job (job_id>?)"),
        ("expire: forget keys", "SEARCH kqueue_unique USING INDEX kqueue_unique_job (job_id=?)"),
        ("purge: free keys", "SEARCH taken USING PRIMARY KEY (type=?)"),
    ],
)
def test_a_query_reads_a_range_of_its_index(outsider, name, terms):
    statement, values, _ = PLANS[name]
    steps = [step for *_, step in outsider.execute(f"EXPLAIN QUERY PLAN {statement}", values)]
    assert any(terms in step for step in steps), steps


def test_a_claim_reads_no_more_candidates_than_it_takes_and_one(store):
    """Three types of 200 rows: the merge of their ranges is lazy."""
    store.add([row(number, type=f"t{number % 3}") for number in range(600)])
    given = []

    class Watched(Budget):
        def fit(self, candidates):
            return super().fit(given.append(row.id) or row for row in candidates)

    limits = Watched(jobs=5, job_s={f"t{number}": 0.0 for number in range(3)})
    taken = store.claim(Selection(("t0", "t1", "t2")), limits, "w", NOW, False)
    assert [row.id for row in taken.rows] == given[:5]
    assert len(given) == 6


def test_a_search_for_what_runs_reads_only_what_runs(outsider):
    steps = [step for *_, step in outsider.execute(f"EXPLAIN QUERY PLAN {sql.FINDS['running']}", PAGE)]
    payload = ["CORRELATED SCALAR SUBQUERY 1", "SEARCH apart USING INTEGER PRIMARY KEY (rowid=?)"]
    assert steps == ["SCAN job USING INDEX kqueue_jobs_lease", *payload, "USE TEMP B-TREE FOR ORDER BY"]


def steps_of(store, work):
    """What ``work`` gives, and the hundreds of steps that SQLite takes for it: all that it reads costs some."""
    taken = []
    with store._file.read() as connection:
        connection.set_progress_handler(lambda: taken.append(1), 100)
    given = work()
    return given, len(taken)


def test_the_dead_are_found_beside_any_backlog(store):
    dead = [row(number).id for number in (10, 500, 990)]
    store.add([row(number) for number in range(1000)])
    claim(store, *dead)
    store.settle([Die(id, 1, "enough") for id in dead], NOW)
    found, steps = steps_of(store, lambda: store.find("t", "dead", None, 10))
    assert [one.id for one in found] == dead
    assert steps < 5


def test_what_waits_rightly_at_a_better_priority_than_the_head_is_not_read(store):
    """Each batch that a sweep marks stays there, so to read it again for the next would take ever longer."""
    store.add([row(number, priority=number % 3, put_at=NOW) for number in range(1000)])
    store.add([row(1000 + number, priority=number, put_at=NOW - 100, run_at=NOW - 100) for number in range(4)])
    found, steps = steps_of(store, lambda: store.find_lost({"t": Head(2, NOW)}, NOW + 1, 5, 10))
    assert [due.id for due in found] == [row(1000).id, row(1001).id, row(1002).id]
    assert steps < 5


def test_a_claim_over_many_types_reads_no_payload_that_it_does_not_look_at(store):
    size = 1_000_000
    store.add([row(number, type=f"t{number}", payload=b"x" * size) for number in range(9)])
    tracemalloc.start()
    taken = store.claim(Selection(tuple(f"t{number}" for number in range(9))), Budget(jobs=1), "w", NOW, False)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert ([found.type for found in taken.rows], taken.cut) == (["t0"], True)
    assert most < 3 * size


def test_keys_are_looked_at_in_lots_and_each_time_to_the_end(store, path):
    """Any number of them may be taken by jobs that wait."""
    for number in range(5):
        add_unique(store, row(number, unique_key=str(number)))
    (taken,) = store.claim(Selection(("t",), (row(3).id,)), Budget(9), "w", NOW, False).rows
    store.settle([Delete(taken.id, taken.fence)], NOW)
    store.expire(NOW, 2)
    assert text(path, "SELECT key FROM kqueue_unique ORDER BY key") == [("0",), ("1",), ("2",), ("4",)]
    store.delete([row(0).id])
    assert text(path, "SELECT count(*) FROM kqueue_unique") == [(3,)]


def test_a_purge_frees_any_number_of_keys_whose_jobs_are_gone(store, path):
    for number in range(7):
        add_unique(store, row(number, unique_key=str(number)), NOW + 60)
    (running,) = claim(store, row(6).id).rows
    store.settle([Delete(found.id, found.fence) for found in claim(store).rows], NOW)
    assert store.purge("t", 2) == 0
    assert text(path, "SELECT job_id FROM kqueue_unique") == [(running.id,)]


def test_a_start_that_no_limit_counts_is_forgotten(store, path):
    """By the next claim that adds one, or after a day."""
    store.add([row(number) for number in range(4)])
    limit = (Limit("t", starts=9, period=10.0),)
    for number, at in enumerate((NOW, NOW + 5, NOW + 11)):
        store.claim(Selection(("t",), (row(number).id,), limit), Budget(9), f"w{number}", at, False)
    starts = [round(at - NOW) for (at,) in text(path, "SELECT at FROM kqueue_starts ORDER BY at")]
    assert starts == [5, 11]
    store.expire(NOW + 86_400 + 7, 9)
    assert [round(at - NOW) for (at,) in text(path, "SELECT at FROM kqueue_starts")] == [11]
    store.expire(NOW + 86_400 + 12, 9)
    assert text(path, "SELECT count(*) FROM kqueue_starts") == [(0,)]


def test_a_job_without_limits_or_retention_has_no_entry_in_their_indexes(store, outsider):
    store.add([row(number) for number in range(5)])
    claim(store, row(0).id, row(1).id)
    store.settle([Die(row(0).id, 1, "enough")], NOW)
    for name, column in (("gate", "gate"), ("kept", "keep_until")):
        index = f"kqueue_jobs INDEXED BY kqueue_jobs_{name}"
        assert outsider.execute(f"SELECT count(*) FROM {index} WHERE {column} IS NOT NULL").fetchone() == (0,)


# -- transactions ----------------------------------------------------------------------------------------


def test_a_claim_that_finds_nothing_writes_nothing(store, outsider):
    before = outsider.execute("PRAGMA data_version").fetchone()
    assert claim(store).rows == claim(store, "0" * 28).rows == []
    assert outsider.execute("PRAGMA data_version").fetchone() == before


def test_the_sweeps_questions_need_no_write_lock(store, outsider):
    store.take_sweep(NOW, 15)
    store.add([row(1, state=State.DELAYED, run_at=NOW + 9)])
    outsider.execute("BEGIN IMMEDIATE")
    assert not store.take_sweep(NOW + 1, 15)
    assert store.promote(NOW, 10) == 0
    assert store.recover(NOW, 3, 10) == (0, ())
    assert store.counts()["delayed"] == 1


def test_what_finds_nothing_to_do_needs_no_write_lock(store, outsider):
    """Held rows whose gate is full; keys that are taken; done rows that are kept; a worker that is alive."""
    one = (Limit("t", running=1, starts=9, period=60.0),)
    store.add([row(1), row(2), row(3, type="x")])
    add_unique(store, row(4, type="x", unique_key="k"))
    store.see_worker(WorkerRecord("w", "host", 1, (), NOW, NOW))
    assert store.claim(Selection(("t",), None, one), Budget(9, job_s={"t": 0.0}), "w", NOW, False).held == 1
    claimed = store.claim(Selection(("x",), (row(3).id,)), Budget(9), "w", NOW, False).rows
    store.settle([Finish(found.id, found.fence, NOW + 60) for found in claimed], NOW)
    outsider.execute("BEGIN IMMEDIATE")
    assert store.admit(one[0], None, NOW, NOW, 9).dues == []
    assert store.admit(Limit("x"), None, NOW, NOW, 9) == ([], None)
    assert store.expire(NOW + 59, 9) == 0
    assert store.held_types(["t"]) == ["t"]
    assert store.paused() == {}


def test_a_locked_file_is_named_and_the_store_goes_on_when_it_is_free(store, outsider):
    store.add([row(1)])
    outsider.execute("BEGIN IMMEDIATE")
    with pytest.raises(
        StoreUnavailable, match=r"sqlite:///.*jobs\.db: locked by another process for more than 0.05 s"
    ):
        claim(store)
    with pytest.raises(AddFailed, match=r"jobs\.db: locked") as failed:
        store.add([row(2), row(3)])
    assert failed.value.not_taken == (row(2).id, row(3).id)
    assert failed.value.taken == failed.value.unknown == ()
    assert isinstance(failed.value.__cause__, StoreUnavailable)
    assert store.counts()["ready"] == 1
    outsider.execute("ROLLBACK")
    store.add([row(2)])
    assert len(claim(store).rows) == 2


class Watch(ManualClock):
    """Tells when it is read."""

    def __init__(self):
        super().__init__(NOW)
        self.was_read = threading.Event()

    def monotonic(self):
        self.was_read.set()
        return super().monotonic()


@pytest.mark.parametrize("verb", ["claim", "renew"])
def test_a_lease_runs_from_when_the_lock_was_got(store, outsider, path, verb):
    store.add([row(1, ttr=30.0)])
    if verb == "renew":
        claim(store)
    clock = Watch()
    waiting = SqliteStore(path, busy_timeout=30, clock=clock)
    waiting.open()
    outsider.execute("BEGIN IMMEDIATE")
    with ThreadPoolExecutor(1) as pool:
        if verb == "claim":
            done = pool.submit(claim, waiting)
        else:
            done = pool.submit(waiting.renew, [LeaseKey(row(1).id, 1, 30.0)], NOW)
        assert clock.was_read.wait(30)
        clock.advance(40)
        outsider.execute("ROLLBACK")
        done.result()
    waiting.close()
    assert store.get([row(1).id])[0].lease_until == NOW + 70


@pytest.mark.parametrize("seconds", [-1, 1e10, float("nan")])
def test_a_wait_that_sqlite_cannot_count_is_refused(path, seconds):
    with pytest.raises(ValueError, match="store: expected busy_timeout in seconds, 0 or more, at most 86400"):
        SqliteStore(path, busy_timeout=seconds)


def test_a_wait_for_other_threads_ends(store):
    """The fixture waits for 0.05 s."""
    store.open()
    with ThreadPoolExecutor(1) as pool, store._file.read():
        refused = pool.submit(store.counts).exception()
        failed = pool.submit(store.add, [row(1)]).exception()
    assert isinstance(refused, StoreUnavailable)
    assert re.search(r"jobs\.db: used by other threads of this process for more than 0.05 s", str(refused))
    assert isinstance(failed, AddFailed)
    assert failed.not_taken == (row(1).id,)
    store.add([row(1)])


def test_an_error_inside_a_transaction_takes_all_of_it_back(store, outsider):
    class Broken(Budget):
        def fit(self, candidates):
            next(iter(candidates))
            raise KeyboardInterrupt

    store.add([row(1)])
    with pytest.raises(KeyboardInterrupt):
        store.claim(Selection(("t",)), Broken(jobs=1), "w", NOW, False)
    with pytest.raises(OverflowError):
        store.add([row(2), row(3, priority=2**80)])
    outsider.execute("BEGIN IMMEDIATE")
    outsider.execute("ROLLBACK")
    assert store.counts()["ready"] == 1
    assert store.settle([Delete(claim(store).rows[0].id, 1)], NOW).lost == frozenset()


def statements(store, call):
    """How many of each kind SQLite ran for it."""
    store.open()
    ran = []
    connection = store._file._handles.get().connection
    connection.set_trace_callback(ran.append)
    call()
    connection.set_trace_callback(None)
    return Counter(statement.split()[0] for statement in ran if not statement.startswith("--"))


@pytest.mark.parametrize(("size", "inserts"), [(1, 3), (MOST_IN_ROW, 3), (MOST_IN_ROW + 1, 3 + 2 * MANY + 1)])
def test_rows_go_in_by_many_and_large_payloads_alone(store, size, inserts):
    """A statement keeps what was bound to it, so many large payloads would stay in memory."""
    rows = [row(number, payload=b"x" * size) for number in range(2 * MANY + 1)]
    assert statements(store, lambda: store.add(rows))["INSERT"] == inserts


def test_rows_of_every_kind_go_in_as_they_are_and_in_order(store):
    """Many that are alike in all but their ids and payloads, many that are not, some that have run, and the rest of
    a lot: each goes in by another statement.
    """
    large = b"y" * (MOST_IN_ROW + 1)
    alike = [row(number, payload=b"%d" % number if number % 3 else large) for number in range(MANY)]
    unlike = [row(MANY + number, priority=9, delay=float(number), run_at=NOW + number) for number in range(MANY)]
    not_new = [row(2 * MANY + number, fence=number, limit_key="a") for number in range(MANY)]
    rest = [row(3 * MANY + number, priority=9) for number in range(3)]
    rows = [*alike, *unlike, *not_new, *rest]
    store.add(rows)
    assert store.get([one.id for one in rows]) == rows
    assert [one.id for one in store.find(None, "ready", None, len(rows))] == [one.id for one in rows]


@pytest.mark.parametrize(
    "rare",
    [
        {"fence": 2**62, "tries": 3, "failures": 2, "crashes": 1, "suspicion": 4},
        {"reason": "a\0b\"c\\d\u2028e\x1f'\U0001f40c\ufffe"},
        {"gate": "t", "limit_key": "\0", "unique_key": "[1]", "own_options": '{"max_tries":5}'},
        {"scheduled_for": 1_700_000_000.1234567, "asked_at": 0.1 + 0.2, "put_at": 5e-324, "delay": 1e300},
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("limits", [(), (Limit("t", running=9, running_per_key=9),)], ids=["", "limited"])
def test_a_claim_hands_out_rare_fields_as_they_are(store, rare, limits):
    """They come as one list in JSON, but for what that would not keep."""
    added = row(1)._replace(**rare)
    store.add([added])
    (claimed,) = store.claim(Selection(("t",), limits=limits), Budget(9), "o", NOW, False).rows
    assert claimed == added._replace(
        state="running",
        fence=added.fence + 1,
        tries=added.tries + 1,
        lease_owner="o",
        lease_until=claimed.lease_until,
        gate="t" if limits else added.gate,
    )


def test_a_whole_claim_is_deleted_as_a_range_and_nothing_else_with_it(store):
    """Neither what had a key in the range since another's end, nor what the claim has lost, nor what it has not."""
    store.add([row(number) for number in range(6)])
    ranges = {}
    for owner in ("first", "second"):
        claimed = store.claim(Selection(("t",)), Budget(3, job_s={"t": 0.0}), owner, NOW, False).rows
        ranges[owner] = [Delete(one.id, one.fence) for one in claimed]
    assert store.settle(ranges["first"], NOW) == Settled()
    assert store.counts()["running"] == 3
    # The claim is not whole any more: its last is gone, and another has got its key.
    store.delete([row(5).id])
    store.add([row(6)])
    claim(store)
    assert store.settle(ranges["second"], NOW).lost == {row(5).id}
    assert [(one.id, one.state) for one in store.get([row(number).id for number in range(7)])] == [
        (row(6).id, "running")
    ]


def test_a_delete_of_what_was_recovered_and_claimed_again_is_lost(store):
    """Its key and its owner are others, though the range of the first claim is remembered."""
    store.add([row(number) for number in range(3)])
    old = [Delete(one.id, one.fence) for one in claim(store).rows]
    store.recover(NOW + 31, 3, 9)
    (new,) = store.claim(Selection(("t",), (row(0).id,)), Budget(1), "other", NOW + 31, False).rows
    assert store.settle(old, NOW + 31).lost == {row(0).id}
    assert store.get([one.id for one in old]) == [new._replace(history=store.get([new.id])[0].history)]


def test_a_batch_that_holds_one_id_twice_is_not_taken(store):
    with pytest.raises(AddFailed, match=r"jobs\.db") as failed:
        store.add([row(1), row(2), row(1)])
    assert failed.value.not_taken == (row(1).id, row(2).id, row(1).id)
    assert store.counts()["ready"] == 0


def in_child(work, fork=os.fork):
    """What ``work`` says in a forked child."""
    reader, writer = os.pipe()
    pid = fork()
    if pid == 0:
        answer = "nothing"
        try:
            answer = work()
        except BaseException as error:
            answer = repr(error)
        finally:
            os.write(writer, answer.encode()[:4000])
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read().decode()
    os.waitpid(pid, 0)
    return answer


def test_a_commit_that_fails_for_want_of_room_takes_nothing_and_says_so(store):
    store.open()

    def work():
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
        try:
            store.add([row(1, payload=b"x" * 500_000), row(2)])
        except AddFailed as failed:
            left = store.get([row(1).id, row(2).id])
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            store.add([row(3)])
            return f"{len(failed.not_taken)} not taken, {len(left)} there: {failed}"
        return "taken"

    answer = in_child(work)
    assert answer.startswith("2 not taken, 0 there"), answer
    assert "jobs.db" in answer
    assert [found.id for found in store.get([row(number).id for number in (1, 2, 3)])] == [row(3).id]


class Committing:
    """A connection whose next commit fails once, before or after it was done."""

    def __init__(self, connection, when, readable):
        self.connection, self.when, self.readable = connection, when, readable

    def __getattr__(self, name):
        return getattr(self.connection, name)

    def execute(self, statement, *values):
        if statement == "COMMIT" and self.when:
            when, self.when = self.when, None
            self.connection.execute("COMMIT" if when == "after" else "ROLLBACK")
            raise sqlite3.OperationalError("disk I/O error")
        if statement in {sql.THERE, side_tables.LAST_TICKS} and not self.readable:
            raise sqlite3.OperationalError("disk I/O error")
        return self.connection.execute(statement, *values)


def failing(store, when, readable=True):
    """Its next commit fails, before or after it is done."""
    store.open()
    handle = store._file._handles.get()
    handle.connection = Committing(handle.connection, when, readable)


FAILED_COMMITS = pytest.mark.parametrize(
    ("when", "readable", "outcome"),
    [("after", True, "taken"), ("before", True, "not_taken"), ("after", False, "unknown")],
)


@FAILED_COMMITS
def test_what_a_failed_commit_has_left_is_read_back(store, when, readable, outcome):
    failing(store, when, readable)
    rows = [row(1), row(2)]
    if outcome == "taken":
        store.add(rows)
    else:
        with pytest.raises(AddFailed) as failed:
            store.add(rows)
        assert getattr(failed.value, outcome) == (rows[0].id, rows[1].id)
        assert len(failed.value.taken + failed.value.not_taken + failed.value.unknown) == 2


@FAILED_COMMITS
def test_what_a_failed_commit_of_a_unique_job_has_left_is_read_back(store, when, readable, outcome):
    failing(store, when, readable)
    job = row(1, unique_key="k")
    if outcome == "taken":
        assert add_unique(store, job) == job.id
    else:
        with pytest.raises(AddFailed) as failed:
            add_unique(store, job)
        assert getattr(failed.value, outcome) == (job.id,)
    store.close()
    second = row(2, unique_key="k")
    assert add_unique(store, second) == (second.id if outcome == "not_taken" else job.id)


@pytest.mark.parametrize("rows", [(), (row(1), row(2))], ids=["no rows", "two rows"])
@FAILED_COMMITS
def test_what_a_failed_commit_of_a_tick_has_left_is_read_back(store, when, readable, outcome, rows):
    failing(store, when, readable)
    tick = Tick("hourly", None, NOW)
    if outcome == "taken":
        assert store.add_tick(tick, rows)
    else:
        with pytest.raises(AddFailed) as failed:
            store.add_tick(tick, rows)
        assert getattr(failed.value, outcome) == tuple(job.id for job in rows)
    store.close()
    assert store.last_ticks() == ({} if outcome == "not_taken" else {"hourly": NOW})
    assert store.counts()["ready"] == (0 if outcome == "not_taken" else len(rows))


# -- the file --------------------------------------------------------------------------------------------


def test_rows_can_be_read_with_the_sqlite3_program(store, path):
    store.add([row(1)])
    assert text(path, "SELECT id, type, state, payload_or_size FROM kqueue_jobs") == [
        (row(1).id, "t", "ready", b"{}")
    ]
    assert text(path, "PRAGMA journal_mode") == [("wal",)]


@pytest.mark.parametrize(("option", "level"), [("FULL", 2), ("NORMAL", 1), ("OFF", 0)])
def test_synchronous_is_what_the_user_chose(path, option, level):
    store = SqliteStore(path, synchronous=option)
    with store._file.read() as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (level,)
    store.close()


def test_now_is_the_clock_it_was_given(path):
    clock = ManualClock(NOW)
    assert SqliteStore(path, clock=clock).now() == NOW
    clock.advance(5)
    assert SqliteStore(path, clock=clock).now() == NOW + 5


def test_it_shares_a_file_with_a_users_own_tables(path):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE orders (id)")
        connection.execute("PRAGMA user_version = 42")
    store = SqliteStore(path)
    store.add([row(1)])
    store.close()
    assert text(path, "PRAGMA user_version") == [(42,)]
    assert text(path, "SELECT count(*) FROM orders") == [(0,)]


def test_a_later_change_of_the_working_folder_leads_to_no_other_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = open_store("sqlite:///jobs.db")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    store.add([row(1)])
    store.close()
    assert (tmp_path / "jobs.db").exists()


def test_of_many_that_open_a_new_file_at_once_all_can_use_it(path):
    for attempt in range(5):
        stores = [SqliteStore(path.with_name(f"{attempt}.db"), busy_timeout=30) for _ in range(6)]
        barrier = threading.Barrier(len(stores))

        def use(numbered, barrier=barrier):
            number, store = numbered
            barrier.wait()
            store.add([row(number)])

        with ThreadPoolExecutor(len(stores)) as pool:
            list(pool.map(use, enumerate(stores)))
        assert stores[0].counts()["ready"] == len(stores)
        for store in stores:
            store.close()


def remove(path):
    for name in path.parent.glob(f"{path.name}*"):
        name.unlink()


def replace(path):
    """Another file of jobs takes the name."""
    other = path.with_name("other.db")
    store = SqliteStore(other)
    store.add([row(7)])
    store.close()
    remove(path)
    other.rename(path)


LOST_FILE = r"jobs\.db: was removed or replaced while it was open"


GONE = r"jobs\.db: the file is gone; it was moved or removed while this process used it"


def test_an_add_to_a_file_that_was_replaced_is_refused_and_the_next_one_is_kept(store, path):
    store.add([row(1)])
    replace(path)
    with pytest.raises(AddFailed, match=LOST_FILE) as failed:
        store.add([row(2)])
    assert failed.value.not_taken == (row(2).id,)
    store.add([row(3)])
    store.close()
    with closing(SqliteStore(path)) as other:
        assert [number for number in range(9) if other.get([row(number).id])] == [3, 7]


def test_a_file_that_was_removed_is_never_made_again_by_who_had_it(store, path):
    store.add([row(1)])
    remove(path)
    other = SqliteStore(path)
    for says in (LOST_FILE, GONE, GONE):
        with pytest.raises(AddFailed, match=says) as failed:
            store.add([row(2)])
        assert failed.value.not_taken == (row(2).id,)
        with pytest.raises(StoreUnavailable, match=GONE):
            other.counts()
        assert list(path.parent.iterdir()) == []
    assert in_child(lambda: repr(outcome(SqliteStore(path).open))).startswith("StoreUnavailable(")
    assert list(path.parent.iterdir()) == []


def outcome(call):
    try:
        return call()
    except Exception as error:
        return error


def test_a_worker_is_told_that_its_file_was_replaced(store, path):
    store.add([row(1)])
    replace(path)
    with pytest.raises(StoreUnavailable, match=LOST_FILE):
        store.pulse()
    assert store.counts()["ready"] == 1


class Before:
    """A connection that does some work just before it executes one statement."""

    def __init__(self, connection, statement, work):
        self.connection, self.statement, self.work = connection, statement, work

    def __getattr__(self, name):
        return getattr(self.connection, name)

    def execute(self, statement, *values):
        if statement == self.statement:
            self.work()
        return self.connection.execute(statement, *values)


def before(store, statement, work):
    store.open()
    handle = store._file._handles.get()
    handle.connection = Before(handle.connection, statement, work)


def test_a_file_that_goes_during_a_wait_for_the_lock_gets_no_row(store, outsider, path):
    waiting = SqliteStore(path, busy_timeout=30)
    began = threading.Event()
    before(waiting, "BEGIN IMMEDIATE", began.set)
    outsider.execute("BEGIN IMMEDIATE")
    with ThreadPoolExecutor(1) as pool:
        adding = pool.submit(waiting.add, [row(1)])
        assert began.wait(30)
        remove(path)
        outsider.execute("ROLLBACK")
        failed = adding.exception()
    assert isinstance(failed, AddFailed)
    assert failed.not_taken == (row(1).id,)
    assert outsider.execute("SELECT count(*) FROM kqueue_jobs").fetchone() == (0,)
    waiting.close()


def test_an_add_whose_file_goes_just_before_its_commit_is_not_acknowledged(store, path):
    before(store, "COMMIT", lambda: remove(path))
    with pytest.raises(AddFailed, match=LOST_FILE) as failed:
        store.add([row(1), row(2)])
    assert failed.value.unknown == (row(1).id, row(2).id)
    assert list(path.parent.iterdir()) == []


def test_a_place_that_was_given_between_the_look_and_the_lock_is_not_given_again(store, path, monkeypatch):
    one, other = Limit("t", running=1), SqliteStore(path)
    store.add([row(1), row(2), row(3)])
    taken = store.claim(Selection(("t",), None, (one,)), Budget(jobs=9, job_s={"t": 0.0}), "w", NOW, False)
    store.settle([Delete(taken.rows[0].id, 1)], NOW)
    take_fence = store._file._take_fence
    monkeypatch.setattr(
        store._file, "_take_fence", lambda handle: (other.admit(one, None, NOW, NOW, 9), take_fence(handle))
    )
    assert store.admit(one, None, NOW, NOW, 9).dues == []
    assert [found.state for found in store.get([row(2).id, row(3).id])] == ["ready", "held"]
    other.close()


# -- the schema's version --------------------------------------------------------------------------------

NEXT = (*schema.STEPS, ("ALTER TABLE kqueue_jobs ADD COLUMN colour TEXT",))


def test_a_new_file_has_the_newest_version(store, path):
    store.open()
    assert text(path, "SELECT value FROM kqueue_meta WHERE name = 'schema_version'") == [(len(schema.STEPS),)]


def test_an_older_file_is_migrated_and_keeps_its_rows(store, outsider, path):
    store.add([row(1)])
    schema.migrate(outsider, NEXT)
    assert schema.version(outsider) == len(NEXT)
    assert outsider.execute("SELECT id, colour FROM kqueue_jobs").fetchall() == [(row(1).id, None)]
    schema.migrate(outsider, NEXT)


#: What a file of version 1 has not.
SINCE_2 = {"gate", "keep_until", "history", "unique_key", "limit_key", "scheduled_for", "asked_at", "own_options"}
SINCE_2 |= APART
#: A row in each of its states.
OF_VERSION_1 = [
    row(1),
    row(2, state=State.DELAYED, run_at=NOW + 9, payload=b"x" * 100_000),
    row(3, state=State.RUNNING, fence=1, tries=1, lease_owner="w", lease_until=NOW + 30, alone=True),
    row(4, state=State.DEAD, fence=2, tries=2, failures=2, reason="enough", put_at=None),
    row(5, fence=1, tries=1, failures=1, reason="again", priority=7),
]


@pytest.fixture
def old_file(path):
    """Made by the first step of the schema, with what that KQueue wrote into it."""
    names = [name for name in Row._fields if name not in SINCE_2]
    with sqlite3.connect(path, isolation_level=None) as connection:
        schema.migrate(connection, schema.STEPS[:1])
        for old in OF_VERSION_1:
            values = [
                str(value) if name == "state" else value for name, value in old._asdict().items() if name in names
            ]
            marks = ", ".join("?" * len(names))
            connection.execute(f"INSERT INTO kqueue_jobs ({', '.join(names)}) VALUES ({marks})", values)
        connection.execute("INSERT INTO kqueue_meta VALUES ('setting.prefix', 'p.')")
    connection.close()
    return path


def test_a_file_of_version_1_is_migrated_with_all_that_is_in_it(old_file, store, tmp_path):
    assert store.get([old.id for old in OF_VERSION_1]) == OF_VERSION_1
    assert store.setting("prefix", "other") == "p."
    assert store.counts() == {"delayed": 1, "ready": 2, "held": 0, "running": 1, "dead": 1, "done": 0}
    new = SqliteStore(tmp_path / "new.db")
    new.open()
    new.close()
    tables = "SELECT name, sql FROM sqlite_master ORDER BY name"
    assert text(old_file, tables) == text(tmp_path / "new.db", tables)
    assert text(old_file, "SELECT value FROM kqueue_meta WHERE name = 'schema_version'") == [(len(schema.STEPS),)]


def test_jobs_of_ticks_of_version_2_keep_the_times_that_they_are_for(path):
    """They are told by a run_at before they were added, and are not touched by a retry yet."""
    names = [name for name in Row._fields if name not in {"scheduled_for", "asked_at", "own_options", *APART}]
    tick = NOW - 40
    rows = [
        row(1, run_at=tick),
        row(2, run_at=tick, state="dead", fence=1),
        row(3),
        row(4, state="delayed", delay=60.0, run_at=NOW + 60),
        row(5, run_at=NOW + 30, fence=1),
    ]
    with sqlite3.connect(path, isolation_level=None) as connection:
        schema.migrate(connection, schema.STEPS[:2])
        marks = ", ".join("?" * len(names))
        for old in rows:
            values = [str(value) if name == "state" else value for name, value in zip(names, old, strict=False)]
            connection.execute(f"INSERT INTO kqueue_jobs ({', '.join(names)}) VALUES ({marks})", values)
        connection.execute("INSERT INTO kqueue_ticks VALUES ('hourly', ?)", (NOW,))
    connection.close()
    store = SqliteStore(path)
    assert [found.scheduled_for for found in store.get([old.id for old in rows])] == [tick, tick, None, None, None]
    assert (store.last_ticks(), store.added_ticks()) == ({"hourly": NOW}, {"hourly": ()})
    assert store.find_misdated(None, NOW, 9) == []
    store.close()


def test_jobs_of_a_file_of_version_1_go_all_new_ways(old_file, store):
    waiting, delayed, running, dead, retried = (old.id for old in OF_VERSION_1)
    assert store.settle([Finish(running, 1, NOW + 60)], NOW) == Settled()
    assert store.revive([dead], "once more", NOW, NOW)
    one = (Limit("t", running=1, starts=9, period=60.0),)
    taken = store.claim(Selection(("t",), None, one), Budget(jobs=9, job_s={"t": 0.0}), "w", NOW, False)
    assert ([found.id for found in taken.rows], taken.held) == ([retried], 2)
    # An old file may be a copy: its fences begin anew.
    assert store.settle([Die(retried, taken.rows[0].fence, "enough")], NOW + 1) == Settled()
    assert [due.id for due in store.admit(one[0], None, NOW, NOW, 9).dues] == [waiting]
    assert store.promote(NOW + 9, 9) == 1
    assert store.recover(NOW + 999, 3, 9) == (0, ())
    assert store.expire(NOW + 60, 9) == 1
    assert [runs_of(found.history) for found in store.get([retried])] == [[Run("w", NOW + 1, "enough")]]
    assert {found.id: found.state for found in store.get([waiting, delayed, dead])} == {
        waiting: "ready", delayed: "ready", dead: "held",
    }  # fmt: skip
    assert store.purge("t", 9) == 4


def test_a_file_of_version_1_whose_migration_fails_is_left_as_it_is(old_file, store, monkeypatch):
    before = text(old_file, "SELECT name, sql FROM sqlite_master")
    broken = (*schema.STEPS[:1], (*schema.STEPS[1], "nonsense"))
    with monkeypatch.context() as patch:
        patch.setattr(
            "kqueue.stores.sqlite.file.connect.migrate", lambda connection: schema.migrate(connection, broken)
        )
        with pytest.raises(StoreError):
            store.open()
    assert text(old_file, "SELECT name, sql FROM sqlite_master") == before
    assert len(store.get([old.id for old in OF_VERSION_1])) == len(OF_VERSION_1)


def test_two_that_migrate_at_once_do_each_step_once(store, path):
    store.add([row(1)])
    barrier = threading.Barrier(4)

    def migrate(_):
        connection = sqlite3.connect(path, isolation_level=None, timeout=30)
        barrier.wait()
        schema.migrate(connection, NEXT)
        connection.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(migrate, range(4)))
    assert text(path, "SELECT colour FROM kqueue_jobs") == [(None,)]


def test_a_migration_that_fails_changes_nothing(store, outsider):
    store.add([row(1)])
    broken = (*schema.STEPS, ("ALTER TABLE kqueue_jobs ADD COLUMN colour TEXT", "nonsense"))
    with pytest.raises(sqlite3.OperationalError):
        schema.migrate(outsider, broken)
    outsider.execute("ROLLBACK")
    assert schema.version(outsider) == len(schema.STEPS)
    assert "colour" not in str(outsider.execute("PRAGMA table_info(kqueue_jobs)").fetchall())


@pytest.mark.parametrize("statement", [sql.CLAIM_RANGE, sql.SETTLE_DELETE, INSERT_NEW])
def test_no_change_of_a_row_makes_a_table_for_an_index(outsider, statement):
    """As SQLite does for an index whose WHERE has an IN of three: of each row, and twice where it is updated."""
    values = {**dict.fromkeys(["fence_floor", "alone", "start", "first", "last"], 0), "owner": "me"}
    if statement is not sql.CLAIM_RANGE:
        values = [0] * statement.count("?")
    codes = [code for _, code, *_ in outsider.execute(f"EXPLAIN {statement}", values)]
    assert "OpenWrite" in codes
    assert "OpenEphemeral" not in codes


def test_a_newer_file_is_refused_and_left_as_it_is(store, outsider, path):
    store.add([row(1)])
    schema.migrate(outsider, NEXT)
    newer = SqliteStore(path)
    for _ in range(2):
        with pytest.raises(StoreError, match=r"jobs\.db: its schema has version 8.*up to 7; upgrade kqueue"):
            newer.open()
    assert schema.version(outsider) == len(NEXT)


# -- what cannot be opened -------------------------------------------------------------------------------


def test_a_missing_folder_is_named(tmp_path):
    store = SqliteStore(tmp_path / "no" / "jobs.db")
    with pytest.raises(StoreUnavailable, match=r"no/jobs\.db: cannot be opened; its folder must exist"):
        store.open()
    (tmp_path / "no").mkdir()
    store.open()
    store.close()


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(StoreUnavailable, match="cannot be opened"):
        SqliteStore(tmp_path).counts()


def test_a_file_of_something_else_is_refused_and_left_as_it_is(path):
    path.write_bytes(b"a letter to a friend " * 100)
    with pytest.raises(StoreError, match=r"jobs\.db: is not an SQLite database"):
        SqliteStore(path).counts()
    assert path.read_bytes() == b"a letter to a friend " * 100


def test_a_full_disk_is_named_and_leaves_the_store_usable(store):
    store.add([row(1)])
    with store._file.read() as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(AddFailed, match=r"jobs\.db: has no room left on its disk") as failed:
        store.add([row(2), row(3, payload=b"x" * 100_000)])
    assert failed.value.not_taken == (row(2).id, row(3).id)
    store.add([row(4)])
    assert [found.id for found in claim(store).rows] == [row(1).id, row(4).id]


def no_locks(*_, **__):
    raise OSError(errno.ENOLCK, "No locks available")


@pytest.mark.parametrize("lack", ["system", "file system"])
def test_without_locks_of_file_descriptions_it_warns_once_and_looks_at_the_names(path, monkeypatch, caplog, lack):
    if lack == "system":
        monkeypatch.setattr("kqueue.stores.sqlite.file.ofd.SUPPORTED", False)
    else:
        monkeypatch.setattr("kqueue.stores.sqlite.file.ofd.try_lock", no_locks)
    store, other = SqliteStore(path), SqliteStore(path, create=False)
    store.add([row(1)])
    other.add([row(2)])
    store.close()
    assert store.counts()["ready"] == 2
    assert [message for message in caplog.messages if "no locks of open file descriptions" in message] == [
        f"{one.address}: this system or its file system has no locks of open file descriptions, so a copy of the"
        " file made by a process that uses it can lose jobs; use kqueue backup, or put the file on a local disk of"
        " a Linux"
        for one in (store, other)
    ]
    path.rename(path.with_name("moved.db"))
    for says in (LOST_FILE, GONE):
        with pytest.raises(AddFailed, match=says) as failed:
            store.add([row(3)])
        assert failed.value.not_taken == (row(3).id,)
    assert not path.exists()
    path.with_name("moved.db").rename(path)
    store.add([row(3)])
    assert store.counts()["ready"] == 3
    store.close()
    other.close()


def test_a_file_with_more_than_one_name_is_warned_of(store, path, caplog):
    store.add([row(1)])
    store.close()
    os.link(path, path.with_name("link.db"))
    assert store.counts()["ready"] == 1
    assert [message.partition(": ")[2] for message in caplog.messages] == [
        "the file has more than one name (hard links); use it by one of them only, as each has its own log"
    ]


def test_who_closes_last_leaves_an_empty_log(store, path):
    other = SqliteStore(path)
    store.add([row(1)])
    other.add([row(2)])
    log = path.with_name("jobs.db-wal")
    other.close()
    assert log.stat().st_size
    store.close()
    assert log.stat().st_size == 0
    assert len(open_files(path)) == 0


# -- forks -----------------------------------------------------------------------------------------------


def open_files(path):
    found = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            found.append(os.readlink(link))
        except FileNotFoundError:
            continue  # The listing's own.
    return [name for name in found if name.startswith(str(path))]


def test_no_connection_is_carried_across_a_fork(store, path):
    """SQLite keeps locks in the memory of a process; see kqueue/stores/sqlite/file/file.py."""
    store.add([row(1)])
    assert open_files(path)
    assert in_child(lambda: repr(open_files(path))) == "[]"
    store.add([row(2)])
    assert in_child(lambda: f"{store.counts()['ready']} ready") == "2 ready"


def test_a_fork_waits_for_the_transaction_in_progress(path):
    store = SqliteStore(path, busy_timeout=30)
    inside, forking = threading.Event(), threading.Event()

    class Slow(Budget):
        def fit(self, candidates):
            inside.set()
            assert not forking.wait(0.2), "the fork did not wait"
            return super().fit(candidates)

    store.add([row(1)])
    with ThreadPoolExecutor(1) as pool:
        taken = pool.submit(store.claim, Selection(("t",)), Slow(jobs=1), "w", NOW, False)
        inside.wait()
        states = in_child(lambda: (forking.set(), str(store.counts()["running"]))[1])
        assert len(taken.result().rows) == 1
    assert states == "1"
    store.close()


def test_a_fork_that_python_was_not_told_of_is_refused_in_the_child(store):
    """Some servers fork in C. What the child would write could be lost, so it is told before it writes."""
    store.add([row(1)])
    libc = ctypes.PyDLL(None)

    def work():
        try:
            store.add([row(2)])
        except AddFailed as failed:
            return str(failed)
        return "added"

    assert "open the queue after the fork" in in_child(work, fork=libc.fork)
    store.add([row(3)])
    assert store.counts()["ready"] == 2


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # it is left to the collector
def test_a_store_that_nobody_uses_is_freed_and_forks_go_on(path):
    store = SqliteStore(path)
    store.add([row(1)])
    reference = weakref.ref(store)
    del store
    gc.collect()
    assert reference() is None
    assert in_child(lambda: "fine") == "fine"


def test_of_many_processes_that_open_a_new_file_at_once_all_can_use_it(tmp_path):
    """SQLite answers "locked" at once to all but one that switch a new file to write-ahead logging."""
    for attempt in range(20):
        store = SqliteStore(tmp_path / f"{attempt}.db", busy_timeout=30)
        gate, opener = os.pipe()
        children = [start_child(lambda: store.add([row(os.getpid())]), gate, opener) for _ in range(4)]  # noqa: B023
        os.close(opener)
        os.close(gate)
        assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
        assert store.counts()["ready"] == 4
        store.close()


def start_child(work, gate, opener):
    """Fork a child that works once every ``opener`` is closed, and exits with 0 if nothing went wrong."""
    child = os.fork()
    if child == 0:
        try:
            os.close(opener)
            os.read(gate, 1)
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return child
