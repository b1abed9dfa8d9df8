"""What is told of jobs: found, counted, who is ahead."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from kqueue.contracts.lookup import Backlog, EndedRows
from kqueue.contracts.settlements import Delete, Die, Finish, Unget
from kqueue.contracts.store import JobStore
from kqueue.model.job import State
from kqueue.testing.contracts.rows import NOW, MakeStore, add, claim, claimed_row, delayed, ids, read, row, window

# -- find and counts -------------------------------------------------------------------------------------


def follow(store: JobStore, type: str | None = None, most: int = 2) -> list[tuple[str, str]]:
    """All ends that are kept, page by page."""
    found: list[tuple[str, str]] = []
    place: str | None = None
    while True:
        page = store.ends(type, place, most)
        assert len(page.rows) <= most
        if not page.rows:
            assert page.place == place
            return found
        found += [(job.id, str(job.state)) for job in page.rows]
        place = page.place


def test_ends_come_in_the_order_in_which_they_came(store: JobStore, other: JobStore) -> None:
    assert store.ends(None, None, 9) == EndedRows([], None)
    first, second, third, fourth = (claimed_row(store, type=type) for type in ("t", "t", "x", "t"))
    other.settle([Finish(third.id, 1, NOW + 9, None, b"j3")], NOW + 5)
    store.settle([Die(first.id, 1, "enough")], NOW + 1)
    page = other.ends(None, None, 9)
    assert [(job.id, job.result) for job in page.rows] == [(third.id, b"j3"), (first.id, None)]
    other.settle([Finish(second.id, 1, NOW + 9), Delete(fourth.id, 1)], NOW)
    after = store.ends(None, page.place, 9)
    assert ids(after.rows) == [second.id]
    assert store.ends(None, after.place, 9) == EndedRows([], after.place)
    assert follow(store) == [(third.id, "done"), (first.id, "dead"), (second.id, "done")]
    assert follow(other, "t") == [(first.id, "dead"), (second.id, "done")]
    assert follow(other, "none") == []


def test_what_is_gone_or_brought_back_has_no_end_and_what_ends_anew_comes_anew(store: JobStore) -> None:
    first, second = claimed_row(store), claimed_row(store)
    store.settle([Die(first.id, 1, "enough")], NOW)
    store.settle([Finish(second.id, 1, NOW + 9)], NOW)
    page = store.ends(None, None, 9)
    assert ids(page.rows) == [first.id, second.id]
    store.revive([first.id], "again", NOW, None)
    assert store.expire(NOW + 9, 9) == 1
    assert follow(store) == []
    (held,) = claim(store, first.id).rows
    store.settle([Finish(first.id, held.fence, NOW + 9)], NOW + 1)
    assert ids(store.ends(None, page.place, 9).rows) == [first.id]


def test_one_that_a_sweep_finds_to_have_killed_its_worker_has_ended(store: JobStore) -> None:
    held = claimed_row(store, alone=True)
    store.recover(NOW + 31, 1, 9)
    place = store.ends(None, None, 9).place
    assert follow(store) == [(held.id, "dead")]
    store.settle([Finish(held.id, 1, NOW + 99)], NOW + 32)  # its holder was only late
    assert follow(store) == [(held.id, "done")]
    assert ids(store.ends(None, place, 9).rows) == [held.id]


def test_of_many_that_end_at_once_each_is_seen_once_by_who_follows(make_atomic_store: MakeStore) -> None:
    stores = [make_atomic_store() for _ in range(4)]
    held = [[claimed_row(stores[0]) for _ in range(8)] for _ in range(3)]

    def end(number: int) -> None:
        for job in held[number]:
            stores[number].settle([Finish(job.id, 1, NOW + 99)], NOW)

    seen: list[str] = []
    place: str | None = None
    with ThreadPoolExecutor(3) as pool:
        ending = [pool.submit(end, number) for number in range(3)]
        while True:
            is_last = all(one.done() for one in ending)
            page = stores[3].ends(None, place, 5)
            seen, place = seen + ids(page.rows), page.place
            if is_last and not page.rows:
                break
    assert sorted(seen) == sorted(job.id for lot in held for job in lot)


@pytest.mark.parametrize("place", ["", "x", "-1", "[]", "[1]", "\0", "9" * 40, "☃"])
def test_a_place_that_no_call_gave_is_refused(store: JobStore, place: str) -> None:
    with pytest.raises(ValueError, match=r"^after: expected what a former call gave"):
        store.ends(None, place, 9)


def test_states_of_those_that_there_are(store: JobStore, other: JobStore) -> None:
    ready, later = add(store, row(payload=b"x" * 100_000), delayed(NOW + 9))
    held = claimed_row(store)
    dead = claimed_row(store)
    store.settle([Die(dead.id, 1, "enough")], NOW)
    expected = {ready: "ready", later: "delayed", held.id: "running", dead.id: "dead"}
    found = other.states([*expected, "0" * 28, ready])
    assert found == expected
    assert {type(state) for state in found.values()} == {str}
    assert store.states([]) == {}


def test_find_gives_the_rows_of_a_state_in_the_order_of_ids(store: JobStore, other: JobStore) -> None:
    second, first, third, of_another_type, ready, later = add(
        store, row(id="b" * 28, priority=1), row(id="a" * 28, payload=b"1"), row(id="d" * 28),
        row(id="c" * 28, type="x"), row(), delayed(NOW + 9),
    )  # fmt: skip
    for id, type in ((second, "t"), (third, "t"), (of_another_type, "x"), (first, "t")):
        claim(store, id, types=(type,))
        store.settle([Die(id, 1, "enough")], NOW)
    running = claimed_row(store)
    assert other.find("t", State.DEAD, None, 10) == store.get([first, second, third])
    assert ids(other.find(None, "dead", None, 10)) == [first, second, of_another_type, third]
    assert ids(other.find(None, State.READY, None, 10)) == [ready]
    assert ids(other.find("t", State.DELAYED, None, 10)) == [later]
    assert other.find("t", State.RUNNING, None, 10) == [running]
    assert other.find("x", State.READY, None, 10) == other.find(None, State.DONE, None, 10) == []


@pytest.mark.parametrize("state", [State.READY, State.DELAYED, State.RUNNING, State.DEAD])
@pytest.mark.parametrize("type", ["t", None])
def test_find_goes_on_after_the_last_id_of_a_page(store: JobStore, state: str, type: str | None) -> None:
    given = add(store, *(delayed(NOW + 9) if state == State.DELAYED else row() for _ in range(5)))
    if state in {State.RUNNING, State.DEAD}:
        claim(store)
    if state == State.DEAD:
        store.settle([Die(id, 1, "enough") for id in given], NOW)
    first = ids(store.find(type, state, None, 2))
    second = ids(store.find(type, state, first[-1], 2))
    last = ids(store.find(type, state, second[-1], 2))
    assert [first, second, last] == [given[:2], given[2:4], given[4:]]
    assert store.find(type, state, last[-1], 2) == []


def test_counts_are_by_state_and_type(store: JobStore, other: JobStore) -> None:
    add(store, row(), row(), delayed(NOW + 9), row(type="other"), row(type="other"))
    claimed_row(store)
    claimed_row(store, type="other")
    dead = claimed_row(store)
    store.settle([Die(dead.id, 1, "enough")], NOW)
    assert other.counts("t") == {"delayed": 1, "ready": 2, "held": 0, "running": 1, "dead": 1, "done": 0}
    assert other.counts("other") == {"delayed": 0, "ready": 2, "held": 0, "running": 1, "dead": 0, "done": 0}
    assert other.counts() == {"delayed": 1, "ready": 4, "held": 0, "running": 2, "dead": 1, "done": 0}
    assert set(other.counts()) == set(State)


# -- the overview ----------------------------------------------------------------------------------------


def test_the_overview_tells_rows_by_type_and_state_and_the_earliest_time(store: JobStore, other: JobStore) -> None:
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


def test_ahead_are_the_ready_rows_of_its_type_that_come_before(store: JobStore, other: JobStore) -> None:
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


def test_of_a_row_that_is_not_ready_it_tells_who_would_be_before_it(store: JobStore) -> None:
    add(store, row(priority=1), row())
    later, held = add(store, delayed(NOW + 9), row())
    claim(store, held)
    add(store, row(), row(priority=2))
    assert store.ahead(read(store, later), 100) == 3
    store.settle([Unget(held, 1, NOW, 3, None, started=False)], NOW)
    assert store.ahead(read(store, held), 100) == 2


def test_nobody_is_ahead_of_a_row_that_is_gone(store: JobStore) -> None:
    add(store, row(priority=1))
    gone = claimed_row(store)
    store.settle([Delete(gone.id, 1)], NOW)
    assert store.ahead(gone, 100) == 0


@pytest.mark.parametrize("number", [0, 7])
def test_ahead_counts_no_further_than_asked(store: JobStore, number: int) -> None:
    add(store, *(row(priority=1) for _ in range(20)))
    (last,) = add(store, row())
    assert store.ahead(read(store, last), number) == number
