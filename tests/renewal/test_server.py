"""A renewer and its clients, in one process: real sockets, threads and boards, and a store in memory."""

import gc
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from kqueue.contracts.renewer import RenewalEnd
from kqueue.contracts.settlements import Delete
from kqueue.model.job import State
from kqueue.renewal.messages import (
    MAX_LINE,
    VERSION,
    Forget,
    Hello,
    LetGo,
    RenewalWindow,
    ServerReady,
    Told,
    Trouble,
    encode,
    runs,
)
from kqueue.renewal.server import Server
from tests.closing import Closes
from tests.renewal.peers import (
    DOWN,
    LOGGER,
    SHORT,
    Peer,
    SlowStore,
    claimed,
    hold_of,
    let_be,
    renewed,
    serving,
    the_row,
)
from tests.tubes import PATIENCE_S, await_true, run

pytestmark = pytest.mark.usefixtures("renewing_often")


@pytest.fixture
def store() -> SlowStore:
    return SlowStore()


@pytest.fixture
def server(store: SlowStore) -> Iterator[Server]:
    with serving(lambda url: store) as server:
        yield server


@pytest.fixture
def peer(server: Server, closes: Closes) -> Peer:
    return greeted(server, closes)


def greeted(server: Server, closes: Closes, pid: int | None = None) -> Peer:
    peer = closes(Peer(server))
    peer.say_hello(pid)
    assert peer.hear() == ServerReady()
    return peer


def renewals(store: SlowStore, more: int) -> Callable[[], bool]:
    """Whether the store was asked for so many more."""
    wanted = store.renewals + more
    return lambda: store.renewals >= wanted


def test_a_lease_is_renewed_for_as_long_as_it_is_held(store: SlowStore, peer: Peer) -> None:
    row, other = claimed(store, 2)
    peer.hold(hold_of(row))
    renewed(store, row.id, 3)
    peer.hold(hold_of(other), slot=1, first=10)
    peer.say(LetGo(0))
    let_be(store, row.id, beside=other.id)


@pytest.mark.parametrize("end", [Forget(), None], ids=["forget", "closed"])
def test_what_a_client_forgets_or_leaves_is_not_renewed(
    store: SlowStore, server: Server, peer: Peer, closes: Closes, end: Forget | None
) -> None:
    row, other = claimed(store, 2)
    beside = greeted(server, closes)
    beside.hold(hold_of(other))
    peer.hold(hold_of(row))
    renewed(store, row.id, 1)
    if end is None:
        peer.socket.close()
    else:
        peer.say(end)
    let_be(store, row.id, beside=other.id)


def test_a_client_whose_process_has_ended_is_left_although_its_socket_lives(
    store: SlowStore, server: Server, peer: Peer, closes: Closes
) -> None:
    row, other = claimed(store, 2)
    peer.hold(hold_of(other))
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        of_process = greeted(server, closes, process.pid)
        of_process.hold(hold_of(row))
        renewed(store, row.id, 1)
        process.kill()
    assert of_process.is_sent_away()
    let_be(store, row.id, beside=other.id)


def test_a_client_whose_process_had_ended_before_is_sent_away(server: Server, closes: Closes) -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    peer = closes(Peer(server))
    peer.say_hello(process.pid)
    assert peer.is_sent_away()


def test_of_a_window_only_what_has_started_is_renewed(store: SlowStore, peer: Peer) -> None:
    first, second = claimed(store, 2)
    peer.hold(hold_of(first), hold_of(second))
    renewed(store, first.id, 3)
    assert the_row(store, second.id).lease_until == second.lease_until


def test_a_job_that_is_taken_or_gone_is_told_to_be_lost(store: SlowStore, peer: Peer) -> None:
    gone, taken = claimed(store, 2)
    peer.hold(hold_of(gone), slot=0, first=10)
    peer.hold(hold_of(taken)._replace(fence=0), slot=1, first=20)
    store.delete([gone.id])
    told = {peer.hear(), peer.hear()}
    assert told == {Told(10, gone.id, RenewalEnd.LOST), Told(20, taken.id, RenewalEnd.LOST)}
    assert the_row(store, taken.id).lease_until == taken.lease_until


