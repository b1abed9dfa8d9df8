"""Payloads of a SQLite store that stand apart from their rows: what is written and read, and what goes with it."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from kqueue.contracts.admission import Limit
from kqueue.contracts.budget import Budget
from kqueue.contracts.intake import Tick
from kqueue.contracts.repair import Recovered
from kqueue.contracts.runs import LeaseKey, Selection
from kqueue.contracts.settlements import Delete, Die, Finish, Retry, Settled, Unget
from kqueue.model.errors import AddFailed, StoreError
from kqueue.model.job import Row, State
from kqueue.stores.sqlite import schema
from kqueue.stores.sqlite import statements as sql
from kqueue.stores.sqlite.intake import MANY
from kqueue.stores.sqlite.payloads import APART, MOST_IN_ROW, PUT_APART
from kqueue.stores.sqlite.store import SqliteStore
from kqueue.testing.contracts.rows import add_unique
from tests.stores.stray_payloads import stray_payloads

NOW = 1_700_000_000.0
BUDGET = Budget(jobs=1000, job_s={"t": 0.0, "u": 0.0})
#: Bytes: none, the last that stays in its row, the first that does not, and what fills many pages.
SIZES = (0, 1, MOST_IN_ROW, MOST_IN_ROW + 1, 10_000, 100_000)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore(path, busy_timeout=0.05)) as store:
        yield store


def row(number: int, size: int = 10_000, **fields: object) -> Row:
    payload = os.urandom(size)
    plain = Row(f"{number:028d}", "t", payload, "bytes", 100, State.READY, 0.0, NOW, 30.0, created_at=NOW)
    return plain._replace(**fields)


def claim(
    store: SqliteStore, *ids: str, types: tuple[str, ...] = ("t",), limits: tuple[Limit, ...] = ()
) -> list[Row]:
    return store.claim(Selection(types, ids or None, limits), BUDGET, "w", NOW, False).rows


def payloads(rows: list[Row]) -> dict[str, bytes]:
    return {one.id: one.payload for one in rows}


def look(path: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def strays(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return stray_payloads(connection)


# -- where they are --------------------------------------------------------------------------------------

#: Each way to read a row with its payload.
READS: dict[str, Callable[[SqliteStore, list[str]], list[Row]]] = {
    "get": lambda store, ids: store.get(ids),
    "find": lambda store, ids: store.find("t", "ready", None, 99),
    "claim what is ready": lambda store, ids: claim(store),
    "claim by ids": lambda store, ids: claim(store, *ids),
    "claim of several types": lambda store, ids: claim(store, types=("t", "u")),
    "claim under a limit": lambda store, ids: claim(store, limits=(Limit("t", running=99),)),
    "claimed by": lambda store, ids: [store.claimed_by("w"), claim(store), store.claimed_by("w")][-1],
    "claimed by a process": lambda store, ids: [claim(store), store.claimed_by_process("w")][-1],
}


@pytest.mark.parametrize("read", READS)
def test_a_payload_of_any_length_is_read_as_it_was_added(store: SqliteStore, path: Path, read: str) -> None:
    rows = [row(number, size) for number, size in enumerate(SIZES)]
    rows += [row(100 + number, size, failures=1) for number, size in enumerate(SIZES)]
    store.add(rows[: len(SIZES)])
    store.add(rows[len(SIZES) :])
    found = READS[read](store, [one.id for one in rows])
    assert payloads(found) == payloads(rows)
    apart = [size for size in SIZES if size > MOST_IN_ROW]
    assert look(path, "SELECT length(payload) FROM kqueue_payloads ORDER BY key") == [(size,) for size in apart * 2]
    assert strays(path) == []


def test_those_of_unique_jobs_and_of_ticks_stand_apart_too(store: SqliteStore, path: Path) -> None:
    unique, tick = row(1, unique_key="k"), row(2, scheduled_for=NOW)
    assert add_unique(store, unique) == unique.id
    assert add_unique(store, row(3, unique_key="k")) == unique.id
    assert store.add_tick(Tick("hourly", None, NOW), [tick])
    assert not store.add_tick(Tick("hourly", None, NOW), [row(4)])
    assert payloads(store.get([unique.id, tick.id])) == payloads([unique, tick])
    assert look(path, "SELECT count(*) FROM kqueue_payloads") == [(2,)]
    assert strays(path) == []


def test_a_list_that_is_refused_leaves_no_payload(store: SqliteStore, path: Path) -> None:
    rows = [row(number) for number in range(MANY + 1)]
    with pytest.raises(AddFailed):
        store.add([*rows, rows[0]])
    assert look(path, "SELECT count(*) FROM kqueue_payloads") == [(0,)]


@pytest.mark.parametrize("analyzed", [False, True], ids=["no statistics", "statistics"])
@pytest.mark.parametrize(
    ("statement", "values"),
    [
        (sql.GET, {"ids": '["a"]'}),
        (sql.CANDIDATES_BY_ID, {"ids": '["a"]', "types": '["t"]', "now": NOW}),
        (sql.CANDIDATES_OF_TYPE, {"type": "t"}),
        (sql.CANDIDATES_AT, {"keys": "[1]"}),
        (sql.CLAIMED_BY, ("w",)),
        (sql.FINDS["dead"], {"type": None, "after": "", "most": 9}),
        (PUT_APART, (b"", "a")),
    ],
)
def test_a_payload_is_found_by_its_rows_key(
    store: SqliteStore, path: Path, statement: str, values: object, analyzed: bool
) -> None:
    store.add([row(number) for number in range(30)])
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        if analyzed:
            connection.execute("ANALYZE")
            connection.execute("ANALYZE sqlite_master")
        steps = [step for *_, step in connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)]  # type: ignore[arg-type]
    if statement == PUT_APART:
        assert steps == ["SEARCH kqueue_jobs USING COVERING INDEX sqlite_autoindex_kqueue_jobs_1 (id=?)"]
    else:
        assert "SEARCH apart USING INTEGER PRIMARY KEY (rowid=?)" in steps


# -- they go with their jobs -----------------------------------------------------------------------------


def by_settling(store: SqliteStore, rows: list[Row]) -> None:
    for part in (rows[:1], rows[1:]):
        claimed = claim(store, *[one.id for one in part])
        assert store.settle([Delete(one.id, one.fence) for one in claimed], NOW) == Settled()


def by_expiring(store: SqliteStore, rows: list[Row]) -> None:
    store.settle([Finish(one.id, one.fence, NOW + 1) for one in claim(store)], NOW)
    assert store.expire(NOW + 1, 99) == len(rows)


def by_another_program(store: SqliteStore, rows: list[Row]) -> None:
    with closing(sqlite3.connect(store._file.path)) as connection, connection:
        connection.execute("DELETE FROM kqueue_jobs")


ENDS: dict[str, Callable[[SqliteStore, list[Row]], object]] = {
    "settle": by_settling,
    "delete": lambda store, rows: store.delete([one.id for one in rows]),
    "purge": lambda store, rows: store.purge("t", 99),
    "expire": by_expiring,
    "another program": by_another_program,
}


@pytest.mark.parametrize("end", ENDS)
def test_a_payload_goes_with_its_job(store: SqliteStore, path: Path, end: str) -> None:
    rows = [row(number, size) for number, size in enumerate(SIZES)]
    store.add(rows)
    ENDS[end](store, rows)
    assert look(path, "SELECT count(*) FROM kqueue_jobs") == look(path, "SELECT count(*) FROM kqueue_payloads")
    assert sum(store.counts().values()) == 0


def test_a_payload_stays_while_its_job_does(store: SqliteStore, path: Path) -> None:
    rows = [row(number) for number in range(6)]
    store.add(rows)
    taken = claim(store)
    assert not store.renew([LeaseKey(taken[0].id, 1, 30.0)], NOW)
    ends = [
        Retry(taken[1].id, 1, NOW, "again", None),
        Unget(taken[2].id, 1, NOW, None, None, False, None),
        Finish(taken[3].id, 1, NOW + 9),
        Die(taken[4].id, 1, "enough"),
    ]
    assert store.settle(ends, NOW) == Settled()
    store.revive([taken[4].id], "once more", NOW, None)
    assert store.recover(NOW + 60, 3, 9) == Recovered(2)
    assert payloads(store.get([one.id for one in rows])) == payloads(rows)
    # What has a newer fence is not touched, nor is its payload.
    assert store.settle([Delete(taken[1].id, 9)], NOW).lost == {taken[1].id}
    assert payloads(store.get([taken[1].id])) == payloads([rows[1]])
    assert strays(path) == []


# -- what is written -------------------------------------------------------------------------------------

#: A page in the log.
PAGE = 4096 + 24


def written(store: SqliteStore, work: Callable[[], object]) -> int:
    """Bytes that reach the log; what of them is the last of its page reaches the file too."""
    log = Path(f"{store._file.path}-wal")
    with store._file.read() as connection:
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    work()
    return log.stat().st_size


#: Jobs of a window, and the bytes for each that may be written from its claim to its end, by the length of its
#: payload. While payloads stood in their rows it was 42,000 and 237,000.
WINDOW = 50
MOST_WRITTEN = {10_000: 1500, 50_000: 2500}


@pytest.mark.parametrize("size", MOST_WRITTEN)
def test_a_run_writes_no_payload(store: SqliteStore, size: int) -> None:
    store.add([row(number, size) for number in range(WINDOW)])

    def run() -> None:
        store.settle([Delete(one.id, one.fence) for one in claim(store)], NOW)

    assert written(store, run) <= MOST_WRITTEN[size] * WINDOW
    assert sum(store.counts().values()) == 0


#: Of one that runs in a window of its own: some pages for the claim, some for its end, whatever its payload.
ALONE_PAGES = 16


def test_a_run_of_one_job_writes_some_pages(store: SqliteStore) -> None:
    store.add([row(number) for number in range(50)])

    def run() -> None:
        (one,) = claim(store, row(0).id)
        store.settle([Delete(one.id, one.fence)], NOW)

    assert written(store, run) <= ALONE_PAGES * PAGE


def test_a_job_that_is_tried_again_writes_no_payload(store: SqliteStore) -> None:
    store.add([row(number) for number in range(WINDOW)])

    def run() -> None:
        store.settle([Retry(one.id, one.fence, NOW, "again", None) for one in claim(store)], NOW)

    assert written(store, run) <= 2 * MOST_WRITTEN[10_000] * WINDOW


# -- files of the version before -------------------------------------------------------------------------

BEFORE = schema.STEPS[:3]
#: As the version before wrote them.
OLD_FIELDS = [name for name in Row._fields if name not in {"own_options", *APART}]
OLD_ADD = f"INSERT INTO kqueue_jobs ({', '.join(OLD_FIELDS)}) VALUES ({', '.join('?' * len(OLD_FIELDS))})"
OLD_CANDIDATES = """
    SELECT job.key, job.id, job.payload FROM kqueue_jobs AS job
    WHERE job.state = 'ready' AND job.type = :type ORDER BY job.priority, job.key
