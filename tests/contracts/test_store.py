"""The contract of kqueue/contracts/store.py in running code, in its order, and so in one long file. Every store
passes it.

What it says of limits, unique keys, ticks, pauses, workers, done rows and histories stands in the files beside it.
"""

import os
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor

import pytest

from kqueue.contracts.budget import MAX_JOBS, Budget, suspect_jobs
from kqueue.contracts.repair import Abandoned, Due, Head, Recovered
from kqueue.contracts.runs import LeaseKey, Selection
from kqueue.contracts.settlements import Delete, Die, Finish, Retry, Settled, Unget
from kqueue.model.errors import AddFailed, StoreError
from kqueue.model.job import State
from tests.contracts.rows import (
    NOTHING,
    NOW,
    NUMBERS,
    WIDE,
    abandon,
    add,
    claim,
    claimed_row,
    delayed,
    ids,
    read,
    row,
    window,
)

# -- a new store -----------------------------------------------------------------------------------------


def test_its_address_is_text_and_open_may_be_called_again(store):
    store.open()
    store.open()
    assert isinstance(store.address, str)
    assert store.address


def test_its_clock_is_the_time_of_day(store):
    assert abs(store.now() - time.time()) < 60


def test_an_empty_store_answers_every_question(store):
    assert store.get(["0" * 28]) == []
    assert store.counts() == {"delayed": 0, "ready": 0, "held": 0, "running": 0, "dead": 0, "done": 0}
    assert store.counts("t") == {"delayed": 0, "ready": 0, "held": 0, "running": 0, "dead": 0, "done": 0}
    assert store.overview() == store.ready_types("", 10) == store.held_types(["t"]) == []
    assert store.sweep_position() == ""
    assert store.next_run_at() is None
    assert not store.has_ready(["t"])
    assert claim(store) == claim(store, "0" * 28) == NOTHING
    assert store.recover(NOW, 3, 10) == Recovered(0, 0)
    assert store.promote(NOW, 10) == store.purge("t", 10) == store.delete(["0" * 28]) == 0
    assert store.find_due(NOW, 10) == store.find_abandoned(NOW, 10) == []
    assert store.find_unput(NOW, 10) == store.find_lost({"t": None}, NOW, 5, 10) == []
    assert store.claimed_by("nobody") == store.find(None, State.DEAD, None, 10) == []


def test_empty_lists_are_fine(store):
    store.add([])
    assert store.renew([], NOW) == frozenset()
    assert store.settle([], NOW) == Settled()
    assert store.get([]) == store.mark([], NOW) == store.revive([], "x", NOW, None) == []
    assert store.delete([]) == 0
    assert not store.has_ready([])
    assert store.claim(Selection(("t",), ()), WIDE, "w", NOW, False) == NOTHING
    assert store.claim(Selection((), None), WIDE, "w", NOW, False) == NOTHING


def test_the_first_writer_of_a_setting_wins(store, other):
    assert store.setting("prefix", "first-") == "first-"
    assert other.setting("prefix", "second-") == "first-"
    assert other.setting("another", "x") == "x"


