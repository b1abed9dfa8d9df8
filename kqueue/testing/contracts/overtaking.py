"""Limits: nobody is overtaken at a gate, of many at once no more run than may, and what one who claims has in hand
counts together. It needs transactions.
"""

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from kqueue.contracts.admission import Claimer, Limit, hands_of
from kqueue.contracts.budget import Budget
from kqueue.contracts.settlements import Delete, Settled
from kqueue.contracts.store import JobStore
from kqueue.model.job import Row
from kqueue.testing.contracts.rows import (
    NOW,
    ONE,
    ONE_A_KEY,
    TWO,
    MakeStore,
    add,
    admit,
    claim,
    gates,
    held_row,
    ids,
    keyed,
    row,
    states,
    window,
)

# -- nobody is overtaken ---------------------------------------------------------------------------------


@pytest.mark.parametrize("by_id", [True, False])
def test_a_newcomer_does_not_overtake_the_held(store: JobStore, by_id: bool) -> None:
    waiting, running = held_row(store)
    store.settle([Delete(running.id, 1)], NOW)
    (newcomer,) = add(store, row())
    taken = claim(store, *([newcomer] if by_id else []), limits=ONE)
    assert (taken.rows, taken.held) == ([], 1)
    assert ids(admit(store, ONE[0]).dues) == [waiting]


@pytest.mark.parametrize("by_id", [True, False])
def test_a_newcomer_does_not_overtake_the_admitted_though_there_is_room(store: JobStore, by_id: bool) -> None:
    waiting, running = held_row(store)
    store.settle([Delete(running.id, 1)], NOW)
    assert ids(admit(store, ONE[0]).dues) == [waiting]
    (newcomer,) = add(store, row())
    if by_id:
        assert claim(store, newcomer, limits=TWO).held == 1
    assert ids(claim(store, limits=ONE).rows) == [waiting]
    assert states(store, [newcomer]) == ["held"]


def test_a_newcomer_goes_when_the_admitted_have_gone(store: JobStore) -> None:
    waiting, running = held_row(store)
    store.settle([Delete(running.id, 1)], NOW)
    admit(store, ONE[0])
    (newcomer,) = add(store, row())
    taken = claim(store, waiting, newcomer, limits=TWO)
    assert (ids(taken.rows), taken.held) == ([waiting, newcomer], 0)


def test_a_better_priority_goes_before_the_held(store: JobStore) -> None:
    waiting, running = held_row(store)
    store.settle([Delete(running.id, 1)], NOW)
    (urgent,) = add(store, row(priority=1))
    assert ids(claim(store, urgent, limits=ONE).rows) == [urgent]
    assert states(store, [waiting]) == ["held"]


def test_an_admitted_row_whose_place_is_gone_waits_again_in_its_old_place(store: JobStore) -> None:
    waiting, running = held_row(store)
    (later,) = add(store, row())
    assert claim(store, later, limits=ONE).held == 1
    store.settle([Delete(running.id, 1)], NOW)
    assert ids(admit(store, ONE[0]).dues) == [waiting]
    (urgent,) = add(store, row(priority=1))
    assert ids(claim(store, urgent, limits=ONE).rows) == [urgent]
    assert claim(store, waiting, limits=ONE).held == 1
    assert (states(store, [waiting]), gates(store, [waiting])) == (["held"], ["t"])
    store.settle([Delete(urgent, 1)], NOW)
    assert ids(admit(store, ONE[0]).dues) == [waiting]


def test_those_held_at_a_key_stand_in_nobody_elses_way(store: JobStore) -> None:
    first, second, other_key = add(store, *keyed("a", "a", "b"))
    claim(store, first, second, limits=ONE_A_KEY)
    no_key, another = add(store, *keyed(None, "c"))
    taken = claim(store, other_key, no_key, another, limits=ONE_A_KEY)
    assert ids(taken.rows) == [other_key, no_key, another]
    (same_key,) = add(store, *keyed("a"))
    store.settle([Delete(first, 1)], NOW)
    assert claim(store, same_key, limits=ONE_A_KEY).held == 1


def test_a_gate_admits_for_itself_alone(store: JobStore) -> None:
    """Whom the type's gate admits may still be held at that of his key, and then has no place at the first."""
    limit = Limit("t", running=2, running_per_key=1)
    given = add(store, *keyed("a", "b", "a", "c"))
    claim(store, *given, limits=(limit,))
    assert gates(store, given) == ["t"] * 4
    store.settle([Delete(given[1], 1)], NOW)
    assert ids(admit(store, limit).dues) == [given[2]]
    assert claim(store, given[2], limits=(limit,)).held == 1
    assert gates(store, given[2:3]) == ["t a"]
    assert ids(admit(store, limit).dues) == [given[3]]
    assert ids(claim(store, given[3], limits=(limit,)).rows) == [given[3]]


