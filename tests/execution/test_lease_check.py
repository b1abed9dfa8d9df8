"""Whether a job in hand is still ours and still wanted."""

import pytest

from kqueue.contracts.renewer import RenewalEnd
from kqueue.execution.lease_check import LeaseCheck, LeaseState, lease_state
from kqueue.model.errors import StoreUnavailable
from kqueue.model.job import Row, State
from kqueue.stores.memory.store import MemoryStore
from kqueue.system.clock import ManualClock

NOW = 1000.0
ROW = Row("0" * 28, "t", b"", "bytes", 5, State.RUNNING, 0, 0, 10, fence=2, lease_owner="o", lease_until=NOW + 10)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (ROW, LeaseState.OURS),
        (ROW._replace(lease_until=NOW + 60, tries=7), LeaseState.OURS),
        (ROW._replace(lease_until=NOW), LeaseState.LATE),
        (ROW._replace(state=State.READY, lease_until=None), LeaseState.LATE),
        (ROW._replace(state=State.DEAD, lease_until=None), LeaseState.LATE),
        (ROW._replace(fence=3, lease_owner="p"), LeaseState.LOST),
        (ROW._replace(state=State.DELAYED, lease_owner=None, lease_until=None), LeaseState.LOST),
        (ROW._replace(state=State.DEAD, lease_owner=None, lease_until=None), LeaseState.LOST),
        (ROW._replace(state=State.DONE, lease_owner=None, lease_until=None), LeaseState.GONE),
        (None, LeaseState.GONE),
    ],
)
def test_what_a_row_tells(found: Row | None, expected: LeaseState) -> None:
    assert lease_state(ROW, found, NOW) is expected


class Store(MemoryStore):
    """One row, or none, or an error."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock=clock)
        self.row: Row | None = ROW
        self.error: Exception | None = None
        self.looks = 0

    def get(self, ids: object) -> list[Row]:
        self.looks += 1
        if self.error is not None:
            raise self.error
        return [] if self.row is None else [self.row]


class Hold:
    """Of a renewer that has told this much."""

    def __init__(self) -> None:
        self.said: RenewalEnd | None = None

    def start(self, id: str, now: float) -> None:
        raise AssertionError

    def rest(self) -> None:
        raise AssertionError

    def let_go(self) -> None:
        raise AssertionError

    def end_of(self, id: str) -> RenewalEnd | None:
        return self.said

    def ended_at(self, id: str) -> float:
        raise AssertionError


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def store(clock: ManualClock) -> Store:
    return Store(clock)


@pytest.fixture
def hold() -> Hold:
    return Hold()


@pytest.fixture
def alone(store: Store, clock: ManualClock) -> LeaseCheck:
    """Of a job that nobody renews but its handler."""
    return LeaseCheck(ROW, store, clock.monotonic, clock.monotonic())


@pytest.fixture
def kept(store: Store, clock: ManualClock, hold: Hold) -> LeaseCheck:
    """Of a job that a renewer renews."""
    return LeaseCheck(ROW, store, clock.monotonic, clock.monotonic(), hold)


def asked(lease_check: LeaseCheck) -> tuple[bool, bool]:
    return lease_check.lease_lost(), lease_check.cancelled()


def test_it_looks_once_a_second_however_often_it_is_asked(
    alone: LeaseCheck, store: Store, clock: ManualClock
) -> None:
    for _ in range(5):
        for _ in range(100):
            assert asked(alone) == (False, False)
        clock.advance(1.0)
    assert store.looks == 4


def test_a_lease_that_is_over_is_lost_until_it_is_renewed(
    alone: LeaseCheck, store: Store, clock: ManualClock
) -> None:
    clock.advance(9.5)
    assert asked(alone) == (False, False)
    clock.advance(0.5)  # no second look yet
    assert asked(alone) == (True, False)
    store.row = ROW._replace(lease_until=NOW + 20)
    alone.renewed(clock.monotonic())
    assert asked(alone) == (False, False)
    clock.advance(1.0)
    assert asked(alone) == (False, False)


def test_a_lease_that_somebody_else_renews_is_not_lost(alone: LeaseCheck, store: Store, clock: ManualClock) -> None:
    store.row = ROW._replace(lease_until=NOW + 100)
    clock.advance(50.0)
    assert asked(alone) == (False, False)


def test_a_store_that_cannot_be_asked_leaves_the_clock(alone: LeaseCheck, store: Store, clock: ManualClock) -> None:
    store.error = StoreUnavailable("down")
    clock.advance(5.0)
    assert asked(alone) == (False, False)
    clock.advance(5.0)
    assert asked(alone) == (True, False)


@pytest.mark.parametrize("which", ["alone", "kept"])
def test_what_is_lost_stays_lost_and_what_is_gone_is_cancelled(
    which: str, request: pytest.FixtureRequest, store: Store, clock: ManualClock
) -> None:
    lease_check: LeaseCheck = request.getfixturevalue(which)
    store.row = ROW._replace(fence=3, lease_owner="p")
    assert asked(lease_check) == (False, False)
    clock.advance(1.0)
    assert asked(lease_check) == (True, False)
    store.row = ROW
    clock.advance(1.0)
    assert asked(lease_check) == (True, False)
    gone = LeaseCheck(ROW, store, clock.monotonic, clock.monotonic())
    store.row = None
    clock.advance(1.0)
    assert asked(gone) == (True, True)


def test_a_lease_that_is_kept_is_the_renewers_to_call_lost(
    kept: LeaseCheck, store: Store, clock: ManualClock, hold: Hold
) -> None:
    clock.advance(20.0)
    assert asked(kept) == (False, False)
    store.error = StoreUnavailable("down")
    clock.advance(20.0)
    assert asked(kept) == (False, False)
    hold.said = RenewalEnd.LOST
    assert asked(kept) == (True, False)


def test_what_the_renewer_called_lost_is_cancelled_if_it_is_gone(
    kept: LeaseCheck, store: Store, clock: ManualClock, hold: Hold
) -> None:
    hold.said, store.row = RenewalEnd.LOST, None
    clock.advance(1.0)
    assert asked(kept) == (True, True)


def test_a_run_that_is_over_is_lost_and_cancelled(kept: LeaseCheck, store: Store, hold: Hold) -> None:
    hold.said = RenewalEnd.OVER
    assert asked(kept) == (True, True)
    assert store.looks == 0


def test_who_is_told_that_its_lease_is_lost_looks_at_once_to_whom(
    kept: LeaseCheck, store: Store, hold: Hold, clock: ManualClock
) -> None:
    clock.advance(1.0)
    assert asked(kept) == (False, False)
    store.row, hold.said = None, RenewalEnd.LOST
    assert asked(kept) == (True, True)
    assert store.looks == 2