def test_of_many_writers_of_a_setting_at_once_one_wins(make_atomic_store):
    stores = [make_atomic_store() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        seen = list(pool.map(lambda pair: pair[1].setting("prefix", f"p{pair[0]}"), enumerate(stores)))
    assert len(set(seen)) == 1


# -- add and get -----------------------------------------------------------------------------------------


def test_every_field_comes_back(store, other):
    full = row(
        type="a.b/c-d_e", payload=b"\x01", encoding="bytes", priority=2**32 - 1, state=State.DELAYED, delay=1.25,
        run_at=NOW + 0.123456, ttr=7.5, created_at=NOW + 0.1, put_at=NOW + 0.000001,
        unique_key="a ☃", limit_key="",
    )  # fmt: skip
    plain = row(put_at=None, priority=0)
    used = row(
        state=State.DEAD, fence=3, tries=2, failures=1, crashes=1, suspicion=2, alone=True, lease_owner="w",
        lease_until=NOW + 0.3, reason="x", gate="t k", keep_until=NOW + 0.7, history="[]", limit_key="k",
    )  # fmt: skip
    add(store, full, plain)
    add(store, used)
    assert other.get([full.id, plain.id, used.id]) == [full, plain, used]
    assert type(read(other, plain.id).alone) is bool


@pytest.mark.parametrize(
    "payload",
    [b"", b"x" * 3_000_000, b"a\0b\0", b"\r\n.\r\ndelete 1\r\n", bytes(range(256)), "naïve ☃".encode()],
    ids=["empty", "3 MB", "NUL", "CRLF", "not UTF-8", "not ASCII"],
)
def test_a_payload_comes_back_byte_for_byte(store, other, payload):
    (id,) = add(store, row(payload=payload, encoding="bytes"))
    assert read(other, id).payload == payload
    (held,) = claim(other, id).rows
    assert held.payload == payload
    assert isinstance(held.payload, bytes)
    store.settle([Retry(id, 1, NOW, "again", None)], NOW)
    assert read(other, id).payload == payload


def test_get_keeps_the_order_of_the_ids_and_leaves_out_what_is_not_there(store):
    a, b, c = add(store, row(), row(), row())
    assert ids(store.get([c, "0" * 28, a, b])) == [c, a, b]


def test_an_id_that_is_there_already_is_not_taken_and_nothing_else_is_changed(store, other):
    first = row(payload=b"1")
    add(store, first)
    again = first._replace(payload=b"2")
    with pytest.raises(AddFailed) as failed:
        other.add([again])
    assert failed.value.not_taken == (first.id,)
    assert failed.value.taken == failed.value.unknown == ()
    assert store.get([first.id]) == [first]


@pytest.mark.parametrize("around", [1, 130])
def test_after_a_failed_add_each_job_is_where_the_error_says(store, around):
    there = row()
    add(store, there)
    before, after = [row() for _ in range(around)], [row() for _ in range(around)]
    with pytest.raises(AddFailed) as failed:
        store.add([*before, there, *after])
    assert set(failed.value.taken) | set(failed.value.not_taken) == {there.id, *ids(before), *ids(after)}
    assert there.id in failed.value.not_taken
    assert set(ids(store.get(ids([*before, *after])))) == set(failed.value.taken)


@pytest.mark.parametrize("count", [1, 49, 50, 51, 100, 149])
@pytest.mark.parametrize("size", [1, 5000])
def test_every_row_of_a_list_is_there_in_its_order(store, other, count, size):
    added = [row(payload=b"x" * size) for _ in range(count)]
    store.add(added)
    assert other.get(ids(added)) == added
    assert ids(claim(other).rows) == ids(added)


def test_an_add_to_a_store_that_is_not_there_names_every_job_as_not_taken(absent_store):
    given = [row(), row()]
    with pytest.raises(AddFailed) as failed:
        absent_store.add(given)
    assert failed.value.not_taken == (given[0].id, given[1].id)
    assert failed.value.taken == failed.value.unknown == ()
    assert failed.value.__cause__ is not None
    assert isinstance(failed.value, StoreError)
    assert absent_store.address in str(failed.value)


# -- claim -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_id", [True, False])
def test_a_claimed_row_says_what_the_store_says(store, other, by_id):
    """Each field has a value of its own, so that none stands in another's place."""
    full = row(
        priority=3, delay=4.0, run_at=NOW - 5, ttr=6.0, fence=7, tries=8, failures=9, crashes=10, suspicion=1,
        reason="r", gate="t", created_at=NOW - 11, put_at=NOW - 12, unique_key="u", limit_key="l",
        scheduled_for=NOW - 13, asked_at=NOW - 14,
    )  # fmt: skip
    add(store, full)
    (held,) = claim(store, *[full.id] * by_id, owner="me").rows
    assert held == full._replace(state="running", fence=8, tries=9, lease_owner="me", lease_until=NOW + 6)
    assert other.get([full.id]) == [held]


def test_a_claim_takes_none_that_stand_between_those_it_takes(store, other):
    """Rows of other types, and such as are not due, were added in between."""
    wanted, later, between = row(), delayed(NOW + 9), row(type="u")
    added = add(store, wanted, later, between, row())
    assert len(claim(store).rows) == 2
    assert [job.state for job in other.get(added)] == ["running", "delayed", "ready", "running"]


def test_a_claimed_row_is_running_under_a_lease(store, other):
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
def test_two_handles_do_not_claim_the_same_row(store, other, by_id):
    given = add(store, row())
    wanted = given if by_id else []
    assert ids(claim(store, *wanted).rows) == given
    assert claim(other, *wanted) == NOTHING


def test_fence_and_tries_grow_with_each_claim_but_a_given_back_try_does_not_count(store):
    (id,) = add(store, row())
    (first,) = claim(store, id).rows
    store.settle([Unget(id, first.fence, NOW, None, None, started=False)], NOW)
    (second,) = claim(store, id).rows
    store.settle([Retry(id, second.fence, NOW, "broken", None)], NOW)
    (third,) = claim(store, id).rows
    assert [(held.fence, held.tries) for held in (first, second, third)] == [(1, 1), (2, 1), (3, 2)]


def test_a_row_whose_lease_ran_out_is_not_claimable_before_it_is_recovered(store, other):
    held = claimed_row(store)
    much_later = NOW + 1000
    assert claim(other, held.id, now=much_later).rows == []
    assert claim(other, now=much_later).rows == []
    other.recover(much_later, 3, 10)
    assert ids(claim(other, held.id, now=much_later).rows) == [held.id]


def test_without_ids_the_order_is_priority_then_order_added(store):
    a, b, c, d, e = add(
        store, row(priority=5), row(priority=1, put_at=None), row(priority=5), row(priority=1), row(priority=0)
    )
    assert ids(claim(store).rows) == [e, b, d, a, c]


def test_the_order_added_does_not_depend_on_ids_or_times(store):
    given = add(
        store,
        row(id="z" * 28, put_at=NOW + 5, run_at=NOW - 1),
        row(id="m" * 28, put_at=NOW - 5, run_at=NOW - 3),
        row(id="a" * 28, put_at=None, run_at=NOW - 2),
    )
    assert ids(claim(store).rows) == given


def test_a_row_that_is_given_back_keeps_its_place(store):
    given = add(store, *(row() for _ in range(3)))
    (first,) = claim(store, budget=window(jobs=1)).rows
    store.settle([Unget(first.id, first.fence, NOW, None, NOW, started=False)], NOW)
    assert ids(claim(store).rows) == given


def test_without_ids_several_types_are_merged_in_one_order(store):
    a, b, c, d, e = add(
        store, row(type="x", priority=2), row(type="y", priority=1), row(type="z", priority=0),
        row(type="x", priority=1), row(type="y", priority=2),
    )  # fmt: skip
    assert ids(claim(store, types=("y", "x", "y")).rows) == [b, d, a, e]
    assert ids(claim(store, types=("z",)).rows) == [c]


def test_by_ids_the_order_is_that_of_the_ids(store):
    a, b, c = add(store, row(priority=1), row(priority=2), row(priority=3))
    assert ids(claim(store, c, a, b).rows) == [c, a, b]


def test_an_id_that_is_named_twice_is_claimed_once(store):
    a, b = add(store, row(), row())
    assert ids(claim(store, a, b, a, a).rows) == [a, b]
    assert read(store, a).fence == 1


def test_what_cannot_be_claimed_is_passed_over(store):
    running = claimed_row(store)
    dead = claimed_row(store)
    gone = claimed_row(store)
    store.settle([Die(dead.id, 1, "enough"), Delete(gone.id, 1)], NOW)
    of_another_type, fine = add(store, row(type="other"), row())
    taken = claim(store, "0" * 28, running.id, dead.id, gone.id, of_another_type, fine)
    assert ids(taken.rows) == [fine]
    assert (taken.cut, taken.later) == (False, {})
    assert read(store, of_another_type).state == State.READY


def test_without_ids_other_types_are_left_alone(store):
    add(store, row(type="other"))
    assert claim(store) == NOTHING


def test_by_id_a_delayed_row_is_claimed_once_it_is_due_and_told_before(store):
    soon, due, of_another_type = add(store, delayed(NOW + 5), delayed(NOW), delayed(NOW + 5, type="other"))
    taken = claim(store, soon, due, of_another_type)
    assert ids(taken.rows) == [due]
    assert taken.later == {soon: NOW + 5}
    assert ids(claim(store, soon, now=NOW + 5).rows) == [soon]


def test_a_due_row_that_the_window_cut_off_is_not_called_later(store):
    first, second, soon = add(store, row(), delayed(NOW - 1), delayed(NOW + 5))
    taken = claim(store, first, second, soon, budget=window(jobs=1))
    assert (ids(taken.rows), taken.cut) == ([first], True)
    assert second not in taken.later


def test_without_ids_a_delayed_row_is_not_seen_before_it_is_promoted(store):
    given = add(store, delayed(NOW - 5))
    assert claim(store) == NOTHING
    store.promote(NOW, 10)
    assert ids(claim(store).rows) == given


def test_a_ready_row_is_compared_with_no_clock(store):
    given = add(store, row(run_at=NOW + 1000))
    assert ids(claim(store, *given).rows) == given


@pytest.mark.parametrize("by_id", [True, False])
def test_the_window_says_whether_it_was_cut(store, by_id):
    given = add(store, *(row() for _ in range(3)))
    wanted = given if by_id else []
    first = claim(store, *wanted, budget=window(jobs=2))
    assert (ids(first.rows), first.cut) == (given[:2], True)
    assert read(store, given[2]).state == State.READY
    second = claim(store, *wanted, budget=window(jobs=2))
    assert (ids(second.rows), second.cut) == (given[2:], False)


def test_a_window_holds_a_bound_of_payload_and_always_one_job(store):
    given = add(store, *(row(payload=b"x" * 600) for _ in range(3)))
    bound = window(payload_bytes=1200)
    assert ids(claim(store, *given, budget=bound).rows) == given[:2]
    (big,) = add(store, row(payload=b"x" * 5000))
    assert ids(claim(store, big, budget=bound).rows) == [big]


def test_a_window_holds_a_bound_of_work(store):
    given = add(store, *(row() for _ in range(3)), row(type="slow"))
    bound = Budget(jobs=10, work_s=0.02, job_s={"t": 0.01})
    first = claim(store, *given, types=("t", "slow"), budget=bound)
    assert (ids(first.rows), first.cut) == (given[:2], True)
    assert ids(claim(store, given[3], types=("slow",), budget=bound).rows) == given[3:]


def test_a_suspect_gets_a_smaller_window(store):
    first, second, third, fourth = add(store, row(suspicion=2), row(), row(), row(suspicion=3))
    assert suspect_jobs(2) == 2
    assert suspect_jobs(3) == 1
    taken = claim(store, first, second, third, budget=window(jobs=MAX_JOBS))
    assert (ids(taken.rows), taken.cut) == ([first, second], True)
    taken = claim(store, fourth, third, budget=window(jobs=MAX_JOBS))
    assert (ids(taken.rows), taken.cut) == ([fourth], True)


def test_alone_is_stored_only_for_a_window_of_one_whose_process_runs_nothing_else(store):
    a, b, c, d = add(store, row(), row(), row(), row())
    assert [held.alone for held in claim(store, a, alone=True).rows] == [True]
    assert [held.alone for held in claim(store, b, alone=False).rows] == [False]
    assert [held.alone for held in claim(store, c, d, alone=True).rows] == [False, False]
    assert [held.alone for held in store.get([a, b, c, d])] == [True, False, False, False]


def test_one_claim_of_a_crowd_is_not_blamed_on_the_next(store):
    held = claimed_row(store, alone=True)
    store.settle([Retry(held.id, 1, NOW, "again", None)], NOW)
    (again,) = claim(store, held.id, alone=False).rows
    assert not again.alone


def test_held_by_names_what_runs_under_an_owner(store, other):
    first, second, later, lost = add(store, *(row() for _ in range(4)))
    claim(store, first, second, owner="mine")
    claim(store, lost, owner="late", now=NOW - 50)
    claim(store, later, owner="another")
    assert sorted(other.claimed_by("mine")) == sorted(store.get([first, second]))
    assert ids(other.claimed_by("another")) == [later]
    store.recover(NOW, 3, 10)
    assert other.claimed_by("late") == other.claimed_by("nobody") == []


# -- renew -----------------------------------------------------------------------------------------------


def test_renew_holds_a_running_row_for_another_ttr(store, other):
    held = claimed_row(store)
    assert store.renew([LeaseKey(held.id, 1, 30.0)], NOW + 20) == frozenset()
    assert read(other, held.id).lease_until == NOW + 50
    assert other.recover(NOW + 49, 3, 10) == Recovered(0, 0)


def test_renew_takes_a_row_back_that_is_ready_again_after_its_lease_ran_out(store, other):
    held = claimed_row(store)
    other.recover(NOW + 31, 3, 10)
    assert store.renew([LeaseKey(held.id, 1, 30.0)], NOW + 32) == frozenset()
    after = read(other, held.id)
    assert (after.state, after.lease_until, after.fence) == (State.RUNNING, NOW + 62, 1)
    assert claim(other, held.id).rows == []


def test_renew_names_what_is_lost_and_renews_the_rest(store, other):
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
def test_a_row_that_its_holder_gave_back_is_not_renewed(store, verb):
    held = claimed_row(store)
    store.settle([SETTLEMENTS[verb](held.id, 1)._replace(run_at=NOW)], NOW)
    before = read(store, held.id)
    assert before.state == State.READY
    assert store.renew([LeaseKey(held.id, 1, 30.0)], NOW, alone=True) == {held.id}
    assert read(store, held.id) == before


@pytest.mark.parametrize(("told", "kept"), [(True, True), (False, False), (None, True)])
def test_renew_changes_alone_only_if_it_is_told(store, told, kept):
    held = claimed_row(store, alone=True)
    store.renew([LeaseKey(held.id, 1, 30.0)], NOW, alone=told)
    assert read(store, held.id).alone is kept


def test_renew_can_make_a_row_one_that_runs_alone(store):
    held = claimed_row(store)
    store.renew([LeaseKey(held.id, 1, 30.0)], NOW, alone=True)
    assert read(store, held.id).alone


# -- settle ----------------------------------------------------------------------------------------------

SETTLEMENTS = {
    "delete": Delete,
    "retry": lambda id, fence: Retry(id, fence, NOW + 9, "broken", NOW),
    "unget": lambda id, fence: Unget(id, fence, NOW + 9, 7, NOW, started=True),
    "die": lambda id, fence: Die(id, fence, "enough"),
    "finish": lambda id, fence: Finish(id, fence, NOW + 99),
}


@pytest.fixture(params=SETTLEMENTS)
def settlement(request):
    return SETTLEMENTS[request.param]


def test_delete_takes_the_row_away(store, other):
    held = claimed_row(store)
    assert store.settle([Delete(held.id, 1)], NOW) == Settled()
    assert other.get([held.id]) == []
    assert claim(other, held.id).rows == []


def test_retry_adds_a_failure_and_says_why_and_when(store, other):
    held = claimed_row(store, crashes=1, suspicion=2, alone=True)
    assert store.settle([Retry(held.id, 1, NOW + 9, "broken", NOW + 8)], NOW) == Settled()
    assert read(other, held.id) == held._replace(
        state=State.DELAYED, run_at=NOW + 9, reason="broken", put_at=NOW + 8, failures=1, crashes=0, suspicion=0,
        alone=False, lease_owner=None, lease_until=None, history=read(other, held.id).history,
        asked_at=NOW,
    )  # fmt: skip


def test_unget_takes_the_try_off_again(store, other):
    held = claimed_row(store, crashes=1, suspicion=2)
    assert store.settle([Unget(held.id, 1, NOW + 9, 7, None, started=False)], NOW) == Settled()
    assert read(other, held.id) == held._replace(
        state=State.DELAYED, run_at=NOW + 9, priority=7, put_at=None, tries=0,
        alone=False, lease_owner=None, lease_until=None, asked_at=NOW,
    )  # fmt: skip


def test_unget_of_a_started_run_clears_its_name_and_may_keep_its_priority(store):
    held = claimed_row(store, crashes=1, suspicion=2, priority=44)
    store.settle([Unget(held.id, 1, NOW, None, None, started=True)], NOW)
    after = read(store, held.id)
    assert (after.crashes, after.suspicion, after.priority, after.failures) == (0, 0, 44, 0)


def test_unget_may_say_why_or_keep_what_was_said(store):
    held = claimed_row(store)
    store.settle([Unget(held.id, 1, NOW, None, None, started=True, reason="no table")], NOW)
    (held,) = claim(store, held.id).rows
    assert held.reason == "no table"
    store.settle([Unget(held.id, 2, NOW, None, None, started=False)], NOW)
    assert read(store, held.id).reason == "no table"


def test_die_keeps_the_row_and_says_why(store, other):
    held = claimed_row(store, crashes=1, suspicion=2)
    assert store.settle([Die(held.id, 1, "enough")], NOW) == Settled()
    after = read(other, held.id)
    assert (after.state, after.reason, after.failures) == (State.DEAD, "enough", 1)
    assert (after.crashes, after.suspicion) == (0, 0)
    assert after.lease_owner is after.lease_until is None
    assert claim(other, held.id).rows == []


@pytest.mark.parametrize(
    ("run_at", "state"), [(NOW + 0.001, State.DELAYED), (NOW, State.READY), (0.0, State.READY)]
)
@pytest.mark.parametrize("verb", ["retry", "unget"])
def test_what_comes_back_is_delayed_only_until_it_is_due(store, verb, run_at, state):
    held = claimed_row(store)
    store.settle([SETTLEMENTS[verb](held.id, 1)._replace(run_at=run_at)], NOW)
    assert read(store, held.id).state == state
    assert store.has_ready(["t"]) is (state == State.READY)


@pytest.mark.parametrize("wrong", [0, 2])
def test_a_settle_with_a_wrong_fence_changes_nothing(store, settlement, wrong):
    held = claimed_row(store)
    result = store.settle([settlement(held.id, wrong)], NOW)
    assert result.lost == {held.id} or (result.unnamed == 1 and isinstance(settlement(held.id, wrong), Delete))
    assert read(store, held.id) == held


@pytest.mark.parametrize("second", SETTLEMENTS)
@pytest.mark.parametrize("first", ["retry", "unget", "die", "finish"])
@pytest.mark.parametrize("run_at", [NOW, NOW + 9], ids=["ready again", "delayed"])
def test_a_run_is_settled_once(store, other, first, second, run_at):
    (id,) = add(store, row())
    store.settle([Retry(id, claim(store, id).rows[0].fence, NOW, "broken", NOW)], NOW)
    (held,) = claim(store, id, owner="me").rows
    ending = SETTLEMENTS[first](id, held.fence)
    ending = ending._replace(run_at=run_at) if first in {"retry", "unget"} else ending
    assert store.settle([ending], NOW) == Settled()
    before = read(store, id)
    assert (before.tries, before.failures) == {"retry": (2, 2), "unget": (1, 1), "die": (2, 2), "finish": (2, 1)}[
        first
    ]
    result = other.settle([SETTLEMENTS[second](id, held.fence)], NOW + 1)
    assert len(result.lost) + result.unnamed == 1
    assert read(store, id) == before
    assert store.claimed_by("me") == []


def test_a_delete_counts_once(store, other):
    held = claimed_row(store)
    assert store.settle([Delete(held.id, 1)], NOW) == Settled()
    result = other.settle([Delete(held.id, 1)], NOW)
    assert len(result.lost) + result.unnamed == 1


def test_a_settle_of_a_row_that_is_gone_is_lost(store, settlement):
    result = store.settle([settlement("0" * 28, 1)], NOW)
    assert len(result.lost) + result.unnamed == 1
    assert store.counts() == {"delayed": 0, "ready": 0, "held": 0, "running": 0, "dead": 0, "done": 0}


def test_the_newer_holder_is_never_touched_by_the_older(store, other, settlement):
    held = claimed_row(store)
    other.recover(NOW + 31, 3, 10)
    (newer,) = claim(other, held.id, now=NOW + 32).rows
    before = read(other, held.id)
    store.settle([settlement(held.id, 1)], NOW + 33)
    assert (read(other, held.id), before.fence) == (before, newer.fence)
    assert other.settle([settlement(held.id, 2)], NOW + 34) == Settled()


def test_a_mixed_batch_settles_what_it_may_and_counts_the_rest(store, other):
    jobs = [claimed_row(store) for _ in range(8)]
    good, bad = jobs[:4], jobs[4:]
    other.recover(NOW + 31, 3, 10)
    claim(other, *ids(bad), now=NOW + 32)
    batch = [Delete(job.id, 1) for job in (good[0], bad[0])]
    batch += [Retry(job.id, 1, NOW + 99, "broken", None) for job in (good[1], bad[1])]
    batch += [Unget(job.id, 1, NOW + 99, None, None, started=True) for job in (good[2], bad[2])]
    batch += [Die(job.id, 1, "enough") for job in (good[3], bad[3])]
    result = store.settle(batch, NOW + 33)
    assert len(result.lost) + result.unnamed == 4
    assert result.lost <= set(ids(bad))
    assert result.lost >= set(ids(bad[1:]))
    assert store.get([good[0].id]) == []
    after = store.get(ids(good[1:]))
    assert [job.state for job in after] == [State.DELAYED, State.DELAYED, State.DEAD]
    assert [job.failures for job in after] == [1, 0, 1]
    assert [(job.state, job.fence, job.tries) for job in store.get(ids(bad))] == [(State.RUNNING, 2, 2)] * 4


def test_a_late_holder_may_settle_until_the_next_claim(store, other, settlement):
    held = claimed_row(store)
    other.recover(NOW + 31, 3, 10)
    assert store.settle([settlement(held.id, 1)], NOW + 32) == Settled()
    result = store.settle([settlement(held.id, 1)], NOW + 32)
    assert len(result.lost) + result.unnamed == 1


def test_the_holder_of_a_row_that_died_meanwhile_may_settle_it(store, other, settlement):
    held = claimed_row(store, alone=True)
    assert other.recover(NOW + 31, 1, 10) == Recovered(ready=0, dead=1)
    assert store.settle([settlement(held.id, 1)], NOW + 32) == Settled()
    verb = settlement(held.id, 1)
    after = [job.state for job in other.get([held.id])]
    assert after == {Delete: [], Die: ["dead"], Finish: ["done"]}.get(type(verb), ["ready"])


def test_a_late_holder_has_lost_a_row_that_was_revived(store, settlement):
    held = claimed_row(store, alone=True)
    store.recover(NOW + 31, 1, 10)
    store.revive([held.id], "once more", NOW + 32, None)
    before = read(store, held.id)
    result = store.settle([settlement(held.id, 1)], NOW + 33)
    assert len(result.lost) + result.unnamed == 1
    assert store.renew([LeaseKey(held.id, 1, 30.0)], NOW + 33) == {held.id}
    assert read(store, held.id) == before


@pytest.mark.parametrize("reason", ["", "tab\tnewline\n", "NUL \0 in it", "☃" * 5000, "file \udc80 name"])
def test_a_reason_may_hold_anything(store, reason):
    """An exception's text may hold a lone surrogate: a settle must not fail for it. UTF-8 cannot keep it."""
    retried, died, back, deleted = (claimed_row(store) for _ in range(4))
    batch = [
        Retry(retried.id, 1, NOW, reason, None),
        Die(died.id, 1, reason),
        Unget(back.id, 1, NOW, None, None, started=True, reason=reason),
        Delete(deleted.id, 1),
    ]
    assert store.settle(batch, NOW) == Settled()
    kept = {job.reason for job in store.get([retried.id, died.id, back.id])}
    assert len(kept) == 1
    assert "udc80" in repr(kept) if "\udc80" in reason else kept == {reason}


# -- the operator's --------------------------------------------------------------------------------------


def test_delete_needs_no_fence_and_no_state(store, other):
    running, dead = claimed_row(store), claimed_row(store)
    store.settle([Die(dead.id, 1, "enough")], NOW)
    ready, later = add(store, row(), delayed(NOW + 9))
    assert other.delete([running.id, dead.id, ready, later, "0" * 28]) == 4
    assert other.delete([ready]) == 0
    assert sum(store.counts().values()) == 0
    result = store.settle([Delete(running.id, 1)], NOW)
    assert len(result.lost) + result.unnamed == 1


def test_no_claim_succeeds_after_a_delete(store, other):
    (id,) = add(store, row())
    store.delete([id])
    assert claim(other, id).rows == claim(other).rows == []


def test_revive_makes_dead_rows_ready_and_keeps_the_fence(store, other):
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


def test_revive_can_leave_the_put_to_the_sweep(store):
    held = claimed_row(store)
    store.settle([Die(held.id, 1, "enough")], NOW)
    assert [due.put_at for due in store.revive([held.id], "once more", NOW, None)] == [None]
    assert ids(store.find_unput(NOW, 10)) == [held.id]


def test_find_gives_the_rows_of_a_state_in_the_order_of_ids(store, other):
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
def test_find_goes_on_after_the_last_id_of_a_page(store, state, type):
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


def test_counts_are_by_state_and_type(store, other):
    add(store, row(), row(), delayed(NOW + 9), row(type="other"), row(type="other"))
    claimed_row(store)
    claimed_row(store, type="other")
    dead = claimed_row(store)
    store.settle([Die(dead.id, 1, "enough")], NOW)
    assert other.counts("t") == {"delayed": 1, "ready": 2, "held": 0, "running": 1, "dead": 1, "done": 0}
    assert other.counts("other") == {"delayed": 0, "ready": 2, "held": 0, "running": 1, "dead": 0, "done": 0}
    assert other.counts() == {"delayed": 1, "ready": 4, "held": 0, "running": 2, "dead": 1, "done": 0}
    assert set(other.counts()) == set(State)


def test_purge_deletes_what_does_not_run_in_bounded_steps(store, other):
    running, dead = claimed_row(store), claimed_row(store)
    store.settle([Die(dead.id, 1, "enough")], NOW)
    add(store, row(), row(), delayed(NOW + 9))
    (neighbour,) = add(store, row(type="other"))
    assert [other.purge("t", 3), other.purge("t", 3), other.purge("t", 3)] == [3, 1, 0]
    assert store.counts("t") == {"delayed": 0, "ready": 0, "held": 0, "running": 1, "dead": 0, "done": 0}
    assert read(store, running.id) == running
    assert store.get([neighbour])


# -- the sweep's -----------------------------------------------------------------------------------------


def test_one_sweep_in_an_interval(store, other):
    assert store.take_sweep(NOW, 15.0)
    assert not other.take_sweep(NOW, 15.0)
    assert not store.take_sweep(NOW + 14.9, 15.0)
    assert other.take_sweep(NOW + 15, 15.0)
    assert not store.take_sweep(NOW + 29.9, 15.0)


def test_a_last_sweep_in_the_future_does_not_count(store, other):
    assert store.take_sweep(NOW + 3600, 15.0)
    assert other.take_sweep(NOW, 15.0)
    assert not store.take_sweep(NOW + 1, 15.0)


def test_of_many_that_would_sweep_at_once_one_does(make_atomic_store):
    stores = [make_atomic_store() for _ in range(6)]
    barrier = threading.Barrier(len(stores))

    def take(store):
        won = []
        for number in range(5):
            barrier.wait()
            won.append(store.take_sweep(NOW + 100 * number, 15.0))
        return won

    with ThreadPoolExecutor(len(stores)) as pool:
        rounds = zip(*pool.map(take, stores), strict=True)
    assert [sum(won) for won in rounds] == [1] * 5


def test_promote_takes_the_earliest_that_are_due_and_no_more_than_it_may(store, other):
    late, early, middle, future = add(store, delayed(NOW), delayed(NOW - 9), delayed(NOW - 5), delayed(NOW + 0.001))
    assert store.promote(NOW, 2) == 2
    assert [job.state for job in other.get([early, middle])] == [State.READY] * 2
    assert [job.state for job in other.get([late, future])] == [State.DELAYED] * 2
    assert store.promote(NOW, 2) == 1
    assert store.promote(NOW, 2) == 0
    assert read(other, future).state == State.DELAYED


def test_find_due_finds_what_promote_would_make_ready_and_changes_nothing(store, other):
    later, second, first = add(store, delayed(NOW + 0.001), delayed(NOW, put_at=None), delayed(NOW - 9, type="x"))
    add(store, row())
    claimed_row(store)
    before = store.get([later, second, first])
    assert store.find_due(NOW, 10) == [Due(first, "x", 100, NOW - 9, NOW), Due(second, "t", 100, NOW, None)]
    assert ids(other.find_due(NOW, 1)) == [first]
    assert store.get([later, second, first]) == before
    assert store.promote(NOW, 10) == 2
    assert store.find_due(NOW, 10) == []


def test_promote_changes_nothing_but_the_state(store):
    waiting = delayed(NOW - 5, put_at=NOW - 50, priority=7)
    add(store, waiting)
    store.promote(NOW, 1)
    assert read(store, waiting.id) == waiting._replace(state=State.READY)


def test_find_abandoned_finds_what_recover_would_take_and_changes_nothing(store, other):
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
    assert store.recover(NOW + 30, 3, 10) == Recovered(2, 0)
    assert store.find_abandoned(NOW + 30, 10) == []


def test_recover_leaves_a_lease_that_still_holds(store):
    held = claimed_row(store)
    assert store.recover(NOW + 29.999, 3, 10) == Recovered(0, 0)
    assert read(store, held.id) == held
    assert store.recover(NOW + 30, 3, 10) == Recovered(1, 0)


def test_a_death_in_a_crowd_makes_suspects(store, other):
    rows = [row(), row()]
    add(store, *rows)
    assert abandon(store, *rows) == Recovered(ready=2, dead=0)
    for after in other.get(ids(rows)):
        assert (after.state, after.crashes, after.suspicion) == (State.READY, 0, 1)
        assert (after.fence, after.tries, after.failures) == (1, 1, 0)
        assert after.put_at is after.lease_until is None
        assert after.lease_owner
        assert after.reason


def test_a_death_alone_is_blamed_until_the_row_is_dead(store):
    job = row()
    add(store, job)
    seen = []
    for death in range(3):
        recovered = abandon(store, job, alone=True, now=NOW + 100 * death)
        after = read(store, job.id)
        seen.append((recovered, after.state, after.crashes, after.suspicion))
    assert seen == [
        (Recovered(1, 0), State.READY, 1, 0),
        (Recovered(1, 0), State.READY, 2, 0),
        (Recovered(0, 1), State.DEAD, 3, 0),
    ]
    assert read(store, job.id).reason


def test_a_crowd_never_kills_however_often(store):
    rows = [row(), row()]
    add(store, *rows)
    for death in range(5):
        for job in rows:
            assert store.claim(
                Selection(("t",), (job.id,)), WIDE, f"window-{next(NUMBERS)}", NOW + 100 * death, False
            ).rows
        assert store.recover(NOW + 100 * death + 31, 1, 10) == Recovered(2, 0)


def test_recover_takes_no_more_than_it_may(store):
    for _ in range(3):
        claimed_row(store)
    assert [store.recover(NOW + 31, 3, 2) for _ in range(3)] == [Recovered(2, 0), Recovered(1, 0), Recovered(0, 0)]


def test_of_two_that_recover_at_once_each_row_is_taken_by_one(make_atomic_store):
    store, other = make_atomic_store(), make_atomic_store()
    for _ in range(20):
        claimed_row(store)
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda handle: handle.recover(NOW + 31, 3, 100), [store, other]))
    assert sum(result.ready for result in results) == 20
    assert store.counts()["ready"] == 20


