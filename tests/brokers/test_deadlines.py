"""One deadline for an exchange: servers that drip or never accept, and name servers that are silent.

Nothing is timed. Where a server drips, a byte comes and time goes by each time the client looks at its clock.
"""

import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from kqueue.brokers import open_broker
from kqueue.brokers.beanstalk.broker import BeanstalkBroker
from kqueue.brokers.beanstalk.names import Names
from kqueue.brokers.beanstalk.stream import Stream
from kqueue.contracts.broker import Broker
from kqueue.model.errors import BrokerUnavailable
from kqueue.system.clock import ManualClock, SystemClock
from tests.beanstalkd import Beanstalkd, free_port
from tests.closing import Closes
from tests.tubes import PATIENCE_S, PREFIX, await_true, calls_of, error_of, pointer, run

#: Seconds between two bytes of a server that drips.
DRIP_S = 0.125
TIMEOUT_S = 1.0
#: Bytes until the time is up, and one for a client that stood still.
MOST_DRIPS = int(TIMEOUT_S / DRIP_S) + 2
NAME = "queue.example"


class Drips(ManualClock):
    """A server that answers whatever it hears by the next of ``replies``; after the last it drips without end."""

    def __init__(self, *replies: bytes, drip: bytes) -> None:
        super().__init__()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self._replies = replies
        self._drip = drip
        self._peer: socket.socket | None = None
        self._lock = threading.Lock()  # who has the first byte finds the peer
        self.dripped = 0
        run(self._serve)

    def _serve(self) -> None:
        peer, _ = self.listener.accept()
        for reply in self._replies:
            peer.recv(65536)
            peer.sendall(reply)
        peer.recv(65536)
        with self._lock:
            peer.sendall(self._drip[:1])
            self._peer = peer

    def monotonic(self) -> float:
        with self._lock:
            if self._peer is not None:
                self.dripped += 1
                self._peer.sendall(self._drip[self.dripped % len(self._drip) :][:1])
                self.advance(DRIP_S)
        return super().monotonic()


@pytest.fixture
def drips() -> Iterator[Callable[..., Drips]]:
    made: list[Drips] = []

    def make(*replies: bytes, drip: bytes = b"x") -> Drips:
        made.append(Drips(*replies, drip=drip))
        return made[-1]

    yield make
    for one in made:
        one.listener.close()
        if one._peer is not None:
            one._peer.close()


def opened(clock: Drips) -> BeanstalkBroker:
    broker = BeanstalkBroker(("127.0.0.1", clock.port), timeout=TIMEOUT_S, clock=clock)
    broker.open(PREFIX)
    return broker


STATS = b"OK 24\r\n---\nmax-job-size: 65535\n\r\n"
WATCHING = b"WATCHING 2\r\nWATCHING 1\r\n"
#: What a server has said, what it drips then, and the call that waits for it.
EXCHANGES: list[tuple[list[bytes], bytes, Callable[[Broker], object]]] = [
    ([], b"OK 60000\r\n" + b"x" * 60_000, lambda broker: broker.put([(pointer(), 0)])),
    ([STATS], b"USING p1.mail\r\nINSERTED 1\r\n", lambda broker: broker.put([(pointer(), 0) for _ in range(9)])),
    ([STATS], b"USING p1.mail\r\nFOUND 1 60000\r\n" + b"x" * 60_000, lambda broker: broker.peek(["mail"])),
    ([STATS], b"OK 60000\r\n" + b"x" * 60_000, lambda broker: broker.depths(["mail"])),
    ([WATCHING], b"RESERVED 1 600\r\n" + b"x" * 600, lambda broker: broker.subscribe(["mail"]).reserve(1, 0)),
    (
        [WATCHING, b"TIMED_OUT\r\n"],
        b"RESERVED 1 600\r\n" + b"x" * 600,
        lambda broker: broker.subscribe(["mail"]).reserve(1, 2.0),
    ),
]


@pytest.mark.parametrize(
    ("replies", "drip", "call"), EXCHANGES, ids=["stats", "put", "peek", "depths", "reserve", "waiting reserve"]
)
def test_a_server_that_drips_its_reply_is_given_up_when_the_time_is_up(
    drips: Callable[..., Drips], replies: list[bytes], drip: bytes, call: Callable[[Broker], object]
) -> None:
    clock = drips(*replies, drip=drip)
    error = error_of(lambda: call(opened(clock)))
    assert isinstance(error, BrokerUnavailable)
    assert "no answer within 1.0 s" in str(error)
    assert 0 < clock.dripped <= 2 * MOST_DRIPS + 4  # the calls look at the clock for reasons of their own too


def test_what_came_while_a_process_stood_still_is_read() -> None:
    """The time is up, and the whole reply is there."""
    ours, theirs = socket.socketpair()
    clock = ManualClock()
    ours.setblocking(False)
    stream = Stream(ours, clock.monotonic)
    stream.allow(1.0)
    theirs.sendall(b"DELETED\r\nDELETED\r\nDEL")
    clock.advance(100)
    assert [stream.line(), stream.line()] == [b"DELETED\r\n"] * 2
    with pytest.raises(TimeoutError):
        stream.line()
    stream.close()
    theirs.close()


def test_a_server_that_reads_nothing_is_given_up() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    stream = Stream(ours, SystemClock().monotonic)
    stream.allow(0.05)
    with pytest.raises(TimeoutError):
        stream.send(b"x" * 100_000_000)
    stream.close()
    theirs.close()


