"""Servers that misbehave: cut replies, silence, senseless answers."""

import socket
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from kqueue.brokers.beanstalk import connection as connection_module
from kqueue.brokers.beanstalk import wire
from kqueue.contracts.broker import Broker, EntryFate, Pointer
from kqueue.model.errors import BrokerError, BrokerUnavailable
from tests.brokers.fake_server import FakeServer, figures
from tests.tubes import PATIENCE_S, await_true, calls_of, error_of, pointer, run

STATS = b"OK 24\r\n---\nmax-job-size: 65535\n\r\n"


@pytest.fixture
def fake_server() -> Iterator[Callable[..., FakeServer]]:
    servers = []

    def start(*script: bytes, hang_up: bool = True) -> FakeServer:
        servers.append(FakeServer(*script, hang_up=hang_up))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


CUT = [
    b"",
    b"FOU",
    b"FOUND 1 100\r\nhalf a bo",
    b"FOUND 1 4\r\nbody",
    b"FOUND 1 99999999999999\r\nbody",
]


@pytest.mark.parametrize("reply", CUT)
def test_a_reply_that_is_cut_off_costs_the_connection_and_names_the_server(fake_server, reply):
    expect_given_up(fake_server(STATS, b"USING p1.mail\r\n" + reply))


@pytest.mark.parametrize(
    "reply",
    [
        b"FOUND 1 4\r\nbodyXX",
        b"FOUND 1 -4\r\nbody\r\n",
        b"FOUND\r\n",
        b"FOUND x 4\r\nbody\r\n",
        b"\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"BAD_FORMAT\r\n",
        b"UNKNOWN_COMMAND\r\n",
        b"OUT_OF_MEMORY\r\n",
        b"INTERNAL_ERROR\r\n",
        b"INSERTED 1\r\n",
        b"x" * 100_000,
    ],
)
def test_a_senseless_reply_costs_the_connection_and_names_the_server(fake_server, reply):
    """The server stays: it is we who hang up."""
    server = fake_server(STATS, b"USING p1.mail\r\n" + reply, hang_up=False)
    expect_given_up(server)
    for peer in server.peers:
        peer.settimeout(PATIENCE_S)
        with suppress(ConnectionResetError):
            assert peer.recv(1) == b""


@pytest.mark.parametrize(
    "reply",
    [
        b"FOUND 4\r\nbody\r\n",
        b"FOUND 1 2 4\r\nbody\r\n",
        b"FOUND 99999999999999999999 4\r\nbody\r\n",
        b"FOUND 1 1073741825\r\n",
        b"FOUND 1 %b\r\n" % (b"9" * 240),
        b"FOUND 1 \xd9\xa3\r\n",
        b"FOUND 1 4" + b" " * 300,
    ],
)
def test_a_number_that_cannot_be_right_is_not_waited_for(fake_server, reply):
    """Whether or not what it announces would come."""
    expect_given_up(fake_server(STATS, b"USING p1.mail\r\n" + reply, hang_up=False))


def test_statistics_longer_than_any_are_not_read(fake_server):
    server = fake_server(b"OK 1000000\r\n", hang_up=False)
    broker = server.broker()
    assert "a body of 1000000 bytes" in str(error_of(lambda: broker.peek(["mail"])))


def expect_given_up(server: FakeServer) -> None:
    """That a peek fails, and does not leave its connection to the next."""
    broker = server.broker()
    for expected in (1, 2):
        with pytest.raises(BrokerUnavailable, match=f"{server.url}: .*the connection was given up") as caught:
            broker.peek(["mail"])
        assert caught.value.__cause__ is not None
        assert server.connections == expected


def test_a_connection_that_timed_out_is_not_used_again(fake_server):
    """The late reply to the first command would answer the second."""
    server = fake_server(STATS, b"", hang_up=False)
    broker = server.broker("?timeout=0.1")
    for expected in (1, 2):
        assert "no answer" in str(error_of(lambda: broker.peek(["mail"])))
        assert server.connections == expected


def test_a_server_that_accepts_and_never_answers_is_given_up(fake_server):
    server = fake_server(hang_up=False)
    broker = server.broker("?timeout=0.05")
    subscription = broker.subscribe(["mail"])
    for call in calls_of(broker, subscription):
        error = error_of(call)
        assert isinstance(error, BrokerUnavailable)
        assert f"{server.url}: no answer within 0.05 s" in str(error)