def test_find_unput_finds_what_is_known_to_have_no_pointer(store):
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


def test_ready_types_are_those_with_a_ready_row(store):
    claimed_row(store, type="running")
    add(store, row(type="b"), row(type="b"), row(type="a", put_at=None), delayed(NOW + 9, type="later"))
    assert store.ready_types("", 10) == ["a", "b"]


def test_ready_types_come_in_pages(store, other):
    types = sorted(["z", "a.b", "a", "ab", "a-b", *(f"m{number:03}" for number in range(30))])
    add(store, *(row(type=type) for type in types for _ in range(3)))
    claimed_row(store, type="c")
    found, pages = [], 0
    while page := other.ready_types(found[-1] if found else "", 7):
        assert len(page) <= 7
        found += page
        pages += 1
    assert found == types
    assert pages == 5
    assert other.ready_types("m0285", 10) == ["m029", "z"]
    assert other.ready_types("z", 10) == []


def test_the_position_of_a_sweep_is_remembered(store, other):
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
def test_the_head_rule(store, fields, head, lost):
    job = row(**{"priority": 100, **fields})
    add(store, job)
    found = store.find_lost({"t": head}, NOW, GRACE, 10)
    assert found == ([Due(job.id, "t", job.priority, job.run_at, job.put_at)] if lost else [])


