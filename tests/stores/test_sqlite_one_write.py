"""SQLite ends runs and claims others in one transaction."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from kqueue.contracts.runs import Claim, RunsInOneWrite, Selection
from kqueue.contracts.settlements import Delete, Retry, Settled
from kqueue.model.errors import StoreError
from kqueue.model.job import Row
from kqueue.stores.memory.store import MemoryStore
from kqueue.stores.sqlite.store import SqliteStore
from kqueue.testing.contracts.rows import NOTHING, NOW, ONE, WIDE, add, claim, claimed_row, ids, row


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore(tmp_path / "jobs.db")) as store:
        store.open()
        yield store


@pytest.fixture
def commits(store: SqliteStore) -> Iterator[list[str]]:
    """Those of the store."""
    seen: list[str] = []
    connection: sqlite3.Connection = store._file._handles.get().connection
    connection.set_trace_callback(lambda text: seen.append(text) if text == "COMMIT" else None)
    yield seen
    connection.set_trace_callback(None)


def both(store: SqliteStore, *settlements: Any, owner: str = "me", limits: Any = ()) -> tuple[Settled, Claim]:
    return store.settle_and_claim(settlements, Selection(("t",), None, limits), WIDE, owner, NOW, alone=False)


def test_only_a_store_that_can_says_so(store: SqliteStore) -> None:
    assert isinstance(store, RunsInOneWrite)
    assert not isinstance(MemoryStore(), RunsInOneWrite)


@pytest.mark.parametrize("waiting", [0, 2])
def test_ends_and_a_claim_cost_one_commit(store: SqliteStore, commits: list[str], waiting: int) -> None:
    done, broken = claimed_row(store), claimed_row(store)
    added = add(store, *(row() for _ in range(waiting)))
    commits.clear()
    settled, got = both(store, Delete(done.id, 1), Retry(broken.id, 1, NOW + 9, "broken", NOW))
    assert commits == ["COMMIT"]
    assert settled == Settled()
    assert ids(got.rows) == added
    assert got.rows == store.get(added)
    [kept] = store.get([done.id, broken.id])
    assert (kept.state, kept.failures, kept.reason) == ("delayed", 1, "broken")


def test_a_claim_by_ids_says_what_is_due_later(store: SqliteStore) -> None:
    done = claimed_row(store)
    [later] = add(store, row(state="delayed", run_at=NOW + 5))
    settled, got = store.settle_and_claim(
        [Delete(done.id, 1)], Selection(("t",), (later,)), WIDE, "me", NOW, alone=False
    )
    assert (settled, got) == (Settled(), NOTHING._replace(later={later: NOW + 5}))
    assert store.get([done.id]) == []


def test_what_ends_frees_its_place_for_the_claim(store: SqliteStore) -> None:
    first, second = add(store, row(), row())
    assert ids(claim(store, first, limits=ONE).rows) == [first]
    settled, got = both(store, Delete(first, 1), limits=ONE)
    assert (settled, ids(got.rows)) == (Settled(), [second])


def test_where_some_ends_are_lost_they_are_named_and_the_rest_is_done(store: SqliteStore) -> None:
    done, taken = claimed_row(store), claimed_row(store)
    store.recover(NOW + 31, 3, 100)
    [again] = claim(store, taken.id, now=NOW + 31).rows
    [added] = add(store, row())
    settled, got = both(store, Delete(done.id, 1), Delete(taken.id, 1))
    assert settled == Settled(frozenset({taken.id}))
    assert store.get([done.id]) == []
    assert [one.fence for one in store.get([taken.id])] == [again.fence]
    assert added in ids(got.rows)


@pytest.mark.parametrize(("when", "is_done"), [("before", False), ("after", True)])
def test_a_commit_that_fails_leaves_both_or_neither_and_says_that_it_may_be_done(
    store: SqliteStore, when: str, is_done: bool
) -> None:
    done = claimed_row(store)
    [added] = add(store, row())
    handle = store._file._handles.get()
    connection, handle.connection = handle.connection, Committing(handle.connection, when)
    with pytest.raises(StoreError) as failed:
        both(store, Delete(done.id, 1))
    handle.connection = connection
    assert failed.value.may_be_done
    assert (store.get([done.id]) == []) is is_done
    assert ids(store.claimed_by("me")) == [added] * is_done


class Committing:
    """A connection whose next commit fails, before or after it was done."""

    def __init__(self, connection: Any, when: str) -> None:
        self._connection = connection
        self._when = when

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, statement: str, *values: Any) -> Any:
        if statement == "COMMIT":
            self._connection.execute("COMMIT" if self._when == "after" else "ROLLBACK")
            raise sqlite3.OperationalError("disk I/O error")
        return self._connection.execute(statement, *values)


def test_an_error_in_the_claim_takes_the_ends_back(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    done: Row = claimed_row(store)

    def broken(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("no such thing")

    monkeypatch.setattr("kqueue.stores.sqlite.store.take", broken)
    with pytest.raises(StoreError):
        both(store, Delete(done.id, 1))
    assert ids(store.get([done.id])) == [done.id]
