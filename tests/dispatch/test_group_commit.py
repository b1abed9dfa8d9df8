"""Threads that add at once share a commit, and each is told what became of its own rows alone."""

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from kqueue import AddFailed, KQueue, StoreUnavailable
from kqueue.dispatch import group_commit
from kqueue.dispatch.group_commit import GroupCommit
from kqueue.model.job import Row
from kqueue.stores.memory.store import MemoryStore
from kqueue.stores.sqlite.store import SqliteStore
from kqueue.system.clock import ManualClock, SystemClock
from kqueue.system.threads import Sleep
from tests.dispatch.sharing import Adder, Crowd, Gate, HeldStore, Stop, row, waiting
from tests.flows.processes import run_in_child
from tests.tubes import PATIENCE_S, await_true, run

THREADS = 8


@pytest.fixture
def store(tmp_path: Path) -> Iterator[HeldStore]:
    store = HeldStore(tmp_path / "jobs.db")
    store.open()
    yield store
    store.close()


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody loses patience on a slow machine, unless a test says so."""
    monkeypatch.setattr(group_commit, "PATIENCE_S", PATIENCE_S)


@pytest.fixture
def group(store: HeldStore) -> GroupCommit:
    return GroupCommit(store, SystemClock().monotonic)


# -- sharing ---------------------------------------------------------------------------------------------


def test_threads_that_add_while_a_commit_is_under_way_share_the_next_one(store: HeldStore) -> None:
    statements: list[str] = []
    store.connection().set_trace_callback(statements.append)
    gate = store.before[0] = Gate()
    ids: list[str] = []
    with KQueue(store) as queue:

        def add() -> None:
            ids.append(queue.add_job("t", 0))

        threads = [run(add)]
        gate.is_reached()
        threads += [run(add) for _ in range(THREADS - 1)]
        await_true(lambda: waiting(queue._parts.adding._group_commit) == THREADS - 1)
        statements.clear()
        gate.open()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert statements.count("COMMIT") == 2
        assert [len(batch) for batch in store.batches] == [1, THREADS - 1]
        assert sorted(ids) == store.there()


def test_any_store_is_asked_for_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    group = GroupCommit(store, SystemClock().monotonic)
    writes: list[int] = []
    gate, add = Gate(), store.add

    def held(rows: Sequence[Row]) -> None:
        writes.append(len(rows))
        gate.stand()
        add(rows)

    monkeypatch.setattr(store, "add", held)
    first = Adder(group, row())
    gate.is_reached()
    others = [Adder(group, row(), row()) for _ in range(THREADS)]
    await_true(lambda: waiting(group) == THREADS)
    gate.open()
    assert [adder.end().error for adder in [first, *others]] == [None] * (THREADS + 1)
    assert writes == [1, 2 * THREADS]
    assert store.counts()["ready"] == 1 + 2 * THREADS


def test_rows_of_a_shared_write_are_in_the_order_of_their_ids(group: GroupCommit, store: HeldStore) -> None:
    rows = [row() for _ in range(THREADS)]
    Crowd(group, store, *([one] for one in reversed(rows))).end()
    assert store.batches[1] == [one.id for one in rows]


def test_a_thread_that_is_alone_writes_by_itself(group: GroupCommit, store: HeldStore) -> None:
    for _ in range(3):
        assert Adder(group, row()).end().error is None
    assert [len(batch) for batch in store.batches] == [1, 1, 1]


def test_nobody_writes_for_others_twice(group: GroupCommit, store: HeldStore) -> None:
    """The one that has waited longest is the next to write, also where others come all the time."""
    writers: list[int] = []
    store.then = lambda rows: writers.append(threading.get_ident())
    crowd = Crowd(group, store, [row()])
    second = store.before[1] = Gate()
    crowd.gate.open()
    second.is_reached()
    late = [Adder(group, row()) for _ in range(2)]
    await_true(lambda: waiting(group) == 2)
    second.open()
    for adder in [*crowd.end(), *late]:
        adder.end()
    assert writers[:2] == [crowd.first.thread.ident, crowd.others[0].thread.ident]
    assert writers[2] in [adder.thread.ident for adder in late]
    assert [len(batch) for batch in store.batches] == [1, 1, 2]


def test_at_most_so_many_calls_are_written_together(
    group: GroupCommit, store: HeldStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "MOST_CALLS", 3)
    Crowd(group, store, *([row()] for _ in range(7))).end()
    assert [len(batch) for batch in store.batches] == [1, 3, 3, 1]


def test_many_rows_or_large_ones_are_written_by_themselves(group: GroupCommit, store: HeldStore) -> None:
    crowd = Crowd(group, store)
    for rows in ([row() for _ in range(group_commit.MOST_ROWS + 1)], [row(group_commit.MOST_BYTES + 1)]):
        assert Adder(group, *rows).end().error is None
    assert len(store.batches) == 3
    crowd.end()


def test_the_main_thread_neither_waits_for_others_nor_writes_for_them(group: GroupCommit, store: HeldStore) -> None:
    """Only there does a signal's handler raise."""
    crowd = Crowd(group, store, [row()], [row()])
    own = row()
    group.add([own])
    assert store.batches[1:] == [[own.id]]
    assert [adder.error for adder in crowd.end()] == [None, None]
    assert len(store.batches) == 3


