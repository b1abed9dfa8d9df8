"""The renewer's side of the sockets: reads what clients say, and tells them what they are to know.

One thread serves all clients and waits for none of them; the stores' threads (:mod:`kqueue.renewal.renewing`) never
touch a socket. A client that says what no client says, or that does not read, is closed; so is one whose process
has ended. What it had in hand is not renewed any more.
"""

import logging
import os
import selectors
import socket
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from kqueue.contracts.renewer import Renewal
from kqueue.contracts.store import JobStore
from kqueue.renewal import board
from kqueue.renewal.due import HandlerProgress, News, WindowEntry
from kqueue.renewal.messages import (
    Answer,
    Forget,
    Hello,
    LetGo,
    Lines,
    RenewalWindow,
    Request,
    ServerReady,
    Trouble,
    encode,
    request,
)
from kqueue.renewal.renewing import Renewing
from kqueue.system.clock import Clock, SystemClock
from kqueue.system.wakeup import Wakeup

#: Bytes that are read from a client at a time; then it is the next one's turn.
TURN_BYTES = 2**16
#: Bytes that may wait for a client to read them.
MAX_UNREAD = 2**20


class Overrun(NamedTuple):
    """A run that has taken longer than it may, whose process is to be killed."""

    pid: int
    hold: Renewal
    #: Whether it still runs: to be asked last of all.
    goes_on: Callable[[], bool]


class Server:
    """Renews leases for clients in other processes. See the module's text."""

    def __init__(
        self,
        open_store: Callable[[str], JobStore],
        logger: logging.Logger,
        clock: Clock | None = None,
        overrun: Callable[[Overrun], object] | None = None,
    ) -> None:
        """``open_store(url)`` makes the store of a client's URL; it is called once for each URL. ``overrun(run)``
        has a process killed, and is called in any thread; None: nobody can.
        """
        self._overrun = overrun
        self._open_store = open_store
        self._logger = logger
        self._clock = clock or SystemClock()
        self._selector = selectors.DefaultSelector()
        self._wakeup = Wakeup()
        self._selector.register(self._wakeup, selectors.EVENT_READ)
        self._arrivals: deque[socket.socket] = deque()
        self._clients: dict[int, _Client] = {}
        self._numbers = 0
        self._renewing: dict[str, Renewing] = {}
        self._closing = self._is_over = False

    def add(self, link: socket.socket) -> None:
        """Serve the client at the other end of ``link``, which is the server's from now on. From any thread."""
        self._arrivals.append(link)
        self._wakeup.ring()
        if self._is_over:
            self._turn_away()

    def close(self) -> None:
        """End :meth:`serve`. From any thread. Idempotent."""
        self._closing = True
        self._wakeup.ring()

    def serve(self, *, until_alone: bool = False) -> None:
        """Until :meth:`close`, or, if ``until_alone``, until the last client has gone. Then all clients are closed,
        and what they had in hand is not renewed any more.
        """
        try:
            while not self._closing:
                for key, events in self._selector.select():
                    if key.fileobj is self._wakeup:
                        self._wakeup.answer()
                    else:
                        self._attend(key.data, key.fileobj, events)
                while self._arrivals:
                    self._welcome(self._arrivals.popleft())
                for client in list(self._clients.values()):
                    self._flush(client)
                if until_alone and self._numbers and not self._clients:
                    return
        finally:
            for client in list(self._clients.values()):
                self._part_with(client)
            self._is_over = True
            self._turn_away()
            for renewing in self._renewing.values():
                renewing.close()
            self._selector.close()

    # -- what the stores' threads call -------------------------------------------------------------------

    def _look(self, number: int, slot: int) -> HandlerProgress:
        client = self._clients.get(number)
        try:
            return HandlerProgress(0, 0.0) if client is None else board.read(client.board, slot)
        except OSError:  # it has just gone
            return HandlerProgress(0, 0.0)

    def _kill(self, entry: WindowEntry) -> None:
        client = self._clients.get(entry.client)
        if client is not None and self._overrun is not None:
            goes_on = partial(self._runs, entry)
            self._overrun(Overrun(client.pid, entry.hold, goes_on))

    def _runs(self, entry: WindowEntry) -> bool:
        return self._look(entry.client, entry.slot).serial == entry.serial

    def _tell(self, news: Sequence[News]) -> None:
        for number, told in news:
            self._say(self._clients.get(number), told)
        if news:
            self._wakeup.ring()

    def _complain(self, url: str, trouble: Trouble) -> None:
        for client in list(self._clients.values()):
            if client.store == url:
                self._say(client, trouble)
        self._wakeup.ring()

    @staticmethod
    def _say(client: "_Client | None", answer: Answer) -> None:
        if client is not None:
            client.unsaid.append(encode(answer))

    # -- the serving thread's ----------------------------------------------------------------------------

    def _welcome(self, link: socket.socket) -> None:
        link.setblocking(False)
        self._numbers += 1
        client = self._clients[self._numbers] = _Client(self._numbers, link)
        self._selector.register(link, selectors.EVENT_READ, client)

    def _attend(self, client: "_Client", source: object, events: int) -> None:
        if client.number not in self._clients:
            return  # it has gone in this very round
        if source is not client.link:
            self._part_with(client)  # its process has ended
            return
        if not events & selectors.EVENT_READ:
            return
        try:
            data, descriptors, _, _ = socket.recv_fds(
                client.link, TURN_BYTES, 1, getattr(socket, "MSG_CMSG_CLOEXEC", 0)
            )
            client.take_board(descriptors)
            for line in client.lines.feed(data):
                self._do(client, request(line))
        except BlockingIOError:
            return
        except OSError:  # it has gone
            data = b""
        except ValueError as error:
            self._logger.warning("a client of the renewer is sent away: %s", error)
            data = b""
        if not data:
            self._part_with(client)

    def _do(self, client: "_Client", asked: Request) -> None:
        """Raises ``ValueError`` for what is out of turn."""
        if isinstance(asked, Hello):
            self._begin(client, asked)
            return
        renewing = client.renewing
        if renewing is None:
            raise ValueError("it does not begin with hello")
        match asked:
            case RenewalWindow():
                renewing.hold(client.number, asked)
            case LetGo(slot):
                renewing.let_go(client.number, slot)
            case Forget():
                renewing.forget(client.number)

    def _begin(self, client: "_Client", hello: Hello) -> None:
        if client.renewing is not None or client.board < 0:
            raise ValueError("it says hello twice, or without a board")
        client.pid = hello.pid
        client.watch_process(hello.pid)
        if client.process >= 0:
            self._selector.register(client.process, selectors.EVENT_READ, client)
        client.store = hello.store
        client.renewing = self._renewing_of(hello.store)
        self._say(client, ServerReady())

    def _renewing_of(self, url: str) -> Renewing:
        if url not in self._renewing:
            self._renewing[url] = Renewing(
                lambda: self._open_store(url),
                self._look,
                self._tell,
                lambda trouble: self._complain(url, trouble),
                self._clock,
                kill=None if self._overrun is None else self._kill,
            )
        return self._renewing[url]

    def _turn_away(self) -> None:
        """Those that came too late to be welcomed."""
        with suppress(IndexError):
            while True:
                self._arrivals.popleft().close()

    def _flush(self, client: "_Client") -> None:
        try:
            waits = client.send()
        except OSError:  # it has gone
            self._part_with(client)
            return
        except ValueError as error:
            self._logger.warning("a client of the renewer is sent away: %s", error)
            self._part_with(client)
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if waits else 0)
        if self._selector.get_key(client.link).events != events:
            self._selector.modify(client.link, events, client)

    def _part_with(self, client: "_Client") -> None:
        if client.renewing is not None:
            client.renewing.forget(client.number)
        self._selector.unregister(client.link)
        if client.process >= 0:
            self._selector.unregister(client.process)
        del self._clients[client.number]
        client.close()