@pytest.mark.parametrize(
    "text",
    [
        b"---\n",
        b"max-job-size: \n",
        b"max-job-size: 0\n",
        b"max-job-size: -1\n",
        b"max-job-size: many\n",
        b"max-job-size: 1073741825\n",
        b"max-job-size: %b\n" % (b"9" * 6000),
        "max-job-size: ٣٣٣\n".encode(),
    ],
    ids=range(8),
)
def test_a_server_without_figures_that_can_be_right_is_no_beanstalkd(fake_server, text):
    server = fake_server(figures(text))
    broker = server.broker()
    with pytest.raises(BrokerError, match=f"{server.url}: .*is it a beanstalkd"):
        broker.peek(["mail"])


@pytest.mark.parametrize("number", [b"many", b"-1", b"1.5", b"9" * 6000])
def test_figures_of_a_tube_that_are_no_numbers_are_an_error_that_names_the_server(fake_server, number):
    odd = figures(b"current-jobs-ready: %b\ncurrent-jobs-buried: %b\n" % (number, number))
    server = fake_server(STATS, odd, odd, hang_up=False)
    broker = server.broker()
    for call in (broker.depths, broker.warnings):
        with pytest.raises(BrokerUnavailable, match=f"{server.url}: .*where a number belongs"):
            call(["mail"])
    assert server.connections == 1


def test_all_replies_of_a_batch_are_read_before_a_refusal_is_told(fake_server):
    outcomes = b"BURIED 1\r\nINSERTED 2\r\nOUT_OF_MEMORY\r\nJOB_TOO_BIG\r\nINSERTED 3\r\n"
    server = fake_server(STATS, b"USING p1.mail\r\n" + outcomes, b"USING p1.mail\r\nNOT_FOUND\r\n", hang_up=False)
    broker = server.broker()
    with pytest.raises(
        BrokerUnavailable, match="2 were put, 3 not: 1 BURIED.*1 OUT_OF_MEMORY.*1 JOB_TOO_BIG.*sweep"
    ):
        broker.put([(pointer(), 0) for _ in range(5)])
    assert broker.peek(["mail"])["mail"].head is None
    assert server.connections == 1


def test_an_entry_that_the_server_does_not_know_any_more_is_counted(fake_server):
    """Its TTR ran out, and another worker had it since."""
    body = wire.encode(pointer())
    server = fake_server(
        b"WATCHING 2\r\nWATCHING 1\r\n",
        b"RESERVED 7 %d\r\n%b\r\n" % (len(body), body),
        b"RESERVED 8 %d\r\n%b\r\n" % (len(body), body),
        b"NOT_FOUND\r\nRELEASED\r\n",
        hang_up=False,
    )
    subscription = server.subscription()
    [first], [second] = (subscription.reserve(1, 0).entries for _ in range(2))
    assert subscription.settle([EntryFate(first, None), EntryFate(second, 0)]) == 1
    assert server.heard.endswith(b"delete 7\r\nrelease 8 65536 0\r\n")
    subscription.close()


def test_an_old_server_is_told_from_a_broken_one(fake_server):
    server = fake_server(STATS, b"USING p1.mail\r\nFOUND 1 5\r\nhello\r\n", b"UNKNOWN_COMMAND\r\n" * 2)
    broker = server.broker()
    with pytest.raises(BrokerUnavailable, match=r"beanstalkd 1\.12 or newer"):
        broker.peek(["mail"])


def test_an_interrupt_before_a_reply_costs_the_connection(fake_server, monkeypatch):
    """Nobody would read the reply that is still to come, and the next command would get it."""
    server = fake_server(STATS, b"", b"", hang_up=False)
    broker = server.broker("?timeout=1")
    read = connection_module.Connection._read

    def interrupted(self: connection_module.Connection, command: wire.Command) -> wire.Reply:
        if command.data.startswith(b"stats-tube"):
            raise KeyboardInterrupt
        return read(self, command)

    with monkeypatch.context() as patch:
        patch.setattr(connection_module.Connection, "_read", interrupted)
        with pytest.raises(KeyboardInterrupt):
            broker.depths(["mail"])
    assert isinstance(error_of(lambda: broker.peek(["mail"])), BrokerUnavailable)
    assert server.connections == 2


