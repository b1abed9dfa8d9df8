"""The jobs of a loop of coroutines, with no loop: claimed, boarding, in the air, landed."""

from contextlib import ExitStack
from typing import Any

import pytest

from kqueue import AlreadySettled, JobInHand, KQueue, StoreUnavailable
from kqueue.batch import BOUND_S
from kqueue.clock import ManualClock
from kqueue.execution import Outcome
from kqueue.flight import Flight
from kqueue.flights import Flights
from kqueue.quarantine import SOLITUDE_S, Quarantine
from kqueue.store import Selection
from kqueue.stores.memory import MemoryStore
from kqueue.window import Limits

TTR = 10.0


class Field:
    """Flights on a store in memory, whose clock is turned by hand. Nothing is written unless it is asked for."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = MemoryStore(clock=self.clock)
        self.queue = KQueue(store=self.store)
        self.queue._clock = self.clock  # type: ignore[assignment]
        self.desk = self.queue._make_desk()
        self.told: list[str] = []
        self.is_loop_thread = False
        self.flights = Flights(
            self.desk,
            is_loop_thread=lambda: self.is_loop_thread,
            awake=lambda: self.told.append("awake"),
            ring=lambda: self.told.append("ring"),
        )
        self.flights.read_clock()

    def claim(self, count: int, ttr: float = TTR) -> list[str]:
        ids = self.queue.add_jobs("t", range(count), ttr=ttr)
        now = self.store.now()
        rows = self.store.claim(Selection(("t",)), Limits(count, job_s={"t": 0.0}), ids[0], now, False).rows
        self.flights.claim(rows, self.clock.monotonic())
        return ids

    def start(self, count: int) -> list[Flight]:
        self.claim(count)
        self.flights.board()
        return self.flights.take_off(False)

    def states(self) -> dict[str, int]:
        return {state: count for state, count in self.queue.counts().items() if count}


@pytest.fixture
def field() -> Field:
    return Field()


def test_a_job_boards_takes_off_ends_and_lands(field: Field) -> None:
    [first, second] = field.start(2)
    assert field.flights.places(5) == 3
    job = JobInHand(first.row, first)
    job.delete()
    job.delete()
    assert first.is_settled()
    assert not second.is_settled()
    assert field.flights.wants_attention_at(0) == pytest.approx(field.clock.monotonic() + 0.02)
    with pytest.raises(AlreadySettled):
        job.retry("too late")
    field.flights.land(first)
    assert field.flights.places(5) == 4
    field.clock.advance(0.02)
    field.flights.attend(field.clock.monotonic())
    assert field.states() == {"running": 1}
    assert +field.desk.tally == {Outcome.DELETED: 1}
    JobInHand(second.row, second).unget(delay=5)
    field.flights.land(second)
    field.flights.settle()
    assert field.states() == {"delayed": 1}
    assert field.flights.is_written()


def test_the_last_in_the_air_is_due_at_once(field: Field) -> None:
    for flight in field.start(2):
        assert field.flights.wants_attention_at(0) > field.clock.monotonic() + 0.01
        flight.delete(flight.row)
        field.flights.land(flight)
    assert field.flights.wants_attention_at(0) == field.clock.monotonic()


def test_nothing_is_claimed_while_the_event_loop_has_not_come_to_what_boards(field: Field) -> None:
    field.claim(2)
    field.flights.board()
    assert field.flights.places(100) == 0
    field.clock.advance(BOUND_S)
    field.flights.attend(field.clock.monotonic())
    assert field.states() == {"ready": 2}
    assert field.flights.places(100) == 0
    field.told.clear()
    assert field.flights.take_off(False) == []
    assert field.told == ["ring"]
    assert field.flights.places(100) == 100


def test_what_boards_in_time_is_not_given_back(field: Field) -> None:
    field.claim(2)
    field.flights.board()
    field.clock.advance(BOUND_S / 2)
    assert len(field.flights.take_off(False)) == 2
    field.clock.advance(BOUND_S)
    field.flights.attend(field.clock.monotonic())
    assert field.states() == {"running": 2}


@pytest.mark.parametrize(("seconds", "is_over", "starts"), [(4.9, False, 2), (5.1, False, 0), (0, True, 0)])
def test_with_under_half_its_lease_or_once_the_loop_is_over_no_job_starts(
    field: Field, seconds: float, is_over: bool, starts: int
) -> None:
    ids = field.claim(2)
    field.flights.board()
    field.clock.advance(seconds)
    assert len(field.flights.take_off(is_over)) == starts
    field.flights.settle()
    assert [row.tries for row in field.store.get(ids)] == [1 if starts else 0] * 2


def test_late_leases_are_renewed_before_the_start_and_lost_ones_dropped(field: Field) -> None:
    ids = field.claim(2)
    field.clock.advance(1)
    field.store.delete(ids[:1])
    field.flights.renew_late()
    field.flights.board()
    [flight] = field.flights.take_off(False)
    assert flight.row.id == ids[1]
    assert field.store.get(ids)[0].lease_until == field.clock.time() + TTR
    assert flight.leased_at == field.clock.monotonic()


def test_who_waits_for_a_landing_is_rung_once(field: Field) -> None:
    first, second, third = field.start(3)
    field.flights.land(first)
    assert field.flights.places(2) == 0
    field.told.clear()
    field.flights.land(second)
    field.flights.land(third)
    assert field.told.count("ring") == 1
    assert not field.flights.in_the_air()


def test_a_coroutine_that_vanished_has_its_job_given_back(field: Field) -> None:
    [flight] = field.start(1)
    field.flights.land(flight)
    field.flights.settle()
    assert field.states() == {"ready": 1}


def test_delete_by_id(field: Field) -> None:
    first, second, third = field.start(3)
    assert field.flights.delete_by_id(first.row.id) is True
    assert field.states() == {"running": 2}
    assert field.flights.delete_by_id(first.row.id) is False
    field.is_loop_thread = True
    assert field.flights.delete_by_id(second.row.id) is True
    assert field.flights.delete_by_id(second.row.id) is True
    assert field.states() == {"running": 2}  # a coroutine asks, and nobody waits for the store
    third.retry(third.row, "busy", None)
    assert field.flights.delete_by_id(third.row.id) is False
    assert field.flights.delete_by_id("0" * 28) is False
    field.flights.settle()
    assert field.states() == {"delayed": 1}


def test_what_is_deleted_before_it_starts_is_not_started(field: Field) -> None:
    first, second, third = field.claim(3)
    field.flights.drop(first)
    field.flights.board()
    field.flights.drop(second)
    assert [flight.row.id for flight in field.flights.take_off(False)] == [third]


def test_a_settle_that_fails_is_due_again_and_known_to_have_failed(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_: Any) -> Any:
        raise StoreUnavailable("down")

    [flight] = field.start(1)
    flight.delete(flight.row)
    with monkeypatch.context() as patch:
        patch.setattr(field.store, "settle", down)
        with pytest.raises(StoreUnavailable):
            field.flights.attend(field.clock.monotonic())
    assert field.flights.is_failing()
    assert field.flights.wants_attention_at(0) > field.clock.monotonic()
    field.flights.settle()
    assert not field.flights.is_failing()
    assert field.states() == {}


def test_the_window_is_left_once_all_is_landed_and_written(field: Field) -> None:
    quarantine = Quarantine()

    def is_alone() -> bool:
        with quarantine.window(), quarantine.aside(0) as alone:
            return alone

    with ExitStack() as stack:
        stack.enter_context(quarantine.window())
        first, second = field.start(2)
        field.flights.keep(stack)
    for flight in (first, second):
        assert not is_alone()
        flight.delete(flight.row)
        field.flights.land(flight)
    assert not is_alone()
    field.flights.settle()
    assert is_alone()


def test_beside_a_suspect_fly_few_until_it_has_flown_for_long(field: Field) -> None:
    field.claim(1)
    [flight] = field.flights._claimed
    assert field.flights.claim([flight.row._replace(suspicion=2)], field.clock.monotonic()) == 2
    assert field.flights.fits(2)
    field.flights.board()
    field.flights.take_off(False)
    assert field.flights.places(50) == 1
    field.clock.advance(SOLITUDE_S + 1)
    assert field.flights.places(50) == 49


def test_a_job_marked_alone_is_stored_so_until_that_is_denied(field: Field) -> None:
    [job_id] = field.claim(1)
    field.flights.mark_alone()
    field.flights.board()
    [flight] = field.flights.take_off(False)
    assert field.store.get([job_id])[0].alone is True
    field.flights.deny_solitude()
    field.flights.deny_solitude()
    assert field.store.get([job_id])[0].alone is False
    flight.delete(flight.row)
    field.flights.settle()
    assert field.states() == {}


def test_a_job_whose_lease_is_lost_is_not_marked_and_not_started(field: Field) -> None:
    ids = field.claim(1)
    field.store.delete(ids)
    field.flights.mark_alone()
    field.flights.board()
    assert field.flights.take_off(False) == []