class _Client:
    """One of them. Of its fields the stores' threads use ``board``, ``store`` and ``unsaid``."""

    def __init__(self, number: int, link: socket.socket) -> None:
        self.number = number
        self.link = link
        self.lines = Lines()
        #: Where it says which job runs: a file descriptor.
        self.board = -1
        #: A file descriptor that can be read once its process has ended.
        self.process = -1
        self.store = ""
        self.pid = -1
        #: None before its first message.
        self.renewing: Renewing | None = None
        self.unsaid: deque[bytes] = deque()
        self._sending = b""

    def take_board(self, descriptors: list[int]) -> None:
        """Keep what it sends along with its first message; there is only one."""
        for descriptor in descriptors:
            if self.board < 0:
                self.board = descriptor
            else:
                os.close(descriptor)

    def watch_process(self, pid: int) -> None:
        """The socket may outlive the process: a child that it has forked may hold it too. Where the system has no
        such thing as a pidfd (Linux has), such a child keeps the leases renewed for as long as it lives.

        Raises ``ProcessLookupError`` if it has ended.
        """
        if hasattr(os, "pidfd_open"):
            try:
                self.process = os.pidfd_open(pid)
            except ProcessLookupError:
                raise
            except OSError:  # not allowed in this sandbox
                self.process = -1

    def send(self) -> bool:
        """What it is to be told, as far as it reads; True if some is left. Raises ``OSError`` if it is gone, and
        ``ValueError`` if it does not read.
        """
        while self.unsaid:
            self._sending += self.unsaid.popleft()
        if len(self._sending) > MAX_UNREAD:
            raise ValueError(f"{len(self._sending)} bytes wait for it to read them")
        if self._sending:
            with suppress(BlockingIOError):
                self._sending = self._sending[self.link.send(self._sending) :]
        return bool(self._sending)

    def close(self) -> None:
        """Hang up on this client."""
        self.link.close()
        for descriptor in (self.board, self.process):
            if descriptor >= 0:
                os.close(descriptor)
