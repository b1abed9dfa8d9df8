"""The bytes of one socket, with one deadline for a whole exchange.

A time-out of the socket's own begins anew with each byte: a server that drips its reply would hold its client for
as long as it likes. Here the socket never blocks, and each wait is for what is left until the deadline.
"""

import socket
from collections.abc import Callable, Sequence
from contextlib import suppress

from kqueue.brokers.beanstalk.names import Address
from kqueue.system.wakeup import wait_readable, wait_writable

#: Bytes that are read at once.
CHUNK = 64 * 1024
#: Bytes of a line at most, with its end; the server's own bound is 224.
MAX_LINE = 256
_END = b"\r\n"


def dial(addresses: Sequence[Address], seconds: float, monotonic: Callable[[], float]) -> socket.socket:
    """A socket that is connected to the first of ``addresses`` that takes it; each has its part of ``seconds``.

    Raises ``OSError``: that of the last one.
    """
    deadline = monotonic() + seconds
    failure: OSError = TimeoutError("timed out")
    for tried, address in enumerate(addresses):
        left = (deadline - monotonic()) / (len(addresses) - tried)
        if left <= 0:
            break
        try:
            return _connected(address, left)
        except OSError as error:
            failure = error
    raise failure


def _connected(address: Address, seconds: float) -> socket.socket:
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        sock.settimeout(seconds)
        sock.connect(address.place)
        if address.family != socket.AF_UNIX:
            # A batch is one write: waiting to fill a packet would only delay it.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


class Stream:
    """A connected socket that does not block. For one thread at a time.

    Before anything is sent or read comes :meth:`allow`. All but it raise ``TimeoutError`` once the time is up, and
    ``ConnectionError``; ``ValueError`` for a line without an end.
    """

    def __init__(self, sock: socket.socket, monotonic: Callable[[], float]) -> None:
        self._sock = sock
        self._monotonic = monotonic
        self._deadline = monotonic()
        self._may_be_late = False
        #: What was read of the socket. All before ``_at`` is used.
        self._buffer = b""
        self._at = 0

    def fileno(self) -> int:
        """The socket's."""
        return self._sock.fileno()

    def allow(self, seconds: float) -> None:
        """An exchange begins, and is to be over in ``seconds``."""
        self._deadline = self._monotonic() + seconds
        self._may_be_late = True

    def extend(self, seconds: float) -> None:
        """So much more for this exchange."""
        self._deadline += seconds

    def has_unread(self) -> bool:
        """Whether the other side has said something, or has hung up."""
        return self._at < len(self._buffer) or bool(wait_readable([self._sock], 0))

    def send(self, data: bytes) -> None:
        """Send all of ``data``."""
        view = memoryview(data)
        while view:
            try:
                view = view[self._sock.send(view) :]
            except BlockingIOError:
                if not wait_writable(self._sock, self._left()):
                    raise TimeoutError("timed out") from None

    def line(self) -> bytes:
        """The next line, with its end."""
        while (end := self._buffer.find(_END, self._at, self._at + MAX_LINE)) < 0:
            if len(self._buffer) - self._at >= MAX_LINE:
                raise ValueError(f"a line without an end: {self._buffer[self._at : self._at + 80]!r}")
            self._fill(is_inside=self._at < len(self._buffer))
        first, self._at = self._at, end + len(_END)
        return self._buffer[first : self._at]

    def exactly(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        parts = []
        while (missing := size - (len(self._buffer) - self._at)) > 0:
            parts.append(self._buffer[self._at :])
            size = missing
            self._buffer, self._at = b"", 0
            self._fill(is_inside=True)
        first, self._at = self._at, self._at + size
        parts.append(self._buffer[first : self._at])
        return b"".join(parts)

    def close(self) -> None:
        """Hang up. Never raises."""
        # close() alone says nothing to the other side while a forked child still has a copy of the socket.
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self.drop()

    def drop(self) -> None:
        """Close this process's copy of the socket: another one's goes on. Never raises."""
        with suppress(OSError):
            self._sock.close()

    def _fill(self, *, is_inside: bool) -> None:
        """Read what is there, or wait for it; ``is_inside`` a reply or between two."""
        while True:
            if not wait_readable([self._sock], self._left()):
                raise TimeoutError("timed out")
            with suppress(BlockingIOError):
                data = self._sock.recv(CHUNK)
                break
        if not data:
            raise ConnectionError("the reply was cut off" if is_inside else "the server closed the connection")
        self._buffer, self._at = self._buffer[self._at :] + data, 0

    def _left(self) -> float:
        """Seconds. Once it is 0 although the time is up: a process that stood still reads what came meanwhile."""
        left = self._deadline - self._monotonic()
        if left <= 0:
            if not self._may_be_late:
                raise TimeoutError("timed out")
            self._may_be_late = False
        return max(0.0, left)
