"""One connection to beanstalkd: batches of commands in few writes, replies in order, never a hidden hang.

Theory of operation: the server handles a connection's commands one by one, and stops reading it while its
replies are not read. So a batch is cut into parts; two parts at most are on their way, and the replies of
the older are read before the next is written. Whatever goes wrong in between (a timeout, a cut or
unexpected reply, a ``KeyboardInterrupt``), nobody knows any more which reply belongs to which command: the
connection is closed and never used again. Its owner makes a new one.

This is the only place that touches greenstalk's private ``_sock`` and ``_reader``.
"""

import math
import os
import socket
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import quote

import greenstalk

from kqueue.bell import Bell, wait_readable
from kqueue.brokers import wire
from kqueue.brokers.wire import Command, Reply
from kqueue.errors import BrokerUnavailable

#: A part of a batch: so many commands, or the first that reaches so many bytes. Two parts are in flight.
PART_COMMANDS = 100
PART_BYTES = 32 * 1024
#: Commands that may be posted together: their replies, a dozen bytes each, are far less than what the kernel holds
#: for us, so the server never has to wait for their reader.
POST_COMMANDS = 512
#: Bytes of a reply's line at most; the server's own bound is 224.
MAX_LINE = 256
#: Bytes of a body that are kept. No pointer and no statistics are longer; the rest is read and dropped.
MAX_BODY = 64 * 1024
#: Seconds by which the server's whole-second timeout may come after ours before we hang up on it.
LATE_S = 0.05


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a beanstalkd is, and how long to wait for it."""

    #: ``(host, port)``, or the path of a Unix socket.
    address: tuple[str, int] | str
    #: Seconds without a byte, after which the server counts as silent.
    timeout: float
    #: Seconds.
    connect_timeout: float

    @property
    def url(self) -> str:
        """Its URL, for messages."""
        if isinstance(self.address, str):
            return f"beanstalk+unix://{quote(self.address)}"
        host, port = self.address
        return f"beanstalk://[{host}]:{port}" if ":" in host else f"beanstalk://{host}:{port}"

    def connect(self) -> "Connection":
        """A new connection. Raises :class:`~kqueue.errors.BrokerUnavailable`."""
        try:
            return Connection(greenstalk.Client(self._socket(), encoding=None), self)
        except (OSError, UnicodeError) as error:  # the latter for a host such as a..b
            raise BrokerUnavailable(
                f"{self.url}: cannot connect ({error}); start beanstalkd there, or correct the broker's URL"
            ) from error

    def _socket(self) -> socket.socket:
        if isinstance(self.address, str):
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.settimeout(self.connect_timeout)
            try:
                sock.connect(self.address)
            except BaseException:
                sock.close()
                raise
        else:
            sock = socket.create_connection(self.address, self.connect_timeout)
            # A batch is one write: waiting to fill a packet would only delay it.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(self.timeout)
        return sock


class Connection:
    """A conversation with the server. For one thread at a time."""

    def __init__(self, client: "greenstalk.Client[bytes]", endpoint: Endpoint) -> None:
        self._client = client
        self._sock = client._sock
        self._reader = client._reader
        self._endpoint = endpoint
        self._pid = os.getpid()
        self._closed = False
        #: What was posted, and is not answered yet.
        self._owed: list[Command] = []
        #: The tube that puts go to; kept by whoever sends ``use``. None: unknown.
        self.using: str | None = wire.DEFAULT_TUBE

    def usable(self) -> bool:
        """Whether it may be spoken to: open, this process's own, and not hung up by the server.

        Between two batches the server has nothing to say but what it owes; if there is more to read, it is the end.
        """
        if self._closed or self._pid != os.getpid():
            return False
        if self._owed:
            try:
                self.exchange([])
            except BrokerUnavailable:
                return False
        return not wait_readable([self._sock], 0)

    def exchange(self, commands: Sequence[Command]) -> list[Reply]:
        """Send a batch; the replies in the same order. None of the commands may block.

        Raises :class:`~kqueue.errors.BrokerUnavailable`; then the connection is closed.
        """
        replies: list[Reply] = []
        in_flight: deque[Sequence[Command]] = deque()
        with self._conversation():
            self._read_owed()
            for part in _parts(commands):
                self._sock.sendall(b"".join([command.data for command in part]))
                in_flight.append(part)
                if len(in_flight) == 2:
                    replies += [self._read(command) for command in in_flight.popleft()]
            for part in in_flight:
                replies += [self._read(command) for command in part]
        return replies

    def post(self, commands: Sequence[Command]) -> None:
        """Send a batch, and leave its replies to be read, and forgotten, before the next one. Raises as above.

        None may be answered by a body. More than ``POST_COMMANDS`` are exchanged after all. Does nothing once it is
        closed, or in a child of its owner.
        """
        if self._closed or self._pid != os.getpid():
            return
        if len(commands) > POST_COMMANDS:
            self.exchange(commands)
        elif commands:
            with self._conversation():
                self._read_owed()
                self._sock.sendall(b"".join([command.data for command in commands]))
                self._owed += commands

    def reserve(self, seconds: float, bell: Bell) -> Reply | None:
        """One blocking reserve: the reply, or None if the time is up or the bell rang before it came.

        After None the connection is closed: a reserve left pending would take an entry for nobody.
        """
        whole = max(1, math.ceil(seconds))
        # The server counts whole seconds from a moment later than ours. Where these are about to end
        # together, waiting a little for its TIMED_OUT saves a new connection.
        patience = whole + LATE_S if whole - seconds <= LATE_S else seconds
        command = wire.reserve(whole)
        with self._conversation():
            self._read_owed()
            self._sock.sendall(command.data)
            if self._sock.fileno() in wait_readable([self._sock, bell], patience):
                return self._read(command)
        self.close()
        return None

    def close(self) -> None:
        """Hang up; what it has reserved is ready again. Idempotent. Does nothing in a child of its owner."""
        if self._closed or self._pid != os.getpid():
            return
        self._closed = True
        # close() alone says nothing to the server while a forked child still has a copy of the socket.
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        with suppress(OSError):
            self._client.close()

    @contextmanager
    def _conversation(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            self.close()
            raise BrokerUnavailable(
                f"{self._endpoint.url}: no answer within {self._endpoint.timeout} s;"
                " the server hangs or is overloaded"
            ) from error
        except (OSError, ValueError, greenstalk.Error) as error:
            self.close()
            raise BrokerUnavailable(f"{self._endpoint.url}: {error}; the connection was given up") from error
        except BaseException:
            self.close()
            raise

    def _read_owed(self) -> None:
        for command in self._owed:
            self._read(command)
        self._owed = []

    def _read(self, command: Command) -> Reply:
        line = self._reader.readline(MAX_LINE)
        plain = wire.PLAIN.get(line)
        if plain is not None and plain.status in command.replies:
            return plain
        if not line.endswith(b"\r\n"):
            raise ConnectionError("the reply was cut off" if line else "the server closed the connection")
        status, *values = line.split() or [b""]
        if status not in command.replies:
            raise _refusal(command, line, status, values)
        if status not in wire.WITH_BODY:
            # USING is followed by a name; all others by numbers or by nothing.
            return Reply(status, () if status == b"USING" else tuple(map(_number, values)))
        *numbers, size = map(_number, values)
        return Reply(status, tuple(numbers), self._read_body(size))

    def _read_body(self, size: int) -> bytes:
        """The body; one too long to be ours is read and dropped, and no bytes stand for it."""
        unread = size
        while unread > MAX_BODY:
            self._read_exactly(MAX_BODY)
            unread -= MAX_BODY
        body = self._read_exactly(unread + 2)
        if not body.endswith(b"\r\n"):
            raise ConnectionError("a body has no end")
        return body[:-2] if size <= MAX_BODY else b""

    def _read_exactly(self, size: int) -> bytes:
        data = self._reader.read(size)
        if len(data) != size:
            raise ConnectionError("the reply was cut off")
        return data


def _parts(commands: Sequence[Command]) -> Iterator[Sequence[Command]]:
    first = size = 0
    for index, command in enumerate(commands):
        size += len(command.data)
        if size >= PART_BYTES or index - first == PART_COMMANDS - 1:
            yield commands[first : index + 1]
            first, size = index + 1, 0
    if first < len(commands):
        yield commands[first:]


def _number(word: bytes) -> int:
    if not word.isdigit():
        raise ValueError(f"the server answered {word[:80]!r} where a number belongs")
    return int(word)


def _refusal(command: Command, line: bytes, status: bytes, values: list[bytes]) -> Exception:
    asked = command.data.split(None, 1)[0].decode()
    text = f"{line.strip()[:80]!r} is no answer to {asked}"
    if status == b"UNKNOWN_COMMAND":
        text += " (beanstalkd 1.12 or newer is needed)"
    known = greenstalk.ERROR_RESPONSES.get(status)
    cause = known(values) if known else greenstalk.UnknownResponseError(status, values)
    refused = ConnectionError(text)
    refused.__cause__ = cause
    return refused
