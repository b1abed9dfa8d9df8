"""What is beanstalkd's own: batches, limits, entries that are not ours, paused tubes, waiting."""

import logging
import os
import sys

import greenstalk
import pytest

from kqueue.brokers import open_broker
from kqueue.brokers.beanstalk import wire
from kqueue.brokers.beanstalk.broker import BeanstalkBroker
from kqueue.brokers.beanstalk.subscription import GROWTH
from kqueue.contracts.broker import UNKNOWN_HEAD, EntryFate, selected
from kqueue.contracts.repair import Head
from kqueue.contracts.runs import Selection
from kqueue.model.errors import BrokerError, BrokerUnavailable
from tests.tubes import (
    FOR_EVER_S,
    PATIENCE_S,
    PREFIX,
    PUT_AT,
    await_true,
    delete,
    opened,
    pointer,
    reserve_all,
    reserve_past_strangers,
    run,
)

# -- batches ---------------------------------------------------------------------------------------------


def test_five_thousand_entries_go_in_and_out_in_order(broker, subscription):
    pointers = [pointer() for _ in range(5000)]
    broker.put([(each, 0) for each in pointers])
    assert broker.depths(["mail"])["mail"] == {"ready": 5000, "delayed": 0, "reserved": 0, "buried": 0}
    entries = reserve_all(subscription)
    assert [entry.pointer for entry in entries] == pointers
    assert broker.depths(["mail"])["mail"]["reserved"] == 5000
    assert delete(subscription, entries) == 0
    assert not any(broker.depths(["mail"])["mail"].values())


def test_big_batches_of_big_entries_do_not_get_stuck(broker, subscription):
    """The server stops reading while its replies are unread: 64 replies of 3 kB, 1,500 puts of 3 kB."""
    broker.put([(pointer(100), 0) for _ in range(1500)])
    first = subscription.reserve(1, 0).entries
    rest = reserve_all(subscription)
    assert len(first + rest) == 1500
    assert all(len(entry.pointer.ids) == 100 for entry in first + rest)


def test_one_pointer_with_many_ids_is_several_entries_in_order(broker, subscription):
    many = pointer(450)
    broker.put([(many, 0)])
    entries = reserve_all(subscription)
    assert [len(entry.pointer.ids) for entry in entries] == [100, 100, 100, 100, 50]
    assert tuple(job_id for entry in entries for job_id in entry.pointer.ids) == many.ids


def test_a_batch_may_mix_tubes(broker):
    types = ["a", "b", "b", "a", "c", "a"]
    broker.put([(pointer(type=type), 0) for type in types])
    broker.put([(pointer(type="a"), 0)])
    assert {type: depth["ready"] for type, depth in broker.depths(["a", "b", "c"]).items()} == {
        "a": 4,
        "b": 2,
        "c": 1,
    }


def test_the_number_of_reserves_follows_the_jobs_that_entries_hold(broker, subscription):
    broker.put([(pointer(50), 0) for _ in range(20)])
    assert len(subscription.reserve(1000, 0).entries) == 1
    assert len(subscription.reserve(100, 0).entries) == 2
    assert len(subscription.reserve(101, 0).entries) == 3
    assert len(subscription.reserve(1, 0).entries) == 1
    assert len(subscription.reserve(100_000, 0).entries) == 13


def test_a_tube_that_is_nearly_empty_is_asked_for_little(beanstalkd, broker, subscription):
    with beanstalkd.client() as client:
        for _ in range(20):
            broker.put([(pointer(), 0)])
            assert len(subscription.reserve(512, 1).entries) == 1
        asked = int(client.stats()["cmd-reserve-with-timeout"])
    assert asked <= 20 * 2 * GROWTH


def test_the_number_of_reserves_follows_what_came_last_and_forgets_what_came_long_ago(broker, subscription):
    broker.put([(pointer(), 0) for _ in range(2000)] + [(pointer(100), 0) for _ in range(100)])
    for _ in range(100):
        if len(subscription.reserve(50, 0).entries[-1].pointer.ids) == 100:
            break
    subscription.reserve(500, 0)  # by a mixture of both
    assert len(subscription.reserve(500, 0).entries) == 5
    reserve_all(subscription)
    broker.put([(pointer(), 0) for _ in range(300)])
    counts = [len(subscription.reserve(50, 0).entries) for _ in range(20)]
    assert counts[-1] == 50 or sum(counts) == 300
    assert 50 in counts