def test_a_run_that_takes_too_long_is_retried_with_that_reason_and_its_holder_is_fenced(
    store: SlowStore, peer: Peer
) -> None:
    (row,) = claimed(store)
    began = store.now()
    peer.hold(hold_of(row, max_runtime=0.6, retry_in=30.0), first=7)
    assert peer.hear() == Told(7, row.id, RenewalEnd.OVER, True)
    found = the_row(store, row.id)
    assert (found.state, found.reason) == (State.DELAYED, "ran longer than max_runtime (0.6 s)")
    assert (found.failures, found.put_at, found.lease_owner) == (1, None, None)
    assert began + 30.0 < found.run_at <= store.now() + 30.0
    assert store.settle([Delete(row.id, row.fence)], store.now()).lost == {row.id}


def test_a_run_that_takes_too_long_may_be_the_last(store: SlowStore, peer: Peer) -> None:
    (row,) = claimed(store)
    peer.hold(hold_of(row, max_runtime=0.1), first=7)
    assert peer.hear() == Told(7, row.id, RenewalEnd.OVER, True)
    assert the_row(store, row.id).state == State.DEAD


# -- stores that are slow or down ----------------------------------------------------------------------------


def test_a_store_that_is_down_for_less_than_a_lease_costs_nothing(store: SlowStore, peer: Peer) -> None:
    (row,) = claimed(store)
    store.error = DOWN
    peer.hold(hold_of(row))
    await_true(renewals(store, 2))
    store.error = None
    assert peer.hear() == Trouble(f"leases are not renewed, and soon tried again: {DOWN}")
    renewed(store, row.id, 2)


def test_a_store_that_is_down_for_longer_loses_the_lease_and_is_told_of_once(store: SlowStore, peer: Peer) -> None:
    (row,) = claimed(store, ttr=SHORT)
    store.error = RuntimeError("what no store should raise")
    peer.hold(hold_of(row))
    said = peer.hear()
    assert isinstance(said, Trouble)
    assert "RuntimeError: what no store should raise" in said.text
    assert peer.hear() == Told(1, row.id, RenewalEnd.LOST)
    store.error = None
    (other,) = claimed(store)
    peer.hold(hold_of(other))
    renewed(store, other.id, 2)


def test_a_store_that_does_not_answer_keeps_nobody_else_waiting(closes: Closes) -> None:
    stuck, other = SlowStore(), SlowStore()
    stuck.opens.clear()
    with serving({"stuck": stuck, "other": other}.__getitem__) as server:
        peers = {}
        for url, store in (("stuck", stuck), ("other", other)):
            peers[url] = closes(Peer(server))
            peers[url].say_hello(url=url)
            assert peers[url].hear() == ServerReady()
            (row,) = claimed(store)
            peers[url].hold(hold_of(row))
        renewed(other, row.id, 3)
        peers["late"] = closes(Peer(server))
        peers["late"].say_hello(url="stuck")
        assert peers["late"].hear() == ServerReady()
        stuck.opens.set()
        await_true(lambda: stuck.renewals > 0)


# -- clients that misbehave ----------------------------------------------------------------------------------


NONSENSE = {
    "http": b"GET / HTTP/1.1\r\n\r\n",
    "empty": b"\n",
    "binary": b"\xff" * 100 + b"\n",
    "answer": encode(ServerReady()),
    "long": b"x" * (MAX_LINE + 1),
    "infinite": b'["hold",0,1,1,0.5,[[0,1,1e400,null,null,[]]]]\n',
}


@pytest.mark.parametrize("greets", [False, True])
def test_a_client_that_says_what_none_says_is_sent_away_and_the_others_are_served(
    store: SlowStore, server: Server, peer: Peer, greets: bool, closes: Closes
) -> None:
    (row,) = claimed(store)
    peer.hold(hold_of(row))
    for name, said in NONSENSE.items():
        bad = closes(Peer(server))
        if greets:
            bad.say_hello()
        with suppress(OSError):  # it is sent away before it has said it all
            bad.socket.sendall(said)
        assert bad.is_sent_away(), name
    renewed(store, row.id, 3)


