"""Servers that restart, hang, or are not there."""

from collections import Counter

import pytest

from kqueue.brokers import open_broker
from kqueue.brokers.beanstalk.broker import BeanstalkBroker
from kqueue.contracts.broker import Entry, EntryFate, Pointer
from kqueue.model.errors import BrokerUnavailable
from tests.beanstalkd import free_port
from tests.tubes import (
    FOR_EVER_S,
    PATIENCE_S,
    PREFIX,
    await_true,
    calls_of,
    delete,
    error_of,
    opened,
    pointer,
    reserve_all,
    run,
)


def test_a_worker_goes_on_consuming_after_each_restart(start_beanstalkd):
    server = start_beanstalkd(binlog=True, flags=["-f0"])
    broker = opened(server)
    subscription = broker.subscribe(["mail"])
    pointers = [pointer() for _ in range(30)]
    broker.put([(each, 0) for each in pointers])
    seen: Counter[Pointer] = Counter()
    for _ in range(4):
        entries = subscription.reserve(1, 0).entries + subscription.reserve(5, 0).entries
        seen.update(entry.pointer for entry in entries)
        server.restart()
        assert delete(subscription, entries) == len(entries)
    entries = reserve_all(subscription)
    assert sorted(entry.pointer for entry in entries) == sorted(pointers)
    assert delete(subscription, entries) == 0
    broker.put([(pointer(), 0)])
    assert len(subscription.reserve(1, PATIENCE_S).entries) == 1
    assert seen
    subscription.close()
    broker.close()


def test_a_worker_that_waits_while_the_server_dies_is_told_and_goes_on(beanstalkd, broker, subscription):
    errors = []

    def wait() -> None:
        try:
            subscription.reserve(1, FOR_EVER_S)
        except BrokerUnavailable as error:
            errors.append(error)

    waiting = run(wait)
    with beanstalkd.client() as client:
        await_true(lambda: client.stats()["current-waiting"] == 1)
    beanstalkd.restart()
    waiting.join(PATIENCE_S)
    assert beanstalkd.url in str(errors[0])
    broker.put([(pointer(), 0)])
    assert len(subscription.reserve(1, 0).entries) == 1


def test_verdicts_on_a_former_connection_touch_nothing(beanstalkd, broker, subscription):
    """After a restart without a binlog the same tube id is another entry."""
    broker.put([(pointer(), 0)])
    [stale] = subscription.reserve(1, 0).entries
    beanstalkd.restart()
    broker.put([(pointer(), 0)])
    [fresh] = subscription.reserve(1, 0).entries
    assert subscription.settle([EntryFate(stale, None), EntryFate(stale, 0), EntryFate(fresh, 0)]) == 2
    assert broker.depths(["mail"])["mail"]["ready"] == 1


def test_an_entry_is_settled_once(broker, subscription):
    broker.put([(pointer(), 0)])
    [entry] = subscription.reserve(1, 0).entries
    assert subscription.settle([EntryFate(entry, None), EntryFate(entry, None)]) == 1


def test_a_server_that_is_not_there_is_named(caplog, closes):
    port = free_port()
    broker = closes(open_broker(f"beanstalk://127.0.0.1:{port}"))
    broker.open(PREFIX)
    subscription = broker.subscribe(["mail"])
    for call in calls_of(broker, subscription):
        with pytest.raises(BrokerUnavailable, match=f"beanstalk://127.0.0.1:{port}: cannot connect") as caught:
            call()
        assert isinstance(caught.value.__cause__, OSError)
    assert subscription.settle([EntryFate(Entry(1, pointer()), None)]) == 1


@pytest.mark.parametrize("address", [("a..b", 11300), ("x" * 64, 11300)])
def test_an_address_that_cannot_be_one_is_a_server_that_is_not_there(address, closes):
    broker = closes(BeanstalkBroker(address))
    broker.open(PREFIX)
    with pytest.raises(BrokerUnavailable, match="cannot connect"):
        broker.put([(pointer(), 0)])


def test_a_server_that_hangs_is_named_and_used_again_when_it_is_back(beanstalkd, closes):
    broker = closes(opened(beanstalkd, timeout=0.05))
    subscription = broker.subscribe(["mail"])
    broker.put([(pointer(), 0)])
    beanstalkd.pause()
    for call in calls_of(broker, subscription)[:-1]:
        error = error_of(call)
        assert isinstance(error, BrokerUnavailable)
        assert f"{beanstalkd.url}: no answer within 0.05 s" in str(error)
        assert isinstance(error.__cause__, TimeoutError)
    beanstalkd.resume()
    patient = closes(opened(beanstalkd))
    patient.put([(pointer(), 0)])
    other = patient.subscribe(["mail"])
    assert len(reserve_all(other)) >= 2
    for closable in (other, patient, subscription, broker):
        closable.close()


def test_what_a_stopped_server_reserves_for_a_call_that_gave_up_is_ready_again(beanstalkd):
    """It still reads the commands when it goes on. Only the end of their connection frees what they took."""
    broker, patient = opened(beanstalkd, timeout=0.5), opened(beanstalkd)
    subscription, other = broker.subscribe(["mail"]), patient.subscribe(["mail"])
    assert subscription.reserve(1, 0).selection is None
    ours = pointer()
    patient.put([(ours, 0)])
    beanstalkd.pause()
    assert isinstance(error_of(lambda: subscription.reserve(1, 0)), BrokerUnavailable)
    beanstalkd.resume()
    assert [entry.pointer for entry in other.reserve(1, PATIENCE_S).entries] == [ours]
    for closable in (subscription, other, broker, patient):
        closable.close()
