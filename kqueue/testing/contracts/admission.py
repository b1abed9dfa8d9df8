"""Admission: what is let through the gates of a type. It needs transactions."""

import threading
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from kqueue.contracts.admission import Admission, Limit
from kqueue.contracts.repair import Due
from kqueue.contracts.runs import LeaseKey
from kqueue.contracts.settlements import Delete, Settled
from kqueue.contracts.store import JobStore
from kqueue.model.job import Row, State
from kqueue.testing.contracts.rows import NOW, MakeStore, add, claim, ids, read, row

ONE = Limit("t", running=1)
ONE_A_KEY = Limit("t", running_per_key=1)
LATER = NOW + 7


def admit(
    store: JobStore,
    limit: Limit,
    keys: Collection[str] | None = None,
    now: float = NOW,
    most: int = 100,
    put_at: float | None = LATER,
) -> Admission:
    return store.admit(limit, keys, now, put_at, most)


def hold(store: JobStore, *rows: Row, limit: Limit = ONE, now: float = NOW) -> tuple[str, list[str]]:
    """Add the rows and hold them all, behind one that takes each place; returns its id and theirs."""
    first = row(type=limit.type, limit_key=rows[0].limit_key, priority=0)
    add(store, first)
    assert ids(claim(store, first.id, types=(limit.type,), limits=(limit,), now=now).rows) == [first.id]
    given = add(store, *rows)
    taken = claim(store, *given, types=(limit.type,), limits=(limit,), now=now)
    assert (taken.rows, taken.held) == ([], len(rows))
    return first.id, given


def leave(store: JobStore, id: str) -> None:
    """The one that ran has ended."""
    assert store.settle([Delete(id, read(store, id).fence)], NOW) == Settled()


# -- who goes through ------------------------------------------------------------------------------------


def test_nothing_is_admitted_where_nothing_is_held_or_no_place_is_free(store: JobStore) -> None:
    assert admit(store, ONE) == Admission([], None)
    assert admit(store, ONE, ["a"]) == Admission([], None)
    _, given = hold(store, row())
    assert admit(store, ONE).dues == []
    assert [job.state for job in store.get(given)] == ["held"]


def test_an_admitted_row_is_ready_and_keeps_its_gate(store: JobStore, other: JobStore) -> None:
    first, [waiting] = hold(store, row(priority=70, run_at=NOW - 3))
    leave(store, first)
    admission = admit(other, ONE)
    assert admission.dues == [Due(waiting, "t", 70, NOW - 3, LATER)]
    after = read(store, waiting)
    assert (after.state, after.put_at, after.gate) == (State.READY, LATER, "t")
    assert other.has_ready(["t"])
    assert ids(claim(other, limits=(ONE,)).rows) == [waiting]
    assert read(store, waiting).gate == "t"


def test_the_put_may_be_left_to_the_sweep(store: JobStore) -> None:
    first, [waiting] = hold(store, row())
    leave(store, first)
    assert [due.put_at for due in admit(store, ONE, put_at=None).dues] == [None]
    assert ids(store.find_unput(NOW, 10)) == [waiting]


def test_the_best_priority_goes_first_and_then_the_first_added(store: JobStore) -> None:
    first, [c, a, b, d] = hold(
        store, row(id="z" * 28, priority=5), row(priority=1), row(id="a" * 28, priority=5), row(priority=9)
    )
    leave(store, first)
    assert ids(admit(store, Limit("t", running=3)).dues) == [a, c, b]
    assert ids(admit(store, Limit("t", running=4)).dues) == [d]


def test_no_more_are_admitted_than_asked(store: JobStore) -> None:
    first, given = hold(store, *(row() for _ in range(5)))
    leave(store, first)
    assert [ids(admit(store, Limit("t"), most=2).dues) for _ in range(4)] == [
        given[:2],
        given[2:4],
        given[4:],
        [],
    ]


def test_a_place_that_was_given_is_not_given_again_before_its_row_runs(store: JobStore, other: JobStore) -> None:
    first, [a, b, c] = hold(store, row(), row(), row())
    leave(store, first)
    two = Limit("t", running=2)
    assert ids(admit(store, ONE).dues) == [a]
    assert admit(other, ONE).dues == []
    assert ids(admit(other, two).dues) == [b]
    assert ids(claim(store, limits=(two,)).rows) == [a, b]
    assert admit(store, two).dues == []
    leave(store, a)
    assert ids(admit(other, two).dues) == [c]


