"""What may stand between a queue and its beanstalkd: a proxy that cuts, resets, dribbles or changes what passes."""

import selectors
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeAlias

#: Sent as SO_LINGER: a close is a reset, and what was not sent yet is thrown away.
RESET = struct.pack("ii", 1, 0)


class Link:
    """One connection through the proxy."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        for sock in (client, server):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def hang_up(self) -> None:
        """End both sides. Idempotent."""
        self.client.close()
        self.server.close()

    def reset(self) -> None:
        """End both sides, the client's by a reset."""
        with suppress(OSError):
            self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.hang_up()


#: Given a link, the side that some bytes go to, and the bytes: what becomes of them.
Relay: TypeAlias = Callable[[Link, socket.socket, bytes], None]


def unchanged(link: Link, to: socket.socket, data: bytes) -> None:
    """Send all of it on."""
    to.sendall(data)


def byte_by_byte(link: Link, to: socket.socket, data: bytes) -> None:
    """Send it on in packets of one byte."""
    for n in range(len(data)):
        to.sendall(data[n : n + 1])


class Cut:
    """Lets so many bytes pass, counted over all connections, then ends the one that wants more. Strikes once."""

    def __init__(self, position: int, end: Callable[[Link], None]) -> None:
        self._left = position
        self._end = end
        self.struck = False

    def __call__(self, link: Link, to: socket.socket, data: bytes) -> None:
        if self.struck or len(data) <= self._left:
            self._left -= len(data)
            to.sendall(data)
            return
        self.struck = True
        to.sendall(data[: self._left])
        self._end(link)


class ResetInstead:
    """Resets the connection, so many times, where a reply begins with ``word``: it was done, and nobody is told."""

    def __init__(self, word: bytes, times: int = 1) -> None:
        self._word = word
        self.left = times

    def __call__(self, link: Link, to: socket.socket, data: bytes) -> None:
        if self.left and self._word in data:
            self.left -= 1
            link.reset()
        else:
            to.sendall(data)


class Replace:
    """Sends other bytes in the place of some, of the same length, as long as it is told to."""

    def __init__(self, old: bytes, new: bytes) -> None:
        assert len(old) == len(new)
        self._old, self._new = old, new
        self.is_on = True

    def __call__(self, link: Link, to: socket.socket, data: bytes) -> None:
        to.sendall(data.replace(self._old, self._new) if self.is_on else data)


class Proxy:
    """Listens on a free port of 127.0.0.1; each connection goes on to ``target``.

    One thread moves all bytes, so what is counted is counted in the order in which it was said.
    """

    def __init__(
        self, target: tuple[str, int] | str, *, replies: Relay = unchanged, requests: Relay = unchanged
    ) -> None:
        #: Where new connections go: ``(host, port)``. May be changed at any time.
        self.target = target
        #: What becomes of what the server says, and of what clients say. May be changed too.
        self.replies = replies
        self.requests = requests
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ending, self._end = socket.socketpair()
        self._links: list[Link] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """For a queue."""
        return f"beanstalk://127.0.0.1:{self._listener.getsockname()[1]}"

    def stop(self) -> None:
        """End the thread and all connections."""
        self._end.close()
        self._thread.join()
        for link in self._links:
            link.hang_up()
        self._listener.close()
        self._ending.close()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._ending, selectors.EVENT_READ)
            selector.register(self._listener, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is self._ending:
                        return
                    if key.fileobj is self._listener:
                        self._accept(selector)
                    elif key.data.client.fileno() >= 0:  # its link may have ended in this very round
                        self._move(selector, key.data, key.fileobj)

    def _accept(self, selector: selectors.BaseSelector) -> None:
        client, _ = self._listener.accept()
        assert not isinstance(self.target, str)
        try:
            server = socket.create_connection(self.target)
        except OSError:
            client.close()
            return
        link = Link(client, server)
        self._links.append(link)
        for sock in (client, server):
            selector.register(sock, selectors.EVENT_READ, link)

    def _move(self, selector: selectors.BaseSelector, link: Link, source: object) -> None:
        from_client = source is link.client
        sides = (link.client, link.server)
        try:
            data = sides[not from_client].recv(65536)
            if data:
                (self.requests if from_client else self.replies)(link, sides[from_client], data)
            else:
                link.hang_up()
        except OSError:
            link.hang_up()
        if link.client.fileno() < 0:
            for sock in sides:
                selector.unregister(sock)