def test_only_ready_rows_of_the_type_are_lost(store):
    old = {"put_at": NOW - 100, "run_at": NOW - 100}
    add(store, row(type="other", **old), row(state=State.DELAYED, **old))
    claimed_row(store, **old)
    assert store.find_lost({"t": None}, NOW, GRACE, 10) == []
    store.promote(NOW, 10)
    assert len(store.find_lost({"t": None}, NOW, GRACE, 10)) == 1


def test_lost_rows_come_best_priority_first_and_no_more_than_asked(store):
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


def test_the_lost_of_many_types_are_found_at_once_each_by_its_own_head(store, other):
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


def test_each_row_is_marked_by_one_sweep(store, other):
    unput, put, later = add(store, row(put_at=None), row(put_at=NOW - 100), delayed(NOW + 9, put_at=None))
    dues = [
        Due(unput, "t", 100, NOW, None),
        Due(put, "t", 100, NOW, NOW - 100),
        Due(later, "t", 100, NOW + 9, None),
    ]
    assert ids(store.mark(dues, NOW)) == [unput, put, later]
    assert other.mark(dues, NOW + 1) == []
    assert [job.put_at for job in other.get([unput, put, later])] == [NOW] * 3


def test_mark_leaves_what_has_changed_since_it_was_read(store):
    running, dead, gone = (claimed_row(store, put_at=None) for _ in range(3))
    store.settle([Die(dead.id, 1, "enough"), Delete(gone.id, 1)], NOW)
    (still,) = add(store, row(put_at=None))
    dues = [Due(id, "t", 100, NOW, None) for id in (running.id, dead.id, gone.id, still)]
    assert ids(store.mark(dues, NOW)) == [still]
    assert [job.put_at for job in store.get([running.id, dead.id])] == [None, None]


