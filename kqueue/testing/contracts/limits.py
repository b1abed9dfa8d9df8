"""Limits: what a claim under a limit takes, and what it holds. It needs transactions."""

from collections.abc import Callable

import pytest

from kqueue.contracts.admission import Limit
from kqueue.contracts.operator import JobChange
from kqueue.contracts.runs import LeaseKey
from kqueue.contracts.settlements import Delete, Die, Finish, Retry, Settled, Settlement, Unget
from kqueue.contracts.store import JobStore
from kqueue.model.job import State
from kqueue.testing.contracts.rows import (
    NOW,
    ONE,
    ONE_A_KEY,
    TWO,
    add,
    admit,
    claim,
    claimed_row,
    delayed,
    gates,
    held_row,
    ids,
    keyed,
    read,
    row,
    states,
    window,
)

# -- how many run ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_id", [True, False])
def test_no_more_run_than_may_and_the_others_are_held_without_a_pointer(
    store: JobStore, other: JobStore, by_id: bool
) -> None:
    given = add(store, *(row() for _ in range(5)))
    taken = claim(store, *(given if by_id else []), limits=TWO)
    assert (ids(taken.rows), taken.held, taken.cut, taken.later) == (given[:2], 3, False, {})
    assert states(other, given) == ["running"] * 2 + ["held"] * 3
    assert gates(other, given) == ["t"] * 5
    assert [job.put_at for job in other.get(given)] == [NOW] * 2 + [None] * 3
    assert [job.gate for job in taken.rows] == ["t"] * 2
    again = claim(other, *given, limits=TWO)
    assert (again.rows, again.held) == ([], 0)


def test_what_is_held_is_neither_ready_nor_due_nor_unput(store: JobStore) -> None:
    waiting, running = held_row(store)
    store.settle([Delete(running.id, 1)], NOW)
    assert claim(store, waiting).rows == claim(store).rows == []
    assert not store.has_ready(["t"])
    assert store.ready_types("", 9) == []
    assert store.find_unput(NOW + 999, 10) == store.find_due(NOW + 999, 10) == []
    assert store.find_lost({"t": None}, NOW + 999, 5, 10) == []
    assert store.promote(NOW + 999, 10) == store.recover(NOW + 999, 3, 10).ready == 0
    assert store.next_run_at() is None
    assert store.counts() == store.counts("t")
    assert store.counts()["held"] == sum(store.counts().values()) == 1
    assert ids(store.find("t", State.HELD, None, 10)) == ids(store.find(None, "held", None, 10)) == [waiting]


def test_held_rows_are_deleted_and_purged_as_others(store: JobStore) -> None:
    first, running = held_row(store)
    (second,) = add(store, row(type="x"))
    assert store.delete([first]) == 1
    (third,) = add(store, row())
    assert claim(store, third, limits=ONE).held == 1
    assert store.purge("t", 10) == 1
    assert ids(store.get([first, running.id, second, third])) == [running.id, second]


def test_types_without_a_limit_run_as_ever(store: JobStore) -> None:
    first, second, free, freer = add(store, row(), row(), row(type="x"), row(type="x", limit_key="k"))
    taken = claim(store, types=("t", "x"), limits=(*ONE, Limit("y", running=1)))
    assert (sorted(ids(taken.rows)), taken.held) == (sorted([first, free, freer]), 1)
    assert [(job.id, job.gate) for job in taken.rows if job.type == "x"] == [(free, None), (freer, None)]
    assert states(store, [second]) == ["held"]


def test_bounds_that_are_none_hold_nothing(store: JobStore) -> None:
    given = add(store, *keyed("a", "a", None))
    taken = claim(store, limits=(Limit("t"),))
    assert (ids(taken.rows), taken.held) == (given, 0)


def test_two_handles_count_together(store: JobStore, other: JobStore) -> None:
    given = add(store, *(row() for _ in range(3)))
    assert ids(claim(store, given[0], limits=TWO).rows) == given[:1]
    taken = claim(other, *given, limits=TWO)
    assert (ids(taken.rows), taken.held) == ([given[1]], 1)


def test_a_claimed_row_is_given_as_it_is_stored(store: JobStore, other: JobStore) -> None:
    (id,) = add(store, row(limit_key="k", payload=b"\x00\xff", encoding="bytes", crashes=1))
    taken = claim(store, id, limits=(Limit("t", 1, 1, 1, 9.0),), alone=True, owner="me")
    assert taken.rows == other.get([id])
    (held,) = taken.rows
    assert (held.state, held.fence, held.tries, held.alone, held.lease_owner) == ("running", 1, 1, True, "me")
    assert (held.lease_until, held.gate, held.limit_key) == (NOW + 30, "t", "k")


