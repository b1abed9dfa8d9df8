"""Times that lie further ahead than they can: found, and set right."""

from collections.abc import Sequence
from typing import Any

import pytest

from kqueue.contracts.admission import Limit
from kqueue.contracts.repair import Due
from kqueue.contracts.runs import LeaseKey, Selection
from kqueue.contracts.settlements import Delete, Die, Finish, Retry, Unget
from kqueue.contracts.store import JobStore
from kqueue.contracts.stored_times import TOLERANCE_S
from kqueue.contracts.workers import WorkerRecord
from kqueue.model.job import State
from kqueue.testing.contracts.rows import NOW, WIDE, add, add_unique, claim, claimed_row, delayed, ids, read, row

#: Clocks that were ahead by so much, in seconds.
AHEAD = pytest.mark.parametrize("ahead", [40.0, 3 * 365 * 86_400.0], ids=["40 s", "3 years"])
LIMIT = 100


def found(store: JobStore, types: Sequence[str] | None = None, now: float = NOW) -> list[tuple[str, str]]:
    return sorted((one.what, one.name) for one in store.find_misdated(types, now, LIMIT))


def repair(store: JobStore, types: Sequence[str] | None = None, now: float = NOW) -> list[tuple[str, str]]:
    """What was found is set right, each once, and then nothing is found."""
    before = found(store, types, now)
    assert store.repair_times(types, now, LIMIT) == len(before)
    assert found(store, types, now) == []
    assert store.repair_times(types, now, LIMIT) == 0
    return before


def test_a_store_whose_clock_was_never_wrong_has_nothing_to_repair(store: JobStore) -> None:
    add(store, row(), row(put_at=None), delayed(NOW + 1e7, delay=1e7), delayed(NOW + 1e17, delay=1e17))
    held = claimed_row(store, ttr=86_400.0)
    store.settle([Retry(held.id, 1, NOW + 1e7, "later", None, NOW)], NOW)
    done = claimed_row(store)
    store.settle([Finish(done.id, 1, NOW + 1e7, NOW)], NOW)
    claimed_row(store, ttr=1e6)
    store.pause("t", NOW)
    store.see_worker(WorkerRecord("w", "host", 1, (), NOW, NOW))
    assert found(store) == found(store, ["t"]) == []
    assert store.repair_times(None, NOW, LIMIT) == store.repair_times(["t"], NOW, LIMIT) == 0


def test_what_lies_ahead_by_as_much_as_clocks_may_differ_is_left_alone(store: JobStore) -> None:
    then = NOW + TOLERANCE_S
    job = row(run_at=then, created_at=then, put_at=then)
    later = delayed(then + 60, delay=60.0, created_at=then)
    add(store, job, later)
    held = claimed_row(store, type="x")
    store.renew([LeaseKey(held.id, 1, held.ttr)], then)
    assert found(store) == found(store, ["t", "x"]) == []


@AHEAD
def test_a_ready_row_with_a_pointer(store: JobStore, other: JobStore, ahead: float) -> None:
    then = NOW + ahead
    job, right, of_another = row(run_at=then, created_at=then, put_at=then), row(), row(type="x", put_at=then)
    add(store, job, right, of_another)
    assert found(other) == []
    assert repair(other, ["t", "none"]) == [("job", job.id)]
    assert read(store, job.id) == job._replace(run_at=NOW, created_at=NOW, put_at=NOW)
    assert read(store, right.id) == right
    assert found(store, ["x"]) == [("job", of_another.id)]


def test_of_a_type_each_priority_is_looked_at(store: JobStore) -> None:
    wrong = [row(priority=priority, put_at=NOW + 99) for priority in (3, 7, 11)]
    add(store, *wrong, *(row(priority=priority) for priority in range(12)))
    assert repair(store, ["t"]) == [("job", id) for id in sorted(ids(wrong))]


@AHEAD
def test_a_ready_row_without_a_pointer(store: JobStore, ahead: float) -> None:
    then = NOW + ahead
    job = row(run_at=then, created_at=then, put_at=None)
    add(store, job, row(put_at=None))
    assert repair(store) == [("job", job.id)]
    assert read(store, job.id) == job._replace(run_at=NOW, created_at=NOW)


@AHEAD
def test_a_delayed_row_waits_for_as_long_as_it_was_asked_to(store: JobStore, ahead: float) -> None:
    then = NOW + ahead
    for delay, put_at in ((20.0, then), (1e7, None)):
        job = delayed(then + delay, delay=delay, created_at=then, put_at=put_at)
        add(store, job)
        assert repair(store) == [("job", job.id)]
        after = read(store, job.id)
        assert after.run_at == pytest.approx(NOW + delay)
        assert after == job._replace(run_at=after.run_at, created_at=NOW, put_at=None if put_at is None else NOW)


