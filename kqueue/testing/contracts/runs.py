"""A run of a job: claimed and renewed."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from kqueue.contracts.budget import MAX_JOBS, Budget, suspect_jobs
from kqueue.contracts.repair import Recovered
from kqueue.contracts.runs import LeaseKey
from kqueue.contracts.settlements import Delete, Die, Retry, Unget
from kqueue.contracts.store import JobStore
from kqueue.model.job import State
from kqueue.testing.contracts.rows import (
    NOTHING,
    NOW,
    SETTLEMENTS,
    MakeStore,
    add,
    claim,
    claimed_row,
    delayed,
    ids,
    read,
    row,
    window,
)

# -- claim -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_id", [True, False])
def test_a_claimed_row_says_what_the_store_says(store: JobStore, other: JobStore, by_id: bool) -> None:
    """Each field has a value of its own, so that none stands in another's place."""
    full = row(
        priority=3, delay=4.0, run_at=NOW - 5, ttr=6.0, fence=7, tries=8, failures=9, crashes=10, suspicion=1,
        reason="r", gate="t", created_at=NOW - 11, put_at=NOW - 12, unique_key="u", limit_key="l",
        scheduled_for=NOW - 13, asked_at=NOW - 14, own_options='{"max_tries":15}',
    )  # fmt: skip
    add(store, full)
    (held,) = claim(store, *[full.id] * by_id, owner="me").rows
    assert held == full._replace(state="running", fence=8, tries=9, lease_owner="me", lease_until=NOW + 6)
    assert other.get([full.id]) == [held]


def test_a_claim_takes_none_that_stand_between_those_it_takes(store: JobStore, other: JobStore) -> None:
    """Rows of other types, and such as are not due, were added in between."""
    wanted, later, between = row(), delayed(NOW + 9), row(type="u")
    added = add(store, wanted, later, between, row())
    assert len(claim(store).rows) == 2
    assert [job.state for job in other.get(added)] == ["running", "delayed", "ready", "running"]


def test_a_claimed_row_is_running_under_a_lease(store: JobStore, other: JobStore) -> None:
    (id,) = add(store, row(ttr=12.5))
    taken = claim(store, id, now=NOW + 1, owner="me")
    assert taken.rows == other.get([id])
    (held,) = taken.rows
    assert held.state == State.RUNNING
    assert (held.fence, held.tries, held.failures) == (1, 1, 0)
    assert held.lease_until == NOW + 13.5
    assert held.lease_owner == "me"
    assert (taken.cut, taken.later) == (False, {})


@pytest.mark.parametrize("by_id", [True, False])
def test_two_handles_do_not_claim_the_same_row(store: JobStore, other: JobStore, by_id: bool) -> None:
    given = add(store, row())
    wanted = given if by_id else []
    assert ids(claim(store, *wanted).rows) == given
    assert claim(other, *wanted) == NOTHING


def test_fence_and_tries_grow_with_each_claim_but_a_given_back_try_does_not_count(store: JobStore) -> None:
    (id,) = add(store, row())
    (first,) = claim(store, id).rows
    store.settle([Unget(id, first.fence, NOW, None, None, started=False)], NOW)
    (second,) = claim(store, id).rows
    store.settle([Retry(id, second.fence, NOW, "broken", None)], NOW)
    (third,) = claim(store, id).rows
    assert [(held.fence, held.tries) for held in (first, second, third)] == [(1, 1), (2, 1), (3, 2)]


def test_a_row_whose_lease_ran_out_is_not_claimable_before_it_is_recovered(
    store: JobStore, other: JobStore
) -> None:
    held = claimed_row(store)
    much_later = NOW + 1000
    assert claim(other, held.id, now=much_later).rows == []
    assert claim(other, now=much_later).rows == []
    other.recover(much_later, 3, 10)
    assert ids(claim(other, held.id, now=much_later).rows) == [held.id]


def test_without_ids_the_order_is_priority_then_order_added(store: JobStore) -> None:
    a, b, c, d, e = add(
        store, row(priority=5), row(priority=1, put_at=None), row(priority=5), row(priority=1), row(priority=0)
    )
    assert ids(claim(store).rows) == [e, b, d, a, c]


