"""Done rows, which are kept for a time, the histories of rows, and what runs report."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from kqueue.contracts.repair import Due, Recovered
from kqueue.contracts.reporting import MOST_LINES, MOST_LOG_BYTES, Report
from kqueue.contracts.runs import LeaseKey
from kqueue.contracts.settlements import NO_ROOM, Delete, Die, Finish, Retry, Settled, Settlement, Unget
from kqueue.contracts.store import JobStore
from kqueue.model.history import MOST, TRACEBACKS, Progress, Run, read_progress
from kqueue.model.history import read as runs_of
from kqueue.model.job import Row, State
from kqueue.model.reasons import MAX_TRACEBACK
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
)

UNTIL = NOW + 60.1


def done_row(store: JobStore, keep_until: float = UNTIL, **fields: Any) -> Row:
    held = claimed_row(store, **fields)
    assert store.settle([Finish(held.id, 1, keep_until)], NOW + 1) == Settled()
    return held


def history(store: JobStore, id: str) -> list[Run]:
    return runs_of(read(store, id).history)


# -- a run that is finished ------------------------------------------------------------------------------


def test_finish_keeps_the_row_as_done(store: JobStore, other: JobStore) -> None:
    held = claimed_row(store, crashes=1, suspicion=2, payload=b"\x00\xff", encoding="bytes", alone=True)
    assert store.settle([Finish(held.id, 1, UNTIL)], NOW + 1) == Settled()
    after = read(other, held.id)
    assert after == held._replace(
        state=State.DONE, keep_until=UNTIL, put_at=None, crashes=0, suspicion=0, alone=False,
        lease_owner=None, lease_until=None, history=after.history, asked_at=NOW + 1,
    )  # fmt: skip
    assert runs_of(after.history) == [Run(held.lease_owner, NOW + 1, None)]


def test_a_done_row_is_never_claimed_nor_put(store: JobStore, other: JobStore) -> None:
    held = done_row(store)
    before = read(store, held.id)
    late = NOW + 999
    assert claim(other, held.id, now=late) == claim(other, now=late) == NOTHING
    assert store.promote(late, 10) == 0
    assert store.recover(late, 3, 10) == Recovered(0)
    assert store.find_unput(late, 10) == store.find_due(late, 10) == store.find_lost({"t": None}, late, 5, 10) == []
    assert store.find_abandoned(late, 10) == []
    assert store.ready_types("", 9) == store.held_types(["t"]) == []
    assert store.mark([Due(held.id, "t", 100, NOW, None)], late) == []
    assert store.revive([held.id], "once more", late, None) == []
    assert not store.has_ready(["t"])
    assert store.next_run_at() is None
    assert read(store, held.id) == before


def test_a_done_row_is_no_ones_to_settle_or_renew(store: JobStore) -> None:
    held = done_row(store)
    before = read(store, held.id)
    for settlement in (
        Delete(held.id, 1), Finish(held.id, 1, NOW), Retry(held.id, 1, NOW, "x", None), Die(held.id, 1, "x"),
        Unget(held.id, 1, NOW, None, None, started=True),
    ):  # fmt: skip
        result = store.settle([settlement], NOW + 2)
        assert len(result.lost) + result.unnamed == 1
    assert store.renew([LeaseKey(held.id, 1, 30.0)], NOW + 2) == {held.id}
    assert read(store, held.id) == before


def test_done_rows_are_found_and_counted_and_deleted_as_others(store: JobStore, other: JobStore) -> None:
    first, second, third = (done_row(store, type=type).id for type in ("t", "x", "t"))
    assert ids(other.find(None, State.DONE, None, 10)) == [first, second, third]
    assert ids(other.find("t", "done", first, 10)) == [third]
    assert other.counts()["done"] == 3
    assert other.counts("t")["done"] == 2
    assert other.delete([first]) == 1
    assert other.purge("t", 10) == 1
    assert ids(other.find(None, State.DONE, None, 10)) == [second]


def test_a_late_holder_may_finish_what_is_ready_again_or_dead(store: JobStore) -> None:
    ready, dead = claimed_row(store), claimed_row(store, alone=True)
    recovered = store.recover(NOW + 31, 1, 10)
    assert (recovered.ready, ids(recovered.died)) == (1, [dead.id])
    assert store.settle([Finish(ready.id, 1, UNTIL), Finish(dead.id, 1, UNTIL)], NOW + 32) == Settled()
    assert [job.state for job in store.get([ready.id, dead.id])] == ["done"] * 2
    assert claim(store, ready.id) == claim(store) == NOTHING


# -- results ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("result", [b"j", b"b\x00\xff$x", b"j" + b"x" * 2**20])
def test_a_result_is_there_exactly_when_its_end_is(store: JobStore, other: JobStore, result: bytes) -> None:
    held, neighbour = claimed_row(store), claimed_row(store)
    assert read(other, held.id).result is None
    batch = [Finish(held.id, 1, UNTIL, None, result), Finish(neighbour.id, 1, UNTIL)]
    assert store.settle(batch, NOW + 1) == Settled()
    assert [job.result for job in other.get([held.id, neighbour.id])] == [result, None]
    assert history(other, held.id) == [Run(held.lease_owner, NOW + 1, None)]


def test_the_result_of_a_settle_that_is_lost_is_not_kept(store: JobStore) -> None:
    held = claimed_row(store)
    lost = store.settle([Finish(held.id, 2, UNTIL, None, b"jof another")], NOW)
    assert lost == Settled(frozenset([held.id]))
    assert read(store, held.id) == held
    (id,) = add(store, row())
    (first,) = claim(store, id).rows
    store.recover(NOW + 31, 3, 10)
    (second,) = claim(store, id, now=NOW + 32).rows
    assert store.settle([Finish(id, first.fence, UNTIL, None, b"jlate")], NOW + 33).lost == {id}
    assert store.settle([Finish(id, second.fence, UNTIL, None, b"jown")], NOW + 34) == Settled()
    assert read(store, id).result == b"jown"


def test_why_a_result_is_missing_is_told_by_its_run(store: JobStore) -> None:
    held = claimed_row(store)
    assert store.settle([Finish(held.id, 1, UNTIL, None, None, "$no \0 JSON ☃")], NOW) == Settled()
    after = read(store, held.id)
    assert after.result is None
    assert [run.reason for run in runs_of(after.history)] == ["$no \0 JSON ☃"]


@pytest.mark.parametrize("size", [100_000, 15 * 2**20, 16 * 2**20 - 64 * 1024])
def test_a_job_of_any_size_that_a_store_takes_has_a_result_or_says_why_not(store: JobStore, size: int) -> None:
    held = claimed_row(store, payload=b"x" * size)
    assert store.settle([Retry(held.id, 1, NOW, "broken", None, traceback="t" * MAX_TRACEBACK)], NOW) == Settled()
    assert claim(store, held.id).rows
    assert store.settle([Finish(held.id, 2, UNTIL, None, b"j" + b"1" * 2**20)], NOW) == Settled()
    after = read(store, held.id)
    run = runs_of(after.history)[-1]
    assert (after.result, run.reason) in ((b"j" + b"1" * 2**20, None), (None, NO_ROOM))


def test_a_result_goes_with_its_job_and_comes_to_no_other(store: JobStore, other: JobStore) -> None:
    """Also where a store gives the place of one that is gone to the next."""

    def finished() -> str:
        held = claimed_row(store)
        assert store.settle([Finish(held.id, 1, UNTIL, None, b"j1")], NOW) == Settled()
        return held.id

    removals: list[Callable[[str], int]] = [
        lambda id: other.delete([id]),
        lambda id: other.purge("t", 10),
        lambda id: other.expire(UNTIL, 10),
    ]
    for remove in removals:
        assert remove(finished()) == 1
        assert read(store, done_row(store).id).result is None
        assert other.purge("t", 10) == 1


# -- expire ----------------------------------------------------------------------------------------------


def test_a_done_row_is_deleted_once_its_time_is_over(store: JobStore, other: JobStore) -> None:
    held = done_row(store)
    assert store.expire(UNTIL - 0.01, 10) == 0
    assert store.get([held.id])
    assert other.expire(UNTIL, 10) == 1
    assert other.expire(UNTIL, 10) == 0
    assert store.get([held.id]) == []
    assert store.counts()["done"] == 0


def test_the_earliest_expire_first_and_no_more_than_asked(store: JobStore) -> None:
    late, _early, middle, future = (
        done_row(store, keep_until=keep).id for keep in (NOW + 9, NOW + 2, NOW + 5, NOW + 99)
    )
    assert store.expire(NOW + 50, 1) == 1
    assert ids(store.find(None, "done", None, 10)) == sorted([late, middle, future])
    assert store.expire(NOW + 50, 1) == 1
    assert ids(store.find(None, "done", None, 10)) == sorted([late, future])
    assert store.expire(NOW + 50, 10) == 1
    assert ids(store.find(None, "done", None, 10)) == [future]


def test_nothing_that_is_not_done_is_ever_deleted_by_its_age(store: JobStore) -> None:
    old = {"keep_until": NOW - 9, "run_at": NOW - 999, "created_at": NOW - 999}
    given = add(store, row(**old), delayed(NOW + 9, keep_until=NOW - 9), row(**old), row(**old), row(**old))
    claim(store, *given[2:])
    store.settle([Die(given[3], 1, "enough"), Retry(given[4], 1, NOW + 9, "broken", None)], NOW)
    assert [job.state for job in store.get(given)] == ["ready", "delayed", "running", "dead", "delayed"]
    done_row(store)
    assert store.expire(NOW + 1e9, 100) == 1
    assert ids(store.get(given)) == given


def test_of_many_that_expire_at_once_each_row_is_counted_by_one(make_atomic_store: MakeStore) -> None:
    stores = [make_atomic_store() for _ in range(4)]
    for _ in range(20):
        done_row(stores[0])
    with ThreadPoolExecutor(4) as pool:
        counted = list(pool.map(lambda store: store.expire(UNTIL, 100), stores))
    assert sum(counted) == 20
    assert stores[0].counts()["done"] == 0


def test_a_whole_way_from_the_add_to_the_end_of_the_keeping(store: JobStore, other: JobStore) -> None:
    """Failed, run again, finished, kept, gone."""
    (id,) = add(store, row())
    (first,) = claim(store, id, owner="first").rows
    store.settle([Retry(id, first.fence, NOW + 5, "broken", None)], NOW + 1)
    other.promote(NOW + 5, 10)
    (second,) = claim(other, id, owner="second", now=NOW + 6).rows
    other.settle([Finish(id, second.fence, NOW + 70)], NOW + 7)
    after = read(store, id)
    assert (after.state, after.tries, after.failures, after.reason) == ("done", 2, 1, "broken")
    assert history(store, id) == [Run("first", NOW + 1, "broken"), Run("second", NOW + 7, None)]
    assert store.expire(NOW + 69, 10) == 0
    assert other.expire(NOW + 70, 10) == 1
    assert claim(store, id) == NOTHING


# -- histories -------------------------------------------------------------------------------------------


def test_a_row_that_never_ran_has_no_history(store: JobStore) -> None:
    (id,) = add(store, row())
    assert read(store, id).history is None
    claim(store, id)
    assert read(store, id).history is None


def test_the_history_tells_who_ran_it_when_it_ended_and_why(store: JobStore, other: JobStore) -> None:
    (id,) = add(store, row())
    expected = []
    for number in range(3):
        now = NOW + 10 * number + 0.123456
        (held,) = claim(store, id, owner=f"owner {number}", now=now).rows
        verdict = Die(id, held.fence, "enough") if number == 2 else Retry(id, held.fence, now, "broken", None)
        assert other.settle([verdict], now + 1) == Settled()
        expected.append(Run(f"owner {number}", now + 1, verdict.reason))
    assert history(store, id) == expected
    assert store.revive([id], "once more", NOW + 60, None)
    assert history(store, id) == expected


def test_the_history_keeps_the_last_runs(store: JobStore) -> None:
    (id,) = add(store, row())
    for number in range(MOST + 3):
        (held,) = claim(store, id, owner=f"owner {number}").rows
        store.settle([Retry(id, held.fence, NOW, f"broken {number}", None)], NOW + number)
    runs = history(store, id)
    assert [run.reason for run in runs] == [f"broken {number}" for number in range(3, MOST + 3)]
    assert runs[-1] == Run(f"owner {MOST + 2}", NOW + MOST + 2, f"broken {MOST + 2}")


def test_the_last_runs_that_raised_keep_their_tracebacks(store: JobStore, other: JobStore) -> None:
    (id, neighbour) = add(store, row(), row())
    for number in range(TRACEBACKS + 2):
        (held,) = claim(store, id, owner=f"owner {number}").rows
        assert held.history is None
        store.settle([Retry(id, held.fence, NOW, "broken", None, traceback=f"line\n\t☃ \0 $x {number}")], NOW)
    (held,) = claim(store, id, owner="last").rows
    (near,) = claim(store, neighbour, owner="last").rows
    settled = [Die(id, held.fence, "enough", "z" * MAX_TRACEBACK), Die(neighbour, near.fence, "enough")]
    assert other.settle(settled, NOW) == Settled()
    kept = [None, None, None, *(f"line\n\t☃ \0 $x {number}" for number in (3, 4)), "z" * MAX_TRACEBACK]
    assert [run.traceback for run in history(other, id)] == kept
    assert history(other, neighbour) == [Run("last", NOW, "enough")]
    store.revive([id], "once more", NOW, None)
    (held,) = claim(store, id).rows
    store.settle([Finish(id, held.fence, UNTIL)], NOW)
    assert [run.traceback for run in history(other, id)] == [*kept, None]


def test_the_traceback_of_a_settle_that_is_lost_is_not_kept(store: JobStore) -> None:
    held = claimed_row(store)
    lost = store.settle([Retry(held.id, 2, NOW, "broken", None, traceback="of another")], NOW)
    assert lost == Settled(frozenset([held.id]))
    store.settle([Retry(held.id, 1, NOW, "broken", None, traceback="its own")], NOW)
    assert [run.traceback for run in history(store, held.id)] == ["its own"]


@pytest.mark.parametrize("size", [100_000, 15 * 2**20, 16 * 2**20 - 64 * 1024])
def test_a_job_of_any_size_that_a_store_takes_may_raise(store: JobStore, size: int) -> None:
    held = claimed_row(store, payload=b"x" * size)
    for fence in range(1, 6):
        settled = store.settle([Retry(held.id, fence, NOW, "r" * 1000, None, traceback="t" * MAX_TRACEBACK)], NOW)
        assert settled == Settled()
        assert claim(store, held.id).rows
    tracebacks = [run.traceback for run in history(store, held.id)]
    assert tracebacks in ([None] * 2 + ["t" * MAX_TRACEBACK] * TRACEBACKS, [None] * 5)


def test_what_is_given_back_has_not_run(store: JobStore) -> None:
    held = claimed_row(store)
    store.settle([Unget(held.id, 1, NOW, None, None, started=True)], NOW)
    assert read(store, held.id).history is None


def test_a_lease_that_ran_out_is_a_run_that_failed(store: JobStore) -> None:
    crowd, alone = claimed_row(store), claimed_row(store, alone=True)
    store.recover(NOW + 31, 1, 10)
    after = store.get([crowd.id, alone.id])
    assert [job.state for job in after] == ["ready", "dead"]
    for job, held in zip(after, (crowd, alone), strict=True):
        assert runs_of(job.history) == [Run(held.lease_owner, NOW + 31, job.reason)]


@pytest.mark.parametrize("reason", ["", "tab\tnewline\n", "NUL \0 in it", "☃" * 500, "file \udc80 name", '"\\[]{}'])
def test_a_history_may_hold_any_reason(store: JobStore, reason: str) -> None:
    retried, died = claimed_row(store), claimed_row(store)
    store.settle([Retry(retried.id, 1, NOW, reason, None), Die(died.id, 1, reason)], NOW)
    for job in store.get([retried.id, died.id]):
        assert json.loads(job.history or "")[0][2] == job.reason
        assert runs_of(job.history)[0].reason is not None


def test_a_batch_writes_each_its_own_history(store: JobStore) -> None:
    jobs = [claimed_row(store) for _ in range(4)]
    a, b, c, d = ids(jobs)
    batch: list[Settlement] = [
        Retry(a, 1, NOW, "a", None),
        Die(b, 1, "b"),
        Finish(c, 1, UNTIL),
        Retry(d, 1, NOW, "d", None),
    ]
    assert store.settle(batch, NOW + 1) == Settled()
    assert [history(store, id) for id in (a, b, c, d)] == [
        [Run(job.lease_owner, NOW + 1, reason)] for job, reason in zip(jobs, ("a", "b", None, "d"), strict=True)
    ]


def test_a_settle_that_is_lost_writes_no_history(store: JobStore) -> None:
    held = claimed_row(store)
    store.settle([Retry(held.id, 9, NOW, "late", None), Finish(held.id, 9, UNTIL), Die(held.id, 9, "late")], NOW)
    assert read(store, held.id) == held


# -- what runs report ------------------------------------------------------------------------------------

HALF = '[1,2,{"at":"☃ $x"},9.5,1]'


def told(id: str, *texts: str, fence: int = 1, number: int = 1, progress: str | None = None) -> Report:
    """A report of a first try, with these lines."""
    return Report(id, fence, number, 1, progress, tuple((NOW + place, text) for place, text in enumerate(texts)))


def texts(store: JobStore, id: str, after: int | None = None, most: int = 9999) -> list[str]:
    return [line.text for line in store.job_log(id, after, most)]


def test_a_run_tells_how_far_it_is_and_more_for_its_log(store: JobStore, other: JobStore) -> None:
    held = claimed_row(store)
    odd = ["", "two\nlines", "NUL \0, ESC \x1b[2J", "☃ $x", "%s"]
    assert store.report([told(held.id, *odd, progress=HALF)], NOW) == frozenset()
    assert read_progress(read(other, held.id).progress) == Progress(1, 2, {"at": "☃ $x"}, 9.5, 1)
    lines = other.job_log(held.id, None, 99)
    assert [line[1:] for line in lines] == [(NOW + place, 1, text) for place, text in enumerate(odd)]
    assert store.report([told(held.id, "more", number=2)], NOW) == frozenset()
    assert read(other, held.id).progress == HALF
    assert texts(other, held.id, lines[-1].number) == ["more"]
    assert texts(other, held.id, lines[1].number, 2) == odd[2:4]
    assert read(other, held.id).state == State.RUNNING
    assert store.report([], NOW) == frozenset()


def test_a_claim_hands_out_nothing_of_what_was_told(store: JobStore) -> None:
    held = claimed_row(store)
    store.report([told(held.id, "line", progress=HALF)], NOW)
    store.settle([Unget(held.id, 1, NOW, None, None, started=True)], NOW)
    (again,) = claim(store, held.id).rows
    assert (again.progress, again.result, again.history) == (None, None, None)
    assert texts(store, held.id) == ["line"]


@pytest.mark.parametrize("end", ["retry", "unget", "die", "finish"])
def test_what_a_settlement_brings_is_written_with_it(store: JobStore, other: JobStore, end: str) -> None:
    held, neighbour = claimed_row(store), claimed_row(store)
    batch = [
        SETTLEMENTS[end](held.id, 1)._replace(report=told(held.id, "last words", progress=HALF)),
        SETTLEMENTS[end](neighbour.id, 1),
    ]
    assert store.settle(batch, NOW) == Settled()
    assert [job.progress for job in other.get([held.id, neighbour.id])] == [HALF, None]
    assert (texts(other, held.id), texts(other, neighbour.id)) == (["last words"], [])
    assert read(other, held.id).state == read(other, neighbour.id).state


def test_who_does_not_hold_the_job_tells_nothing(store: JobStore, other: JobStore) -> None:
    held, settled, gone = claimed_row(store), claimed_row(store), claimed_row(store)
    store.settle([Die(settled.id, 1, "enough"), Delete(gone.id, 1)], NOW)
    mine = told(held.id, "mine", progress=HALF)
    strange = [told(held.id, "late", fence=2), *(told(one.id, "late", progress=HALF) for one in (settled, gone))]
    assert store.report([*strange[1:], mine], NOW) == {settled.id, gone.id}
    assert store.report([strange[0]], NOW) == {held.id}
    assert (texts(store, held.id), texts(store, settled.id), texts(store, gone.id)) == (["mine"], [], [])
    assert [job.progress for job in store.get([held.id, settled.id])] == [HALF, None]
    lost = Retry(held.id, 2, NOW, "late", None, report=told(held.id, "late", fence=2))
    assert store.settle([lost], NOW).lost == {held.id}
    assert texts(store, held.id) == ["mine"]
    store.recover(NOW + 31, 3, 10)
    (taken,) = claim(other, held.id, now=NOW + 32).rows
    assert store.report([told(held.id, "too late", number=2)], NOW + 33) == {held.id}
    assert other.report([told(held.id, "its own", fence=taken.fence)], NOW + 33) == frozenset()
    assert texts(store, held.id) == ["mine", "its own"]


def test_a_report_that_is_sent_twice_is_written_once(store: JobStore, other: JobStore) -> None:
    held = claimed_row(store)
    for again in (store, other):
        assert again.report([told(held.id, "once", number=1)], NOW) == frozenset()
    assert texts(store, held.id) == ["once"]
    assert other.report([told(held.id, "then", number=2)], NOW) == frozenset()
    assert texts(store, held.id) == ["once", "then"]


def test_of_a_log_the_last_lines_are_kept(store: JobStore) -> None:
    held = claimed_row(store)
    store.report([told(held.id, *(str(place) for place in range(MOST_LINES - 1)))], NOW)
    (first, *_) = store.job_log(held.id, None, 1)
    store.report([told(held.id, "a", "b", number=2)], NOW)
    lines = store.job_log(held.id, None, 9999)
    assert len(lines) == MOST_LINES
    assert [line.text for line in (lines[0], *lines[-2:])] == ["1", "a", "b"]
    assert sorted({line.number for line in [first, *lines]}) == [first.number, *(line.number for line in lines)]
    half = "é" * (MOST_LOG_BYTES // 4)
    store.report([told(held.id, half, half, number=3)], NOW)
    assert texts(store, held.id) == [half] * 2
    store.report([told(held.id, "c", number=4)], NOW)
    assert texts(store, held.id) == [half, "c"]


def test_what_was_told_goes_with_its_job(store: JobStore, other: JobStore) -> None:
    for number in range(3):
        held = claimed_row(store)
        store.report([told(held.id, "line", progress=HALF)], NOW)
        assert texts(other, held.id) == ["line"]
        if number == 0:
            assert store.settle([Delete(held.id, 1)], NOW) == Settled()
        elif number == 1:
            assert other.delete([held.id]) == 1
        else:
            store.settle([Finish(held.id, 1, NOW + 9)], NOW)
            assert texts(other, held.id) == ["line"]
            assert other.expire(NOW + 10, 9) == 1
        assert store.job_log(held.id, None, 9) == []
    assert texts(store, claimed_row(store).id) == []


@pytest.mark.parametrize("size", [100_000, 15 * 2**20, 16 * 2**20 - 64 * 1024])
def test_a_job_of_any_size_that_a_store_takes_may_tell(store: JobStore, size: int) -> None:
    held = claimed_row(store, payload=b"x" * size)
    lines = ["y" * 16_000] * 4
    assert store.report([told(held.id, *lines, progress=HALF)], NOW) == frozenset()
    assert read(store, held.id).progress == HALF
    assert texts(store, held.id) in (lines, [])
    assert store.settle([Finish(held.id, 1, NOW + 9, None, b"j" + b"1" * 2**19)], NOW) == Settled()


def test_a_log_of_a_job_that_is_not_there_is_empty(store: JobStore) -> None:
    assert store.job_log("0" * 28, None, 9) == []
    assert store.job_log(claimed_row(store).id, 5, 9) == []