def test_of_two_sweeps_at_once_each_row_is_marked_by_one(make_atomic_store):
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


# -- dispatching without a broker ------------------------------------------------------------------------


def test_has_ready_looks_at_the_types_that_it_is_given(store):
    add(store, row(type="a"), delayed(NOW - 5, type="later"))
    claimed_row(store, type="running")
    assert store.has_ready(["none", "a"])
    assert not store.has_ready(["none", "later", "running"])


def test_next_run_at_is_that_of_the_earliest_delayed_row(store, other):
    _, early, late = add(store, row(run_at=NOW - 99), delayed(NOW + 5), delayed(NOW + 9))
    assert store.next_run_at() == NOW + 5
    claim(other, early, now=NOW + 6)
    assert store.next_run_at() == NOW + 9
    other.delete([late])
    assert store.next_run_at() is None


def test_the_pulse_differs_after_any_change(store, other):
    if store.pulse() is None:
        return  # It is allowed to have none.
    job = row(put_at=None)
    changes = [
        lambda handle: handle.add([job]),
        lambda handle: handle.mark([Due(job.id, "t", 100, NOW, None)], NOW),
        lambda handle: claim(handle, job.id),
        lambda handle: handle.renew([LeaseKey(job.id, 1, 99.0)], NOW),
        lambda handle: handle.recover(NOW + 99, 3, 10),
        claim,
        lambda handle: handle.settle([Retry(job.id, 2, NOW + 200, "again", None)], NOW),
        lambda handle: handle.promote(NOW + 200, 10),
        lambda handle: handle.purge("t", 10),
    ]
    for number, change in enumerate(changes):
        before = store.pulse()
        change(other if number % 2 else store)
        assert store.pulse() != before, number