def test_the_order_added_does_not_depend_on_ids_or_times(store: JobStore) -> None:
    given = add(
        store,
        row(id="z" * 28, put_at=NOW + 5, run_at=NOW - 1),
        row(id="m" * 28, put_at=NOW - 5, run_at=NOW - 3),
        row(id="a" * 28, put_at=None, run_at=NOW - 2),
    )
    assert ids(claim(store).rows) == given


def test_a_row_that_is_given_back_keeps_its_place(store: JobStore) -> None:
    given = add(store, *(row() for _ in range(3)))
    (first,) = claim(store, budget=window(jobs=1)).rows
    store.settle([Unget(first.id, first.fence, NOW, None, NOW, started=False)], NOW)
    assert ids(claim(store).rows) == given


@pytest.mark.parametrize("back", ["retry", "unget", "recover"])
@pytest.mark.parametrize("size", [1, 5000])
def test_a_row_that_comes_back_from_a_run_stands_behind_those_that_waited(
    store: JobStore, other: JobStore, back: str, size: int
) -> None:
    """Also where its payload stands apart. Others that are added after it stand behind it."""
    given = add(store, *(row(payload=bytes([65 + number]) * size) for number in range(3)))
    (first,) = claim(store, budget=window(jobs=1)).rows
    now = NOW
    if back == "retry":
        store.settle([Retry(first.id, first.fence, NOW, "broken", NOW)], NOW)
    elif back == "unget":
        store.settle([Unget(first.id, first.fence, NOW, None, NOW, started=True)], NOW)
    else:
        now = NOW + first.ttr + 1
        store.recover(now, 3, 10)
    [newcomer] = add(store, row())
    assert ids(claim(other, now=now).rows) == [*given[1:], given[0], newcomer]
    assert read(other, given[0]).payload == b"A" * size


def test_a_row_that_died_and_is_revived_stands_where_it_stood(store: JobStore) -> None:
    given = add(store, *(row() for _ in range(3)))
    (first,) = claim(store, budget=window(jobs=1)).rows
    store.settle([Die(first.id, first.fence, "broken")], NOW)
    store.revive([first.id], "mended", NOW, NOW)
    assert ids(claim(store).rows) == given


def test_without_ids_several_types_are_merged_in_one_order(store: JobStore) -> None:
    a, b, c, d, e = add(
        store, row(type="x", priority=2), row(type="y", priority=1), row(type="z", priority=0),
        row(type="x", priority=1), row(type="y", priority=2),
    )  # fmt: skip
    assert ids(claim(store, types=("y", "x", "y")).rows) == [b, d, a, e]
    assert ids(claim(store, types=("z",)).rows) == [c]


def test_by_ids_the_order_is_that_of_the_ids(store: JobStore) -> None:
    a, b, c = add(store, row(priority=1), row(priority=2), row(priority=3))
    assert ids(claim(store, c, a, b).rows) == [c, a, b]


def test_an_id_that_is_named_twice_is_claimed_once(store: JobStore) -> None:
    a, b = add(store, row(), row())
    assert ids(claim(store, a, b, a, a).rows) == [a, b]
    assert read(store, a).fence == 1


def test_what_cannot_be_claimed_is_passed_over(store: JobStore) -> None:
    running = claimed_row(store)
    dead = claimed_row(store)
    gone = claimed_row(store)
    store.settle([Die(dead.id, 1, "enough"), Delete(gone.id, 1)], NOW)
    of_another_type, fine = add(store, row(type="other"), row())
    taken = claim(store, "0" * 28, running.id, dead.id, gone.id, of_another_type, fine)
    assert ids(taken.rows) == [fine]
    assert (taken.cut, taken.later) == (False, {})
    assert read(store, of_another_type).state == State.READY


def test_without_ids_other_types_are_left_alone(store: JobStore) -> None:
    add(store, row(type="other"))
    assert claim(store) == NOTHING


def test_by_id_a_delayed_row_is_claimed_once_it_is_due_and_told_before(store: JobStore) -> None:
    soon, due, of_another_type = add(store, delayed(NOW + 5), delayed(NOW), delayed(NOW + 5, type="other"))
    taken = claim(store, soon, due, of_another_type)
    assert ids(taken.rows) == [due]
    assert taken.later == {soon: NOW + 5}
    assert ids(claim(store, soon, now=NOW + 5).rows) == [soon]


