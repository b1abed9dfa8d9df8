"""Holders: what one who claims has in hand counts together at a limit. It needs transactions."""

from kqueue.contracts.admission import Holder, Limit, hands_of
from kqueue.contracts.settlements import Delete, Settled
from kqueue.contracts.store import JobStore
from kqueue.testing.contracts.rows import NOW, ONE, ONE_A_KEY, add, admit, claim, ids, row


def test_a_holder_with_room_for_all_its_hands_gets_any_number(store: JobStore, other: JobStore) -> None:
    """So what it runs after each other takes no place of others."""
    given = add(store, *(row() for _ in range(9)))
    mine, both = Holder("mine", 1), (Limit("t", running=2),)
    taken = claim(store, *given[:6], limits=both, holder=mine)
    assert (ids(taken.rows), taken.held) == (given[:6], 0)
    assert taken.rows == other.get(given[:6])
    assert [hands_of(job.gate or "") for job in taken.rows] == [1] * 6
    assert ids(claim(other, *given[6:8], limits=both).rows) == [given[6]]
    assert ids(claim(store, given[8], limits=both, holder=mine).rows) == []


def test_what_a_holder_runs_is_one_place_until_the_last_of_it_is_settled(store: JobStore, other: JobStore) -> None:
    given = add(store, *(row(limit_key="k") for _ in range(4)))
    mine = Holder("mine", 1)
    taken = claim(store, *given[:3], limits=ONE_A_KEY, holder=mine).rows
    for job in taken:
        assert claim(other, given[3], limits=ONE_A_KEY).rows == []
        assert admit(other, ONE_A_KEY[0], {"k"}).dues == []
        assert store.settle([Delete(job.id, job.fence)], NOW) == Settled()
    assert [due.id for due in admit(other, ONE_A_KEY[0], {"k"}).dues] == given[3:]


def test_a_holder_with_more_hands_than_places_gets_those_that_may_follow(store: JobStore, other: JobStore) -> None:
    given = add(store, *(row(limit_key="k") for _ in range(5)))
    mine = Holder("mine", 8, follow=2)
    assert ids(claim(store, *given, limits=ONE_A_KEY, holder=mine).rows) == given[:3]
    assert claim(other, *given[3:], limits=ONE_A_KEY, holder=mine._replace(id="another")).rows == []


def test_beside_others_each_row_of_a_holder_is_a_place(store: JobStore, other: JobStore) -> None:
    given = add(store, *(row() for _ in range(6)))
    three = (Limit("t", running=3),)
    assert ids(claim(other, given[0], limits=three).rows) == given[:1]
    mine = Holder("mine", 3, follow=9)
    assert ids(claim(store, *given[1:], limits=three, holder=mine).rows) == given[1:3]


def test_what_a_holder_may_claim_is_admitted_at_once(store: JobStore) -> None:
    first, *others = add(store, *(row(limit_key="k") for _ in range(4)))
    (running,) = claim(store, first, limits=ONE_A_KEY).rows
    assert claim(store, *others, limits=ONE_A_KEY).held == 3
    store.settle([Delete(first, running.fence)], NOW)
    mine = Holder("mine", 1)
    assert [due.id for due in admit(store, ONE_A_KEY[0], {"k"}, holder=mine).dues] == others
    assert ids(claim(store, *others, limits=ONE_A_KEY, holder=mine).rows) == others


def test_a_period_counts_each_row_of_a_holder(store: JobStore) -> None:
    given = add(store, *(row() for _ in range(4)))
    limit = (Limit("t", running=2, starts=3, period=10.0),)
    assert ids(claim(store, *given, limits=limit, holder=Holder("mine", 1)).rows) == given[:3]


def test_what_a_holder_had_when_its_lease_ended_takes_no_place(store: JobStore, other: JobStore) -> None:
    first, second, third = add(store, row(), row(), row())
    assert len(claim(store, first, second, limits=ONE, holder=Holder("dead", 1)).rows) == 2
    assert claim(other, third, limits=ONE).held == 1
    assert [due.id for due in admit(other, ONE[0], (), now=NOW + 31).dues] == [third]
