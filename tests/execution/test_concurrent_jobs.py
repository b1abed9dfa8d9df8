"""The jobs of a loop of coroutines, with no loop: claimed, starting, running, ended."""

import threading
from typing import Any

import pytest

from kqueue import AlreadySettled, JobInHand, KQueue, StoreUnavailable
from kqueue.assembly import assemble
from kqueue.contracts.budget import SOLITUDE_S, Budget
from kqueue.contracts.runs import Selection
from kqueue.contracts.settlements import Outcome
from kqueue.execution.concurrent_jobs import ConcurrentJobs
from kqueue.execution.inflight import BOUND_S
from kqueue.execution.inflight_job import InflightJob
from kqueue.execution.jobs_in_parts import JobsInParts
from kqueue.loops.isolation import Isolation
from kqueue.stores.memory.store import MemoryStore
from kqueue.system.clock import ManualClock

TTR = 10.0


class Field:
    """ConcurrentJobs on a store in memory, whose clock is turned by hand. Nothing is written unless it is asked
    for.
    """

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = MemoryStore(clock=self.clock)
        parts = assemble(self.store, clock=self.clock)
        self.queue = KQueue.from_parts(parts)
        self.context = parts.loop_context()
        self.told: list[str] = []
        self.whole = JobsInParts(
            self.context,
            awake=lambda: self.told.append("awake"),
            emptied=lambda: self.isolation.leave(self),
        )
        self.coroutines = ConcurrentJobs(self.whole, ring=lambda: self.told.append("ring"))
        self.isolation = Isolation(self.clock)
        self.jobs = self.coroutines.jobs
        self.whole.read_clock()

    def claim(self, count: int, ttr: float = TTR) -> list[str]:
        ids = self.queue.add_jobs("t", range(count), ttr=ttr)
        now = self.store.now()
        rows = self.store.claim(Selection(("t",)), Budget(count, job_s={"t": 0.0}), ids[0], now, False).rows
        self.coroutines.hold(rows, self.clock.monotonic())
        return ids

    def start(self, count: int) -> list[InflightJob]:
        self.claim(count)
        self.coroutines.board()
        return self.coroutines.take(["t"], count)

    def states(self) -> dict[str, int]:
        return {state: count for state, count in self.queue.counts().items() if count}


@pytest.fixture
def field() -> Field:
    return Field()


def test_a_job_boards_takes_off_ends_and_lands(field: Field) -> None:
    [first, second] = field.start(2)
    assert field.coroutines.places(5) == 3
    job = JobInHand(first.row, first)
    job.delete()
    job.delete()
    assert first.is_settled()
    assert not second.is_settled()
    assert field.coroutines.wants_attention_at(0) == pytest.approx(field.clock.monotonic() + 0.02)
    with pytest.raises(AlreadySettled):
        job.retry("too late")
    field.coroutines.ended(first)
    assert field.coroutines.places(5) == 4
    field.clock.advance(0.02)
    field.coroutines.attend(field.clock.monotonic())
    assert field.states() == {"running": 1}
    assert +field.context.tally == {Outcome.DELETED: 1}
    JobInHand(second.row, second).unget(delay=5)
    field.coroutines.ended(second)
    field.jobs.settle()
    assert field.states() == {"delayed": 1}
    assert field.jobs.completer.is_written()


def test_the_last_in_hand_is_due_at_once(field: Field) -> None:
    for job in field.start(2):
        assert field.coroutines.wants_attention_at(0) > field.clock.monotonic() + 0.01
        job.delete(job.row)
        field.coroutines.ended(job)
    assert field.coroutines.wants_attention_at(0) == field.clock.monotonic()


def test_what_waits_for_a_place_too_long_is_given_back_and_none_is_claimed_ahead_before_one_gets_free(
    field: Field,
) -> None:
    [job] = field.start(1)
    field.claim(2)
    field.coroutines.board()
    assert field.coroutines.places(1, 2) == 0
    field.clock.advance(BOUND_S)
    field.coroutines.attend(field.clock.monotonic())
    assert field.states() == {"ready": 2, "running": 1}
    assert field.coroutines.places(1, 2) == 0
    field.told.clear()
    field.coroutines.ended(job)
    assert "ring" in field.told
    assert field.coroutines.places(1, 2) == 3


def test_what_is_taken_in_time_is_not_given_back(field: Field) -> None:
    field.claim(2)
    field.coroutines.board()
    field.clock.advance(BOUND_S / 2)
    assert len(field.coroutines.take(["t"])) == 1
    field.clock.advance(BOUND_S / 2)
    field.coroutines.attend(field.clock.monotonic())
    assert field.states() == {"running": 2}
    assert len(field.coroutines.take(["t"])) == 1


def test_who_takes_what_leaves_half_of_those_ahead_rings_for_more(field: Field) -> None:
    field.claim(5)
    field.coroutines.board()
    assert field.coroutines.places(3, 4) == 0
    field.told.clear()
    field.coroutines.take(["t"], 2)
    assert field.told == []
    assert field.coroutines.places(3, 4) == 0
    field.coroutines.take(["t"], 1)
    assert field.told == ["ring"]
    assert field.coroutines.places(3, 4) == 2


@pytest.mark.parametrize(("seconds", "served", "starts"), [(4.9, "t", 2), (5.1, "t", 0), (0, "other", 0)])
def test_with_under_half_its_lease_or_where_its_type_is_not_served_no_job_starts(
    field: Field, seconds: float, served: str, starts: int
) -> None:
    ids = field.claim(2)
    field.coroutines.board()
    field.clock.advance(seconds)
    assert len(field.coroutines.take([served], 2)) == starts
    field.jobs.settle()
    assert [row.tries for row in field.store.get(ids)] == [1 if starts else 0] * 2


