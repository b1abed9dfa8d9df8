"""Threads that put for each other, and never wait long for each other."""

import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from kqueue.contracts.repair import Due
from kqueue.dispatch import ringing
from kqueue.dispatch.ringing import Ringing
from kqueue.system.clock import ManualClock
from kqueue.system.threads import Sleep
from tests.tubes import PATIENCE_S, await_true, run

THREADS = 12


def due(number: int) -> Due:
    return Due(str(number), "t", 0, 0.0, 0.0)


class Put:
    """What a doorbell does for :class:`Ringing`: may be held up, or raise."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.entered = threading.Event()
        self.may_end = threading.Event()
        self.may_end.set()
        self.then: Callable[[], object] = lambda: None

    def __call__(self, dues: list[Due], now: float) -> bool:
        self.batches.append([one.id for one in dues])
        self.entered.set()
        assert self.may_end.wait(PATIENCE_S)
        self.then()
        return True

    def ids(self) -> list[str]:
        return sorted((id for batch in self.batches for id in batch), key=int)


@pytest.fixture
def put() -> Iterator[Put]:
    put = Put()
    yield put
    put.may_end.set()


@pytest.fixture
def rings(put: Put) -> Ringing:
    return Ringing(put, ManualClock().monotonic)


def hold_up(put: Put, rings: Ringing) -> threading.Thread:
    """The thread that waits for a silent broker, with what is numbered 0."""
    put.may_end.clear()
    holder = run(lambda: rings.ring([due(0)], 0.0))
    assert put.entered.wait(PATIENCE_S)
    return holder


def test_one_waits_for_a_silent_broker_and_the_others_go_on(
    put: Put, rings: Ringing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ringing, "PATIENCE_S", 0.01)
    holder = hold_up(put, rings)
    others = [run(lambda number=number: rings.ring([due(number)], 0.0)) for number in range(1, THREADS)]
    for other in others:
        other.join(PATIENCE_S)
    assert not any(other.is_alive() for other in others)
    assert (holder.is_alive(), put.batches) == (True, [["0"]])
    put.may_end.set()
    holder.join(PATIENCE_S)
    assert put.ids() == [str(number) for number in range(THREADS)]


def test_a_put_that_is_known_to_be_slow_is_not_waited_for_at_all(put: Put) -> None:
    """Whoever comes after ``PATIENCE_S`` looks at the clock, and goes on."""
    clock = ManualClock()
    rings = Ringing(put, clock.monotonic)
    holder = hold_up(put, rings)
    clock.advance(ringing.PATIENCE_S)
    waits: list[float] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sleep, "wait", lambda _, seconds: waits.append(seconds))
        assert rings.ring([due(1)], 0.0) is False
    assert (waits, put.batches) == ([], [["0"]])
    put.may_end.set()
    holder.join(PATIENCE_S)
    assert put.ids() == ["0", "1"]


def test_where_all_goes_well_each_call_returns_after_its_put(
    put: Put, rings: Ringing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what comes while another puts goes together."""
    monkeypatch.setattr(ringing, "PATIENCE_S", PATIENCE_S)
    missing: list[int] = []

    def ring(first: int) -> None:
        for number in range(first, first + 50):
            rings.ring([due(number)], 0.0)
            if not any(str(number) in batch for batch in list(put.batches)):
                missing.append(number)

    holder = hold_up(put, rings)
    threads = [run(lambda number=number: ring(1 + 50 * number)) for number in range(THREADS)]
    await_true(lambda: len(rings._queue) == THREADS)
    put.may_end.set()
    for thread in [holder, *threads]:
        thread.join(PATIENCE_S)
    assert put.ids() == [str(number) for number in range(1 + 50 * THREADS)]
    assert (missing, len(put.batches[1])) == ([], THREADS)


