"""What is put for rows, and what becomes of an entry after a claim."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kqueue.contracts.broker import Entry, Pointer, selected
from kqueue.contracts.budget import Budget
from kqueue.contracts.repair import Due, Head
from kqueue.contracts.rules import GRACE_S, is_lost
from kqueue.contracts.runs import Claim, Selection
from kqueue.dispatch.pointers import MAX_TUBE_DELAY_S, group
from kqueue.loops.verdicts import SHORTEST_S, judge, stale
from kqueue.model.job import Row
from kqueue.stores.memory.store import MemoryStore


def entry(token: int, *ids: str) -> Entry:
    return Entry(token, Pointer("t", 5, 100.0, ids))


def claim(*claimed: str, cut: bool = False, later: dict[str, float] | None = None) -> Claim:
    return Claim([Row(id, "t", b"", "bytes", 5, "running", 0, 0, 1) for id in claimed], cut, later or {})


def releases(entries: list[Entry], got: Claim, now: float = 1000.0) -> list[float | None]:
    return [verdict.release_in for verdict in judge(entries, got, now)]


def test_rows_of_one_type_priority_and_time_share_a_pointer_in_their_order() -> None:
    dues = [
        Due("a", "t", 5, 100.0, 100.0),
        Due("b", "u", 5, 100.0, 100.0),
        Due("c", "t", 5, 100.0, 100.0),
        Due("d", "t", 6, 100.0, 100.0),
        Due("e", "t", 5, 100.5, 99.5),
        Due("f", "t", 5, 100.0, 99.0),
        Due("g", "t", 5, 101.5, 100.0),
        Due("h", "t", 5, 101.2, 100.0),
    ]
    assert group(dues, 100.0) == [
        (Pointer("t", 5, 99.0, ("a", "c", "e", "f")), 0.0),
        (Pointer("u", 5, 100.0, ("b",)), 0.0),
        (Pointer("t", 6, 100.0, ("d",)), 0.0),
        (Pointer("t", 5, 100.0, ("g", "h")), 1.0),
    ]


@pytest.mark.parametrize(
    ("delay", "whole"), [(0.3, 0), (0.96, 0), (0.98, 1), (1.0, 1), (1.3, 1), (29.99, 30), (3599.5, 3599)]
)
def test_a_pointer_comes_before_its_rows_are_due_but_for_a_moment(delay: float, whole: int) -> None:
    """The tube knows whole seconds only; one that is a moment late need not come twice."""
    assert [delay for _, delay in group([Due("a", "t", 5, 1000.0 + delay, 1000.0)], 1000.0)] == [whole]


def test_a_pointer_of_rows_that_were_rung_together_shows_none_of_their_neighbours_to_be_lost() -> None:
    """Its time is that of the first, also where a ring came late: those added between stand behind it."""
    [(pointer, _)] = group([Due("a", "t", 5, 100.0, 100.0), Due("b", "t", 5, 110.0, 110.0)], 110.0)
    between = Due("c", "t", 5, 101.0, 101.0)
    assert not is_lost(between, Head(pointer.priority, pointer.put_at), 200.0, GRACE_S)
    assert is_lost(between, Head(pointer.priority, 110.0), 200.0, GRACE_S)


def test_an_overdue_row_is_put_without_delay() -> None:
    assert group([Due("a", "t", 5, 50.0, None)], 100.0)[0][1] == 0.0


def test_what_two_entries_name_at_two_priorities_is_looked_for_at_the_first_and_stays_in_the_second() -> None:
    """Its priority was changed, and its row alone says which of them is the newer one."""
    urgent, bulk = Entry(1, Pointer("t", 1, 100.0, ("a", "b"))), Entry(2, Pointer("t", 9, 100.0, ("a", "c")))
    selection = selected(("t",), [urgent, bulk])
    assert selection == Selection(("t",), ("a", "b", "a", "c"), pointed={"a": 1, "b": 1, "c": 9})
    fates = judge([urgent, bulk], claim("b", "c"), 1000.0, selection.pointed)
    assert [fate.release_in for fate in fates] == [None, 0.0]
    fates = judge([urgent, bulk], claim("a", "b", "c"), 1000.0, selection.pointed)
    assert [fate.release_in for fate in fates] == [None, None]


def test_an_entry_with_nothing_left_to_claim_is_deleted() -> None:
    entries = [entry(1, "a", "b"), entry(2, "c")]
    assert releases(entries, claim("a", "b", "c")) == [None, None]
    assert releases(entries, claim("a")) == [None, None]  # b and c are gone or leased


def test_what_a_full_window_did_not_look_at_keeps_its_place() -> None:
    entries = [entry(1, "a", "b"), entry(2, "c", "d"), entry(3, "e")]
    assert releases(entries, claim("a", "b", "c", cut=True)) == [None, 0.0, 0.0]
    assert releases(entries, claim("b", "d", cut=True)) == [None, None, 0.0]


def test_an_entry_not_due_yet_waits_for_the_rest_of_its_shortest_delay() -> None:
    entries = [entry(1, "a", "b")]
    assert releases(entries, claim(later={"a": 1030.0, "b": 1010.0})) == [10.0]
    assert releases(entries, claim(later={"a": 1000.0 + 1e6})) == [MAX_TUBE_DELAY_S]
    assert releases(entries, claim(later={"a": 1000.25})) == [0.25]


def test_an_entry_that_is_due_by_our_clock_and_not_by_the_stores_is_given_back_for_a_moment() -> None:
    """Not to its place, from where it would come at once."""
    assert releases([entry(1, "a")], claim(later={"a": 999.0})) == [SHORTEST_S]


def test_an_entry_unseen_and_not_due_keeps_its_place() -> None:
    assert releases([entry(1, "a", "b", "c")], claim("a", cut=True, later={"c": 1010.0})) == [0.0]


def test_deleted_entries_without_any_row_are_counted_as_stale() -> None:
    entries = [entry(1, "a"), entry(2, "b"), entry(3, "c")]
    got = claim("a", later={"c": 2000.0})
    assert stale(judge(entries, got, 1000.0), got) == 1


def test_an_entry_whose_first_jobs_are_also_in_a_later_one_keeps_its_place() -> None:
    """As after a crash: the old entry is still in the tube when the sweep puts the recovered jobs again."""
    entries = [entry(1, "a", "b", "c", "d"), entry(2, "a", "b")]
    assert releases(entries, claim("a", "b", cut=True)) == [0.0, None]


@given(
    st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=5), min_size=1, max_size=5),
    st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from(["ready", "delayed", "running"])),
    st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 3)),
    st.integers(1, 6),
)
def test_no_entry_is_deleted_that_a_later_claim_could_use(
    bodies: list[list[str]], states: dict[str, str], suspicion: dict[str, int], jobs: int
) -> None:
    store = MemoryStore()
    store.add(
        [
            Row(id, "t", b"", "bytes", 5, state, 0, 2000.0, 10, suspicion=suspicion.get(id, 0))
            for id, state in states.items()
        ]
    )
    entries = [entry(token, *body) for token, body in enumerate(bodies)]
    ids = tuple(id for body in bodies for id in body)
    limits = Budget(jobs, job_s={"t": 0.001})
    claimed = store.claim(Selection(("t",), ids), limits, "owner", 1000.0, False)
    for verdict in judge(entries, claimed, 1000.0):
        rows = store.get(verdict.entry.pointer.ids)
        useful = [row.id for row in rows if row.state in {"ready", "delayed"}]
        assert not (useful and verdict.release_in is None)
        if any(row.state == "ready" for row in rows):
            assert verdict.release_in == 0.0
