"""Results in a SQLite file: what they cost, where they go, and a file of the version before."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from kqueue.contracts.budget import Budget
from kqueue.contracts.runs import Selection
from kqueue.contracts.settlements import Delete, Finish, Settled
from kqueue.model.job import Row
from kqueue.stores.sqlite import schema
from kqueue.stores.sqlite.store import SqliteStore
from kqueue.testing.contracts.rows import NOW, row
from tests.stores.stray_payloads import stray_payloads

#: What the version before named in its adds and claims.
OLD_ADD = """
    INSERT INTO kqueue_jobs (
        id, type, payload_or_size, payload_encoding, priority, state, delay, run_at, ttr, fence, tries, failures,
        crashes, suspicion, alone, created_at, put_at, retries
    ) VALUES (?, 't', '1', 'json', 1, 'ready', 0, 0, 30, 0, 0, 0, 0, 0, 0, 0, NULL, '{"max_tries":7}')
"""
OLD_CANDIDATES = "SELECT job.key, job.retries FROM kqueue_jobs AS job WHERE job.state = 'ready' AND job.type = 't'"
OLD_DELETE = "DELETE FROM kqueue_jobs WHERE id = ?"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest.fixture
def old(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection of the version before, which stays open."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        schema.migrate(connection, schema.STEPS[:6])
        yield connection


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore(path)) as store:
        yield store


def claim(store: SqliteStore) -> list[Row]:
    return store.claim(Selection(("t",)), Budget(99, job_s={"t": 0.0}), "w", NOW, False).rows


def test_what_the_version_before_has_added_runs_as_it_was_added(
    old: sqlite3.Connection, store: SqliteStore
) -> None:
    old.execute(OLD_ADD, ("0" * 28,))
    assert [job.own_options for job in claim(store)] == ['{"max_tries":7}']


def test_a_process_of_the_version_before_claims_and_adds_nothing_more_and_leaves_no_result_behind(
    old: sqlite3.Connection, store: SqliteStore
) -> None:
    kept, waiting = row(), row(own_options='{"keep_done":60.0}')
    store.add([kept])
    (held,) = claim(store)
    assert store.settle([Finish(held.id, held.fence, NOW + 60, None, b"j1")], NOW) == Settled()
    store.add([waiting])
    with pytest.raises(sqlite3.OperationalError, match=r"no such column: job\.retries"):
        old.execute(OLD_CANDIDATES)
    with pytest.raises(sqlite3.OperationalError, match="no column named retries"):
        old.execute(OLD_ADD, ("1" * 28,))
    assert [job.result for job in store.get([kept.id])] == [b"j1"]
    assert old.execute(OLD_DELETE, (kept.id,)).rowcount == 1
    assert stray_payloads(old) == []
    assert old.execute("SELECT count(*) FROM kqueue_results").fetchall() == [(0,)]


@pytest.mark.parametrize("done", range(len(schema.STEPS[6])))
def test_a_migration_that_ends_in_the_midst_has_changed_nothing(
    old: sqlite3.Connection, path: Path, done: int
) -> None:
    old.execute(OLD_ADD, ("0" * 28,))
    with closing(sqlite3.connect(path, isolation_level=None)) as dying:
        dying.execute("BEGIN IMMEDIATE")
        for statement in schema.STEPS[6][: done + 1]:
            dying.execute(statement)
    assert schema.version(old) == 6
    assert len(old.execute(OLD_CANDIDATES).fetchall()) == 1
    with closing(SqliteStore(path)) as store:
        assert len(claim(store)) == 1


def test_what_keeps_nothing_sends_no_statement_more(store: SqliteStore) -> None:
    """And what keeps its end, and no result, none for a result, but that it has ended."""
    store.add([row(), row()])
    first, second = claim(store)
    said: list[str] = []
    with store._file.read() as connection:
        connection.set_trace_callback(said.append)
    store.settle([Delete(first.id, first.fence), Finish(second.id, second.fence, NOW + 60)], NOW)
    assert [text.split("(")[0].strip() for text in said if "INSERT" in text] == [
        "INSERT OR REPLACE INTO kqueue_ends"
    ]
    assert [text for text in said if "kqueue_results" in text] == []