def test_a_selection_names_the_types_and_all_ids_in_order(broker):
    subscription = broker.subscribe(["mail", "resize"])
    first, second, third = pointer(3), pointer(2, "resize"), pointer(1)
    broker.put([(first, 0), (second, 0), (third, 0)])
    selections = [subscription.reserve(1, 0).selection, subscription.reserve(6, 0).selection]
    assert [selection.types for selection in selections] == [("mail", "resize")] * 2
    assert [selection.ids for selection in selections] == [first.ids, second.ids + third.ids]
    subscription.close()


def test_each_entry_goes_to_the_tube_of_its_type_whatever_was_looked_at_before(broker):
    for step in ("peek b", "put a", "put b", "peek a", "put b", "put a", "peek b", "put b"):
        call, type = step.split()
        if call == "put":
            broker.put([(pointer(type=type), 0)])
        else:
            broker.peek([type])
    drained = {}
    for type in ("a", "b"):
        subscription = broker.subscribe([type])
        drained[type] = [entry.pointer.type for entry in reserve_all(subscription)]
        subscription.close()
    assert drained == {"a": ["a", "a"], "b": ["b", "b", "b"]}


def test_delays_are_rounded_up_to_whole_seconds_and_cut_at_an_hour(beanstalkd, broker, subscription):
    for delay in (0, 0.01, 1, 59.5, 3600, 10**9, float("inf")):
        broker.put([(pointer(), delay)])
    with beanstalkd.client(PREFIX + "mail") as client:
        assert [client.stats_job(entry)["delay"] for entry in range(1, 8)] == [0, 1, 1, 60, 3600, 3600, 3600]
        assert client.stats_job(1)["ttr"] == 60
        [entry] = reserve_all(subscription)
        subscription.settle([EntryFate(entry, 7.2)])
        assert client.stats_job(1)["delay"] == 8
        assert client.stats_job(1)["pri"] == 65536


@pytest.mark.parametrize("delay", [-1, float("nan")])
def test_a_delay_that_is_none_is_refused_before_a_put(broker, delay):
    with pytest.raises(ValueError, match="delay"):
        broker.put([(pointer(), 0), (pointer(), delay)])
    assert broker.depths(["mail"])["mail"]["ready"] == 0


@pytest.mark.parametrize("type", ["a\tb", "x\r\ndelete 1\r\n", "", "\x7f"])
def test_a_name_that_could_be_read_as_a_command_is_never_sent(broker, type):
    broker.put([(pointer(), 0)])
    for call in (
        lambda: broker.put([(pointer(type=type), 0)]),
        lambda: broker.peek([type]),
        lambda: broker.drain(type),
        lambda: broker.depths([type]),
        lambda: broker.subscribe([type]),
    ):
        with pytest.raises(ValueError):
            call()
    assert broker.depths(["mail"])["mail"]["ready"] == 1


def test_a_broker_that_was_not_opened_says_so(beanstalkd):
    with pytest.raises(BrokerError, match="open"):
        BeanstalkBroker(beanstalkd.address).peek(["mail"])


# -- limits of the server --------------------------------------------------------------------------------


def test_a_server_that_takes_small_entries_gets_small_ones(start_beanstalkd):
    broker = opened(start_beanstalkd(flags=["-z", "200"]))
    many = pointer(20)
    broker.put([(many, 0)])
    subscription = broker.subscribe(["mail"])
    entries = reserve_all(subscription)
    assert tuple(job_id for entry in entries for job_id in entry.pointer.ids) == many.ids
    assert max(len(wire.encode(entry.pointer)) for entry in entries) <= 184
    subscription.close()
    broker.close()


