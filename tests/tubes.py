"""Steps that the tests of the beanstalk broker share."""

import errno
import threading
import time
from collections.abc import Callable
from typing import NoReturn

from kqueue.brokers.beanstalk.broker import BeanstalkBroker
from kqueue.brokers.beanstalk.subscription import BeanstalkSubscription
from kqueue.contracts.broker import Broker, Entry, EntryFate, Pointer, Subscription
from kqueue.system.mint import IdMint
from tests.beanstalkd import Beanstalkd

MINT = IdMint()
PREFIX = "p1."
PATIENCE_S = 240.0
FOR_EVER_S = 3000.0
PUT_AT = 1_700_000_000.0


def pointer(jobs: int = 1, type: str = "mail", priority: int = 65536) -> Pointer:
    return Pointer(type, priority, PUT_AT, tuple(MINT.make(jobs)))


def opened(server: Beanstalkd, **options: object) -> BeanstalkBroker:
    broker = BeanstalkBroker(server.address, **options)  # type: ignore[arg-type]
    broker.open(PREFIX)
    return broker


def reserve_all(subscription: BeanstalkSubscription) -> list[Entry]:
    entries = []
    while batch := subscription.reserve(1000, 0).entries:
        entries += batch
    return entries


def reserve_past_strangers(subscription: BeanstalkSubscription) -> tuple[list[Entry], int]:
    """What is ours, and how many strangers stood before it: reserve again as long as there may be more."""
    strangers = 0
    while True:
        selection, entries, foreign = subscription.reserve(1, 0)
        strangers += foreign
        if entries or selection is None:
            return entries, strangers


def delete(subscription: BeanstalkSubscription, entries: list[Entry]) -> int:
    return subscription.settle([EntryFate(entry, None) for entry in entries])


def await_true(condition: Callable[[], bool]) -> None:
    """Look ever less often: what is awaited needs the processor, the more so where it takes long."""
    began = time.monotonic()
    while not condition():
        waited = time.monotonic() - began
        assert waited < PATIENCE_S, "waited in vain"
        time.sleep(min(max(0.002, waited / 20), 0.1))


def run(call: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    return thread


def error_of(call: Callable[[], object]) -> Exception:
    """What ``call`` raises. It has a thread of its own, so that a hidden hang fails the test and not the run."""
    raised: list[Exception] = []

    def attempt() -> None:
        try:
            call()
        except Exception as error:
            raised.append(error)

    thread = run(attempt)
    thread.join(PATIENCE_S)
    assert not thread.is_alive(), "the call hangs"
    assert raised, "the call raised nothing"
    return raised[0]


def no_thread(*_: object) -> NoReturn:
    """In the place of :class:`kqueue.system.threads.Background`, where the system has no more threads."""
    raise OSError(errno.EAGAIN, "no more threads")


def calls_of(broker: Broker, subscription: Subscription) -> list[Callable[[], object]]:
    """Every call that speaks to the server."""
    return [
        lambda: broker.put([(pointer(), 0)]),
        lambda: broker.peek(["mail"]),
        lambda: broker.drain("mail"),
        lambda: broker.depths(["mail"]),
        lambda: subscription.reserve(1, 0),
        lambda: subscription.reserve(1, FOR_EVER_S),
    ]