@pytest.mark.parametrize("by_id", [True, False])
def test_the_window_bounds_a_claim_as_ever(store: JobStore, by_id: bool) -> None:
    given = add(store, *(row() for _ in range(3)))
    limit = (Limit("t", running=10),)
    taken = claim(store, *(given if by_id else []), budget=window(jobs=2), limits=limit)
    assert (ids(taken.rows), taken.cut, taken.held) == (given[:2], True, 0)
    assert states(store, given[2:]) == ["ready"]


@pytest.mark.parametrize("by_id", [True, False])
def test_held_rows_do_not_cut_the_window(store: JobStore, by_id: bool) -> None:
    full = add(store, *(row(priority=1) for _ in range(3)))
    others = add(store, *(row(type="x", priority=2) for _ in range(2)))
    given = [*full, *others] if by_id else []
    taken = claim(store, *given, types=("t", "x"), budget=window(jobs=3), limits=ONE)
    assert (ids(taken.rows), taken.cut, taken.held) == ([full[0], *others], False, 2)


def test_rows_behind_many_that_are_held_are_reached(store: JobStore) -> None:
    """A claim without ids may end after it has held 1,000; then the next goes on."""
    add(store, *(row(priority=1) for _ in range(2500)))
    (last,) = add(store, row(type="x", priority=2))
    seen: list[str] = []
    held = 0
    for _ in range(4):
        taken = claim(store, types=("t", "x"), budget=window(jobs=2), limits=ONE)
        seen, held = seen + ids(taken.rows), held + taken.held
    assert last in seen
    assert (len(seen), held) == (2, 2499)


def test_a_due_row_is_held_and_one_that_is_not_due_is_told(store: JobStore) -> None:
    running, due, soon = add(store, row(), delayed(NOW - 1), delayed(NOW + 5))
    taken = claim(store, running, due, soon, limits=ONE)
    assert (ids(taken.rows), taken.held, taken.later) == ([running], 1, {soon: NOW + 5})
    assert states(store, [due, soon]) == ["held", "delayed"]


def test_a_claim_that_only_holds_says_so(store: JobStore) -> None:
    waiting, _ = held_row(store)
    (another,) = add(store, row())
    taken = claim(store, another, limits=ONE)
    assert (taken.rows, taken.cut, taken.later, taken.held) == ([], False, {}, 1)
    assert states(store, [waiting, another]) == ["held", "held"]


# -- when a place is free again --------------------------------------------------------------------------

