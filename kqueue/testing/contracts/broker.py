"""What every broker does, with a store beside it as in real use."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeAlias

import pytest

from kqueue.contracts.broker import UNKNOWN_HEAD, Broker, EntryFate, Peek, Pointer, Reservation, Subscription
from kqueue.contracts.runs import Selection
from kqueue.testing.contracts.rows import NUMBERS

#: Seconds after which a thread or a wait counts as stuck. A passing test waits for none of them.
PATIENCE_S = 30.0
#: Longer than any test: a reserve that comes back before was made to.
FOR_EVER_S = 3000.0


class Shelf:
    """The little of a store that a broker and these tests need: rows of (type, priority, run_at), in a dict."""

    address = "shelf:"

    def __init__(self) -> None:
        self.rows: dict[str, tuple[str, int, float]] = {}
        self.delayed: set[str] = set()
        self.changes = 0
        self.now = time.time

    def add(self, type: str, priority: int, delay: float) -> str:
        job_id = self.new_id()
        self.rows[job_id] = (type, priority, self.now() + delay)
        if delay:
            self.delayed.add(job_id)
        self.changes += 1
        return job_id

    def new_id(self) -> str:
        """Each sorts after those before it."""
        return f"{next(NUMBERS):028d}"

    def claim(self, selection: Selection, most: int) -> list[str]:
        """Take rows, as a claim and the delete that follows do."""
        if selection.ids is None:
            ready = self._ready(selection.types)
            candidates: Sequence[str] = sorted(ready, key=lambda job_id: (self.rows[job_id][1], job_id))
        else:
            candidates = [job_id for job_id in selection.ids if self.is_due(job_id)]
        taken = [job_id for job_id in candidates if job_id in self.rows][:most]
        for job_id in taken:
            del self.rows[job_id]
            self.delayed.discard(job_id)
        return taken

    def is_due(self, job_id: str) -> bool:
        return job_id in self.rows and self.rows[job_id][2] <= self.now()

    def _ready(self, types: Sequence[str]) -> list[str]:
        rows = self.rows.copy()  # other threads add meanwhile
        return [job_id for job_id, row in rows.items() if row[0] in types and job_id not in self.delayed]

    def has_ready(self, types: Sequence[str]) -> bool:
        return bool(self._ready(types))

    def next_run_at(self) -> float | None:
        return min((self.rows[job_id][2] for job_id in self.delayed), default=None)

    def promote(self, now: float, most: int) -> int:
        due = sorted(job_id for job_id in self.delayed if self.rows[job_id][2] <= now)[:most]
        self.delayed -= set(due)
        self.changes += bool(due)
        return len(due)

    def pulse(self) -> object:
        return self.changes


class Service:
    """A broker and a store, used together in the order that KQueue uses them."""

    def __init__(self, broker: Broker, shelf: Shelf) -> None:
        self.broker = broker
        self.shelf = shelf
        self.subscriptions: list[Subscription] = []

    def add(
        self, type: str = "mail", priority: int = 65536, delay: float = 0, tube_delay: float | None = None
    ) -> str:
        job_id = self.shelf.add(type, priority, delay)
        pointer = Pointer(type, priority, self.shelf.now(), (job_id,))
        self.broker.put([(pointer, delay if tube_delay is None else tube_delay)])
        return job_id

    def subscribe(self, *types: str) -> Subscription:
        subscription = self.broker.subscribe(types or ("mail",))
        self.subscriptions.append(subscription)
        return subscription

    def take(self, subscription: Subscription, timeout: float = 0, most: int = 1000) -> list[str]:
        """Reserve, claim, settle: the ids that were claimed."""
        selection, entries, foreign = subscription.reserve(most, timeout)
        assert foreign == 0
        if selection is None:
            assert entries == []
            return []
        taken = self.shelf.claim(selection, most)
        assert subscription.settle([EntryFate(entry, self._left(entry.pointer.ids)) for entry in entries]) == 0
        return taken

    def take_all(self, subscription: Subscription) -> list[str]:
        taken = []
        while batch := self.take(subscription):
            taken += batch
        return taken

    def await_job(self, subscription: Subscription) -> list[str]:
        """As ``take``, but wait until there is one."""
        for _ in range(10):
            if taken := self.take(subscription, timeout=PATIENCE_S):
                return taken
        raise AssertionError("no job came")

    def _left(self, ids: Sequence[str]) -> float | None:
        left = [self.shelf.rows[job_id][2] - self.shelf.now() for job_id in ids if job_id in self.shelf.rows]
        return max(0.0, *left, 0.0) if left else None


#: From the little of a store that it may need to a broker that is not open yet.
MakeBroker: TypeAlias = Callable[[Shelf], Broker]


@pytest.fixture
def service(make_broker: MakeBroker) -> Iterator[Service]:
    """The broker that ``make_broker`` makes, open; it is closed after the test."""
    shelf = Shelf()
    broker = make_broker(shelf)
    broker.open("p1.")
    service = Service(broker, shelf)
    yield service
    for subscription in service.subscriptions:
        subscription.close()
    broker.close()


def test_what_is_added_can_be_taken_once(service: Service) -> None:
    subscription = service.subscribe()
    job_id = service.add()
    assert service.take(subscription) == [job_id]
    assert service.take(subscription) == []


def test_nothing_there_is_nothing_selected(service: Service) -> None:
    assert service.subscribe().reserve(10, 0) == (None, [], 0)


def test_a_reserve_with_a_timeout_ends_when_it_is_up(service: Service) -> None:
    assert service.subscribe().reserve(10, 0.03) == (None, [], 0)


def test_jobs_come_by_priority_and_then_in_the_order_added(service: Service) -> None:
    subscription = service.subscribe("mail", "resize")
    low = [service.add(priority=70000) for _ in range(5)]
    mixed = [service.add(type, priority=60000) for type in ("mail", "resize", "mail", "resize")]
    urgent = service.add("resize", priority=0)
    last = service.add(priority=2**32 - 1)
    assert service.take_all(subscription) == [urgent, *mixed, *low, last]


def test_types_that_are_not_subscribed_are_left_for_others(service: Service) -> None:
    theirs = service.add("resize", priority=0)
    ours = service.add("mail")
    assert service.take_all(service.subscribe("mail")) == [ours]
    assert service.take_all(service.subscribe("resize")) == [theirs]


def test_a_delayed_job_wakes_who_waits_for_it(service: Service) -> None:
    subscription = service.subscribe()
    job_id = service.add(delay=0.3)
    assert service.take(subscription) == []
    assert service.await_job(subscription) == [job_id]


def test_an_entry_whose_job_is_not_due_yet_comes_back(service: Service) -> None:
    subscription = service.subscribe()
    job_id = service.add(delay=0.3, tube_delay=0)
    assert service.take(subscription) == []
    assert service.await_job(subscription) == [job_id]


def test_what_is_given_back_keeps_its_place(service: Service) -> None:
    subscription = service.subscribe()
    ids = [service.add() for _ in range(6)]
    for _ in range(3):
        selection, entries, _ = subscription.reserve(3, 0)
        assert selection is not None
        assert subscription.settle([EntryFate(entry, 0) for entry in entries]) == 0
    assert service.take_all(subscription) == ids


def test_a_second_worker_sees_what_the_first_gives_back(service: Service) -> None:
    first, second = service.subscribe(), service.subscribe()
    job_id = service.add()
    _, entries, _ = first.reserve(1, 0)
    first.settle([EntryFate(entry, 0) for entry in entries])
    assert service.take(second) == [job_id]


def test_what_a_closed_subscription_held_is_ready_again(service: Service) -> None:
    first, second = service.subscribe(), service.subscribe()
    job_id = service.add()
    assert first.reserve(1, 0).selection is not None
    first.close()
    assert service.await_job(second) == [job_id]


def test_what_is_posted_is_settled_before_the_next_reserve(service: Service) -> None:
    subscription = service.subscribe()
    first, second = service.add(), service.add()
    for _ in range(2):
        selection, entries, _ = subscription.reserve(2, PATIENCE_S)
        subscription.post([EntryFate(entry, 0) for entry in entries])
    assert sorted(service.take_all(subscription)) == [first, second]
    service.add()
    selection, entries, _ = subscription.reserve(2, PATIENCE_S)
    assert selection is not None
    subscription.post([EntryFate(entry, None) for entry in entries])
    if entries:
        assert subscription.reserve(2, 0).selection is None


def test_one_reserve_brings_about_as_many_jobs_as_were_asked_for(service: Service) -> None:
    subscription = service.subscribe()
    ids = [service.add() for _ in range(60)]
    taken = service.take(subscription, most=10)
    while len(taken) < 50:
        some = service.take(subscription, most=10)
        assert len(some) == 10 or len(taken) + len(some) == 60
        taken += some
    assert taken + service.take_all(subscription) == ids


def run(call: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    return thread


def ended(thread: threading.Thread) -> bool:
    thread.join(PATIENCE_S)
    return not thread.is_alive()


def test_a_job_added_by_another_thread_wakes_who_waits(service: Service) -> None:
    subscription = service.subscribe()
    taken: list[str] = []
    waiting = run(lambda: taken.extend(service.take(subscription, timeout=FOR_EVER_S)))
    job_id = service.add()
    assert ended(waiting)
    assert taken == [job_id]


def test_wake_from_another_thread_ends_a_reserve(service: Service) -> None:
    subscription = service.subscribe()
    got = []
    waiting = run(lambda: got.append(subscription.reserve(1, FOR_EVER_S)))
    subscription.wake()
    assert ended(waiting)
    assert got == [(None, [], 0)]


def test_a_wake_before_a_reserve_counts_once(service: Service) -> None:
    subscription = service.subscribe()
    job_id = service.add()
    subscription.wake()
    subscription.wake()
    assert subscription.reserve(1, FOR_EVER_S) == (None, [], 0)
    assert service.take(subscription) == [job_id]


def test_more_wakes_than_a_pipe_holds_do_no_harm(service: Service) -> None:
    subscription = service.subscribe()
    for _ in range(70_000):
        subscription.wake()
    assert subscription.reserve(1, FOR_EVER_S) == (None, [], 0)


def test_wake_from_a_signal_handler_ends_a_reserve(service: Service) -> None:
    subscription = service.subscribe()

    def give_up(*_: object) -> None:
        raise AssertionError("the reserve went on waiting")

    old = {
        signal.SIGUSR2: signal.signal(signal.SIGUSR2, lambda *_: subscription.wake()),
        signal.SIGALRM: signal.signal(signal.SIGALRM, give_up),
    }
    try:
        signal.alarm(int(PATIENCE_S))
        run(lambda: os.kill(os.getpid(), signal.SIGUSR2))
        assert subscription.reserve(1, FOR_EVER_S) == (None, [], 0)
    finally:
        signal.alarm(0)
        for number, handler in old.items():
            signal.signal(number, handler)


def test_a_drained_tube_holds_nothing_and_its_neighbour_all(service: Service) -> None:
    for _ in range(5):
        service.add("mail")
        service.add("mail", delay=1000)
    kept = service.add("resize")
    drained = service.broker.drain("mail")
    assert drained == (10 if service.broker.carries_pointers else 0)
    service.shelf.claim(Selection(("mail",)), 1000)  # what purge_jobs does in the store
    assert service.take_all(service.subscribe("mail", "resize")) == [kept]


def test_a_tube_that_nobody_used_is_empty(service: Service) -> None:
    assert service.broker.drain("never") == 0
    assert service.broker.peek(["never"])["never"].head is None
    assert not any(sum(depth.values()) for depth in service.broker.depths(["never"]).values())


def test_the_head_is_what_would_come_next(service: Service) -> None:
    service.add(priority=9)
    service.add(priority=8, delay=1000)
    head = service.broker.peek(["mail"])["mail"].head
    if service.broker.carries_pointers:
        assert head is not None
        assert head.priority == 9
        assert abs(head.put_at - service.shelf.now()) < PATIENCE_S
    else:
        assert head is None


def test_many_tubes_are_looked_at_together(service: Service) -> None:
    types = [f"t{number:03}" for number in range(250)]
    for number, type in enumerate(types[:3]):
        service.add(type, priority=number)
    peeks = service.broker.peek(types)
    assert sorted(peeks) == types
    heads = [peeks[type].head for type in types]
    if service.broker.carries_pointers:
        assert [head and head.priority for head in heads] == [0, 1, 2, *[None] * 247]
    else:
        assert heads == [None] * 250
    assert service.broker.peek([]) == {}


def put_stranger(service: Service) -> None:
    """Into the tube of "mail" a pointer of a type "il", as a store with another prefix would put it."""
    job_id = service.shelf.new_id()
    service.broker.open("p1.ma")
    service.broker.put([(Pointer("il", 0, service.shelf.now(), (job_id,)), 0)])
    service.broker.open("p1.")


def test_a_look_that_may_not_bury_ends_at_a_stranger_and_changes_nothing(service: Service) -> None:
    job_id = service.add()
    assert service.broker.peek(["mail"], bury=False)["mail"] == service.broker.peek(["mail"])["mail"]
    put_stranger(service)
    before = service.broker.depths(["mail"])
    seen = [service.broker.peek(["mail"], bury=False)["mail"] for _ in range(2)]
    assert service.broker.depths(["mail"]) == before
    if service.broker.carries_pointers:
        assert seen == [Peek(UNKNOWN_HEAD, 1)] * 2
        assert before["mail"]["buried"] == 0
        assert service.broker.peek(["mail"])["mail"].foreign == 1
        assert service.broker.depths(["mail"])["mail"]["buried"] == 1
        assert service.broker.peek(["mail"], bury=False)["mail"].foreign == 0
    else:
        assert seen == [Peek(None, 0)] * 2
    assert service.take_all(service.subscribe()) == [job_id]


def test_close_may_be_called_again_and_everything_used_after_it(service: Service) -> None:
    subscription = service.subscribe()
    service.broker.close()
    first = service.add()
    service.broker.close()
    service.broker.close()
    second = service.add()
    assert service.take_all(subscription) == [first, second]
    subscription.close()
    subscription.close()
    third = service.add()
    assert service.take(subscription) == [third]


def test_a_subscription_that_never_reserved_can_be_closed(service: Service) -> None:
    service.subscribe().close()


def test_a_subscription_to_nothing_is_refused(service: Service) -> None:
    with pytest.raises(ValueError, match="types"):
        service.broker.subscribe([])


def test_putting_nothing_does_nothing(service: Service) -> None:
    service.broker.put([])
    assert service.take(service.subscribe()) == []


def test_a_child_uses_its_parents_broker_after_a_fork(service: Service) -> None:
    """What the child does must neither fail nor disturb the parent's connections."""
    subscription = service.subscribe()
    service.add()
    assert len(service.take(subscription)) == 1

    def child() -> bool:
        service.broker.drain("other")
        service.add("other")
        taken = service.take_all(service.subscribe("other"))
        subscription.wake()  # the parent's: says nothing to the parent
        service.broker.close()
        return len(taken) == 1

    for _ in range(3):
        before = service.add()
        assert forked(child) == 0
        after = service.add()
        assert service.take_all(subscription) == [before, after]