def test_within_one_claim_the_order_of_ids_lets_nobody_overtake(store: JobStore) -> None:
    late, early = row(), row(priority=50)
    add(store, late, early)
    running = claim(store, *add(store, row()), limits=ONE).rows[0]
    assert claim(store, late.id, early.id, limits=ONE).held == 2
    store.settle([Delete(running.id, 1)], NOW)
    admit(store, ONE[0])
    newcomer, last = add(store, row(), row())
    taken = claim(store, newcomer, early.id, last, limits=(Limit("t", running=9),))
    assert ids(taken.rows) == [early.id]
    assert states(store, [newcomer, last, late.id]) == ["held"] * 3


def test_without_limits_a_claim_takes_what_was_admitted_and_it_still_counts(store: JobStore) -> None:
    waiting, running = held_row(store)
    store.settle([Delete(running.id, 1)], NOW)
    admit(store, ONE[0])
    (held,) = claim(store, waiting).rows
    assert claim(store, *add(store, row()), limits=ONE).held == 1
    store.settle([Delete(held.id, 1)], NOW)
    assert store.get([waiting]) == []


# -- many at once ----------------------------------------------------------------------------------------


class Crowd:
    """What threads hold at one moment, as they count it: never more than there is."""

    def __init__(self, name: Callable[[Row], str | None]) -> None:
        self._lock, self._name = threading.Lock(), name
        self._held: Counter[str | None] = Counter()
        self.most: Counter[str | None] = Counter()

    def come(self, jobs: Sequence[Row]) -> None:
        with self._lock:
            self._held.update(self._name(job) for job in jobs)
            for name, number in self._held.items():
                self.most[name] = max(self.most[name], number)

    def go(self, jobs: Sequence[Row]) -> None:
        with self._lock:
            self._held.subtract(self._name(job) for job in jobs)


@pytest.mark.parametrize(
    ("limit", "keys", "bounds"),
    [
        (Limit("t", running=3), [None], {None: 3}),
        (Limit("t", running_per_key=2), ["a", "b", None], {"a": 2, "b": 2}),
        (Limit("t", running=3, running_per_key=1), ["a", "b", "c", "d"], dict.fromkeys("abcd", 1)),
    ],
    ids=["of a type", "of a key", "of both"],
)
def test_of_many_threads_no_more_run_than_may_and_all_run_at_last(
    make_atomic_store: MakeStore, limit: Limit, keys: Any, bounds: Mapping[str | None, int]
) -> None:
    stores = [make_atomic_store(), make_atomic_store()]
    wanted = add(stores[0], *(row(limit_key=keys[number % len(keys)]) for number in range(60)))
    by_key, by_type = Crowd(lambda job: job.limit_key), Crowd(lambda job: job.type)

    def work(number: int) -> Any:
        store, done = stores[number % 2], []
        while sum(store.counts("t").values()):
            jobs = claim(store, budget=window(jobs=2), limits=(limit,)).rows
            for crowd in (by_key, by_type):
                crowd.come(jobs)
            running = Counter(job.limit_key for job in store.find("t", "running", None, 100))
            assert all(running[key] <= bound for key, bound in bounds.items())
            assert running.total() <= (limit.running or 100)
            for crowd in (by_key, by_type):
                crowd.go(jobs)
            assert store.settle([Delete(job.id, job.fence) for job in jobs], NOW) == Settled()
            store.admit(limit, {job.limit_key for job in jobs if job.limit_key}, NOW, NOW, 100)
            if not jobs:
                store.admit(limit, None, NOW, NOW, 100)
            done += [(job.id, job.fence) for job in jobs]
        return done

    with ThreadPoolExecutor(4) as pool:
        done = [one for part in pool.map(work, range(4)) for one in part]
    assert sorted(done) == sorted((id, 1) for id in wanted)
    assert all(by_key.most[key] <= bound for key, bound in bounds.items())
    assert by_type.most["t"] <= (limit.running or 100)


def test_of_many_threads_no_more_start_in_a_period_than_may(make_atomic_store: MakeStore) -> None:
    stores = [make_atomic_store() for _ in range(4)]
    limit = (Limit("t", starts=5, period=10.0),)
    wanted = add(stores[0], *(row() for _ in range(40)))
    barrier = threading.Barrier(4)

    def work(number: int) -> Any:
        taken = []
        for turn in range(8):
            now = NOW + 10 * turn
            barrier.wait()
            taken += [(turn, job.id) for job in claim(stores[number], now=now, limits=limit).rows]
            barrier.wait()
            stores[number].admit(limit[0], None, now + 10, NOW, 100)
        return taken

    with ThreadPoolExecutor(4) as pool:
        taken = [one for part in pool.map(work, range(4)) for one in part]
    assert Counter(turn for turn, _ in taken) == dict.fromkeys(range(8), 5)
    assert sorted(id for _, id in taken) == sorted(wanted)