ENDINGS: dict[str, Callable[[str], Settlement]] = {
    "delete": lambda id: Delete(id, 1),
    "finish": lambda id: Finish(id, 1, NOW + 99),
    "retry": lambda id: Retry(id, 1, NOW + 99, "broken", None),
    "unget": lambda id: Unget(id, 1, NOW + 99, None, None, started=False),
    "die": lambda id: Die(id, 1, "enough"),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_settle_frees_the_place(store: JobStore, ending: str) -> None:
    (first,) = add(store, row())
    claim(store, first, limits=ONE)
    assert store.settle([ENDINGS[ending](first)], NOW) == Settled()
    assert gates(store, [first]) == ([] if ending == "delete" else [None])
    (second,) = add(store, row())
    assert ids(claim(store, second, limits=ONE).rows) == [second]


def test_a_lease_that_is_over_frees_its_place(store: JobStore) -> None:
    claim(store, *add(store, row(ttr=30.0)), limits=ONE)
    early, late = add(store, row(), row())
    assert claim(store, early, now=NOW + 29.9, limits=ONE).held == 1
    store.delete([early])
    assert ids(claim(store, late, now=NOW + 30, limits=ONE).rows) == [late]


def test_a_renewed_lease_keeps_its_place(store: JobStore) -> None:
    (held,) = claim(store, *add(store, row(ttr=30.0)), limits=ONE).rows
    store.renew([LeaseKey(held.id, 1, 30.0)], NOW + 20)
    (late,) = add(store, row())
    assert claim(store, late, now=NOW + 30, limits=ONE).held == 1


def test_a_recovered_row_has_no_place_and_one_that_its_holder_renews_has(store: JobStore) -> None:
    (held,) = claim(store, *add(store, row(ttr=30.0)), limits=ONE).rows
    store.recover(NOW + 31, 3, 10)
    assert (read(store, held.id).state, read(store, held.id).gate) == ("ready", None)
    assert store.renew([LeaseKey(held.id, 1, 30.0)], NOW + 32) == frozenset()
    (late,) = add(store, row())
    assert claim(store, late, now=NOW + 33, limits=ONE).held == 1


def test_a_late_holder_settles_a_row_that_is_held_since_and_cannot_renew_it(store: JobStore) -> None:
    (held,) = claim(store, *add(store, row(ttr=30.0)), limits=ONE).rows
    store.recover(NOW + 31, 3, 10)
    (newer,) = add(store, row(priority=1))
    assert ids(claim(store, newer, now=NOW + 32, limits=ONE).rows) == [newer]
    assert claim(store, held.id, now=NOW + 32, limits=ONE).held == 1
    assert store.renew([LeaseKey(held.id, 1, 30.0)], NOW + 33) == {held.id}
    assert store.settle([Retry(held.id, 1, NOW, "late", NOW)], NOW + 33) == Settled()
    after = read(store, held.id)
    assert (after.state, after.gate, after.reason) == ("ready", None, "late")


def test_a_lower_bound_holds_at_once(store: JobStore) -> None:
    claim(store, *add(store, row(), row(), row()), limits=(Limit("t", running=3),))
    (late,) = add(store, row())
    assert claim(store, late, limits=ONE).held == 1


# -- starts per period -----------------------------------------------------------------------------------

THREE_IN_TEN = (Limit("t", starts=3, period=10.0),)


def test_no_more_start_in_a_period_than_may(store: JobStore, other: JobStore) -> None:
    given = add(store, *(row() for _ in range(9)))
    assert ids(claim(store, *given[:2], limits=THREE_IN_TEN).rows) == given[:2]
    taken = claim(other, *given[2:4], now=NOW + 4, limits=THREE_IN_TEN)
    assert (ids(taken.rows), taken.held) == ([given[2]], 1)
    store.settle([Delete(id, 1) for id in given[:3]], NOW + 5)
    assert claim(store, given[4], now=NOW + 9.9, limits=THREE_IN_TEN).held == 1
    store.delete(given[3:5])
    # The period is over for the two that began it, not yet for the third.
    taken = claim(store, *given[5:], now=NOW + 10, limits=THREE_IN_TEN)
    assert (ids(taken.rows), taken.held) == (given[5:7], 2)


def test_a_start_that_is_given_back_has_counted(store: JobStore) -> None:
    given = add(store, *(row() for _ in range(3)))
    claim(store, *given, limits=THREE_IN_TEN)
    store.settle([Unget(id, 1, NOW, None, NOW, started=False) for id in given], NOW)
    taken = claim(store, *given, limits=THREE_IN_TEN)
    assert (taken.rows, taken.held) == ([], 3)


def test_what_the_window_left_out_has_not_counted(store: JobStore) -> None:
    given = add(store, *(row() for _ in range(4)))
    assert len(claim(store, budget=window(jobs=1), limits=THREE_IN_TEN).rows) == 1
    taken = claim(store, *given[1:], limits=THREE_IN_TEN)
    assert (ids(taken.rows), taken.held) == (given[1:3], 1)


def test_starts_of_one_type_are_not_those_of_another(store: JobStore) -> None:
    add(store, row(), row(type="x"), row(type="x"))
    both = (Limit("t", starts=1, period=10.0), Limit("x", starts=1, period=10.0))
    taken = claim(store, types=("t", "x"), limits=both)
    assert (sorted(job.type for job in taken.rows), taken.held) == (["t", "x"], 1)


def test_a_clock_that_went_back_does_not_shut_the_gate(store: JobStore) -> None:
    first, second = add(store, row(), row())
    claim(store, first, now=NOW + 3600, limits=(Limit("t", starts=1, period=10.0),))
    taken = claim(store, second, now=NOW, limits=(Limit("t", starts=1, period=10.0),))
    assert ids(taken.rows) == [second]


def test_both_bounds_of_a_type_hold(store: JobStore) -> None:
    given = add(store, *(row() for _ in range(3)))
    both = (Limit("t", running=1, starts=2, period=10.0),)
    assert ids(claim(store, given[0], limits=both).rows) == given[:1]
    assert claim(store, given[1], limits=both).held == 1
    store.settle([Delete(given[0], 1)], NOW)
    store.delete([given[1]])
    assert ids(claim(store, given[2], limits=both).rows) == given[2:]
    store.settle([Delete(given[2], 1)], NOW)
    assert claim(store, *add(store, row()), limits=both).held == 1


# -- per key ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_id", [True, False])
def test_no_more_of_a_key_run_than_may(store: JobStore, by_id: bool) -> None:
    given = add(store, *keyed("a", "a", "b", None, "a", None))
    taken = claim(store, *(given if by_id else []), limits=ONE_A_KEY)
    assert ids(taken.rows) == [given[0], given[2], given[3], given[5]]
    assert taken.held == 2
    assert gates(store, given) == ["t", "t a", "t", "t", "t a", "t"]


@pytest.mark.parametrize("key", ["", " ", "a b", "a!", "☃", "x" * 200, "'", '"', "%", "\x01", "a\0b", "\0"])
def test_a_key_may_be_any_text(store: JobStore, other: JobStore, key: str) -> None:
    first, second, another = add(store, *keyed(key, key, key + "x"))
    taken = claim(store, limits=ONE_A_KEY)
    assert (ids(taken.rows), taken.held) == ([first, another], 1)
    assert read(other, second).gate == f"t {key}"
    store.settle([Delete(first, 1)], NOW)
    assert ids(admit(other, ONE_A_KEY[0], [key]).dues) == [second]
    assert ids(claim(store, second, limits=ONE_A_KEY).rows) == [second]


def test_keys_of_one_type_are_not_those_of_another(store: JobStore) -> None:
    given = add(store, *keyed("a"), *keyed("a", type="x"))
    both = (*ONE_A_KEY, Limit("x", running_per_key=1))
    assert ids(claim(store, types=("t", "x"), limits=both).rows) == given


def test_the_gate_of_the_type_stands_before_those_of_the_keys(store: JobStore) -> None:
    limit = (Limit("t", running=2, running_per_key=1),)
    given = add(store, *keyed("a", "a", "b", "a", "c"))
    taken = claim(store, *given, limits=limit)
    assert ids(taken.rows) == [given[0], given[2]]
    assert gates(store, given) == ["t", "t a", "t", "t", "t"]
    assert states(store, given) == ["running", "held", "running", "held", "held"]


def test_a_key_that_is_full_holds_no_place_of_its_type(store: JobStore) -> None:
    limit = (Limit("t", running=2, running_per_key=1),)
    given = add(store, *keyed(*"aaaaa"), *keyed("b"))
    taken = claim(store, limits=limit)
    assert (ids(taken.rows), taken.held) == ([given[0], given[-1]], 4)


# -- done rows, and histories ----------------------------------------------------------------------------


def test_a_done_row_is_neither_claimed_nor_held(store: JobStore) -> None:
    """Its whole way: held back, admitted, run, done."""
    waiting, running = held_row(store)
    store.settle([Delete(running.id, 1)], NOW)
    admit(store, ONE[0])
    claim(store, waiting, limits=ONE)
    store.settle([Finish(waiting, 1, NOW + 60)], NOW)
    before = read(store, waiting)
    assert (before.state, before.gate) == ("done", None)
    for wanted in ([waiting], []):
        taken = claim(store, *wanted, limits=ONE)
        assert (taken.rows, taken.held) == ([], 0)
    assert admit(store, ONE[0]).dues == []
    assert read(store, waiting) == before
    assert store.expire(NOW + 60, 10) == 1


def test_held_rows_never_expire(store: JobStore) -> None:
    waiting, running = held_row(store)
    assert store.expire(NOW + 1e9, 10) == 0
    assert ids(store.get([waiting, running.id])) == [waiting, running.id]


def test_no_claim_reads_the_history(store: JobStore) -> None:
    held = claimed_row(store)
    store.settle([Retry(held.id, 1, NOW, "broken", NOW)], NOW)
    (again,) = claim(store, held.id, limits=ONE).rows
    assert again.history is None
    store.settle([Retry(held.id, 2, NOW, "broken", NOW)], NOW)
    assert claim(store, held.id).rows[0].history is None
    assert read(store, held.id).history


# -- rows at gates that are changed ----------------------------------------------------------------------


def test_a_held_row_that_is_changed_stays_held_unless_it_is_to_wait_for_a_time(store: JobStore) -> None:
    first, running = held_row(store)
    second, third = add(store, row(), row())
    assert claim(store, second, third, limits=ONE).held == 2
    for id, wanted in ((second, JobChange(1, NOW)), (third, JobChange(None, NOW + 60))):
        due = store.change(id, wanted, NOW, NOW, NOW + 3600)
        assert due is not None
        assert due.put_at == (None if id == second else NOW)
    assert [(job.state, job.gate) for job in store.get([second, third])] == [("held", "t"), ("delayed", None)]
    store.settle([Delete(running.id, 1)], NOW)
    assert ids(admit(store, ONE[0]).dues) == [second]
    assert store.change(second, JobChange(None, NOW + 90), NOW, NOW, NOW + 3600)
    assert ids(admit(store, ONE[0]).dues) == [first]


def test_a_pointer_of_another_priority_takes_no_place_at_a_gate(store: JobStore) -> None:
    changed, same = add(store, row(), row())
    store.change(changed, JobChange(7, None), NOW, NOW, NOW + 3600)
    got = claim(store, changed, same, pointed=dict.fromkeys([changed, same], 100), limits=ONE)
    assert (ids(got.rows), got.held) == ([same], 0)
