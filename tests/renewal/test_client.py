"""The worker's side, with a renewer that the test plays, and with a real one."""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kqueue.contracts.renewer import Renewal, RenewalEnd, RenewalHold
from kqueue.model.errors import KQueueError
from kqueue.renewal import board
from kqueue.renewal.client import Client
from kqueue.renewal.due import HandlerProgress
from kqueue.renewal.messages import (
    VERSION,
    Answer,
    Forget,
    Hello,
    LetGo,
    Lines,
    RenewalWindow,
    Request,
    ServerReady,
    Told,
    Trouble,
    encode,
    request,
)
from kqueue.renewal.starting import Starter
from kqueue.stores.memory.store import MemoryStore
from kqueue.stores.sqlite.store import SqliteStore
from tests.flows.processes import run_in_child
from tests.renewal.peers import LOGGER, claimed, hold_of, renewed, the_row
from tests.tubes import MINT, PATIENCE_S, await_true, run

IDS = MINT.make(3)
URL = "sqlite:////nobody/opens.it"


class FakeRenewer:
    """The other end of a client's socket. It reads only when it is asked to."""

    def __init__(self, client: Client) -> None:
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(PATIENCE_S)
        client.offer(theirs.detach())
        self._lines = Lines()
        self._heard: list[bytes] = []
        self.board = -1

    def hear(self) -> Request:
        while not self._heard:
            data, descriptors, _, _ = socket.recv_fds(self.socket, 65536, 1)
            self.board = descriptors[0] if descriptors else self.board
            assert data, "it has closed"
            self._heard += self._lines.feed(data)
        return request(self._heard.pop(0))

    def welcome(self) -> None:
        """What every client begins with; it has nothing else to say before."""
        assert isinstance(self.hear(), Hello)
        assert self.hear() == Forget()
        self.say(ServerReady())

    def say(self, *said: Answer) -> None:
        self.socket.sendall(b"".join(map(encode, said)))

    def look(self, window: Request) -> int:
        """The position of the job that runs, as the board says."""
        assert isinstance(window, RenewalWindow)
        return board.read(self.board, window.slot).serial - window.first


def windows(*ids: str, ttr: float = 60.0) -> dict[str, Renewal | None]:
    return {id: Renewal(id, 1, ttr) for id in ids}


@pytest.fixture
def client() -> Iterator[Client]:
    client = Client(Starter(MemoryStore(), URL, LOGGER), LOGGER)
    yield client
    client.close()


@pytest.fixture
def another(client: Client) -> Iterator[Callable[[], FakeRenewer]]:
    """Call it for the renewer that the client takes next."""
    made: list[FakeRenewer] = []

    def make() -> FakeRenewer:
        made.append(FakeRenewer(client))
        return made[-1]

    yield make
    for renewer in made:
        renewer.socket.close()
        if renewer.board >= 0:
            os.close(renewer.board)


@pytest.fixture
def renewer(another: Callable[[], FakeRenewer]) -> FakeRenewer:
    return another()


def held(client: Client, *ids: str) -> RenewalWindow:
    """What was held under those ids, as it is said to a renewer."""
    said = [request(hold.said) for hold in client._holds.values()]
    (window,) = [one for one in said if isinstance(one, RenewalWindow) and list(one.runs[0].ids) == list(ids)]
    return window


def test_it_says_who_it_is_what_it_holds_and_what_it_lets_go(client: Client, renewer: FakeRenewer) -> None:
    began = time.monotonic()
    hold = client.hold({IDS[0]: Renewal(IDS[0], 1, 60.0), IDS[1]: None, IDS[2]: Renewal(IDS[2], 1, 60.0)}, began)
    assert renewer.hear() == Hello(VERSION, os.getpid(), URL)
    assert renewer.hear() == Forget()
    window = renewer.hear()
    assert isinstance(window, RenewalWindow)
    assert (window.size, window.leased_at) == (3, began)
    assert [(found.position, list(found.ids)) for found in window.runs] == [(0, IDS[:1]), (2, IDS[2:])]
    assert renewer.look(window) < 0
    for position, id in enumerate(IDS):
        hold.start(id, began + position)
        assert renewer.look(window) == position
    assert board.read(renewer.board, window.slot) == HandlerProgress(window.first + 2, began + 2)
    hold.rest()
    assert renewer.look(window) == 3
    hold.let_go()
    hold.let_go()
    again = client.hold(windows(IDS[0]), began)
    assert renewer.hear() == LetGo(window.slot)
    auto_renew = renewer.hear()
    assert isinstance(auto_renew, RenewalWindow)
    assert auto_renew.slot == window.slot
    assert renewer.look(auto_renew) < 0
    again.let_go()


