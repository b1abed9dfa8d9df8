"""What a loop reserves from: the tubes, and the store where these are empty or away. On a clock turned by hand."""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import pytest

from kqueue.contracts.broker import Broker, Entry, EntryFate, Pointer, Reservation, Room, selected
from kqueue.contracts.runs import Selection
from kqueue.contracts.store import JobStore
from kqueue.dispatch.doorbell import Doorbell
from kqueue.dispatch.falling_due import MARGIN_S, MAX_NOTED
from kqueue.dispatch.tubes_then_store import PROBE_S, PROMOTE_ROWS, ROUNDING_S, WAIT_S, Dispatching
from kqueue.model.errors import BrokerUnavailable
from kqueue.model.retry import FIRST_BACKOFF_S, LAST_BACKOFF_S
from kqueue.system.clock import ManualClock
from kqueue.telemetry.outages import Outages

NOTHING = Reservation(None, [])
FROM_STORE = Selection(("t",))
FROM_TUBE = Reservation(Selection(("t",), ("a",)), [])


class World:
    """A store, a broker and a doorbell that do as they are told."""

    address = "world:"
    carries_pointers = True

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.is_ready = False
        self.due_at: float | None = None
        self.promoted: list[float] = []
        self.probes = 0
        #: What the tubes hold next.
        self.entries: list[Reservation] = []
        self.is_down = False
        #: Seconds of each reserve in them.
        self.waits: list[float] = []
        self.rung: list[str] = []
        self.calls: list[str] = []

    # the store
    def now(self) -> float:
        return self.clock.time()

    def has_ready(self, types: Sequence[str]) -> bool:
        self.probes += 1
        self.calls.append("probe")
        return self.is_ready

    def next_run_at(self) -> float | None:
        return self.due_at

    def promote(self, now: float, most: int) -> int:
        self.promoted.append(now)
        self.due_at = None
        return 1

    # the broker and its subscription
    def subscribe(self, types: Sequence[str]) -> "World":
        return self

    def reserve(self, jobs: int, timeout: float, room: Room | None = None) -> Reservation:
        self.waits.append(timeout)
        self.calls.append("reserve")
        if self.is_down:
            raise BrokerUnavailable("down")
        if self.entries:
            return self.entries.pop(0)
        self.clock.advance(timeout)
        return NOTHING

    def settle(self, verdicts: Sequence[EntryFate]) -> int:
        return 0

    def post(self, verdicts: Sequence[EntryFate]) -> None:
        self.calls.append("post")

    def freed(self) -> None:
        self.calls.append("freed")

    def wake(self) -> None:
        self.calls.append("wake")

    def close(self) -> None:
        self.calls.append("close")

    # the doorbell, and who hears of outages
    def flush(self) -> None:
        self.calls.append("flush")

    def reconnected(self, server: str, seconds: float) -> None:
        self.rung.append(server)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def dispatching(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dispatching]:
    def wait(sources: object, seconds: float) -> set[int]:
        world.clock.advance(seconds)
        return set()

    monkeypatch.setattr("kqueue.dispatch.tubes_then_store.wait_readable", wait)
    yield Dispatching(
        cast(JobStore, world),
        cast(Broker, world),
        cast(Doorbell, world),
        outages=Outages(cast(Any, world), world.clock),
        clock=world.clock,
        logger=logging.getLogger("tests.dispatch"),
    )


def test_an_empty_tube_asks_the_store_at_once_where_nobody_waits(world: World, dispatching: Dispatching) -> None:
    loop = dispatching.subscribe(["t"], False)
    assert loop.reserve(1, 0.0) == NOTHING
    world.is_ready = True
    assert loop.reserve(1, 0.0).selection == FROM_STORE
    world.entries = [FROM_TUBE]
    assert loop.reserve(1, 0.0) == FROM_TUBE
    assert world.calls == ["flush", "reserve", "probe", "flush", "reserve", "probe", "flush", "reserve"]


def test_one_that_waits_asks_after_each_second_in_vain_and_again_at_once_after_it_had_something(
    world: World, dispatching: Dispatching
) -> None:
    loop = dispatching.subscribe(["t"], True)
    for _ in range(3):
        assert loop.reserve(1, 15.0) == NOTHING
    assert (world.waits, world.probes) == ([0.0, WAIT_S, WAIT_S], 3)
    world.is_ready = True
    for _ in range(3):
        assert loop.reserve(1, 15.0).selection == FROM_STORE
    assert world.waits[3:] == [WAIT_S, 0.0, 0.0]


