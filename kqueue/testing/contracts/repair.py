"""What the sweep asks for: rows that lost their pointer, their worker or their time."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from kqueue.contracts.repair import Abandoned, Due, Head, Recovered
from kqueue.contracts.runs import Selection
from kqueue.contracts.settlements import Delete, Die, Unget
from kqueue.contracts.store import JobStore
from kqueue.model.job import State
from kqueue.testing.contracts.rows import (
    NOW,
    NUMBERS,
    WIDE,
    MakeStore,
    abandon,
    add,
    claimed_row,
    delayed,
    ids,
    read,
    row,
)


def test_one_sweep_in_an_interval(store: JobStore, other: JobStore) -> None:
    assert store.take_sweep(NOW, 15.0)
    assert not other.take_sweep(NOW, 15.0)
    assert not store.take_sweep(NOW + 14.9, 15.0)
    assert other.take_sweep(NOW + 15, 15.0)
    assert not store.take_sweep(NOW + 29.9, 15.0)


def test_a_last_sweep_in_the_future_does_not_count(store: JobStore, other: JobStore) -> None:
    assert store.take_sweep(NOW + 3600, 15.0)
    assert other.take_sweep(NOW, 15.0)
    assert not store.take_sweep(NOW + 1, 15.0)


def test_of_many_that_would_sweep_at_once_one_does(make_atomic_store: MakeStore) -> None:
    stores = [make_atomic_store() for _ in range(6)]
    barrier = threading.Barrier(len(stores))

    def take(store: JobStore) -> Any:
        won = []
        for number in range(5):
            barrier.wait()
            won.append(store.take_sweep(NOW + 100 * number, 15.0))
        return won

    with ThreadPoolExecutor(len(stores)) as pool:
        rounds = zip(*pool.map(take, stores), strict=True)
    assert [sum(won) for won in rounds] == [1] * 5


def test_promote_takes_the_earliest_that_are_due_and_no_more_than_it_may(store: JobStore, other: JobStore) -> None:
    late, early, middle, future = add(store, delayed(NOW), delayed(NOW - 9), delayed(NOW - 5), delayed(NOW + 0.001))
    assert store.promote(NOW, 2) == 2
    assert [job.state for job in other.get([early, middle])] == [State.READY] * 2
    assert [job.state for job in other.get([late, future])] == [State.DELAYED] * 2
    assert store.promote(NOW, 2) == 1
    assert store.promote(NOW, 2) == 0
    assert read(other, future).state == State.DELAYED


def test_find_due_finds_what_promote_would_make_ready_and_changes_nothing(store: JobStore, other: JobStore) -> None:
    later, second, first = add(store, delayed(NOW + 0.001), delayed(NOW, put_at=None), delayed(NOW - 9, type="x"))
    add(store, row())
    claimed_row(store)
    before = store.get([later, second, first])
    assert store.find_due(NOW, 10) == [Due(first, "x", 100, NOW - 9, NOW), Due(second, "t", 100, NOW, None)]
    assert ids(other.find_due(NOW, 1)) == [first]
    assert store.get([later, second, first]) == before
    assert store.promote(NOW, 10) == 2
    assert store.find_due(NOW, 10) == []


def test_promote_changes_nothing_but_the_state(store: JobStore) -> None:
    waiting = delayed(NOW - 5, put_at=NOW - 50, priority=7)
    add(store, waiting)
    store.promote(NOW, 1)
    assert read(store, waiting.id) == waiting._replace(state=State.READY)


def test_find_abandoned_finds_what_recover_would_take_and_changes_nothing(store: JobStore, other: JobStore) -> None:
    add(store, row(), delayed(NOW - 5))
    held = [claimed_row(store, ttr=30.0, alone=True), claimed_row(store, ttr=20.0, type="x", crashes=2)]
    claimed_row(store, ttr=30.001)
    given_back = claimed_row(store, ttr=10.0)
    store.settle([Unget(given_back.id, 1, NOW, None, NOW, started=False)], NOW)
    late, first = held
    found = store.find_abandoned(NOW + 30, 10)
    assert found == [
        Abandoned(first.id, "x", False, 2, first.lease_owner, NOW + 20),
        Abandoned(late.id, "t", True, 0, late.lease_owner, NOW + 30),
    ]
    assert [type(one.alone) for one in found] == [bool, bool]
    assert other.find_abandoned(NOW + 30, 1) == found[:1]
    assert store.get(ids(held)) == held
    assert store.recover(NOW + 30, 3, 10) == Recovered(2)
    assert store.find_abandoned(NOW + 30, 10) == []


def test_recover_leaves_a_lease_that_still_holds(store: JobStore) -> None:
    held = claimed_row(store)
    assert store.recover(NOW + 29.999, 3, 10) == Recovered(0)
    assert read(store, held.id) == held
    assert store.recover(NOW + 30, 3, 10) == Recovered(1)


def test_a_death_in_a_crowd_makes_suspects(store: JobStore, other: JobStore) -> None:
    rows = [row(), row()]
    add(store, *rows)
    assert abandon(store, *rows) == Recovered(2)
    for after in other.get(ids(rows)):
        assert (after.state, after.crashes, after.suspicion) == (State.READY, 0, 1)
        assert (after.fence, after.tries, after.failures) == (1, 1, 0)
        assert after.put_at is after.lease_until is None
        assert after.lease_owner
        assert after.reason


def test_a_death_alone_is_blamed_until_the_row_is_dead(store: JobStore) -> None:
    job = row()
    add(store, job)
    seen = []
    for death in range(3):
        recovered = abandon(store, job, alone=True, now=NOW + 100 * death)
        after = read(store, job.id)
        seen.append((recovered.ready, ids(recovered.died), after.state, after.crashes, after.suspicion))
    assert seen == [
        (1, [], State.READY, 1, 0),
        (1, [], State.READY, 2, 0),
        (0, [job.id], State.DEAD, 3, 0),
    ]
    assert read(store, job.id).reason


def test_each_of_two_sweeps_at_once_names_the_dead_that_it_has_written(store: JobStore, other: JobStore) -> None:
    jobs = [row() for _ in range(20)]
    add(store, *jobs)
    for job in jobs:
        assert store.claim(Selection(("t",), (job.id,)), WIDE, f"alone-{job.id}", NOW, True).rows
    with ThreadPoolExecutor(2) as pool:
        swept = list(pool.map(lambda handle: handle.recover(NOW + 31, 1, 100), [store, other]))
    assert sorted(id for one in swept for id in ids(one.died)) == sorted(ids(jobs))


def test_a_crowd_never_kills_however_often(store: JobStore) -> None:
    rows = [row(), row()]
    add(store, *rows)
    for death in range(5):
        for job in rows:
            assert store.claim(
                Selection(("t",), (job.id,)), WIDE, f"window-{next(NUMBERS)}", NOW + 100 * death, False
            ).rows
        assert store.recover(NOW + 100 * death + 31, 1, 10) == Recovered(2)


def test_recover_takes_no_more_than_it_may(store: JobStore) -> None:
    for _ in range(3):
        claimed_row(store)
    assert [store.recover(NOW + 31, 3, 2) for _ in range(3)] == [Recovered(2), Recovered(1), Recovered(0)]


def test_of_two_that_recover_at_once_each_row_is_taken_by_one(make_atomic_store: MakeStore) -> None:
    store, other = make_atomic_store(), make_atomic_store()
    for _ in range(20):
        claimed_row(store)
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda handle: handle.recover(NOW + 31, 3, 100), [store, other]))
    assert sum(result.ready for result in results) == 20
    assert store.counts()["ready"] == 20


def test_find_unput_finds_what_is_known_to_have_no_pointer(store: JobStore) -> None:
    ready, due, _later, put = add(
        store, row(put_at=None), delayed(NOW + 60, put_at=None), delayed(NOW + 60.001, put_at=None), row()
    )
    running, dead = claimed_row(store, put_at=None), claimed_row(store, put_at=None)
    store.settle([Die(dead.id, 1, "enough")], NOW)
    found = store.find_unput(NOW + 60, 10)
    assert set(ids(found)) == {ready, due}
    assert not {put, running.id} & set(ids(found))
    assert next(one for one in found if one.id == due) == Due(due, "t", 100, NOW + 60, None)
    assert len(store.find_unput(NOW + 60, 1)) == 1


def test_ready_types_are_those_with_a_ready_row(store: JobStore) -> None:
    claimed_row(store, type="running")
    add(store, row(type="b"), row(type="b"), row(type="a", put_at=None), delayed(NOW + 9, type="later"))
    assert store.ready_types("", 10) == ["a", "b"]


def test_ready_types_come_in_pages(store: JobStore, other: JobStore) -> None:
    types = sorted(["z", "a.b", "a", "ab", "a-b", *(f"m{number:03}" for number in range(30))])
    add(store, *(row(type=type) for type in types for _ in range(3)))
    claimed_row(store, type="c")
    found: list[str] = []
    pages = 0
    while page := other.ready_types(found[-1] if found else "", 7):
        assert len(page) <= 7
        found += page
        pages += 1
    assert found == types
    assert pages == 5
    assert other.ready_types("m0285", 10) == ["m029", "z"]
    assert other.ready_types("z", 10) == []


def test_the_position_of_a_sweep_is_remembered(store: JobStore, other: JobStore) -> None:
    store.keep_sweep_position("mail")
    store.keep_sweep_position("resize")
    assert other.sweep_position() == "resize"
    other.keep_sweep_position("")
    assert store.sweep_position() == ""
    assert store.setting("prefix", "p") == "p"


GRACE = 5.0
OLD = NOW - GRACE


@pytest.mark.parametrize(
    ("fields", "head", "lost"),
    [
        ({"put_at": OLD, "run_at": OLD}, None, True),
        ({"put_at": OLD + 0.001, "run_at": OLD}, None, False),
        ({"put_at": OLD, "run_at": OLD + 0.001}, None, False),
        ({"put_at": None, "run_at": OLD}, None, False),
        ({"put_at": OLD, "run_at": OLD, "priority": 99}, Head(100, OLD - 99), True),
        ({"put_at": OLD + 1, "run_at": OLD, "priority": 99}, Head(100, OLD - 99), False),
        ({"put_at": OLD, "run_at": OLD, "priority": 101}, Head(100, NOW), False),
        ({"put_at": NOW - 100, "run_at": OLD}, Head(100, NOW - 100 + GRACE), False),
        ({"put_at": NOW - 100, "run_at": OLD}, Head(100, NOW - 99.5 + GRACE), True),
        ({"put_at": NOW - 100, "run_at": OLD}, Head(100, NOW - 200), False),
        ({"put_at": OLD + 1, "run_at": OLD}, Head(100, NOW + 100), False),
    ],
    ids=[
        "an empty tube, at the grace",
        "put within the grace",
        "due within the grace",
        "never put",
        "of a better priority than the head",
        "of a better priority, but put just now",
        "of a worse priority than the head",
        "put before the head by just the grace",
        "put before the head by more than the grace",
        "put after the head",
        "put before the head, but just now",
    ],
)
def test_the_head_rule(store: JobStore, fields: dict[str, Any], head: Head | None, lost: bool) -> None:
    job = row(**{"priority": 100, **fields})
    add(store, job)
    found = store.find_lost({"t": head}, NOW, GRACE, 10)
    assert found == ([Due(job.id, "t", job.priority, job.run_at, job.put_at)] if lost else [])


def test_only_ready_rows_of_the_type_are_lost(store: JobStore) -> None:
    old: dict[str, Any] = {"put_at": NOW - 100, "run_at": NOW - 100}
    add(store, row(type="other", **old), row(state=State.DELAYED, **old))
    claimed_row(store, **old)
    assert store.find_lost({"t": None}, NOW, GRACE, 10) == []
    store.promote(NOW, 10)
    assert len(store.find_lost({"t": None}, NOW, GRACE, 10)) == 1


def test_lost_rows_come_best_priority_first_and_no_more_than_asked(store: JobStore) -> None:
    old = {"run_at": NOW - 100}
    beside, worst, middle, best = add(
        store,
        row(priority=9, put_at=NOW - 100, **old),
        row(priority=10, put_at=NOW - 100, **old),
        row(priority=5, put_at=NOW - 20, **old),
        row(priority=1, put_at=NOW - 10, **old),
    )
    head = Head(9, NOW - 50)
    assert ids(store.find_lost({"t": head}, NOW, GRACE, 10)) == [best, middle, beside]
    assert ids(store.find_lost({"t": head}, NOW, GRACE, 2)) == [best, middle]
    assert ids(store.find_lost({"t": head._replace(priority=8)}, NOW, GRACE, 10)) == [best, middle]
    assert ids(store.find_lost({"t": None}, NOW, GRACE, 10)) == [best, middle, beside, worst]


def test_the_lost_of_many_types_are_found_at_once_each_by_its_own_head(store: JobStore, other: JobStore) -> None:
    old = NOW - GRACE
    heads = {
        "empty": None,
        "behind": Head(200, NOW),
        "beside": Head(100, NOW + 1),
        "before": Head(50, 0.0),
        "none": None,
    }
    (*_, second), (first, *_) = (
        add(store, *(row(type=type, priority=100, put_at=old, run_at=old) for type in types))
        for types in (["before", "beside", "empty"], ["behind", "unasked"])
    )
    (better,) = add(store, row(type="empty", priority=7, put_at=old, run_at=old))
    found = other.find_lost(dict(reversed(heads.items())), NOW, GRACE, 10)
    assert [due.type for due in found] == ["behind", "beside", "empty", "empty"]
    assert ids(found)[0] == first
    assert ids(found)[2:] == [better, second]
    assert ids(other.find_lost(heads, NOW, GRACE, 3)) == ids(found)[:3]
    assert other.find_lost({}, NOW, GRACE, 10) == []


def test_each_row_is_marked_by_one_sweep(store: JobStore, other: JobStore) -> None:
    unput, put, later = add(store, row(put_at=None), row(put_at=NOW - 100), delayed(NOW + 9, put_at=None))
    dues = [
        Due(unput, "t", 100, NOW, None),
        Due(put, "t", 100, NOW, NOW - 100),
        Due(later, "t", 100, NOW + 9, None),
    ]
    assert ids(store.mark(dues, NOW)) == [unput, put, later]
    assert other.mark(dues, NOW + 1) == []
    assert [job.put_at for job in other.get([unput, put, later])] == [NOW] * 3


def test_mark_leaves_what_has_changed_since_it_was_read(store: JobStore) -> None:
    running, dead, gone = (claimed_row(store, put_at=None) for _ in range(3))
    store.settle([Die(dead.id, 1, "enough"), Delete(gone.id, 1)], NOW)
    (still,) = add(store, row(put_at=None))
    dues = [Due(id, "t", 100, NOW, None) for id in (running.id, dead.id, gone.id, still)]
    assert ids(store.mark(dues, NOW)) == [still]
    assert [job.put_at for job in store.get([running.id, dead.id])] == [None, None]


def test_of_two_sweeps_at_once_each_row_is_marked_by_one(make_atomic_store: MakeStore) -> None:
    store, other = make_atomic_store(), make_atomic_store()
    rows = [row(put_at=None) for _ in range(100)]
    add(store, *rows)
    dues = store.find_unput(NOW, 1000)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda pair: pair[0].mark(dues, pair[1]), [(store, NOW + 1), (other, NOW + 2)])
    assert sorted(ids(first) + ids(second)) == sorted(ids(rows))
    marks = {job.id: job.put_at for job in store.get(ids(rows))}
    assert all(marks[due.id] == NOW + 1 for due in first)
    assert all(marks[due.id] == NOW + 2 for due in second)
