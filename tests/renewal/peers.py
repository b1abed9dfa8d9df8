"""The other side of a renewer's socket, and stores that misbehave."""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from kqueue.contracts.budget import Budget
from kqueue.contracts.renewer import Renewal
from kqueue.contracts.runs import LeaseKey, Selection
from kqueue.contracts.store import JobStore
from kqueue.model.errors import StoreUnavailable
from kqueue.model.job import Row, State
from kqueue.renewal.board import Board
from kqueue.renewal.messages import VERSION, Answer, Hello, Lines, RenewalWindow, Request, answer, encode, runs
from kqueue.renewal.server import Server
from kqueue.stores.memory.store import MemoryStore
from kqueue.system.clock import SystemClock
from tests.tubes import MINT, PATIENCE_S, await_true, run

LOGGER = logging.getLogger("kqueue.tests")
#: A lease that does not run out while a machine stalls; the fixture ``renewing_often`` has it renewed all the same.
TTR = 600.0
#: One that soon runs out.
SHORT = 0.5


class Peer:
    """What a client does, word by word."""

    def __init__(self, server: Server, holds_bytes: int | None = None) -> None:
        """``holds_bytes``: what the socket holds for it to read, about; the system's own if None."""
        self.socket, other = socket.socketpair()
        if holds_bytes is not None:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, holds_bytes)
        self.socket.settimeout(PATIENCE_S)
        self.board = Board()
        self._lines = Lines()
        self._heard: list[bytes] = []
        server.add(other)

    def close(self) -> None:
        self.socket.close()

    def say_hello(self, pid: int | None = None, url: str = "memory:") -> None:
        hello = encode(Hello(VERSION, pid or os.getpid(), url))
        socket.send_fds(self.socket, [hello], [self.board.fileno()])

    def say(self, *said: Request) -> None:
        self.socket.sendall(b"".join(map(encode, said)))

    def hold(self, *window: Renewal, slot: int = 0, first: int = 1) -> None:
        """The first of them runs."""
        self.say(RenewalWindow(slot, first, len(window), time.monotonic(), runs(window)))
        self.board.write(slot, first, time.monotonic())

    def hear(self) -> Answer | None:
        """The next answer; None at the end."""
        while not self._heard:
            data = self.socket.recv(65536)
            if not data:
                return None
            self._heard += self._lines.feed(data)
        return answer(self._heard.pop(0))

    def is_sent_away(self) -> bool:
        try:
            while self.hear() is not None:
                pass
        except ConnectionResetError:
            pass
        return True


class SlowStore(MemoryStore):
    """Counts renewals, and is down, or keeps its callers waiting, as it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.renewals = 0
        self.opens = threading.Event()
        self.opens.set()
        self.error: Exception | None = None

    def renew(self, held: Sequence[LeaseKey], now: float, alone: bool | None = None) -> frozenset[str]:
        self.opens.wait(PATIENCE_S)
        self.renewals += 1
        if self.error is not None:
            raise self.error
        return super().renew(held, now, alone)


@contextmanager
def serving(open_store: Callable[[str], JobStore]) -> Iterator[Server]:
    """A server in a thread, which must end when it is told to."""
    server = Server(open_store, LOGGER)
    thread = run(server.serve)
    yield server
    server.close()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


def claimed(store: JobStore, jobs: int = 1, ttr: float = TTR) -> list[Row]:
    """Jobs of which the lease has begun just now."""
    now = SystemClock().time()
    ids = MINT.make(jobs)
    store.add([Row(id, "t", b"1", "json", 1, State.READY, 0.0, now, ttr, created_at=now) for id in ids])
    limits = Budget(jobs, job_s={"t": 0.0})
    return store.claim(Selection(("t",), tuple(ids)), limits, MINT.make(1)[0], store.now(), jobs == 1).rows


def hold_of(row: Row, max_runtime: float | None = None, retry_in: float | None = None) -> Renewal:
    return Renewal(row.id, row.fence, row.ttr, max_runtime, retry_in)


def renewed(store: JobStore, id: str, times: int) -> None:
    """Wait until the lease of a job has begun anew so many times."""
    for _ in range(times):
        until = the_row(store, id).lease_until
        await_true(lambda until=until: the_row(store, id).lease_until != until)  # type: ignore[misc]


def let_be(store: JobStore, id: str, beside: str) -> None:
    """Wait until the lease of a job stays as it is, while that of another is renewed again and again."""

    def stays() -> bool:
        until = the_row(store, id).lease_until
        renewed(store, beside, 3)
        return the_row(store, id).lease_until == until

    await_true(stays)


def the_row(store: JobStore, id: str) -> Row:
    (row,) = store.get([id])
    return row


DOWN = StoreUnavailable("memory: is down")