def test_nobody_puts_for_the_others_without_end(put: Put, rings: Ringing, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each put one more has come, and gone on: what comes last is left to the next call."""
    monkeypatch.setattr(ringing, "PATIENCE_S", 0.0)
    numbers = iter(range(1, 1000))

    def another_comes() -> None:
        thread = run(lambda: rings.ring([due(next(numbers))], 0.0))
        thread.join(PATIENCE_S)

    put.then = another_comes
    rings.ring([due(0)], 0.0)
    assert len(put.batches) == 1 + ringing.SPARE_PUTS
    put.then = lambda: None
    rings.ring([due(1000)], 0.0)
    assert put.batches[-1] == [str(1 + ringing.SPARE_PUTS), "1000"]


class Strange(BaseException):
    """As a time-out of gevent is."""


@pytest.mark.parametrize("error", [KeyboardInterrupt, Strange, ValueError])
def test_a_put_that_is_interrupted_gives_the_turn_back(
    put: Put, rings: Ringing, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    monkeypatch.setattr(ringing, "PATIENCE_S", PATIENCE_S)
    raised: list[BaseException] = []

    def holder() -> None:
        try:
            rings.ring([due(0)], 0.0)
        except BaseException as interrupt:
            raised.append(interrupt)

    def strike() -> None:
        put.then = lambda: None
        raise error

    put.then = strike
    put.may_end.clear()
    holding = run(holder)
    assert put.entered.wait(PATIENCE_S)
    waiting = run(lambda: rings.ring([due(1)], 0.0))
    await_true(lambda: len(rings._queue) == 1)
    put.may_end.set()
    for thread in (holding, waiting):
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    assert [type(one) for one in raised] == [error]
    assert put.batches == [["0"], ["1"]]


def test_a_turn_that_was_lost_is_taken_over(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ringing, "PATIENCE_S", 0.0)
    clock = ManualClock()
    rings = Ringing(put, clock.monotonic)
    holder = hold_up(put, rings)
    clock.advance(ringing.LOST_S)
    assert rings.ring([due(1)], 0.0) is False
    clock.advance(1)
    put.may_end.set()
    assert rings.ring([due(2)], 0.0) is True
    holder.join(PATIENCE_S)
    assert put.ids() == ["0", "1", "2"]
    assert rings.ring([due(3)], 0.0) is True


def test_only_so_much_is_left(put: Put, rings: Ringing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ringing, "PATIENCE_S", 0.0)
    monkeypatch.setattr(ringing, "MAX_WAITING", 3)
    holder = hold_up(put, rings)
    for number in range(1, 4):
        assert not rings.is_full()
        rings.ring([due(number)], 0.0)
    assert rings.is_full()
    put.may_end.set()
    holder.join(PATIENCE_S)
    assert not rings.is_full()


def test_a_ring_within_a_ring_returns_and_is_put(put: Put, rings: Ringing, monkeypatch: pytest.MonkeyPatch) -> None:
    """As from a signal handler that interrupts a put."""
    monkeypatch.setattr(Sleep, "wait", None)  # nobody waits for himself

    def again() -> None:
        put.then = lambda: None
        assert rings.ring([due(1)], 0.0) is False

    put.then = again
    rings.ring([due(0)], 0.0)
    assert put.batches == [["0"], ["1"]]


class Struck(Exception):
    """By a signal."""


def test_signals_at_random_times_leave_nothing_held(monkeypatch: pytest.MonkeyPatch) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    monkeypatch.setattr(ringing, "PATIENCE_S", 0.001)
    monkeypatch.setattr(ringing, "LOST_S", 0.0)  # of a clock that a signal turns
    clock = ManualClock()
    put: list[str] = []
    rings = Ringing(lambda dues, _: bool(put.extend([one.id for one in dues])) or True, clock.monotonic)
    struck = 0

    def strike(*_: object) -> None:
        raise Struck

    before = signal.signal(signal.SIGALRM, strike)
    try:
        while struck < 500:
            with suppress(Struck):
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-6, 3e-4))
                try:
                    for number in range(1000):
                        rings.ring([due(number)], 0.0)
                except Struck:
                    struck += 1
                    clock.advance(1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    if not rings.ring([due(-1)], 0.0):  # the last strike took the turn with it, and that is seen now
        clock.advance(1)
        assert rings.ring([due(-1)], 0.0)
    assert put[-1] == "-1"
