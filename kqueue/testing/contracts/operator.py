"""What an operator does: delete, revive, purge, pause."""

from concurrent.futures import ThreadPoolExecutor

from kqueue.contracts.operator import ALL_TYPES, JobChange
from kqueue.contracts.repair import Due
from kqueue.contracts.settlements import Delete, Die, Finish, Retry
from kqueue.contracts.store import JobStore
from kqueue.model.job import State
from kqueue.testing.contracts.rows import (
    NOW,
    MakeStore,
    abandon,
    add,
    claim,
    claimed_row,
    delayed,
    ids,
    read,
    row,
)

# -- delete, revive and purge ----------------------------------------------------------------------------


def test_delete_needs_no_fence_and_no_state(store: JobStore, other: JobStore) -> None:
    running, dead = claimed_row(store), claimed_row(store)
    store.settle([Die(dead.id, 1, "enough")], NOW)
    ready, later = add(store, row(), delayed(NOW + 9))
    assert other.delete([running.id, dead.id, ready, later, "0" * 28]) == 4
    assert other.delete([ready]) == 0
    assert sum(store.counts().values()) == 0
    result = store.settle([Delete(running.id, 1)], NOW)
    assert len(result.lost) + result.unnamed == 1


def test_no_claim_succeeds_after_a_delete(store: JobStore, other: JobStore) -> None:
    (id,) = add(store, row())
    store.delete([id])
    assert claim(other, id).rows == claim(other).rows == []


def test_revive_makes_dead_rows_ready_and_keeps_the_fence(store: JobStore, other: JobStore) -> None:
    held = claimed_row(store, put_at=None)
    store.settle([Retry(held.id, 1, NOW, "broken", None)], NOW)
    abandon(store, held, alone=True, max_crashes=1, now=NOW + 1)
    assert read(store, held.id).state == State.DEAD
    (waiting,) = add(store, row())
    (made,) = store.revive([waiting, held.id, "0" * 28], "once more", NOW + 60, NOW + 61)
    assert (made.id, made.type, made.priority, made.put_at) == (held.id, "t", 100, NOW + 61)
    after = read(other, held.id)
    assert (after.state, after.reason, after.put_at) == (State.READY, "once more", NOW + 61)
    assert (after.tries, after.failures, after.crashes, after.suspicion) == (0, 0, 0, 0)
    assert after.fence == 2
    assert after.run_at <= NOW + 60
    assert read(other, waiting).reason is None
    assert claim(other, held.id, now=NOW + 62).rows[0].fence == 3


def test_revive_can_leave_the_put_to_the_sweep(store: JobStore) -> None:
    held = claimed_row(store)
    store.settle([Die(held.id, 1, "enough")], NOW)
    assert [due.put_at for due in store.revive([held.id], "once more", NOW, None)] == [None]
    assert ids(store.find_unput(NOW, 10)) == [held.id]


def test_hasten_makes_delayed_rows_ready_and_changes_nothing_else(store: JobStore, other: JobStore) -> None:
    held = claimed_row(store)
    store.settle([Retry(held.id, 1, NOW + 900, "the server is down", None)], NOW)
    (ready,) = add(store, row())
    (later,) = add(store, delayed(NOW + 900))
    before, untouched = read(store, held.id), read(store, ready)
    made = other.hasten([held.id, ready, later, "0" * 28, held.id], NOW + 60, NOW + 61)
    assert [(due.id, due.type, due.priority, due.put_at) for due in made] == [
        (held.id, "t", 100, NOW + 61),
        (later, "t", 100, NOW + 61),
    ]
    expected = before._replace(state=State.READY, run_at=NOW + 60, put_at=NOW + 61, asked_at=NOW + 60)
    assert read(other, held.id) == expected
    assert read(other, ready) == untouched
    assert other.hasten([held.id], NOW + 70, None) == []
    assert sorted(one.id for one in claim(other, now=NOW + 62).rows) == sorted([held.id, ready, later])


PRIORITY = JobChange(7, None)


def test_change_gives_a_row_that_waits_another_priority_and_nothing_else(store: JobStore, other: JobStore) -> None:
    ready, later, far = add(store, row(), delayed(NOW + 9), delayed(NOW + 9000, put_at=None))
    before = store.get([ready, later, far])
    assert [store.change(id, PRIORITY, NOW + 1, NOW + 2, NOW + 3600) for id in (ready, later, far)] == [
        Due(ready, "t", 7, NOW, NOW + 2),
        Due(later, "t", 7, NOW + 9, NOW + 2),
        Due(far, "t", 7, NOW + 9000, None),
    ]
    put = [NOW + 2, NOW + 2, None]
    expected = [one._replace(priority=7, put_at=put_at) for one, put_at in zip(before, put, strict=True)]
    assert other.get([ready, later, far]) == expected