def test_greenlets_share_nothing(group: GroupCommit, store: HeldStore) -> None:
    """Their locks are none of the system's: see tests/greenlets."""
    group._groups.get()._has_threads = False
    crowd = Crowd(group, store)
    assert Adder(group, row()).end().error is None
    crowd.end()


def test_a_unique_key_is_asked_for_by_each_alone(store: HeldStore) -> None:
    """Whether anything is added is known only then."""
    with KQueue(store) as queue:
        crowd = Crowd(queue._parts.adding._group_commit, store)
        ids: list[str] = []
        threads = [run(lambda: ids.append(queue.add_job("t", unique="k"))) for _ in range(3)]
        for thread in threads:
            thread.join(PATIENCE_S)
        assert len(set(ids)) == 1
        assert len(ids) == 3
        crowd.end()


# -- errors ----------------------------------------------------------------------------------------------


def test_an_id_that_is_taken_is_told_to_its_own_caller_alone(group: GroupCommit, store: HeldStore) -> None:
    there = row()
    SqliteStore.add(store, [there])
    crowd = Crowd(group, store, [row()], [there], [row(), row()])
    good, bad, also_good = crowd.end()
    assert [crowd.first.error, good.error, also_good.error] == [None, None, None]
    assert (bad.failed().taken, bad.failed().not_taken, bad.failed().unknown) == ((), (there.id,), ())
    assert not any(id in str(bad.error) for id in good.ids + also_good.ids)
    assert store.there() == sorted([there.id, *crowd.first.ids, *good.ids, *also_good.ids])


def test_a_row_that_is_too_large_spoils_its_own_add_alone(group: GroupCommit, store: HeldStore) -> None:
    store.connection().setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 20_000)
    good, bad = Crowd(group, store, [row()], [row(size=30_000)]).end()
    assert good.error is None
    assert bad.failed().not_taken == tuple(bad.ids)
    assert "too big" in str(bad.error)


def test_what_the_store_cannot_even_read_raises_what_it_raises_alone(group: GroupCommit, store: HeldStore) -> None:
    crowd = Crowd(group, store, [row()], [row(priority=2**70)])
    good, bad = crowd.end()
    assert good.error is None
    assert isinstance(bad.error, OverflowError)
    assert store.there() == sorted(crowd.first.ids + good.ids)


def test_on_a_full_disk_what_fits_is_added(group: GroupCommit, store: HeldStore) -> None:
    crowd = Crowd(group, store, *([row(size)] for size in (60_000, 2, 60_000, 2)))
    (pages,) = store.connection().execute("PRAGMA page_count").fetchone()
    store.connection().execute(f"PRAGMA max_page_count = {pages + 8}")
    large, small, also_large, also_small = crowd.end()
    assert [small.error, also_small.error] == [None, None]
    for adder in (large, also_large):
        assert (adder.failed().taken, adder.failed().not_taken) == ((), tuple(adder.ids))
        assert "no room left" in str(adder.error)
    assert store.there() == sorted(crowd.first.ids + small.ids + also_small.ids)