def test_a_server_that_never_accepts_is_given_up(closes: Closes) -> None:
    """Its backlog is full, and the system drops what asks for a connection."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        port = listener.getsockname()[1]
        others = [socket.socket() for _ in range(4)]
        for other in others:
            other.setblocking(False)
            other.connect_ex(("127.0.0.1", port))
        broker = closes(open_broker(f"beanstalk://127.0.0.1:{port}?connect_timeout=0.05"))
        broker.open(PREFIX)
        for call in calls_of(broker, broker.subscribe(["mail"])):
            assert f"127.0.0.1:{port}: cannot connect (timed out)" in str(error_of(call))
        for other in others:
            other.close()


class NameServer:
    """In the place of the system's look-up."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.asked = 0
        self.may_answer = threading.Event()
        self.error: OSError | None = None
        self._look_up = socket.getaddrinfo

    def __call__(self, host: str, port: int, *args: object, **options: object) -> object:
        if host != NAME:
            return self._look_up(host, port, *args, **options)  # type: ignore[arg-type]
        self.asked += 1
        assert self.may_answer.wait(PATIENCE_S)
        if self.error is not None:
            raise self.error
        return self._look_up("127.0.0.1", self.port, *args, **options)  # type: ignore[arg-type]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    server = NameServer(free_port())
    monkeypatch.setattr(socket, "getaddrinfo", server)
    yield server
    server.may_answer.set()


def named(seconds: float = 0.05) -> Broker:
    broker = open_broker(f"beanstalk://{NAME}?connect_timeout={seconds}")
    broker.open(PREFIX)
    return broker


def test_a_silent_name_server_is_asked_once_and_given_up_by_all(names: NameServer) -> None:
    broker = named()
    for call in calls_of(broker, broker.subscribe(["mail"])):
        error = error_of(call)
        assert isinstance(error, BrokerUnavailable)
        assert f"no name server told within 0.05 s where {NAME} is" in str(error)
    assert names.asked == 1


def test_an_answer_that_comes_too_late_is_used_by_the_next(names: NameServer, beanstalkd: Beanstalkd) -> None:
    names.port = beanstalkd.port
    looked_up = Names(NAME, beanstalkd.port)
    with pytest.raises(TimeoutError):
        looked_up.addresses(0.01)
    lookup = looked_up._lookups.get().current
    assert lookup is not None
    names.may_answer.set()
    assert lookup.wait(PATIENCE_S)
    names.may_answer.clear()  # the next look-up is not answered either
    assert [address.place for address in looked_up.addresses(0.01)] == [("127.0.0.1", beanstalkd.port)]


@pytest.mark.parametrize("error", [None, socket.gaierror(socket.EAI_AGAIN, "try again")], ids=["silent", "error"])
def test_the_last_good_address_is_used_where_no_name_server_answers(
    names: NameServer, beanstalkd: Beanstalkd, error: OSError | None
) -> None:
    names.port = beanstalkd.port
    names.may_answer.set()
    broker = named(PATIENCE_S if error else 2.0)
    broker.put([(pointer(), 0)])
    broker.close()
    names.error = error
    if error is None:
        names.may_answer.clear()
    broker.put([(pointer(), 0)])
    assert broker.depths(["mail"])["mail"]["ready"] == 2
    assert names.asked == 2
    broker.close()


def test_a_name_that_is_gone_is_an_error(names: NameServer, beanstalkd: Beanstalkd) -> None:
    names.port = beanstalkd.port
    names.may_answer.set()
    broker = named(PATIENCE_S)
    broker.put([(pointer(), 0)])
    broker.close()
    names.error = socket.gaierror(socket.EAI_NONAME, "unknown name")
    with pytest.raises(BrokerUnavailable, match=f"{NAME}:11300: cannot connect .*unknown name"):
        broker.put([(pointer(), 0)])


def test_no_thread_is_begun_for_an_address(beanstalkd: Beanstalkd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kqueue.brokers.beanstalk.names.threading.Thread", None)
    broker = open_broker(beanstalkd.url)
    broker.open(PREFIX)
    broker.put([(pointer(), 0)])
    broker.close()


HANGS = """
import socket, threading
from kqueue import KQueue
socket.getaddrinfo = lambda *_, **__: threading.Event().wait()
with KQueue("memory:", "beanstalk://queue.example?connect_timeout=0.01") as queue:
    print(len(queue.add_job("t")))
"""


def test_a_silent_name_server_holds_up_neither_an_add_nor_the_end_of_the_process() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HANGS], check=False, capture_output=True, text=True, timeout=2 * PATIENCE_S
    )
    assert (done.returncode, done.stdout) == (0, "28\n")
    assert "jobs run from the store until the broker is back: beanstalk://queue.example:11300" in done.stderr


def test_calls_do_not_wait_for_each_others_answers(beanstalkd: Beanstalkd) -> None:
    """While one waits for a server that is silent, another can be told so by its own."""
    broker = open_broker(beanstalkd.url + f"?timeout={PATIENCE_S}")
    broker.open(PREFIX)
    broker.put([(pointer(), 0)])
    pool = broker._pools.get()  # type: ignore[attr-defined]
    with pool.connection() as lent:
        broker.put([(pointer(), 0)])
        assert broker.depths(["mail"])["mail"]["ready"] == 2
        broker.close()
        assert lent.usable()
    assert not lent.usable()  # what was lent when it was closed is closed after it
    with beanstalkd.client() as client:
        await_true(lambda: client.stats()["current-connections"] == 1)
