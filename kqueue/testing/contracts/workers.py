"""Which processes run jobs."""

from typing import Any

from kqueue.contracts.settlements import Delete
from kqueue.contracts.store import JobStore
from kqueue.contracts.workers import WorkerRecord
from kqueue.testing.contracts.rows import NOW, add, claim, ids, row

# -- workers ---------------------------------------------------------------------------------------------


def worker(id: str, **fields: Any) -> WorkerRecord:
    plain = WorkerRecord(f"{id:0>28}", "host.example", 4711, ("a", "b"), NOW + 0.1, NOW + 0.2)
    return plain._replace(**fields)


def test_workers_are_told_as_they_were_seen_by_id(store: JobStore, other: JobStore) -> None:
    assert store.workers() == []
    second = worker("2", types=(), note='{"children": [1, 2]}', host="☃")
    first = worker("1", pid=2**22)
    store.see_worker(second)
    other.see_worker(first)
    assert store.workers() == other.workers() == [first, second]
    assert isinstance(store.workers()[0].types, tuple)


def test_a_worker_that_is_seen_again_stands_once(store: JobStore, other: JobStore) -> None:
    store.see_worker(worker("1"))
    again = worker("1", seen_at=NOW + 5, types=("c",), note='{"x": 1}')
    other.see_worker(again)
    assert store.workers() == [again]


def test_a_worker_that_left_is_forgotten(store: JobStore, other: JobStore) -> None:
    store.see_worker(worker("1"))
    store.see_worker(worker("2"))
    other.forget_worker(worker("1").id)
    other.forget_worker("0" * 28)
    assert store.workers() == [worker("2")]


def test_workers_that_were_not_heard_of_for_a_day_are_forgotten(store: JobStore) -> None:
    late, fresh = worker("1", seen_at=NOW), worker("2", seen_at=NOW + 0.5, started_at=NOW - 9 * DAY_S)
    store.see_worker(late)
    store.see_worker(fresh)
    assert store.expire(NOW + DAY_S - 0.25, 100) == 0
    assert store.workers() == [late, fresh]
    assert store.expire(NOW + DAY_S, 100) == 0
    assert store.workers() == [fresh]


def test_many_workers_are_forgotten_in_lots(store: JobStore) -> None:
    for number in range(5):
        store.see_worker(worker(str(number)))
    store.expire(NOW + 2 * DAY_S, 3)
    assert len(store.workers()) <= 2
    store.expire(NOW + 2 * DAY_S, 3)
    assert store.workers() == []


# -- what each of them has -------------------------------------------------------------------------------


def test_what_a_process_has_claimed_is_told_by_how_its_owners_end(store: JobStore, other: JobStore) -> None:
    ours, late, settled, another, waiting = add(store, *(row() for _ in range(5)))
    claim(store, ours, owner="1-mine")
    claim(store, late, owner="2-mine", now=NOW - 50)
    claim(store, settled, owner="3-mine")
    claim(store, another, owner="4-else")
    store.settle([Delete(settled, 1)], NOW)
    assert sorted(other.claimed_by_process("-mine")) == sorted(store.get([ours, late]))
    assert ids(other.claimed_by_process("4-else")) == [another]
    assert other.claimed_by_process(".-mine") == other.claimed_by_process("nobody") == []
    store.recover(NOW, 3, 10)
    assert ids(other.claimed_by_process("-mine")) == [ours]
    assert store.get([waiting])[0].lease_owner is None


DAY_S = 86_400.0