def test_words_out_of_turn_are_refused(server: Server, closes: Closes) -> None:
    early, twice, blind = closes(Peer(server)), closes(Peer(server)), closes(Peer(server))
    early.say(LetGo(0))
    twice.say_hello()
    twice.say_hello()
    blind.say(Hello(VERSION, os.getpid(), "memory:"))  # it brings no board
    assert early.is_sent_away()
    assert twice.is_sent_away()
    assert blind.is_sent_away()


def test_a_client_with_a_short_board_runs_nothing(
    store: SlowStore, server: Server, peer: Peer, closes: Closes
) -> None:
    row, other = claimed(store, 2)
    os.ftruncate(peer.board.fileno(), 0)
    peer.say(RenewalWindow(5, 1, 1, time.monotonic(), runs([hold_of(row)])))
    beside = greeted(server, closes)
    beside.hold(hold_of(other))
    renewed(store, other.id, 3)
    assert the_row(store, row.id).lease_until == row.lease_until


def test_a_client_that_floods_does_not_starve_the_others(
    store: SlowStore, server: Server, peer: Peer, closes: Closes
) -> None:
    (row,) = claimed(store)
    flood = closes(Peer(server))
    flood.say_hello()
    flooding = True

    def pour() -> None:
        (other,) = claimed(store)
        number = 0
        while flooding:
            number += 1
            flood.hold(hold_of(other), slot=number % 3, first=number)

    thread = run(pour)
    peer.hold(hold_of(row))
    renewed(store, row.id, 3)
    flooding = False
    thread.join()
    assert flood.hear() == ServerReady()


def test_a_client_that_does_not_read_is_sent_away(
    store: SlowStore, server: Server, peer: Peer, monkeypatch: pytest.MonkeyPatch, closes: Closes
) -> None:
    monkeypatch.setattr("kqueue.renewal.server.MAX_UNREAD", 1000)
    deaf = closes(Peer(server, holds_bytes=1))
    deaf.say_hello()
    rows = claimed(store, 500)
    deaf.hold(*map(hold_of, rows))
    deaf.board.write(0, 1 + len(rows), 0.0)  # all have ended, and wait to be settled
    store.delete([row.id for row in rows])
    (row,) = claimed(store)
    peer.hold(hold_of(row))
    renewed(store, row.id, 3)
    assert deaf.is_sent_away()


# -- its end -------------------------------------------------------------------------------------------------


def test_it_ends_with_its_last_client_if_it_is_told_to(store: SlowStore, closes: Closes) -> None:
    server = Server(lambda url: store, LOGGER)
    one, two = closes(Peer(server)), closes(Peer(server))
    thread = run(lambda: server.serve(until_alone=True))
    one.say_hello()
    assert one.hear() == ServerReady()
    one.socket.close()
    two.say_hello()
    assert two.hear() == ServerReady()
    assert thread.is_alive()
    two.socket.close()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


def test_at_its_end_nothing_stays_behind(store: SlowStore) -> None:
    gc.collect()
    before = threading.active_count(), len(os.listdir("/proc/self/fd"))
    with serving(lambda url: store) as server:
        peer = Peer(server)
        peer.say_hello()
        assert peer.hear() == ServerReady()
        (row,) = claimed(store)
        peer.hold(hold_of(row))
        await_true(renewals(store, 1))
    assert peer.hear() is None
    peer.socket.close()
    del peer, server
    gc.collect()
    assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == before


def test_who_comes_when_it_ends_is_hung_up_on(store: SlowStore, closes: Closes) -> None:
    server = Server(lambda url: store, LOGGER)
    ours, theirs = socket.socketpair()
    closes(ours)
    server.close()
    server.serve()
    server.add(theirs)
    assert theirs.fileno() == -1