def test_a_lease_that_is_over_leaves_its_place(store: JobStore) -> None:
    _, [waiting] = hold(store, row())
    assert admit(store, ONE, now=NOW + 29.9).dues == []
    assert ids(admit(store, ONE, now=NOW + 30).dues) == [waiting]


def test_a_bound_that_is_none_lets_all_through(store: JobStore) -> None:
    _, given = hold(store, *(row(limit_key="a") for _ in range(3)))
    assert ids(admit(store, Limit("t")).dues) == given
    _, more = hold(store, *(row(limit_key="a", priority=1) for _ in range(3)), limit=Limit("t", running_per_key=2))
    assert admit(store, Limit("t", running_per_key=1)).dues == []
    assert ids(admit(store, Limit("t", running=1)).dues) == more


def test_starts_left_in_the_period_are_places(store: JobStore) -> None:
    limit = Limit("t", starts=2, period=10.0)
    given = add(store, *(row() for _ in range(5)))
    claim(store, *given, limits=(limit,))
    assert admit(store, limit, now=NOW + 9.9).dues == []
    assert ids(admit(store, limit, now=NOW + 10).dues) == given[2:4]
    assert admit(store, limit, now=NOW + 10).dues == []
    assert ids(claim(store, now=NOW + 11, limits=(limit,)).rows) == given[2:4]
    assert admit(store, limit, now=NOW + 20).dues == []
    assert ids(admit(store, limit, now=NOW + 21).dues) == given[4:]


# -- keys ------------------------------------------------------------------------------------------------


def test_only_the_keys_that_are_named_are_looked_at(store: JobStore) -> None:
    a, [a2, a3] = hold(store, row(limit_key="a"), row(limit_key="a"), limit=ONE_A_KEY)
    b, [b2] = hold(store, row(limit_key="b"), limit=ONE_A_KEY)
    leave(store, a)
    leave(store, b)
    assert admit(store, ONE_A_KEY, []).dues == admit(store, ONE_A_KEY, ["c"]).dues == []
    assert ids(admit(store, ONE_A_KEY, ["a", "a", "c"]).dues) == [a2]
    assert ids(admit(store, ONE_A_KEY).dues) == [b2]
    assert admit(store, ONE_A_KEY).dues == []
    assert ids(claim(store, limits=(ONE_A_KEY,)).rows) == [a2, b2]
    leave(store, a2)
    assert ids(admit(store, ONE_A_KEY, {"a"}).dues) == [a3]


def test_the_gate_of_the_type_is_always_looked_at(store: JobStore) -> None:
    both = Limit("t", running=1, running_per_key=1)
    first, [waiting] = hold(store, row(limit_key="a"), limit=both)
    leave(store, first)
    assert ids(admit(store, both, []).dues) == [waiting]


def test_the_limit_is_one_for_all_gates(store: JobStore) -> None:
    keys = [hold(store, *(row(limit_key=key) for _ in range(2)), limit=ONE_A_KEY)[1] for key in "abc"]
    seen = []
    for _ in range(3):
        dues = admit(store, Limit("t"), most=2).dues
        assert len(dues) == 2
        seen += ids(dues)
    assert sorted(seen) == sorted(id for given in keys for id in given)


def test_gates_of_a_type_whose_name_begins_alike_are_left_alone(store: JobStore) -> None:
    given = {}
    for type in ("t", "t-t", "t.t", "tt", "t/t"):
        limit = Limit(type, running=1, running_per_key=1)
        first = row(type=type, limit_key="k")
        rows = [row(type=type, limit_key="k"), row(type=type)]
        add(store, first, *rows)
        for job in (first, *rows):
            claim(store, job.id, types=(type,), limits=(limit,))
        given[type] = ids(rows)
    for type, waiting in given.items():
        assert sorted(ids(admit(store, Limit(type)).dues)) == sorted(waiting)