def test_whoever_is_served_by_the_tubes_asks_nothing(world: World, dispatching: Dispatching) -> None:
    loop = dispatching.subscribe(["t"], True)
    loop.reserve(1, 15.0)
    world.entries = [FROM_TUBE] * 100
    assert [loop.reserve(1, 15.0) for _ in range(100)] == [FROM_TUBE] * 100
    assert world.probes == 1


@pytest.mark.parametrize("is_down", [False, True], ids=["empty", "down"])
def test_idle_loops_ask_a_few_times_a_second_all_together(
    world: World, dispatching: Dispatching, is_down: bool
) -> None:
    """However many they are, and however often something wakes them."""
    loops = [dispatching.subscribe(["t"], True) for _ in range(16)]
    world.is_down = is_down
    began = world.clock.monotonic()
    wake_ups = 0
    while world.clock.monotonic() < began + 60:
        wake_ups += 1
        loops[wake_ups % 16].reserve(1, 0.01)
    assert wake_ups > 2000
    assert 60 / PROBE_S / 1.1 <= world.probes <= 60 / PROBE_S + 1


@pytest.mark.parametrize("waits", [False, True])
def test_a_broker_that_is_down_is_asked_after_a_back_off_and_the_store_alone_meanwhile(
    world: World, dispatching: Dispatching, caplog: pytest.LogCaptureFixture, waits: bool
) -> None:
    loops = [dispatching.subscribe(["t"], waits) for _ in range(3)]
    world.is_down = world.is_ready = True
    for second in range(100):
        assert all(loop.reserve(1, 15.0).selection == FROM_STORE for loop in loops), second
        world.clock.advance(1.0)
    # After 1, 2, 4, 8, 16 and 30 seconds; by one of the loops.
    assert len(world.waits) == 8
    assert "until the broker is back: down" in caplog.text
    assert len(caplog.records) == 1
    world.is_down = False
    world.clock.advance(LAST_BACKOFF_S)
    world.entries = [FROM_TUBE]
    assert loops[0].reserve(1, 15.0) == FROM_TUBE
    assert world.rung == ["world:"]


def test_one_that_waits_beside_a_broker_that_is_down_looks_within_a_second(
    world: World, dispatching: Dispatching
) -> None:
    loop = dispatching.subscribe(["t"], True)
    world.is_down = True
    loop.reserve(1, 15.0)
    for _ in range(20):
        began = world.clock.monotonic()
        loop.reserve(1, 15.0)
        assert world.clock.monotonic() - began <= PROBE_S
    world.is_ready = True
    assert any(loop.reserve(1, 15.0).selection for _ in range(2))


def test_a_wake_ends_the_wait_and_nothing_is_asked(world: World, dispatching: Dispatching) -> None:
    loop = dispatching.subscribe(["t"], True)
    loop.wake()
    assert loop.reserve(1, 15.0) == NOTHING
    assert world.calls == ["wake"]
    loop.reserve(1, 15.0)
    assert world.probes == 1


def test_what_is_due_is_made_ready_but_not_before_its_entry_may_have_come(
    world: World, dispatching: Dispatching
) -> None:
    """For one that waits: what came early was given back for a whole second, and another loop knows its time."""
    loop = dispatching.subscribe(["t"], True)
    world.due_at = world.now()
    loop.reserve(1, 0.0)
    assert world.promoted == []
    world.clock.advance(ROUNDING_S)
    loop.reserve(1, 0.0)
    assert world.promoted == [world.now() - ROUNDING_S]


def test_who_does_not_wait_leaves_nothing_that_is_due(world: World, dispatching: Dispatching) -> None:
    loop = dispatching.subscribe(["t"], False)
    world.due_at = world.now()
    loop.reserve(1, 0.0)
    assert world.promoted == [world.now()]


def early(token: int, priority: int = 5) -> Entry:
    return Entry(token, Pointer("t", priority, 0.0, (f"job {token}",)))


def of_tube(*entries: Entry) -> Reservation:
    """With the priorities that the pointers name, so that a job which has another by now is passed over."""
    return Reservation(selected(("t",), entries), list(entries))


def test_what_came_early_is_claimed_at_its_time_and_nothing_more_is_asked(
    world: World, dispatching: Dispatching
) -> None:
    """To the millisecond, whatever the tube makes of the rest of its delay."""
    loop = dispatching.subscribe(["t"], True)
    loop.reserve(1, 15.0)
    loop.post([EntryFate(early(1), 0.3), EntryFate(early(2), 0.5), EntryFate(early(3), 60.0)])
    probes, began = world.probes, world.clock.monotonic()
    for token, seconds in ((1, 0.3), (2, 0.5)):
        assert loop.reserve(1, 15.0) == of_tube(early(token))
        assert world.clock.monotonic() - began == pytest.approx(seconds + MARGIN_S)
    assert world.probes == probes
    loop.reserve(1, 15.0)
    assert world.waits[-1] == WAIT_S