def test_a_due_row_that_the_window_cut_off_is_not_called_later(store: JobStore) -> None:
    first, second, soon = add(store, row(), delayed(NOW - 1), delayed(NOW + 5))
    taken = claim(store, first, second, soon, budget=window(jobs=1))
    assert (ids(taken.rows), taken.cut) == ([first], True)
    assert second not in taken.later


def test_without_ids_a_delayed_row_is_not_seen_before_it_is_promoted(store: JobStore) -> None:
    given = add(store, delayed(NOW - 5))
    assert claim(store) == NOTHING
    store.promote(NOW, 10)
    assert ids(claim(store).rows) == given


def test_a_ready_row_is_compared_with_no_clock(store: JobStore) -> None:
    given = add(store, row(run_at=NOW + 1000))
    assert ids(claim(store, *given).rows) == given


@pytest.mark.parametrize("by_id", [True, False])
def test_the_window_says_whether_it_was_cut(store: JobStore, by_id: bool) -> None:
    given = add(store, *(row() for _ in range(3)))
    wanted = given if by_id else []
    first = claim(store, *wanted, budget=window(jobs=2))
    assert (ids(first.rows), first.cut) == (given[:2], True)
    assert read(store, given[2]).state == State.READY
    second = claim(store, *wanted, budget=window(jobs=2))
    assert (ids(second.rows), second.cut) == (given[2:], False)


def test_a_window_holds_a_bound_of_payload_and_always_one_job(store: JobStore) -> None:
    given = add(store, *(row(payload=b"x" * 600) for _ in range(3)))
    bound = window(payload_bytes=1200)
    assert ids(claim(store, *given, budget=bound).rows) == given[:2]
    (big,) = add(store, row(payload=b"x" * 5000))
    assert ids(claim(store, big, budget=bound).rows) == [big]


def test_a_window_holds_a_bound_of_work(store: JobStore) -> None:
    given = add(store, *(row() for _ in range(3)), row(type="slow"))
    bound = Budget(jobs=10, work_s=0.02, job_s={"t": 0.01})
    first = claim(store, *given, types=("t", "slow"), budget=bound)
    assert (ids(first.rows), first.cut) == (given[:2], True)
    assert ids(claim(store, given[3], types=("slow",), budget=bound).rows) == given[3:]


def test_a_suspect_gets_a_smaller_window(store: JobStore) -> None:
    first, second, third, fourth = add(store, row(suspicion=2), row(), row(), row(suspicion=3))
    assert suspect_jobs(2) == 2
    assert suspect_jobs(3) == 1
    taken = claim(store, first, second, third, budget=window(jobs=MAX_JOBS))
    assert (ids(taken.rows), taken.cut) == ([first, second], True)
    taken = claim(store, fourth, third, budget=window(jobs=MAX_JOBS))
    assert (ids(taken.rows), taken.cut) == ([fourth], True)


def test_alone_is_stored_only_for_a_window_of_one_whose_process_runs_nothing_else(store: JobStore) -> None:
    a, b, c, d = add(store, row(), row(), row(), row())
    assert [held.alone for held in claim(store, a, alone=True).rows] == [True]
    assert [held.alone for held in claim(store, b, alone=False).rows] == [False]
    assert [held.alone for held in claim(store, c, d, alone=True).rows] == [False, False]
    assert [held.alone for held in store.get([a, b, c, d])] == [True, False, False, False]


def test_one_claim_of_a_crowd_is_not_blamed_on_the_next(store: JobStore) -> None:
    held = claimed_row(store, alone=True)
    store.settle([Retry(held.id, 1, NOW, "again", None)], NOW)
    (again,) = claim(store, held.id, alone=False).rows
    assert not again.alone


def test_claimed_by_names_what_runs_under_an_owner(store: JobStore, other: JobStore) -> None:
    first, second, later, lost = add(store, *(row() for _ in range(4)))
    claim(store, first, second, owner="mine")
    claim(store, lost, owner="late", now=NOW - 50)
    claim(store, later, owner="another")
    assert sorted(other.claimed_by("mine")) == sorted(store.get([first, second]))
    assert ids(other.claimed_by("another")) == [later]
    store.recover(NOW, 3, 10)
    assert other.claimed_by("late") == other.claimed_by("nobody") == []


# -- renew -----------------------------------------------------------------------------------------------