def test_held_types_are_those_with_a_held_row(store: JobStore, other: JobStore) -> None:
    all_types = ["x", "r", "y", "z", "a.b", "a", "ab", "a-b", "b"]
    assert store.held_types(all_types) == store.held_types([]) == []
    for type in ("z", "a.b", "a", "ab", "a-b"):
        hold(store, row(type=type), limit=Limit(type, running=1))
    for key in ("k", "l", "m"):
        hold(store, row(type="y", limit_key=key), limit=Limit("y", running_per_key=1))
    first, _ = hold(store, row(type="x"), limit=Limit("x", running=1))
    add(store, row(type="r"))
    assert other.held_types(all_types) == ["a", "a-b", "a.b", "ab", "x", "y", "z"]
    assert other.held_types(["z", "r", "a"]) == ["a", "z"]
    leave(store, first)
    admit(store, Limit("x"))
    admit(store, Limit("y"), ["k", "l"])
    assert other.held_types(all_types) == ["a", "a-b", "a.b", "ab", "y", "z"]
    store.purge("y", 10)
    assert other.held_types(all_types) == ["a", "a-b", "a.b", "ab", "z"]


# -- when to look again ----------------------------------------------------------------------------------


def test_the_next_place_is_free_when_the_first_lease_ends(store: JobStore) -> None:
    two = Limit("t", running=2)
    first, second = add(store, row(ttr=50.0), row(ttr=20.0))
    claim(store, limits=(two,))
    assert admit(store, two) == Admission([], None)
    claim(store, *add(store, row(), row()), limits=(two,))
    assert admit(store, two) == Admission([], NOW + 20)
    store.renew([LeaseKey(second, 1, 60.0)], NOW + 10)
    assert admit(store, two).next_at == NOW + 50
    leave(store, first)
    admission = admit(store, two)
    assert (len(admission.dues), admission.next_at) == (1, NOW + 70)


def test_the_next_place_is_free_when_the_period_of_the_first_start_is_over(store: JobStore) -> None:
    limit = Limit("t", starts=2, period=10.0)
    given = add(store, *(row() for _ in range(4)))
    claim(store, given[0], limits=(limit,))
    claim(store, *given[1:], now=NOW + 3, limits=(limit,))
    assert admit(store, limit, now=NOW + 4) == Admission([], NOW + 10)
    admission = admit(store, limit, now=NOW + 10)
    assert (ids(admission.dues), admission.next_at) == (given[2:3], NOW + 13)


def test_where_both_bounds_are_reached_the_later_counts(store: JobStore) -> None:
    for ttr, next_at in ((5.0, NOW + 10), (25.0, NOW + 25)):
        limit = Limit(f"t{ttr:g}", running=1, starts=1, period=10.0)
        given = add(store, *(row(type=limit.type, ttr=ttr) for _ in range(2)))
        claim(store, *given, types=(limit.type,), limits=(limit,))
        assert admit(store, limit) == Admission([], next_at)


def test_of_several_gates_the_earliest_time_counts(store: JobStore) -> None:
    for key, ttr in (("a", 40.0), ("b", 20.0), ("c", 30.0)):
        given = add(store, row(limit_key=key, ttr=ttr), row(limit_key=key, ttr=ttr))
        claim(store, *given, limits=(ONE_A_KEY,))
    assert admit(store, ONE_A_KEY).next_at == NOW + 20
    assert admit(store, ONE_A_KEY, ["a", "c"]).next_at == NOW + 30


def test_a_place_that_was_given_away_has_no_time(store: JobStore) -> None:
    first, _ = hold(store, row(), row())
    leave(store, first)
    admission = admit(store, ONE)
    assert (len(admission.dues), admission.next_at) == (1, None)


# -- many at once ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [Limit("t", running=7), Limit("t", starts=7, period=9.0)])
def test_of_many_that_admit_at_once_no_place_is_given_twice(make_atomic_store: MakeStore, limit: Limit) -> None:
    stores = [make_atomic_store() for _ in range(4)]
    first, given = hold(stores[0], *(row() for _ in range(20)))
    leave(stores[0], first)
    barrier = threading.Barrier(4)

    def work(store: JobStore) -> Any:
        barrier.wait()
        return ids(admit(store, limit, most=3).dues) + ids(admit(store, limit, most=3).dues)

    with ThreadPoolExecutor(4) as pool:
        admitted = [id for part in pool.map(work, stores) for id in part]
    assert sorted(admitted) == given[:7]
    assert [job.state for job in stores[0].get(given)] == ["ready"] * 7 + ["held"] * 13