def test_it_hears_what_is_lost_and_what_is_over(
    client: Client, renewer: FakeRenewer, caplog: pytest.LogCaptureFixture
) -> None:
    hold = client.hold(windows(*IDS), 0.0)
    window = held(client, *IDS)
    assert hold.end_of(IDS[0]) is None
    renewer.say(
        ServerReady(),
        Told(window.first - 1, IDS[2], RenewalEnd.LOST),
        Trouble("the store is away"),
        Told(window.first, IDS[0], RenewalEnd.LOST),
        Told(window.first, IDS[1], RenewalEnd.OVER),
    )
    await_true(lambda: len(caplog.records) == 2)  # each is told once its end is known
    assert hold.end_of(IDS[1]) is RenewalEnd.OVER
    assert (hold.end_of(IDS[0]), hold.end_of(IDS[2])) == (RenewalEnd.LOST, None)
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "the store is away",
        f"job {IDS[1]} ran longer than max_runtime",
    ]
    hold.let_go()


def test_who_is_struck_on_the_way_out_has_what_there_is_to_let_go(client: Client, renewer: FakeRenewer) -> None:
    """A signal handler may raise once it is held, and before the caller has it."""

    class Struck(Exception):
        pass

    kept: list[RenewalHold] = []
    say, held_before = client._say, []

    def strike(said: bytes) -> None:
        held_before.append(bool(kept))
        say(said)
        raise Struck

    client._say = strike  # type: ignore[method-assign]
    with pytest.raises(Struck):
        client.hold(windows(IDS[0]), 0.0, kept.append)
    client._say = say  # type: ignore[method-assign]
    [hold] = kept
    assert held_before == [True]
    hold.let_go()
    hold.let_go()
    assert client._holds == {}


def test_a_renewer_that_was_offered_and_never_needed_is_hung_up_on(client: Client, renewer: FakeRenewer) -> None:
    """As at the end of a worker none of whose handlers wants it."""
    client.close()
    assert renewer.socket.recv(1) == b""


def test_it_waits_for_a_new_renewer_only_where_a_lease_is_short(client: Client, renewer: FakeRenewer) -> None:
    client.prepare(60.0)  # returns although the renewer has said nothing
    prepared = threading.Event()
    thread = run(lambda: (client.prepare(1.0), prepared.set()))
    assert isinstance(renewer.hear(), Hello)
    assert not prepared.wait(0.1)
    renewer.say(ServerReady())
    thread.join(PATIENCE_S)
    client.prepare(1.0)
    hold = client.hold(windows(IDS[0], ttr=1.0), 0.0)
    assert [renewer.hear(), renewer.hear()] == [Forget(), held(client, IDS[0])]
    hold.let_go()