def test_a_server_that_takes_no_pointer_at_all_is_named_with_its_limit(start_beanstalkd):
    server = start_beanstalkd(flags=["-z", "50"])
    broker = opened(server)
    with pytest.raises(BrokerError, match=f"{server.url}: .*max-job-size of 50 bytes.*-z"):
        broker.put([(pointer(), 0)])
    assert broker.peek(["mail"])["mail"].head is None
    broker.close()


def test_a_type_too_long_for_the_server_is_named_after_all_others_are_put(start_beanstalkd):
    server = start_beanstalkd(flags=["-z", "200"])
    broker = opened(server)
    long, longer = "x" * 180, "y" * 190
    with pytest.raises(BrokerError, match=f"{server.url}: .*'{long}', '{longer}'.* 200 bytes.*-z") as caught:
        broker.put([(pointer(type=type), 0) for type in (long, "mail", longer, "resize", long, "mail")])
    assert not isinstance(caught.value, BrokerUnavailable)
    depths = broker.depths(["mail", "resize", long, longer])
    assert [depth["ready"] for depth in depths.values()] == [2, 1, 0, 0]
    broker.close()


def test_a_server_in_drain_mode_refuses_puts_and_serves_the_rest(beanstalkd, broker, subscription):
    broker.put([(pointer(), 0)])
    beanstalkd.drain_mode()
    with pytest.raises(BrokerUnavailable, match=f"{beanstalkd.url}: .*0 were put, 3 not: 3 DRAINING.*drain mode"):
        broker.put([(pointer(), 0), (pointer(), 0), (pointer(), 0)])
    assert broker.peek(["mail"])["mail"].head == Head(65536, PUT_AT)  # the conversation goes on where it was
    assert delete(subscription, reserve_all(subscription)) == 0


def test_a_unix_socket_serves_as_well(start_beanstalkd):
    server = start_beanstalkd(unix=True)
    broker = open_broker(server.url + "?timeout=5")
    assert broker.address == server.url
    broker.open(PREFIX)
    broker.put([(pointer(), 0)])
    subscription = broker.subscribe(["mail"])
    assert len(subscription.reserve(1, 0).entries) == 1
    subscription.close()
    broker.close()


# -- entries that are not ours ---------------------------------------------------------------------------

GARBAGE = [b"", b"hello", b"\x00\xff" * 100, b"KQ1 mail", b"x" * 65535]


def foreign_entries() -> list[bytes]:
    return [*GARBAGE, wire.encode(pointer(type="resize"))]


def test_what_is_not_ours_is_buried_counted_and_told_once(beanstalkd, broker, subscription, caplog):
    ours = pointer()
    with beanstalkd.client(PREFIX + "mail") as client:
        for body in foreign_entries():
            client.put(body, priority=5)
        broker.put([(ours, 0)])
        with caplog.at_level(logging.WARNING):
            entries, strangers = reserve_past_strangers(subscription)
            assert ([entry.pointer for entry in entries], strangers) == ([ours], 6)
            client.put(b"once more", priority=5)
            assert reserve_past_strangers(subscription) == ([], 1)
    assert broker.depths(["mail"])["mail"]["buried"] == 7
    assert [record.name for record in caplog.records] == ["kqueue.brokers.beanstalk.broker"]
    assert beanstalkd.url in caplog.text


def test_strangers_by_the_hundred_do_not_hide_what_is_ours(beanstalkd, broker, subscription):
    with beanstalkd.client(PREFIX + "mail") as client:
        for _ in range(300):
            client.put(b"stranger", priority=5)
    broker.put([(pointer(), 0)])
    entries, strangers = reserve_past_strangers(subscription)
    assert (len(entries), strangers) == (1, 300)


def test_strangers_without_end_do_not_outlast_the_time(beanstalkd, broker, subscription):
    """What was buried is told, and a selection of nothing says that ours may stand behind it."""
    with beanstalkd.client(PREFIX + "mail") as client:
        for _ in range(300):
            client.put(b"stranger")
        selection, entries, foreign = subscription.reserve(1, 0)
        assert (selection, entries) == (Selection(("mail",), ()), [])
        assert foreign == client.stats_tube(PREFIX + "mail")["current-jobs-buried"] < 100
    # One came alone; of more of them more are taken at once.
    assert (foreign, subscription.reserve(1, 0).foreign) == (1, 2 * GROWTH)