@AHEAD
@pytest.mark.parametrize("seconds", [20.0, 1e7])
def test_a_row_that_came_back_waits_for_as_long_as_it_was_asked_to(
    store: JobStore, ahead: float, seconds: float
) -> None:
    then = NOW + ahead
    for back in (
        lambda held: Retry(held.id, 1, then + seconds, "again", then, then),
        lambda held: Unget(held.id, 1, then + seconds, None, then, started=True, asked_at=then),
        lambda held: Retry(held.id, 1, then + seconds, "again", None),
    ):
        held = claimed_row(store)
        store.settle([back(held)], then)
        assert repair(store) == [("job", held.id)]
        after = read(store, held.id)
        assert (after.state, after.created_at) == (State.DELAYED, NOW)
        assert after.run_at == pytest.approx(NOW + seconds)
        store.delete([held.id])


def test_what_was_reckoned_by_a_clock_that_was_ahead_is_wrong_although_it_is_settled_later(store: JobStore) -> None:
    """The end of a run is written later than it was reckoned."""
    retried, done = claimed_row(store), claimed_row(store)
    then = NOW + 1e8
    store.settle([Retry(retried.id, 1, then + 30, "again", None, then), Finish(done.id, 1, then + 60, then)], NOW)
    assert len(repair(store)) == 2
    assert read(store, retried.id).run_at == pytest.approx(NOW + 30)
    assert read(store, done.id).keep_until == pytest.approx(NOW + 60)


@AHEAD
def test_a_lease_that_is_too_long_is_a_whole_ttr_from_now_on(store: JobStore, ahead: float) -> None:
    claimed_row(store, ttr=30.0), claimed_row(store, ttr=1e6)
    wrong = [row(ttr=ttr) for ttr in (30.0, 12.5, 1e6)]
    add(store, *wrong)
    taken = claim(store, *ids(wrong), now=NOW + ahead)
    assert repair(store) == [("job", id) for id in sorted(ids(wrong))]
    for held in taken.rows:
        assert read(store, held.id) == held._replace(lease_until=NOW + held.ttr)
    assert store.recover(NOW + 29, 3, LIMIT).ready == 1
    assert store.settle([Delete(held.id, 1) for held in taken.rows], NOW).lost == frozenset()


def test_a_job_that_was_added_ahead_and_has_run_was_added_by_then(store: JobStore) -> None:
    then = NOW + 1e8
    job: dict[str, Any] = {"created_at": then, "run_at": then}
    rows = [claimed_row(store, **job) for _ in range(5)]
    retried, back, done, dead, lost = rows
    store.settle(
        [
            Retry(retried.id, 1, NOW, "again", NOW), Unget(back.id, 1, NOW, None, NOW, started=True),
            Finish(done.id, 1, NOW + 60), Die(dead.id, 1, "enough"),
        ],
        NOW,
    )  # fmt: skip
    store.recover(NOW + 31, 3, LIMIT)
    repair(store, now=NOW + 31)
    for held in rows:
        after = read(store, held.id)
        assert after.created_at <= NOW + 31
        assert after.run_at <= NOW + 31 or after.state in {State.DEAD, State.DONE}
    assert read(store, lost.id).run_at == NOW + 31


def test_a_row_that_a_clock_ahead_has_made_ready_too_early_waits_again(store: JobStore) -> None:
    """Its pointer, if it has one, is released until then."""
    job = delayed(NOW + 1e6, delay=1e6, put_at=None)
    add(store, job)
    assert store.promote(NOW + 1e7, LIMIT) == 1
    assert repair(store) == [("job", job.id)]
    assert read(store, job.id) == job
    marked = delayed(NOW + 1e6, delay=1e6, put_at=None)
    add(store, marked)
    store.promote(NOW + 1e7, LIMIT)
    store.mark([Due(marked.id, "t", 100, marked.run_at, None)], NOW + 1e7)
    assert repair(store, ["t"]) == [("job", marked.id)]
    assert read(store, marked.id) == marked


def test_what_was_retried_by_an_older_kqueue_is_ready_all_the_same(store: JobStore) -> None:
    """It did not write when that was asked for."""
    job = row(run_at=NOW + 1e6, fence=1, put_at=None)
    add(store, job)
    repair(store)
    assert read(store, job.id) == job._replace(run_at=NOW)


@AHEAD
def test_a_dead_row_and_one_that_is_kept(store: JobStore, ahead: float) -> None:
    then = NOW + ahead
    dead, done = claimed_row(store, created_at=then), claimed_row(store, created_at=then)
    store.settle([Die(dead.id, 1, "enough"), Finish(done.id, 1, then + 600)], then)
    assert found(store) == [("job", id) for id in sorted([dead.id, done.id])]
    repair(store)
    assert read(store, dead.id).created_at == read(store, done.id).created_at == NOW
    assert read(store, done.id).keep_until == pytest.approx(NOW + 600)
    assert store.expire(NOW + 599, LIMIT) == 0
    assert store.expire(NOW + 601, LIMIT) == 1