# -- handles, threads and forks --------------------------------------------------------------------------


def test_close_may_be_called_at_any_time_and_the_next_call_opens_again(make_store):
    store = make_store()
    store.close()
    (id,) = add(store, row())
    before = store.pulse()
    store.close()
    store.close()
    assert claim(store, id).rows
    assert store.pulse() is None or store.pulse() != before


def test_rows_outlive_the_handle(make_store):
    store = make_store()
    (id,) = add(store, row())
    store.close()
    assert make_store().get([id])


def test_a_second_handle_may_be_closed_while_the_first_is_used(store, other):
    add(store, row())
    assert other.counts()["ready"] == 1
    other.close()
    (id,) = add(store, row())
    assert other.get([id])


def test_of_many_threads_that_claim_at_once_each_row_is_claimed_by_one(make_atomic_store):
    stores = [make_atomic_store(), make_atomic_store()]
    adders, each = 4, 30

    def produce(number):
        return [id for _ in range(each) for id in add(stores[number % 2], row())]

    added = threading.Event()

    def consume(number):
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


def test_of_many_threads_that_claim_the_same_ids_each_row_is_claimed_by_one(make_atomic_store):
    stores = [make_atomic_store() for _ in range(4)]
    wanted = add(stores[0], *(row() for _ in range(50)))
    barrier = threading.Barrier(4)

    def take(store):
        barrier.wait()
        return ids(claim(store, *wanted).rows)

    with ThreadPoolExecutor(4) as pool:
        taken = [id for part in pool.map(take, stores) for id in part]
    assert sorted(taken) == sorted(wanted)
    assert {job.fence for job in stores[0].get(wanted)} == {1}