def test_a_wake_ends_a_reserve_among_strangers(beanstalkd, broker, subscription, monkeypatch):
    with beanstalkd.client(PREFIX + "mail") as client:
        for _ in range(300):
            client.put(b"stranger")
    bury = wire.bury

    def bury_and_wake(entry: int) -> wire.Command:
        subscription.wake()
        return bury(entry)

    monkeypatch.setattr(wire, "bury", bury_and_wake)
    selection, entries, foreign = subscription.reserve(1, FOR_EVER_S)
    assert (selection, entries) == (None, [])
    assert foreign == broker.depths(["mail"])["mail"]["buried"] < 100


def test_a_stranger_that_comes_while_we_wait_does_not_end_the_wait(beanstalkd, broker, subscription):
    got = []
    waiting = run(lambda: got.append(subscription.reserve(1, FOR_EVER_S)))
    with beanstalkd.client(PREFIX + "mail") as client:
        await_true(lambda: client.stats()["current-waiting"] == 1)
        client.put(b"stranger")
        await_true(lambda: client.stats()["current-jobs-buried"] == 1)
    broker.put([(pointer(), 0)])
    waiting.join(PATIENCE_S)
    assert [(len(entries), foreign) for _, entries, foreign in got] == [(1, 1)]


def test_strangers_at_the_head_are_buried_on_the_way(beanstalkd, broker, caplog):
    with beanstalkd.client(PREFIX + "mail") as client:
        for body in foreign_entries():
            client.put(body, priority=5)
        broker.put([(pointer(priority=7), 0)])
        assert broker.peek(["mail"])["mail"].head == Head(7, PUT_AT)
        client.put(b"another", priority=5)
    assert broker.peek(["mail"])["mail"].head == Head(7, PUT_AT)
    assert broker.depths(["mail"])["mail"]["buried"] == 7
    with beanstalkd.client(PREFIX + "mail") as client:
        client.put(b"and another one", priority=5)
    subscription = broker.subscribe(["mail"])
    entries, strangers = reserve_past_strangers(subscription)
    subscription.close()
    assert (len(entries), strangers) == (1, 1)
    assert len(caplog.records) == 1


def test_strangers_without_end_at_the_head_prove_nothing_lost(beanstalkd, broker, monkeypatch):
    monkeypatch.setattr("kqueue.brokers.beanstalk.broker.MAX_LOOKS", 3)
    with beanstalkd.client(PREFIX + "mail") as client:
        for _ in range(4):
            client.put(b"stranger")
    assert broker.peek(["mail"])["mail"].head == UNKNOWN_HEAD
    assert broker.peek(["mail"])["mail"].head is None


def test_an_entry_longer_than_any_pointer_is_read_past(start_beanstalkd):
    server = start_beanstalkd(flags=["-z", str(10 * 2**20)])
    broker = opened(server)
    with server.client(PREFIX + "mail") as client:
        client.put(b"x" * 5_000_001, priority=5)
    broker.put([(pointer(), 0)])
    subscription = broker.subscribe(["mail"])
    entries, strangers = reserve_past_strangers(subscription)
    assert (len(entries), strangers) == (1, 1)
    subscription.close()
    broker.close()


# -- tubes that are paused, and drained ------------------------------------------------------------------


def test_a_paused_tube_shows_its_head_and_gives_nothing(beanstalkd, broker, subscription):
    broker.put([(pointer(priority=7), 0)])
    with beanstalkd.client() as client:
        client.pause_tube(PREFIX + "mail", 1000)
    assert broker.peek(["mail"])["mail"].head == Head(7, PUT_AT)
    assert subscription.reserve(1, 0).selection is None


