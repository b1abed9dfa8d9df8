"""What is the embedded broker's own: how it notices that a store has changed."""

import threading
from collections.abc import Iterator

import pytest

from kqueue.brokers.embedded import PROMOTE_ROWS, EmbeddedBroker
from kqueue.contracts.broker import Pointer, Subscription
from kqueue.contracts.runs import Selection
from kqueue.testing.contracts.broker import FOR_EVER_S, Service, Shelf, ended, run


class Watched(Shelf):
    """A store that counts what it is asked, and says when it has been asked often enough."""

    def __init__(self, *, has_pulse: bool) -> None:
        super().__init__()
        self.has_pulse = has_pulse
        self.pulses = self.looks = self.promotions = 0
        self.asked_often = threading.Event()

    def pulse(self) -> object:
        self.pulses += 1
        if self.pulses == 5:
            self.asked_often.set()
        return super().pulse() if self.has_pulse else None

    def has_ready(self, types: tuple[str, ...]) -> bool:
        self.looks += 1
        return super().has_ready(types)

    def promote(self, now: float, limit: int) -> int:
        self.promotions += 1
        return super().promote(now, limit)


@pytest.fixture(params=[True, False], ids=["pulse", "no pulse"])
def store(request: pytest.FixtureRequest) -> Watched:
    return Watched(has_pulse=request.param)


@pytest.fixture
def subscription(store: Watched) -> Iterator[Subscription]:
    yield EmbeddedBroker(store).subscribe(["mail"])  # type: ignore[arg-type]


def test_a_change_made_elsewhere_is_noticed_without_a_put(store, subscription):
    got = []
    waiting = run(lambda: got.append(subscription.reserve(1, FOR_EVER_S)))
    assert store.asked_often.wait(30)
    store.add("mail", 1, 0)
    assert ended(waiting)
    assert got == [(Selection(("mail",)), [], 0)]


def test_a_store_with_a_pulse_is_not_searched_while_nothing_changes(subscription, store):
    waiting = run(lambda: subscription.reserve(1, FOR_EVER_S))
    assert store.asked_often.wait(30)
    looks = store.looks
    subscription.wake()
    assert ended(waiting)
    # Once before the wait and once at its start; without a pulse there is no other way to know.
    assert looks == 2 if store.has_pulse else looks > 2


def test_a_waiting_reserve_does_not_spin(store, subscription):
    subscription.reserve(1, 0.1)
    assert store.pulses <= 15


def test_a_put_rings_only_while_somebody_waits(store):
    broker = EmbeddedBroker(store)  # type: ignore[arg-type]
    subscription = broker.subscribe(["mail"])
    subscription.reserve(1, 0.001)
    assert broker._waiting == {}


@pytest.fixture
def many_others(store: Watched) -> str:
    """Due rows of another type for two batches and more, and behind them one of ours: its id."""
    for _ in range(2 * PROMOTE_ROWS + 1):
        store.add("other", 1, -2)
    return store.add("mail", 1, -1)


def test_due_rows_of_other_types_do_not_hide_ours(store, subscription, many_others):
    service = Service(EmbeddedBroker(store), store)
    taken = []
    while not taken:
        selection, _, _ = subscription.reserve(1, 0)
        assert selection is not None, "the loop would end with ours still there"
        taken = store.claim(selection, 1)
    assert taken == [many_others]
    assert service.take(subscription) == []
    assert subscription.reserve(1, 0).selection is None


def test_a_reserve_makes_one_batch_of_due_rows_ready(store, subscription, many_others):
    """Its caller looks at its time limit before the next. A selection says that there may be more to find."""
    for batches in (1, 2):
        assert subscription.reserve(1, FOR_EVER_S).selection == Selection(("mail",))
        assert store.promotions == batches
        assert not store.has_ready(("mail",))


def test_a_last_batch_without_ours_is_no_selection(store, subscription):
    store.add("other", 1, -1)
    assert subscription.reserve(1, 0).selection is None
    assert store.delayed == set()


def test_a_wake_ends_a_reserve_among_due_rows_of_other_types(store, subscription, many_others):
    subscription.reserve(1, FOR_EVER_S)
    subscription.wake()
    assert subscription.reserve(1, FOR_EVER_S) == (None, [], 0)


def test_a_wait_ends_when_a_delayed_row_falls_due_and_not_at_its_next_look(store, subscription, monkeypatch):
    for pause in ("PULSE_S", "IDLE_PULSE_S", "FIRST_LOOK_S", "LAST_LOOK_S"):
        monkeypatch.setattr(f"kqueue.brokers.embedded.{pause}", FOR_EVER_S)
    store.add("mail", 1, 0.2)
    got = []
    waiting = run(lambda: got.append(subscription.reserve(1, FOR_EVER_S)))
    assert ended(waiting)
    assert got == [(Selection(("mail",)), [], 0)]


def test_rows_that_are_not_due_stay_delayed(store, subscription):
    job_id = store.add("mail", 1, 1000)
    assert subscription.reserve(1, 0.02).selection is None
    assert store.delayed == {job_id}


def test_a_put_of_this_process_wakes_even_where_the_pulse_does_not_show_it():
    """SQLite's data_version stands still for what its own connection wrote."""
    store = Watched(has_pulse=True)
    store.pulse = lambda: store.asked_often.set() or "the same"  # type: ignore[method-assign,func-returns-value]
    broker = EmbeddedBroker(store)  # type: ignore[arg-type]
    subscription = broker.subscribe(["mail"])
    waiting = run(lambda: subscription.reserve(1, FOR_EVER_S))
    assert store.asked_often.wait(30)
    job_id = store.add("mail", 1, 0)
    broker.put([(Pointer("mail", 1, 1.0, (job_id,)), 0)])
    assert ended(waiting)