def in_child(work):
    """Run ``work`` in a forked child; returns a function that waits for it to end without an error."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return lambda: os.waitpid(pid, 0)[1] == 0


def test_a_child_after_a_fork_uses_its_parents_store_and_the_parent_goes_on(make_shared_store):
    store = make_shared_store()
    add(store, row())
    rows = [row() for _ in range(4)]
    children = [in_child(lambda job=job: add(store, job)) for job in rows]
    given = add(store, row())
    assert [done() for done in children] == [True] * 4
    assert ids(store.get(ids(rows))) == ids(rows)
    assert store.counts()["ready"] == 6
    assert claim(store, *given).rows


def test_what_a_child_adds_after_its_parent_has_closed_is_kept(make_shared_store):
    store = make_shared_store()
    add(store, row())
    job, second = row(), row()
    reader, writer = os.pipe()

    def child():
        add(store, job)
        os.read(reader, 1)
        add(store, second)
        store.close()

    done = in_child(child)
    while not store.get([job.id]):
        time.sleep(0.005)
    store.close()
    os.write(writer, b"x")
    assert done()
    os.close(reader)
    os.close(writer)
    assert ids(store.get([job.id, second.id])) == [job.id, second.id]


def test_a_fork_while_threads_of_the_parent_write_harms_neither(make_shared_store):
    store = make_shared_store()
    add(store, row())
    stop = threading.Event()

    def produce():
        added = []
        while not stop.is_set():
            added += add(store, row())
        return added

    with ThreadPoolExecutor(2) as pool:
        producers = [pool.submit(produce) for _ in range(2)]
        try:
            rows = [row() for _ in range(3)]
            finished = [in_child(lambda job=job: add(store, job))() for job in rows]
        finally:
            stop.set()
        added = [id for producer in producers for id in producer.result()]
    assert finished == [True] * 3
    assert len(store.get(added + ids(rows))) == len(added) + 3