def test_drain_takes_ready_delayed_buried_and_paused_by_the_hundred(beanstalkd, broker):
    broker.put([(pointer(), 0) for _ in range(450)])
    with beanstalkd.client(PREFIX + "mail") as client:
        for _ in range(450):
            client.bury(client.reserve(0))
        broker.put([(pointer(), 1000) for _ in range(450)])
        broker.put([(pointer(), 0) for _ in range(450)])
        client.put(b"stranger")
        client.pause_tube(PREFIX + "mail", 1000)
    broker.put([(pointer(type="resize"), 0)])
    assert broker.drain("mail") == 1351
    assert not any(broker.depths(["mail"])["mail"].values())
    assert broker.depths(["resize"])["resize"]["ready"] == 1


def test_drain_leaves_what_a_worker_holds(broker, subscription):
    broker.put([(pointer(), 0), (pointer(), 0)])
    [held] = subscription.reserve(1, 0).entries
    assert broker.drain("mail") == 1
    assert delete(subscription, [held]) == 0


def test_drain_of_the_default_tube_works(beanstalkd):
    broker = BeanstalkBroker(beanstalkd.address)
    broker.open("")
    broker.put([(pointer(type="default"), 0)])
    assert broker.drain("default") == 1
    broker.close()


# -- waiting ---------------------------------------------------------------------------------------------


def test_no_reserve_is_left_behind_after_a_wake(beanstalkd, broker, subscription):
    got = []
    waiting = run(lambda: got.append(subscription.reserve(1, FOR_EVER_S)))
    with beanstalkd.client() as client:
        await_true(lambda: client.stats()["current-waiting"] == 1)
        subscription.wake()
        waiting.join(PATIENCE_S)
        assert got == [(None, [], 0)]
        broker.put([(pointer(), 0)])
        await_true(lambda: client.stats()["current-jobs-ready"] == 1)
        assert client.stats()["current-jobs-reserved"] == 0
    other = broker.subscribe(["mail"])
    assert len(other.reserve(1, 0).entries) == 1
    other.close()


def test_no_reserve_is_left_behind_while_a_forked_child_holds_a_copy_of_the_socket(
    beanstalkd, broker, subscription
):
    assert subscription.reserve(1, 0).selection is None
    release, hold = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(hold)
        os.read(release, 1)  # until the parent closes its end
        os._exit(0)
    try:
        assert subscription.reserve(1, 0.02).selection is None
        broker.put([(pointer(), 0)])
        with beanstalkd.client() as client:
            await_true(lambda: client.stats()["current-waiting"] == 0)
            await_true(lambda: client.stats()["current-jobs-ready"] == 1)
        assert len(subscription.reserve(1, 0).entries) == 1
    finally:
        os.close(hold)
        os.close(release)
        os.waitpid(pid, 0)


def test_a_child_that_reserves_on_its_parents_subscription_has_a_connection_of_its_own(broker, subscription):
    pointers = [pointer() for _ in range(3)]
    broker.put([(each, 0) for each in pointers])
    [held] = subscription.reserve(1, 0).entries
    pid = os.fork()
    if pid == 0:
        left_open = []
        try:
            sys.unraisablehook = left_open.append
            ours = subscription.settle([EntryFate(held, None)]) == 0
            [entry] = subscription.reserve(1, 0).entries
            deleted = delete(subscription, [entry]) == 0
            subscription.close()
            os._exit(0 if (ours, deleted, entry.pointer, left_open) == (False, True, pointers[1], []) else 2)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert delete(subscription, [held]) == 0
    assert [entry.pointer for entry in reserve_all(subscription)] == pointers[2:]


def test_no_reserve_is_left_behind_after_a_time_limit(beanstalkd, broker, subscription):
    assert subscription.reserve(1, 0.02).selection is None
    broker.put([(pointer(), 0)])
    with beanstalkd.client() as client:
        await_true(lambda: client.stats()["current-jobs-ready"] == 1)
        assert client.stats()["current-jobs-reserved"] == 0
    assert len(subscription.reserve(1, 0).entries) == 1