# -- those of a holder count together --------------------------------------------------------------------


def test_a_holder_with_room_for_all_its_hands_gets_any_number(store: JobStore, other: JobStore) -> None:
    """So what it runs after each other takes no place of others."""
    given = add(store, *(row() for _ in range(9)))
    mine, both = Claimer("mine", 1), (Limit("t", running=2),)
    taken = claim(store, *given[:6], limits=both, holder=mine)
    assert (ids(taken.rows), taken.held) == (given[:6], 0)
    assert taken.rows == other.get(given[:6])
    assert [hands_of(job.gate or "") for job in taken.rows] == [1] * 6
    assert ids(claim(other, *given[6:8], limits=both).rows) == [given[6]]
    assert ids(claim(store, given[8], limits=both, holder=mine).rows) == []


def test_what_a_holder_runs_is_one_place_until_the_last_of_it_is_settled(store: JobStore, other: JobStore) -> None:
    given = add(store, *(row(limit_key="k") for _ in range(4)))
    mine = Claimer("mine", 1)
    taken = claim(store, *given[:3], limits=ONE_A_KEY, holder=mine).rows
    for job in taken:
        assert claim(other, given[3], limits=ONE_A_KEY).rows == []
        assert admit(other, ONE_A_KEY[0], {"k"}).dues == []
        assert store.settle([Delete(job.id, job.fence)], NOW) == Settled()
    assert [due.id for due in admit(other, ONE_A_KEY[0], {"k"}).dues] == given[3:]


def test_a_holder_with_more_hands_than_places_gets_those_that_may_follow(store: JobStore, other: JobStore) -> None:
    given = add(store, *(row(limit_key="k") for _ in range(5)))
    mine = Claimer("mine", 8, follow=2)
    assert ids(claim(store, *given, limits=ONE_A_KEY, holder=mine).rows) == given[:3]
    assert claim(other, *given[3:], limits=ONE_A_KEY, holder=mine._replace(id="another")).rows == []


def test_beside_others_each_row_of_a_holder_is_a_place(store: JobStore, other: JobStore) -> None:
    given = add(store, *(row() for _ in range(6)))
    three = (Limit("t", running=3),)
    assert ids(claim(other, given[0], limits=three).rows) == given[:1]
    mine = Claimer("mine", 3, follow=9)
    assert ids(claim(store, *given[1:], limits=three, holder=mine).rows) == given[1:3]


def test_what_a_holder_may_claim_is_admitted_at_once(store: JobStore) -> None:
    first, *others = add(store, *(row(limit_key="k") for _ in range(4)))
    (running,) = claim(store, first, limits=ONE_A_KEY).rows
    assert claim(store, *others, limits=ONE_A_KEY).held == 3
    store.settle([Delete(first, running.fence)], NOW)
    mine = Claimer("mine", 1)
    assert [due.id for due in admit(store, ONE_A_KEY[0], {"k"}, holder=mine).dues] == others
    assert ids(claim(store, *others, limits=ONE_A_KEY, holder=mine).rows) == others


def test_a_period_counts_each_row_of_a_holder(store: JobStore) -> None:
    given = add(store, *(row() for _ in range(4)))
    limit = (Limit("t", running=2, starts=3, period=10.0),)
    assert ids(claim(store, *given, limits=limit, holder=Claimer("mine", 1)).rows) == given[:3]


def test_what_a_holder_had_when_its_lease_ended_takes_no_place(store: JobStore, other: JobStore) -> None:
    first, second, third = add(store, row(), row(), row())
    assert len(claim(store, first, second, limits=ONE, holder=Claimer("dead", 1)).rows) == 2
    assert claim(other, third, limits=ONE).held == 1
    assert [due.id for due in admit(other, ONE[0], (), now=NOW + 31).dues] == [third]


def test_a_holder_may_have_other_hands_for_another_type(store: JobStore, other: JobStore) -> None:
    """One that has no more than the places gets any number of rows, and more than that one for each place."""
    given = add(store, *(row(type=type) for type in "ttttuuuu"))
    two = (Limit("t", running=2), Limit("u", running=2))
    mine = Claimer("mine", 2, own={"u": (5, 0)})
    wide = Budget(100, job_s={"t": 0.0, "u": 0.0})
    got = ids(claim(store, *given, limits=two, holder=mine, types=("t", "u"), budget=wide).rows)
    assert got == [*given[:4], *given[4:6]]
    assert claim(other, *add(store, row()), limits=two).held == 1