"""
OLD_CLAIM = """
    UPDATE kqueue_jobs SET
        state = 'running', fence = fence + 1, tries = tries + 1, lease_owner = 'old', lease_until = ?
    WHERE key = ?
"""
OLD_DELETE = "DELETE FROM kqueue_jobs WHERE id = ? AND fence = ? AND lease_owner IS NOT NULL"


@pytest.fixture
def old(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection of the version before to a file of its own, which stays open."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        schema.migrate(connection, BEFORE)
        yield connection


def old_values(row: Row) -> tuple[Any, ...]:
    values = row._asdict() | {"state": str(row.state)}
    return tuple(values[name] for name in OLD_FIELDS)


def old_rows(connection: sqlite3.Connection) -> list[Row]:
    rows = [row(number, size) for number, size in enumerate(SIZES)]
    connection.executemany(OLD_ADD, map(old_values, rows))
    return rows


def test_a_file_of_the_version_before_is_not_rewritten_and_its_jobs_run(
    old: sqlite3.Connection, store: SqliteStore, path: Path
) -> None:
    rows = old_rows(old)
    old.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    store.open()
    assert Path(f"{path}-wal").stat().st_size < 20 * PAGE
    new = [row(100 + number, size) for number, size in enumerate(SIZES)]
    store.add(new)
    assert payloads(store.get([one.id for one in rows + new])) == payloads(rows + new)
    assert look(path, "SELECT count(*) FROM kqueue_payloads") == [(3,)]
    taken = claim(store)
    assert payloads(taken) == payloads(rows + new)
    store.settle([Retry(one.id, one.fence, NOW, "again", None) for one in taken], NOW)
    taken = claim(store)
    assert payloads(taken) == payloads(rows + new)
    assert store.settle([Delete(one.id, one.fence) for one in taken], NOW) == Settled()
    assert look(path, "SELECT count(*) FROM kqueue_payloads") == [(0,)]


def test_a_process_of_the_version_before_claims_and_adds_nothing_more_and_settles_what_it_runs(
    old: sqlite3.Connection, store: SqliteStore, path: Path
) -> None:
    rows = old_rows(old)
    ((key, id, _), *_) = old.execute(OLD_CANDIDATES, {"type": "t"}).fetchall()
    old.execute(OLD_CLAIM, (NOW + 30, key))
    store.open()
    store.add([row(100)])
    with pytest.raises(sqlite3.OperationalError, match=r"no such column: job\.payload"):
        old.execute(OLD_CANDIDATES, {"type": "t"})
    with pytest.raises(sqlite3.OperationalError, match="no column named payload"):
        old.execute(OLD_ADD, old_values(row(101)))
    assert old.execute(OLD_DELETE, (id, 1)).rowcount == 1
    # And what it deletes of those that are new takes its payload with it.
    assert old.execute("DELETE FROM kqueue_jobs WHERE id = ?", (row(100).id,)).rowcount == 1
    assert look(path, "SELECT count(*) FROM kqueue_payloads") == [(0,)]
    assert len(claim(store)) == len(rows) - 1


def test_a_process_that_has_a_file_open_which_a_newer_version_migrates_says_so_before_it_claims(
    store: SqliteStore, path: Path
) -> None:
    """As those of this version will, when the next one comes."""
    store.add([row(1), row(2)])
    (running,) = claim(store, row(1).id)
    newer = (*schema.STEPS, ("ALTER TABLE kqueue_jobs RENAME COLUMN payload_or_size TO elsewhere",))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        schema.migrate(connection, newer)
    said = (
        rf"jobs\.db: was migrated while this process had it open: its schema has version {len(newer)},"
        rf" and this KQueue knows versions up to {len(schema.STEPS)}; upgrade kqueue"
    )
    calls: list[Callable[[], object]] = [
        lambda: claim(store),
        lambda: claim(store, limits=(Limit("t", running=9),)),
        lambda: store.get([row(2).id]),
        lambda: store.add([row(3)]),
    ]
    for call in calls:
        with pytest.raises(StoreError, match=said):
            call()
    assert store.settle([Delete(running.id, running.fence)], NOW) == Settled()
    assert look(path, "SELECT id, state, fence FROM kqueue_jobs") == [(row(2).id, "ready", 0)]


@pytest.mark.parametrize("done", range(len(schema.STEPS[3])))
def test_a_migration_that_ends_in_the_midst_has_changed_nothing(
    old: sqlite3.Connection, path: Path, done: int
) -> None:
    rows = old_rows(old)
    with closing(sqlite3.connect(path, isolation_level=None)) as dying:
        dying.execute("BEGIN IMMEDIATE")
        for statement in schema.STEPS[3][: done + 1]:
            dying.execute(statement)
    assert schema.version(old) == len(BEFORE)
    assert len(old.execute(OLD_CANDIDATES, {"type": "t"}).fetchall()) == len(rows)
    with closing(SqliteStore(path)) as store:
        assert payloads(claim(store)) == payloads(rows)


@pytest.mark.parametrize(
    "broken",
    [
        "CREATE VIEW orders AS SELECT id FROM gone",
        "CREATE TABLE orders (id); CREATE TRIGGER sold AFTER INSERT ON orders BEGIN DELETE FROM gone; END",
    ],
)
def test_what_is_broken_of_a_users_own_schema_does_not_keep_a_file_from_being_opened(
    old: sqlite3.Connection, store: SqliteStore, broken: str
) -> None:
    old.executescript(broken)
    rows = old_rows(old)
    assert payloads(claim(store)) == payloads(rows)