def test_a_renewer_that_does_not_read_holds_nobody_up_and_hears_all_when_it_does(
    client: Client, renewer: FakeRenewer
) -> None:
    first = client.hold(windows(IDS[0]), 0.0)
    renewer.welcome()
    assert renewer.hear() == held(client, IDS[0])
    many = [client.hold(windows(*MINT.make(500)), 0.0) for _ in range(100)]
    for hold in many:
        hold.let_go()
    last = client.hold(windows(IDS[1]), 0.0)
    there: dict[int, Request] = {}
    while list(there.values()) != [held(client, IDS[0]), held(client, IDS[1])]:
        match renewer.hear():
            case Forget():
                there.clear()
            case LetGo(slot):
                there.pop(slot, None)
            case RenewalWindow(slot=slot) as window:
                there[slot] = window
    first.let_go()
    last.let_go()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A renewer that ends at once is replaced at once."""
    monkeypatch.setattr("kqueue.renewal.client.RESTART_S", 0.0)


def test_a_renewer_that_ends_is_replaced_and_told_all(
    client: Client, renewer: FakeRenewer, another: Callable[[], FakeRenewer], caplog: pytest.LogCaptureFixture
) -> None:
    hold = client.hold(windows(IDS[0]), 0.0)
    renewer.welcome()
    auto_renew = another()
    renewer.socket.close()
    auto_renew.welcome()
    assert auto_renew.hear() == held(client, IDS[0])
    assert "another one takes over" in caplog.text
    hold.let_go()
    assert auto_renew.hear() == LetGo(0)


def test_a_renewer_that_has_ended_is_replaced_by_whoever_holds_next(
    client: Client, renewer: FakeRenewer, another: Callable[[], FakeRenewer]
) -> None:
    hold = client.hold(windows(IDS[0]), 0.0)
    renewer.welcome()
    auto_renew = another()
    renewer.socket.close()
    other = client.hold(windows(IDS[1]), 0.0)  # within the second in which the thread would wait
    auto_renew.welcome()
    assert [auto_renew.hear(), auto_renew.hear()] == [held(client, IDS[0]), held(client, IDS[1])]
    hold.let_go()
    other.let_go()


def test_a_renewer_that_talks_nonsense_is_replaced(
    client: Client, renewer: FakeRenewer, another: Callable[[], FakeRenewer]
) -> None:
    hold = client.hold(windows(IDS[0]), 0.0)
    auto_renew = another()
    renewer.socket.sendall(b"nonsense\n")
    auto_renew.welcome()
    hold.let_go()


def test_an_idle_renewer_is_let_go_and_another_one_comes_with_the_next_hold(
    client: Client,
    renewer: FakeRenewer,
    another: Callable[[], FakeRenewer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kqueue.renewal.client.IDLE_S", 0.05)
    hold = client.hold(windows(IDS[0]), 0.0)
    renewer.welcome()
    assert renewer.hear() == held(client, IDS[0])
    time.sleep(0.2)
    hold.let_go()
    assert renewer.hear() == LetGo(0)
    assert renewer.socket.recv(100) == b""
    auto_renew = another()
    client.prepare(60.0)
    auto_renew.welcome()
    again = client.hold(windows(IDS[1]), 0.0)
    assert auto_renew.hear() == held(client, IDS[1])
    again.let_go()


def test_it_is_not_closed_while_something_is_held(client: Client, renewer: FakeRenewer) -> None:
    hold = client.hold(windows(IDS[0]), 0.0)
    renewer.welcome()
    await_true(lambda: client._is_ready)
    client.close()
    hold.let_go()
    assert [renewer.hear(), renewer.hear()][1] == LetGo(0)
    client.close()
    client.close()
    assert renewer.socket.recv(100) == b""


def test_a_forked_child_touches_nothing_of_its_parents(client: Client, renewer: FakeRenewer) -> None:
    hold = client.hold(windows(IDS[0]), 0.0)
    hold.start(IDS[0], 0.0)

    def child() -> None:
        hold.rest()
        hold.let_go()

    assert run_in_child(child) == 0
    renewer.welcome()
    window = renewer.hear()
    assert renewer.look(window) == 0
    hold.let_go()
    assert renewer.hear() == LetGo(0)


def test_threads_hold_and_let_go_at_once(client: Client, renewer: FakeRenewer) -> None:
    def work() -> None:
        for id in MINT.make(200):
            hold = client.hold(windows(id), 0.0)
            hold.start(id, 0.0)
            hold.rest()
            hold.let_go()

    threads = [run(work) for _ in range(4)]
    renewer.welcome()
    last = []
    ends = run(lambda: last.extend([*(thread.join() for thread in threads), client.hold(windows(IDS[0]), 0.0)]))
    there: dict[int, RenewalWindow] = {}
    while [list(window.runs[0].ids) for window in there.values()] != [IDS[:1]]:
        match renewer.hear():
            case Forget():
                there.clear()
            case LetGo(slot):
                there.pop(slot)
            case RenewalWindow(slot=slot) as window:
                assert slot not in there
                there[slot] = window
    ends.join(PATIENCE_S)
    assert len(client._holds) == 1
    last[-1].let_go()


def test_a_hold_that_fails_leaves_nothing_behind(
    client: Client, another: Callable[[], FakeRenewer], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_more() -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(client._starter, "connect", no_more)
    with pytest.raises(KQueueError, match="no renewer of leases can be started: .*Too many open files"):
        client.hold(windows(IDS[0]), 0.0)
    monkeypatch.undo()
    renewer = another()
    hold = client.hold(windows(IDS[1]), 0.0)
    renewer.welcome()
    assert renewer.hear() == held(client, IDS[1])
    assert held(client, IDS[1]).slot == 0
    hold.let_go()


# -- a real one ----------------------------------------------------------------------------------------------


@pytest.fixture(params=["process", "thread"])
def store_and_client(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[SqliteStore | MemoryStore, Client]]:
    store: SqliteStore | MemoryStore = MemoryStore()
    url = None
    if request.param == "process":
        url = f"sqlite:///{tmp_path}/jobs.db"
        store = SqliteStore(tmp_path / "jobs.db")
    client = Client(Starter(store, url, LOGGER), LOGGER)
    yield store, client
    client.close()
    store.close()


@pytest.mark.usefixtures("renewing_often")
def test_a_real_renewer_renews_and_tells(store_and_client: tuple[SqliteStore | MemoryStore, Client]) -> None:
    store, client = store_and_client
    kept, gone, over = claimed(store, 3)
    holds = [
        client.hold({kept.id: hold_of(kept)}, time.monotonic()),
        client.hold({gone.id: hold_of(gone)._replace(fence=7)}, time.monotonic()),
        client.hold({over.id: hold_of(over, max_runtime=0.1)}, time.monotonic()),
    ]
    for hold, row in zip(holds, (kept, gone, over), strict=True):
        hold.start(row.id, time.monotonic())
    renewed(store, kept.id, 1)
    await_true(lambda: holds[1].end_of(gone.id) is RenewalEnd.LOST)
    await_true(lambda: holds[2].end_of(over.id) is RenewalEnd.OVER)
    assert holds[0].end_of(kept.id) is None
    assert the_row(store, over.id).state == "dead"
    for hold in holds:
        hold.let_go()


@pytest.mark.usefixtures("renewing_often")
def test_a_renewer_that_cannot_be_started_is_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "no python"))
    falls_back(tmp_path, caplog, "FileNotFoundError")


@pytest.mark.usefixtures("renewing_often")
def test_a_program_that_is_no_python_is_not_started_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sys.frozen", True, raising=False)
    falls_back(tmp_path, caplog, "no Python is known")


@pytest.mark.usefixtures("at_once", "renewing_often")
def test_a_renewer_that_ends_at_once_again_and_again_is_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sys.executable", "/bin/true")
    falls_back(tmp_path, caplog, "it ended 3 times before it was there")


def falls_back(folder: Path, caplog: pytest.LogCaptureFixture, why: str) -> None:
    store = SqliteStore(folder / "jobs.db")
    client = Client(Starter(store, f"sqlite:///{folder}/jobs.db", LOGGER), LOGGER)
    (row,) = claimed(store)
    hold = client.hold({row.id: hold_of(row)}, time.monotonic())
    hold.start(row.id, time.monotonic())
    renewed(store, row.id, 1)
    (said,) = [record.getMessage() for record in caplog.records if "so a thread does" in record.getMessage()]
    assert why in said
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
    hold.let_go()
    client.close()
    store.close()