def test_a_file_that_is_locked_is_waited_for_once_and_told_to_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = HeldStore(tmp_path / "locked.db", busy_timeout=0.2)
    store.open()
    crowd = Crowd(GroupCommit(store, SystemClock().monotonic), store, [row()], [row(), row()])
    # So that what was waited for counts as a wait, and nobody comes too late.
    monkeypatch.setattr(Sleep, "wait", lambda sleep, _: sleep._lock.acquire())
    monkeypatch.setattr(group_commit, "PATIENCE_S", 0.05)
    other = sqlite3.connect(tmp_path / "locked.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    told = [*crowd.end(), crowd.first]
    other.close()
    for adder in told:
        assert (adder.failed().not_taken, adder.failed().unknown) == (tuple(adder.ids), ())
        assert "locked by another process for more than 0.2 s" in str(adder.error)
        assert isinstance(adder.failed().__cause__, StoreUnavailable)
    assert len({id(adder.error) for adder in told}) == len(told)
    assert [len(batch) for batch in store.batches] == [1, 3]
    store.close()


def test_a_store_that_is_gone_is_told_to_each(group: GroupCommit, store: HeldStore, tmp_path: Path) -> None:
    crowd = Crowd(group, store, [row()], [row()])
    os.rename(tmp_path / "jobs.db", tmp_path / "away.db")
    for adder in [*crowd.end(), crowd.first]:
        assert adder.failed().not_taken == tuple(adder.ids)
        assert isinstance(adder.failed().__cause__, StoreUnavailable)


def test_fates_that_differ_are_each_told_to_their_own(group: GroupCommit, store: HeldStore) -> None:
    """As a MongoDB has them, whose lists are no transactions."""
    taken, refused, unsure = [row()], [row()], [row(), row()]

    def fail(rows: Sequence[Row]) -> None:
        if len(rows) > 1:
            SqliteStore.add(store, [*taken, unsure[0]])
            raise AddFailed(
                f"the key of {refused[0].id} is another's",
                taken=[taken[0].id, unsure[0].id],
                not_taken=[refused[0].id],
                unknown=[unsure[1].id],
            )

    store.then = fail
    *good, bad = Crowd(group, store, taken, refused, unsure).end()
    assert [adder.error for adder in good] == [None, None]
    error = bad.failed()
    assert (error.taken, error.not_taken, error.unknown) == ((unsure[0].id,), (), (unsure[1].id,))
    assert refused[0].id not in f"{error} {error.__cause__} {error.__context__}"
    assert store.batches[2:] == [[refused[0].id]]  # made again, alone
    assert {taken[0].id, refused[0].id} <= set(store.there())


@pytest.mark.parametrize("kept", [1, 2], ids=["not all are found", "all are found"])
def test_a_store_that_raises_after_its_commit_is_not_asked_again(
    group: GroupCommit, store: HeldStore, kept: int
) -> None:
    """What is not found may have been run and deleted."""

    def fail(rows: Sequence[Row]) -> None:
        if len(rows) > 1:
            SqliteStore.add(store, rows[:kept])
            raise RuntimeError("a fault")

    store.then = fail
    first, second = Crowd(group, store, [row()], [row()]).end()
    assert first.error is None
    assert len(store.batches) == 2
    if kept == 2:
        assert second.error is None
    else:
        assert second.failed().unknown == tuple(second.ids)


# -- bad days --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_written", [False, True])
def test_an_exception_from_outside_in_the_one_that_writes_for_others(
    group: GroupCommit, store: HeldStore, is_written: bool
) -> None:
    """They neither wait for ever nor are told what is not so."""
    crowd = Crowd(group, store, [row()], [row()])
    gate = (store.after if is_written else store.before)[1] = Gate()
    crowd.gate.open()
    gate.is_reached()
    leader, other = crowd.others
    leader.interrupt()
    gate.open()
    crowd.end()
    assert isinstance(leader.error, Stop)
    if is_written:
        assert other.error is None
    else:
        assert (other.failed().unknown, other.failed().not_taken) == (tuple(other.ids), ())
        assert "interrupted" in str(other.error)
    assert (set(other.ids) <= set(store.there())) == is_written
    assert Adder(group, row()).end().error is None


def test_one_that_is_interrupted_while_it_waits_is_not_added(group: GroupCommit, store: HeldStore) -> None:
    """And the one behind it does not wait for it to begin."""
    crowd = Crowd(group, store, [row()], [row()])
    struck, other = crowd.others
    struck.interrupt()  # it is seen once the wait ends
    crowd.end()
    assert isinstance(struck.error, Stop)
    assert other.error is None
    assert store.there() == sorted(crowd.first.ids + other.ids)


def test_nobody_waits_for_ever_for_one_that_wakes_nobody(
    group: GroupCommit, store: HeldStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two exceptions from outside may come at once, and the second into what the first has it do."""
    crowd = Crowd(group, store, [row()], [row()], [row()])
    monkeypatch.setattr(group_commit, "PATIENCE_S", 0.01)
    monkeypatch.setattr(Sleep, "wake", lambda sleep: None)
    wait = Sleep.wait
    monkeypatch.setattr(Sleep, "wait", lambda sleep, seconds: wait(sleep, 0.01))
    # Those that had begun to wait before are woken so that they see the shorter time.
    for call in list(group._groups.get()._waiting):
        call.sleep._lock.release()
    assert [adder.error for adder in crowd.end()] == [None] * 3


def test_who_waits_too_long_for_a_write_goes_by_itself(
    group: GroupCommit, store: HeldStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the store's time-outs hold."""
    monkeypatch.setattr(group_commit, "PATIENCE_S", 0.01)
    gate = store.before[0] = Gate()
    first = Adder(group, row())
    gate.is_reached()
    others = [Adder(group, row()) for _ in range(3)]
    assert [adder.end().error for adder in others] == [None] * 3
    assert [len(batch) for batch in store.batches] == [1] * 4
    gate.open()
    assert first.end().error is None


def test_an_add_within_the_write_of_ones_own_thread_does_not_wait_for_itself(
    group: GroupCommit, store: HeldStore
) -> None:
    """A finalizer, or a handler of the log, may add a job."""
    inner = row()

    def nest(rows: Sequence[Row]) -> None:
        if rows[0].id != inner.id:
            store.then = len
            group.add([inner])

    store.then = nest
    outer = Adder(group, row()).end()
    assert outer.error is None
    assert store.there() == sorted([inner.id, *outer.ids])


def test_a_fork_while_others_wait(group: GroupCommit, store: HeldStore) -> None:
    crowd = Crowd(group, store, [row()], [row()])
    store.before.clear()  # the child passes
    crowd.gate.open()
    store.after[1] = Gate()
    store.after[1].is_reached()
    late = Adder(group, row())
    await_true(lambda: waiting(group) == 1)
    child = row()
    assert run_in_child(lambda: _add_in_a_thread(group, child)) == 0
    store.after[1].open()
    assert [adder.error for adder in [*crowd.end(), late.end()]] == [None] * 3
    assert store.there() == sorted(
        [*crowd.first.ids, *crowd.others[0].ids, *crowd.others[1].ids, *late.ids, child.id]
    )


def _add_in_a_thread(group: GroupCommit, row: Row) -> None:
    assert Adder(group, row).end().error is None


def test_a_close_meanwhile(group: GroupCommit, store: HeldStore) -> None:
    """The next write opens again, as each add does."""
    crowd = Crowd(group, store, [row()], [row()])
    store.close()
    assert [adder.error for adder in [*crowd.end(), crowd.first]] == [None] * 3
    assert len(store.there()) == 3


def test_what_is_not_seen_for_a_fault_of_the_store_is_unknown(
    group: GroupCommit, store: HeldStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(rows: Sequence[Row]) -> None:
        if len(rows) > 1:
            monkeypatch.setattr(store, "get", refuse)
            raise RuntimeError("a fault")

    def refuse(ids: Sequence[str]) -> list[Row]:
        raise StoreUnavailable("away")

    store.then = fail
    adders = Crowd(group, store, [row()], [row()]).end()
    assert [adder.failed().unknown for adder in adders] == [tuple(adder.ids) for adder in adders]


def test_the_clock_of_the_queue_says_how_long_was_waited(store: HeldStore) -> None:
    clock = ManualClock()
    group = GroupCommit(store, clock.monotonic)

    def fail(rows: Sequence[Row]) -> None:
        if len(rows) > 1:
            clock.advance(PATIENCE_S + 1)
            raise AddFailed("no job was added: away", not_taken=[one.id for one in rows])

    store.then = fail
    adders = Crowd(group, store, [row()], [row()]).end()
    assert [adder.failed().not_taken for adder in adders] == [tuple(adder.ids) for adder in adders]
    assert len(store.batches) == 2
