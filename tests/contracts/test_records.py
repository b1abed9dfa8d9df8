"""What a store keeps beside jobs: pauses and workers; and what it tells of them: the overview, who is ahead."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from kqueue.contracts.lookup import Backlog
from kqueue.contracts.operator import ALL_TYPES
from kqueue.contracts.settlements import Delete, Die, Finish, Unget
from kqueue.contracts.workers import WorkerRecord
from tests.contracts.rows import NOW, add, claim, claimed_row, delayed, ids, read, row, window

DAY_S = 86_400.0

# -- pauses ----------------------------------------------------------------------------------------------


def test_nothing_is_paused_at_first(store):
    assert store.paused() == {}
    assert not store.resume("t")
    assert not store.resume(ALL_TYPES)


def test_a_pause_is_seen_by_all_with_its_time_and_counts_once(store, other):
    assert store.pause("t", NOW + 0.1)
    assert not other.pause("t", NOW + 9)
    assert other.pause("a.b/c", NOW + 1)
    assert other.paused() == {"t": NOW + 0.1, "a.b/c": NOW + 1}
    assert other.resume("t")
    assert not store.resume("t")
    assert store.paused() == {"a.b/c": NOW + 1}
    assert store.pause("t", NOW + 5)
    assert other.paused()["t"] == NOW + 5


def test_the_pause_of_all_types_is_one_of_its_own(store, other):
    store.pause("t", NOW)
    assert store.pause(ALL_TYPES, NOW + 1)
    assert not other.pause(ALL_TYPES, NOW + 2)
    assert other.paused() == {"t": NOW, ALL_TYPES: NOW + 1}
    assert other.resume(ALL_TYPES)
    assert store.paused() == {"t": NOW}


def test_a_claim_does_not_look_at_pauses(store):
    store.pause("t", NOW)
    store.pause(ALL_TYPES, NOW)
    given = add(store, row())
    assert ids(claim(store).rows) == given


def test_pauses_outlive_the_handle(store, make_store):
    store.pause("t", NOW)
    store.close()
    assert make_store().paused() == {"t": NOW}


def test_of_many_that_pause_at_once_one_does(make_atomic_store):
    stores = [make_atomic_store() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(lambda store: store.pause("t", NOW), stores)) == 1
        assert sum(pool.map(lambda store: store.resume("t"), stores)) == 1


# -- workers ---------------------------------------------------------------------------------------------


def worker(id, **fields):
    plain = WorkerRecord(f"{id:0>28}", "host.example", 4711, ("a", "b"), NOW + 0.1, NOW + 0.2)
    return plain._replace(**fields)


def test_workers_are_told_as_they_were_seen_by_id(store, other):
    assert store.workers() == []
    second = worker("2", types=(), note='{"children": [1, 2]}', host="☃")
    first = worker("1", pid=2**22)
    store.see_worker(second)
    other.see_worker(first)
    assert store.workers() == other.workers() == [first, second]
    assert isinstance(store.workers()[0].types, tuple)


def test_a_worker_that_is_seen_again_stands_once(store, other):
    store.see_worker(worker("1"))
    again = worker("1", seen_at=NOW + 5, types=("c",), note='{"x": 1}')
    other.see_worker(again)
    assert store.workers() == [again]


def test_a_worker_that_left_is_forgotten(store, other):
    store.see_worker(worker("1"))
    store.see_worker(worker("2"))
    other.forget_worker(worker("1").id)
    other.forget_worker("0" * 28)
    assert store.workers() == [worker("2")]


def test_workers_that_were_not_heard_of_for_a_day_are_forgotten(store):
    late, fresh = worker("1", seen_at=NOW), worker("2", seen_at=NOW + 0.5, started_at=NOW - 9 * DAY_S)
    store.see_worker(late)
    store.see_worker(fresh)
    assert store.expire(NOW + DAY_S - 0.25, 100) == 0
    assert store.workers() == [late, fresh]
    assert store.expire(NOW + DAY_S, 100) == 0
    assert store.workers() == [fresh]


def test_many_workers_are_forgotten_in_lots(store):
    for number in range(5):
        store.see_worker(worker(str(number)))
    store.expire(NOW + 2 * DAY_S, 3)
    assert len(store.workers()) <= 2
    store.expire(NOW + 2 * DAY_S, 3)
    assert store.workers() == []


# -- the overview ----------------------------------------------------------------------------------------


def test_the_overview_tells_rows_by_type_and_state_and_the_earliest_time(store, other):
    assert store.overview() == []
    add(store, row(run_at=NOW - 5), row(run_at=NOW - 7.5), row(run_at=NOW), delayed(NOW + 9), delayed(NOW + 4))
    add(store, row(type="a", run_at=NOW - 1))
    claimed_row(store, type="x", run_at=NOW - 3)
    dead, done = claimed_row(store), claimed_row(store, run_at=NOW - 2)
    store.settle([Die(dead.id, 1, "enough"), Finish(done.id, 1, NOW + 9)], NOW)
    assert other.overview() == [
        Backlog("a", "ready", 1, NOW - 1),
        Backlog("t", "dead", 1, NOW),
        Backlog("t", "delayed", 2, NOW + 4),
        Backlog("t", "done", 1, NOW - 2),
        Backlog("t", "ready", 3, NOW - 7.5),
        Backlog("x", "running", 1, NOW - 3),
    ]
    assert {type(standing.state) for standing in other.overview()} == {str}


# -- who is ahead ----------------------------------------------------------------------------------------


def test_ahead_are_the_ready_rows_of_its_type_that_come_before(store, other):
    worse, a, b, best, _, _ = given = add(
        store, row(priority=900), row(), row(), row(priority=1), row(type="x", priority=0),
        delayed(NOW + 9, priority=0),
    )  # fmt: skip
    running = claimed_row(store, priority=0)
    assert [other.ahead(read(store, id), 100) for id in (best, a, b, worse)] == [0, 1, 2, 3]
    assert other.ahead(read(store, worse), 2) == 2
    assert other.ahead(read(store, worse), 0) == 0
    assert ids(claim(store, budget=window(jobs=4)).rows) == [best, a, b, worse]
    assert store.ahead(read(store, given[4]), 100) == store.ahead(running, 100) == 0


def test_of_a_row_that_is_not_ready_it_tells_who_would_be_before_it(store):
    add(store, row(priority=1), row())
    later, held = add(store, delayed(NOW + 9), row())
    claim(store, held)
    add(store, row(), row(priority=2))
    assert store.ahead(read(store, later), 100) == 3
    store.settle([Unget(held, 1, NOW, 3, None, started=False)], NOW)
    assert store.ahead(read(store, held), 100) == 2


def test_nobody_is_ahead_of_a_row_that_is_gone(store):
    add(store, row(priority=1))
    gone = claimed_row(store)
    store.settle([Delete(gone.id, 1)], NOW)
    assert store.ahead(gone, 100) == 0


@pytest.mark.parametrize("number", [0, 7])
def test_ahead_counts_no_further_than_asked(store, number):
    add(store, *(row(priority=1) for _ in range(20)))
    (last,) = add(store, row())
    assert store.ahead(read(store, last), number) == number