def test_the_time_that_a_job_is_for_is_never_touched(store: JobStore) -> None:
    then = NOW + 3600
    job = row(run_at=then, created_at=then, put_at=then, scheduled_for=then)
    add(store, job)
    repair(store, ["t"])
    assert read(store, job.id) == job._replace(run_at=NOW, created_at=NOW, put_at=NOW)
    (held,) = claim(store, job.id).rows
    assert held.scheduled_for == then
    store.settle([Retry(job.id, 1, NOW, "again", NOW)], NOW)
    (held,) = claim(store, job.id).rows
    store.settle([Unget(job.id, 2, NOW, None, NOW, started=True)], NOW)
    (held,) = claim(store, job.id).rows
    store.settle([Die(job.id, 3, "enough")], NOW)
    store.revive([job.id], "once more", NOW + 9, NOW)
    after = read(store, job.id)
    assert (after.scheduled_for, after.run_at, after.asked_at) == (then, NOW + 9, NOW + 9)


@AHEAD
def test_pauses_and_workers(store: JobStore, ahead: float) -> None:
    then = NOW + ahead
    store.pause("t", then)
    store.pause("x", NOW - 5)
    gone, alive = WorkerRecord("w1", "host", 1, ("t",), then, then), WorkerRecord("w2", "host", 2, (), NOW - 9, NOW)
    store.see_worker(gone)
    store.see_worker(alive)
    assert repair(store) == [("pause", "t"), ("worker", "w1")]
    assert store.paused() == {"t": NOW, "x": NOW - 5}
    assert store.workers() == [gone._replace(started_at=NOW, seen_at=NOW), alive]
    store.expire(NOW + 86_401, LIMIT)
    assert store.workers() == []


def test_the_last_sweep_of_a_clock_that_was_ahead_holds_up_none(store: JobStore) -> None:
    assert store.take_sweep(NOW + 1e8, 15)
    assert store.take_sweep(NOW, 15)
    assert not store.take_sweep(NOW + 1, 15)
    assert store.take_sweep(NOW + 15, 15)


@AHEAD
def test_a_held_row(full_store: JobStore, ahead: float) -> None:
    store, then = full_store, NOW + ahead
    job = row(run_at=then, created_at=then, put_at=then)
    add(store, job)
    assert claim(store, limits=(Limit("t", running=0),), now=then).held == 1
    assert repair(store) == [("job", job.id)]
    after = read(store, job.id)
    assert (after.state, after.run_at, after.created_at) == (State.HELD, NOW, NOW)
    assert len(store.admit(Limit("t"), None, NOW, NOW, LIMIT).dues) == 1


@AHEAD
def test_a_unique_key_is_taken_for_as_long_as_it_was_asked_to(full_store: JobStore, ahead: float) -> None:
    store, then = full_store, NOW + ahead
    job, right = row(unique_key="k"), row(unique_key="r")
    add_unique(store, job, then + 600, then)
    add_unique(store, right, NOW + 1e8, NOW)
    assert repair(store) == [("unique key", "k")]
    store.settle([Delete(held.id, 1) for held in claim(store).rows], NOW)
    assert add_unique(store, row(unique_key="k"), NOW + 700, NOW + 599) == job.id
    again = row(unique_key="k")
    assert add_unique(store, again, NOW + 700, NOW + 601) == again.id
    assert add_unique(store, row(unique_key="r"), NOW, NOW + 601) == right.id


@AHEAD
def test_the_starts_that_a_limit_counts(full_store: JobStore, ahead: float) -> None:
    """They were now at the latest: so no more start in a period than may, and none waits for longer than that."""
    store, then = full_store, NOW + ahead
    add(store, *(row() for _ in range(3)))
    limit = Limit("t", starts=2, period=60.0)
    taken = store.claim(Selection(("t",), None, (limit,)), WIDE, "w", then, False)
    assert (len(taken.rows), taken.held) == (2, 1)
    store.settle([Delete(held.id, 1) for held in taken.rows], NOW)
    assert [one for one in repair(store) if one[0] == "start"] == [("start", "t")]
    assert store.admit(limit, None, NOW + 59, NOW, LIMIT) == ([], NOW + 60)
    assert len(store.admit(limit, None, NOW + 61, NOW, LIMIT).dues) == 1


def test_it_is_done_in_lots(store: JobStore) -> None:
    wrong = [row(put_at=None, run_at=NOW + 99) for _ in range(5)] + [
        delayed(NOW + 99, created_at=NOW + 98) for _ in range(5)
    ]
    add(store, *wrong)
    assert 1 <= len(store.find_misdated(None, NOW, 2)) < 10
    rounds = 0
    while store.repair_times(None, NOW, 2):
        rounds += 1
    assert rounds >= 3
    assert found(store) == []


def test_who_comes_late_sets_nothing_wrong(store: JobStore, other: JobStore) -> None:
    """Of a row that is claimed or settled meanwhile."""
    then = NOW + 1e6
    (id,) = add(store, row(run_at=then, created_at=then, put_at=then))
    repair(other, ["t"])
    (held,) = claim(store, id).rows
    assert other.repair_times(["t"], NOW, LIMIT) == other.repair_times(None, NOW, LIMIT) == 0
    assert read(store, id) == held