def test_change_gives_a_row_that_waits_another_time(store: JobStore, other: JobStore) -> None:
    ready, later, sooner, urgent = add(store, row(), delayed(NOW + 9), delayed(NOW + 900), delayed(NOW + 9))
    before = store.get([ready, later, sooner, urgent])
    times = [NOW + 60, NOW + 9000, NOW - 5, NOW]
    for one, time in zip(before, times, strict=True):
        assert store.change(one.id, JobChange(1 if one.id == urgent else None, time), NOW, NOW + 1, NOW + 3600)
    states = [State.DELAYED, State.DELAYED, State.READY, State.READY]
    put = [NOW + 1, None, NOW + 1, NOW + 1]
    expected = [
        one._replace(state=state, run_at=time, put_at=put_at, asked_at=NOW)
        for one, time, state, put_at in zip(before, times, states, put, strict=True)
    ]
    expected[3] = expected[3]._replace(priority=1)
    assert other.get([ready, later, sooner, urgent]) == expected
    assert ids(claim(other).rows) == [urgent, sooner]
    assert other.promote(NOW + 60, 9) == 1
    assert ids(claim(other, now=NOW + 60).rows) == [ready]


def test_change_leaves_what_runs_has_ended_or_is_gone(store: JobStore, other: JobStore) -> None:
    running, dead, done = claimed_row(store), claimed_row(store), claimed_row(store)
    store.settle([Die(dead.id, 1, "enough"), Finish(done.id, 1, NOW + 9)], NOW)
    given = [running.id, dead.id, done.id]
    before = store.get(given)
    assert [other.change(id, JobChange(7, NOW + 9), NOW, NOW, NOW + 3600) for id in (*given, "0" * 28)] == [
        None
    ] * 4
    assert store.get(given) == before


def test_a_row_that_is_changed_keeps_its_place_among_those_of_its_priority(store: JobStore) -> None:
    first, second, third = add(store, row(), row(priority=50), row())
    assert store.change(second, JobChange(100, NOW), NOW, NOW, NOW + 3600)
    assert ids(claim(store).rows) == [first, second, third]


def test_a_pointer_serves_its_row_only_at_the_priority_that_it_has(store: JobStore, other: JobStore) -> None:
    changed, same, later = add(store, row(), row(), delayed(NOW + 60))
    pointed = dict.fromkeys([changed, same, later], 100)
    for id in (changed, later):
        store.change(id, PRIORITY, NOW, NOW, NOW + 3600)
    got = claim(other, changed, later, same, pointed=pointed)
    assert (ids(got.rows), got.later) == ([same], {})
    got = claim(other, changed, later, pointed=dict.fromkeys([changed, later], 7))
    assert (ids(got.rows), got.later) == ([changed], {later: NOW + 60})


def test_purge_deletes_what_does_not_run_in_bounded_steps(store: JobStore, other: JobStore) -> None:
    running, dead = claimed_row(store), claimed_row(store)
    store.settle([Die(dead.id, 1, "enough")], NOW)
    add(store, row(), row(), delayed(NOW + 9))
    (neighbour,) = add(store, row(type="other"))
    assert [other.purge("t", 3), other.purge("t", 3), other.purge("t", 3)] == [3, 1, 0]
    assert store.counts("t") == {"delayed": 0, "ready": 0, "held": 0, "running": 1, "dead": 0, "done": 0}
    assert read(store, running.id) == running
    assert store.get([neighbour])


# -- pauses ----------------------------------------------------------------------------------------------


def test_nothing_is_paused_at_first(store: JobStore) -> None:
    assert store.paused() == {}
    assert not store.resume("t")
    assert not store.resume(ALL_TYPES)


def test_a_pause_is_seen_by_all_with_its_time_and_counts_once(store: JobStore, other: JobStore) -> None:
    assert store.pause("t", NOW + 0.1)
    assert not other.pause("t", NOW + 9)
    assert other.pause("a.b/c", NOW + 1)
    assert other.paused() == {"t": NOW + 0.1, "a.b/c": NOW + 1}
    assert other.resume("t")
    assert not store.resume("t")
    assert store.paused() == {"a.b/c": NOW + 1}
    assert store.pause("t", NOW + 5)
    assert other.paused()["t"] == NOW + 5


def test_the_pause_of_all_types_is_one_of_its_own(store: JobStore, other: JobStore) -> None:
    store.pause("t", NOW)
    assert store.pause(ALL_TYPES, NOW + 1)
    assert not other.pause(ALL_TYPES, NOW + 2)
    assert other.paused() == {"t": NOW, ALL_TYPES: NOW + 1}
    assert other.resume(ALL_TYPES)
    assert store.paused() == {"t": NOW}


def test_a_claim_does_not_look_at_pauses(store: JobStore) -> None:
    store.pause("t", NOW)
    store.pause(ALL_TYPES, NOW)
    given = add(store, row())
    assert ids(claim(store).rows) == given


def test_pauses_outlive_the_handle(store: JobStore, make_store: MakeStore) -> None:
    store.pause("t", NOW)
    store.close()
    assert make_store().paused() == {"t": NOW}


def test_of_many_that_pause_at_once_one_does(make_atomic_store: MakeStore) -> None:
    stores = [make_atomic_store() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(lambda store: store.pause("t", NOW), stores)) == 1
        assert sum(pool.map(lambda store: store.resume("t"), stores)) == 1