def test_what_has_fallen_due_stands_behind_what_the_tubes_have_of_its_priority(
    world: World, dispatching: Dispatching
) -> None:
    loop = dispatching.subscribe(["t"], True)
    loop.post([EntryFate(early(1, 5), 0.1), EntryFate(early(2, 7), 0.1), EntryFate(early(3, 1), 0.1)])
    world.clock.advance(1.0)
    world.entries = [of_tube(early(4, 5), early(5, 7), early(6, 7))]
    assert loop.reserve(10, 15.0) == of_tube(
        *(early(token, of) for token, of in [(3, 1), (4, 5), (1, 5), (5, 7), (6, 7), (2, 7)])
    )


def test_what_has_fallen_due_and_did_not_fit_is_there_the_next_time(world: World, dispatching: Dispatching) -> None:
    """In no tube it has a place to come from; what came from one has."""
    loop = dispatching.subscribe(["t"], False)
    loop.post([EntryFate(early(token), 0.1) for token in (1, 2, 3)])
    world.clock.advance(1.0)
    assert loop.reserve(2, 0.0) == of_tube(early(1), early(2))
    loop.post([EntryFate(early(1), None), EntryFate(early(2), 0.0), EntryFate(early(9), 0.0)])
    assert loop.reserve(9, 0.0) == of_tube(early(3), early(2))
    loop.post([EntryFate(early(2), 0.1), EntryFate(early(3), None)])
    assert loop.reserve(9, 0.0) == NOTHING
    world.clock.advance(1.0)
    assert loop.reserve(9, 0.0) == of_tube(early(2))


def test_a_loop_remembers_so_many_and_no_more(world: World, dispatching: Dispatching) -> None:
    loop = dispatching.subscribe(["t"], False)
    loop.post([EntryFate(early(token), 0.1) for token in range(MAX_NOTED + 5)])
    world.clock.advance(1.0)
    assert len(loop.reserve(2 * MAX_NOTED, 0.0).entries) == MAX_NOTED


def test_beside_a_broker_that_is_down_what_falls_due_is_claimed_too(world: World, dispatching: Dispatching) -> None:
    loop = dispatching.subscribe(["t"], True)
    loop.post([EntryFate(early(1), 0.1)])
    world.is_down = True
    assert loop.reserve(1, 15.0) == NOTHING
    assert loop.reserve(1, 15.0) == of_tube(early(1))


def test_beside_a_broker_that_is_down_what_is_due_is_made_ready_at_its_time(
    world: World, dispatching: Dispatching
) -> None:
    loop = dispatching.subscribe(["t"], False)
    world.is_down = True
    loop.reserve(1, 0.0)
    world.due_at = world.now() + FIRST_BACKOFF_S / 2
    loop.reserve(1, 0.0)
    assert world.promoted == []
    world.clock.advance(FIRST_BACKOFF_S / 2)
    loop.reserve(1, 0.0)
    assert world.promoted == [world.now()]


def test_where_more_is_due_than_one_look_makes_ready_ours_may_be_among_the_rest(
    world: World, dispatching: Dispatching, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world, "promote", lambda now, most: PROMOTE_ROWS)
    world.due_at = 0.0
    assert dispatching.subscribe(["t"], False).reserve(1, 0.0).selection == FROM_STORE


def test_strangers_are_counted_whatever_the_store_has(world: World, dispatching: Dispatching) -> None:
    loop = dispatching.subscribe(["t"], False)
    world.entries = [Reservation(None, [], 3), Reservation(None, [], 2)]
    assert loop.reserve(1, 0.0) == Reservation(None, [], 3)
    world.is_ready = True
    assert loop.reserve(1, 0.0) == Reservation(FROM_STORE, [], 2)


def test_where_the_store_dispatches_nothing_stands_between(world: World, dispatching: Dispatching) -> None:
    world.carries_pointers = False
    assert cast(object, dispatching.subscribe(["t"], True)) is world


def test_the_rest_goes_to_the_tubes(world: World, dispatching: Dispatching) -> None:
    loop = dispatching.subscribe(["t"], True)
    calls: list[Callable[[], object]] = [lambda: loop.post([]), lambda: loop.settle([]), loop.close]
    for call in calls:
        call()
    assert world.calls == ["post", "close"]