def forked(call: Callable[[], bool]) -> int:
    """Run ``call`` in a child; 0 if it returned True."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = 0 if call() else 2
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_many_threads_may_put_at_once(service: Service) -> None:
    added: list[list[str]] = [[] for _ in range(8)]

    def add_many(ids: list[str]) -> None:
        ids.extend(service.add() for _ in range(50))

    threads = [run(partial(add_many, ids)) for ids in added]
    assert all(ended(thread) for thread in threads)
    taken = service.take_all(service.subscribe())
    assert sorted(taken) == sorted(job_id for ids in added for job_id in ids)
    assert len(taken) == 400


def only(wanted: str) -> Callable[[str], int]:
    return lambda type: int(type == wanted)


def test_what_is_not_wanted_keeps_its_place_and_holds_up_nothing(service: Service) -> None:
    subscription = service.subscribe("mail", "sms", "fax")
    mails, texts = [service.add("mail", 0) for _ in range(5)], [service.add("sms") for _ in range(3)]
    for text in texts:
        selection, entries, _ = subscription.reserve(1, PATIENCE_S, only("sms"))
        assert selection is not None
        assert service.shelf.claim(selection, 1) == [text]
        assert subscription.settle([EntryFate(entry, None) for entry in entries]) == 0
    assert subscription.reserve(1, 0.03, only("sms")) == (None, [], 0)
    assert service.take_all(subscription) == mails


def test_a_type_that_is_wanted_again_is_given_out_in_its_order(service: Service) -> None:
    """Also where all others are not wanted any more."""
    subscription = service.subscribe("mail", "sms")
    mails, texts = [service.add("mail") for _ in range(3)], [service.add("sms") for _ in range(3)]
    taken: list[str] = []
    for wanted in ("mail", "sms", "sms", "mail", "mail", "sms"):
        selection, entries, _ = subscription.reserve(1, PATIENCE_S, only(wanted))
        assert selection is not None
        taken += service.shelf.claim(selection, 1)
        assert subscription.settle([EntryFate(one, service._left(one.pointer.ids)) for one in entries]) == 0
    assert taken == [mails[0], *texts[:2], *mails[1:], texts[2]]


def test_a_reserve_that_waits_without_a_type_returns_once_that_may_be_wanted(service: Service) -> None:
    subscription = service.subscribe("mail", "sms")
    service.add("mail")
    got: list[Reservation] = []
    waiting = run(lambda: got.append(subscription.reserve(1, FOR_EVER_S, only("sms"))))
    while waiting.is_alive():
        subscription.freed()
        waiting.join(0.02)
    assert got == [(None, [], 0)]
    assert len(service.take(subscription)) == 1