def test_renew_holds_a_running_row_for_another_ttr(store: JobStore, other: JobStore) -> None:
    held = claimed_row(store)
    assert store.renew([LeaseKey(held.id, 1, 30.0)], NOW + 20) == frozenset()
    assert read(other, held.id).lease_until == NOW + 50
    assert other.recover(NOW + 49, 3, 10) == Recovered(0)


def test_renew_takes_a_row_back_that_is_ready_again_after_its_lease_ran_out(
    store: JobStore, other: JobStore
) -> None:
    held = claimed_row(store)
    other.recover(NOW + 31, 3, 10)
    assert store.renew([LeaseKey(held.id, 1, 30.0)], NOW + 32) == frozenset()
    after = read(other, held.id)
    assert (after.state, after.lease_until, after.fence) == (State.RUNNING, NOW + 62, 1)
    assert claim(other, held.id).rows == []


def test_renew_names_what_is_lost_and_renews_the_rest(store: JobStore, other: JobStore) -> None:
    mine, taken, deleted, dead = (claimed_row(store) for _ in range(4))
    other.settle([Unget(taken.id, 1, NOW, None, None, started=False), Die(dead.id, 1, "enough")], NOW)
    assert claim(other, taken.id).rows[0].fence == 2
    other.delete([deleted.id])
    before = other.get([taken.id, dead.id])
    held = [LeaseKey(job.id, 1, 30.0) for job in (taken, mine, deleted, dead)]
    assert store.renew(held, NOW + 10) == {taken.id, deleted.id, dead.id}
    assert read(other, mine.id).lease_until == NOW + 40
    assert other.get([taken.id, dead.id]) == before


@pytest.mark.parametrize("verb", ["retry", "unget"])
def test_a_row_that_its_holder_gave_back_is_not_renewed(store: JobStore, verb: str) -> None:
    held = claimed_row(store)
    store.settle([SETTLEMENTS[verb](held.id, 1)._replace(run_at=NOW)], NOW)
    before = read(store, held.id)
    assert before.state == State.READY
    assert store.renew([LeaseKey(held.id, 1, 30.0)], NOW, alone=True) == {held.id}
    assert read(store, held.id) == before


@pytest.mark.parametrize(("told", "kept"), [(True, True), (False, False), (None, True)])
def test_renew_changes_alone_only_if_it_is_told(store: JobStore, told: bool | None, kept: bool) -> None:
    held = claimed_row(store, alone=True)
    store.renew([LeaseKey(held.id, 1, 30.0)], NOW, alone=told)
    assert read(store, held.id).alone is kept


def test_renew_can_make_a_row_one_that_runs_alone(store: JobStore) -> None:
    held = claimed_row(store)
    store.renew([LeaseKey(held.id, 1, 30.0)], NOW, alone=True)
    assert read(store, held.id).alone


# -- many at once ----------------------------------------------------------------------------------------


def test_of_many_threads_that_claim_at_once_each_row_is_claimed_by_one(make_atomic_store: MakeStore) -> None:
    stores = [make_atomic_store(), make_atomic_store()]
    adders, each = 4, 30

    def produce(number: int) -> Any:
        return [id for _ in range(each) for id in add(stores[number % 2], row())]

    added = threading.Event()

    def consume(number: int) -> Any:
        seen = []
        while True:
            last = added.is_set()
            taken = claim(stores[number % 2], budget=window(jobs=7)).rows
            seen += [(job.id, job.fence) for job in taken]
            if last and not taken:
                return seen

    with ThreadPoolExecutor(8) as pool:
        consumers = [pool.submit(consume, number) for number in range(4)]
        try:
            wanted = [id for ids in pool.map(produce, range(adders)) for id in ids]
        finally:
            added.set()
        seen = [pair for consumer in consumers for pair in consumer.result()]
    assert sorted(seen) == sorted((id, 1) for id in wanted)


def test_of_many_threads_that_claim_the_same_ids_each_row_is_claimed_by_one(make_atomic_store: MakeStore) -> None:
    stores = [make_atomic_store() for _ in range(4)]
    wanted = add(stores[0], *(row() for _ in range(50)))
    barrier = threading.Barrier(4)

    def take(store: JobStore) -> Any:
        barrier.wait()
        return ids(claim(store, *wanted).rows)

    with ThreadPoolExecutor(4) as pool:
        taken = [id for part in pool.map(take, stores) for id in part]
    assert sorted(taken) == sorted(wanted)
    assert {job.fence for job in stores[0].get(wanted)} == {1}