def test_no_more_than_a_bounded_part_of_a_batch_is_sent_ahead_of_its_replies(fake_server):
    server = fake_server(STATS, *[b""] * 2000, hang_up=False)
    broker = server.broker(f"?timeout={PATIENCE_S}")
    expect_unanswered(server, broker, [pointer() for _ in range(1000)], at_least=100)
    assert server.heard.count(b"put ") <= 200
    server.heard = b""
    expect_unanswered(server, broker, [pointer(100) for _ in range(100)], at_least=1)
    assert len(server.heard) < 100 * 3000 / 2


def expect_unanswered(server: FakeServer, broker: Broker, pointers: list[Pointer], at_least: int) -> None:
    """That a put sends so many, waits for answers, and fails once the server says that none will come."""
    errors: list[BaseException] = []
    putting = run(lambda: errors.append(error_of(lambda: broker.put([(one, 0) for one in pointers]))))
    await_true(lambda: server.heard.count(b"put ") >= at_least)
    server.peers[-1].shutdown(socket.SHUT_WR)
    putting.join(PATIENCE_S)
    server.talks[-1].join(PATIENCE_S)
    [error] = errors
    assert isinstance(error, BrokerUnavailable)


@pytest.mark.parametrize("answer", [b"", b"DELE", b"FOUND 1 4\r\nbody\r\n"], ids=["none", "cut", "senseless"])
def test_a_posted_verdict_that_is_not_answered_costs_the_connection_and_no_reserve(fake_server, answer):
    body = wire.encode(pointer())
    reserved = b"RESERVED 7 %d\r\n%b\r\n" % (len(body), body)
    server = fake_server(b"WATCHING 2\r\nWATCHING 1\r\n", reserved, answer)
    subscription = server.subscription()
    [entry] = subscription.reserve(1, 0).entries
    subscription.post([EntryFate(entry, None)])
    [again] = subscription.reserve(1, 0).entries
    assert (server.connections, again.pointer) == (2, entry.pointer)
    subscription.close()


def test_a_close_waits_for_what_was_posted(fake_server, monkeypatch):
    """A server that cannot write its answers any more drops what it has not read yet: entries that were deleted
    would come again.
    """
    monkeypatch.setattr(connection_module, "FINISH_S", PATIENCE_S)
    body = wire.encode(pointer())
    reserved = b"RESERVED 7 %d\r\n%b\r\n" % (len(body), body)
    server = fake_server(b"WATCHING 2\r\nWATCHING 1\r\n", reserved, reserved * 2, hang_up=False)
    subscription = server.subscription()
    subscription.reserve(1, 0)
    entries = subscription.reserve(2, 0).entries
    subscription.post([EntryFate(entry, None) for entry in entries])
    await_true(lambda: bool(server.talks))  # its thread may have answered before it is told of
    [peer], [talk] = server.peers, server.talks
    talk.join(PATIENCE_S)
    closing = run(subscription.close)
    peer.settimeout(0.2)
    assert peer.recv(999).count(b"delete") == 2
    with pytest.raises(TimeoutError):
        peer.recv(999)  # no end yet
    peer.sendall(b"DELETED\r\n" * 2)
    peer.settimeout(PATIENCE_S)
    assert peer.recv(999) == b""
    closing.join(PATIENCE_S)


def test_a_close_waits_no_longer_than_a_second_for_a_server_that_stands_still(fake_server, monkeypatch):
    monkeypatch.setattr(connection_module, "FINISH_S", 0.01)
    body = wire.encode(pointer())
    server = fake_server(
        b"WATCHING 2\r\nWATCHING 1\r\n", b"RESERVED 7 %d\r\n%b\r\n" % (len(body), body), hang_up=False
    )
    subscription = server.subscription()
    subscription.post([EntryFate(entry, None) for entry in subscription.reserve(1, 0).entries])
    subscription.close()
    [peer] = server.peers
    assert b"".join(iter(lambda: peer.recv(999), b"")).startswith(b"delete"), "and then its end"