def test_a_wait_that_ends_about_when_the_servers_does_keeps_its_connection(beanstalkd, subscription, monkeypatch):
    """The server counts whole seconds. How near is near enough is made large: no clock decides this test."""
    monkeypatch.setattr("kqueue.brokers.beanstalk.connection.LATE_S", PATIENCE_S)
    with beanstalkd.client() as client:
        subscription.reserve(1, 0)
        before = client.stats()["total-connections"]
        assert subscription.reserve(1, 0.1) == (None, [], 0)
        subscription.reserve(1, 0)
        assert client.stats()["total-connections"] == before


def test_a_wait_that_ends_long_before_the_servers_does_costs_the_connection(beanstalkd, subscription):
    with beanstalkd.client() as client:
        subscription.reserve(1, 0)
        before = client.stats()["total-connections"]
        assert subscription.reserve(1, 0.1) == (None, [], 0)
        subscription.reserve(1, 0)
        assert client.stats()["total-connections"] == before + 1


def test_what_was_given_back_for_a_while_may_still_be_deleted_also_after_a_wait_that_was_cut(
    beanstalkd, broker, subscription
):
    """A wait that is cut costs the connection that waited, and that is another one."""
    first, second, third = pointer(), pointer(), pointer()
    broker.put([(first, 0), (second, 0)])
    entries = reserve_all(subscription)
    assert subscription.settle([EntryFate(entry, 1000.0) for entry in entries]) == 0
    assert subscription.reserve(1, 0.1).selection is None
    broker.put([(third, 0)])
    [other] = subscription.reserve(1, PATIENCE_S).entries
    assert delete(subscription, [other, entries[0]]) == 0
    assert delete(subscription, [entries[0]]) == 1
    subscription.post([EntryFate(entries[1], 5.0)])  # it is given back already
    with beanstalkd.client(PREFIX + "mail") as client:
        [left] = [client.peek_delayed()]
        assert (wire.decode(left.body), client.stats_job(left)["delay"]) == (second, 1000)
    subscription.post([EntryFate(entries[1], None)])
    subscription.reserve(1, 0)
    assert not any(broker.depths(["mail"])["mail"].values())


def test_what_came_while_entries_are_away_is_settled_where_it_came(broker, subscription):
    broker.put([(pointer(), 0)])
    assert subscription.settle([EntryFate(entry, 1000.0) for entry in reserve_all(subscription)]) == 0
    came = []
    waiting = run(lambda: came.extend(subscription.reserve(1, FOR_EVER_S - 0.5).entries))
    ours = pointer()
    broker.put([(ours, 0)])
    waiting.join(PATIENCE_S)
    assert [entry.pointer for entry in came] == [ours]
    assert delete(subscription, came) == 0


def test_nothing_that_is_away_is_deleted_once_its_connection_is_lost(beanstalkd, broker, subscription):
    """There the same id may be another entry's."""
    broker.put([(pointer(), 0)])
    away = reserve_all(subscription)
    subscription.settle([EntryFate(entry, 1000.0) for entry in away])
    beanstalkd.restart()
    broker.put([(pointer(), 1000)])
    assert delete(subscription, away) == 1
    subscription.reserve(1, 0)
    assert delete(subscription, away) == 1
    assert broker.depths(["mail"])["mail"]["delayed"] == 1


def test_an_entry_held_too_long_costs_the_connection_and_no_storm(beanstalkd, subscription, caplog):
    with beanstalkd.client(PREFIX + "mail") as client:
        client.put(wire.encode(pointer()), ttr=1)
        [held] = subscription.reserve(1, 0).entries
        before = client.stats()["cmd-reserve-with-timeout"]
        assert subscription.reserve(1, 0.5).selection in (None, selected(("mail",), [held]))
        assert client.stats()["cmd-reserve-with-timeout"] - before < 10
    assert delete(subscription, [held]) == 1
    assert "held for too long" in caplog.text


def test_plain_clients_and_ours_agree_on_what_is_in_a_tube(beanstalkd, broker):
    ours = pointer(3)
    broker.put([(ours, 0)])
    with beanstalkd.client(PREFIX + "mail") as client:
        job = client.reserve(0)
        assert wire.decode(job.body) == ours
        with pytest.raises(greenstalk.TimedOutError):
            client.reserve(0)