def test_late_leases_are_renewed_before_the_start_and_lost_ones_dropped(field: Field) -> None:
    ids = field.claim(2)
    field.clock.advance(1)
    field.store.delete(ids[:1])
    field.jobs.renew_unstarted()
    field.coroutines.board()
    [job] = field.coroutines.take(["t"], 9)
    assert job.row.id == ids[1]
    assert field.store.get(ids)[0].lease_until == field.clock.time() + TTR
    assert job.leased_at == field.clock.monotonic()


def test_who_waits_for_an_end_is_rung_once(field: Field) -> None:
    first, second, third = field.start(3)
    field.coroutines.ended(first)
    assert field.coroutines.places(2) == 0
    field.told.clear()
    field.coroutines.ended(second)
    field.coroutines.ended(third)
    assert field.told.count("ring") == 1
    assert not field.coroutines.running()


def test_a_coroutine_that_vanished_has_its_job_given_back(field: Field) -> None:
    [job] = field.start(1)
    field.coroutines.ended(job)
    field.jobs.settle()
    assert field.states() == {"ready": 1}


def test_delete_by_id(field: Field) -> None:
    first, second, third = field.start(3)
    assert field.jobs.delete_by_id(first.row.id) is True
    assert field.states() == {"running": 2}
    assert field.jobs.delete_by_id(first.row.id) is False
    field.jobs.thread = threading.get_ident()
    assert field.jobs.delete_by_id(second.row.id) is True
    assert field.jobs.delete_by_id(second.row.id) is True
    assert field.states() == {"running": 2}  # a coroutine asks, and nobody waits for the store
    third.retry(third.row, "busy", None)
    assert field.jobs.delete_by_id(third.row.id) is False
    assert field.jobs.delete_by_id("0" * 28) is False
    field.jobs.settle()
    assert field.states() == {"delayed": 1}


def test_a_job_that_is_deleted_by_its_id_is_cancelled_unless_a_coroutine_asks(field: Field) -> None:
    first, second = field.start(2)
    assert field.jobs.delete_by_id(first.row.id) is True
    assert (first.lease_lost(first.row), first.cancelled(first.row)) == (True, True)
    field.jobs.thread = threading.get_ident()
    assert field.jobs.delete_by_id(second.row.id) is True
    assert (second.lease_lost(second.row), second.cancelled(second.row)) == (False, False)


def test_a_delete_from_outside_of_a_job_that_has_ended_otherwise_comes_after_its_end(field: Field) -> None:
    [job] = field.start(1)
    job.retry(job.row, "busy", None)
    assert field.jobs.delete_by_id(job.row.id) is False
    assert field.states() == {"delayed": 1}


def test_what_is_deleted_before_it_starts_is_not_started(field: Field) -> None:
    first, second, third = field.claim(3)
    field.jobs.drop(first)
    field.coroutines.board()
    field.jobs.drop(second)
    assert [job.row.id for job in field.coroutines.take(["t"], 9)] == [third]


def test_a_settle_that_fails_is_due_again_and_known_to_have_failed(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_: Any) -> Any:
        raise StoreUnavailable("down")

    [job] = field.start(1)
    job.delete(job.row)
    with monkeypatch.context() as patch:
        patch.setattr(field.store, "settle", down)
        with pytest.raises(StoreUnavailable):
            field.coroutines.attend(field.clock.monotonic())
    assert field.jobs.completer.is_failing()
    assert field.coroutines.wants_attention_at(0) > field.clock.monotonic()
    field.jobs.settle()
    assert not field.jobs.completer.is_failing()
    assert field.states() == {}


def test_the_window_is_left_once_all_has_ended_and_written(field: Field) -> None:
    isolation = field.isolation

    def is_alone() -> bool:
        with isolation.window(), isolation.aside(0) as alone:
            return alone

    field.whole.begin_claim()
    isolation.enter(field)
    assert not is_alone()
    first, second = field.start(2)
    field.whole.end_claim()
    for job in (first, second):
        assert not is_alone()
        job.delete(job.row)
        field.coroutines.ended(job)
    assert not is_alone()
    field.jobs.settle()
    assert is_alone()


def test_beside_a_suspect_fly_few_until_it_has_flown_for_long(field: Field) -> None:
    field.claim(1)
    [job] = field.jobs.unstarted
    job.row = job.row._replace(suspicion=2)
    assert field.coroutines.most_beside() == 2
    assert field.coroutines.fits(2)
    field.coroutines.board()
    field.coroutines.take(["t"], 9)
    assert field.coroutines.places(50) == 1
    field.clock.advance(SOLITUDE_S + 1)
    assert field.coroutines.places(50) == 49


def test_a_job_marked_alone_is_stored_so_until_that_is_denied(field: Field) -> None:
    [job_id] = field.claim(1)
    field.jobs.mark_alone()
    field.coroutines.board()
    [job] = field.coroutines.take(["t"], 9)
    assert field.store.get([job_id])[0].alone is True
    field.jobs.deny_solitude()
    field.jobs.deny_solitude()
    assert field.store.get([job_id])[0].alone is False
    job.delete(job.row)
    field.jobs.settle()
    assert field.states() == {}


def test_a_job_whose_lease_is_lost_is_not_marked_and_not_started(field: Field) -> None:
    ids = field.claim(1)
    field.store.delete(ids)
    field.jobs.mark_alone()
    field.coroutines.board()
    assert field.coroutines.take(["t"], 9) == []
