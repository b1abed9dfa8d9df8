"""One connection to beanstalkd: batches of commands in few writes, replies in order, never a hidden hang.

Theory of operation: the server handles a connection's commands one by one, and stops reading it while its
replies are not read. So a batch is cut into parts; two parts at most are on their way, and the replies of
the older are read before the next is written. All of them together have one deadline: see
:mod:`kqueue.brokers.beanstalk.stream`. Whatever goes wrong in between (the time is up, a cut or unexpected reply, a
``KeyboardInterrupt``), nobody knows any more which reply belongs to which command: the connection is closed and
never used again. Its owner makes a new one.
"""

import math
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import quote

import greenstalk

from kqueue.brokers.beanstalk import wire
from kqueue.brokers.beanstalk.names import Address, Names
from kqueue.brokers.beanstalk.stream import Stream, dial
from kqueue.brokers.beanstalk.wire import Command, Reply
from kqueue.model.errors import BrokerUnavailable
from kqueue.system.clock import awake
from kqueue.system.forks import ForkGuard
from kqueue.system.wakeup import Wakeup, wait_readable

#: A part of a batch: so many commands, or the first that reaches so many bytes. Two parts are in flight.
PART_COMMANDS = 100
PART_BYTES = 32 * 1024
#: Commands that may be posted together: their replies, a dozen bytes each, are far less than what the kernel holds
#: for us, so the server never has to wait for their reader.
POST_COMMANDS = 512
#: Bytes of a body that are kept. No pointer and no statistics are longer. Of an entry that is not ours the rest is
#: read and dropped.
MAX_BODY = 64 * 1024
#: Seconds that an exchange has beside its time-out: for each command of its batch, ...
COMMAND_S = 0.001
#: ... and for each byte that was read of bodies longer than ``MAX_BODY``: 10 MB in a second.
BYTE_S = 1e-7
#: Seconds that the end of a conversation waits for the answers that are owed.
FINISH_S = 1.0
#: Seconds by which the server's whole-second timeout may come after ours before we hang up on it.
LATE_S = 0.05
#: The same where a wait is to end exactly.
NEAR_S = 0.002


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a beanstalkd is, and how long to wait for it."""

    #: ``(host, port)``, or the path of a Unix socket.
    address: tuple[str, int] | str
    #: Seconds that one exchange may take, whatever comes meanwhile.
    timeout: float
    #: Seconds until it is connected, the look-up of its name among them.
    connect_timeout: float
    #: Only tests have another.
    monotonic: Callable[[], float] = awake
    _names: Names | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names = None if isinstance(self.address, str) else Names(*self.address)
        object.__setattr__(self, "_names", names)

    @property
    def url(self) -> str:
        """Its URL, for messages."""
        if isinstance(self.address, str):
            return f"beanstalk+unix://{quote(self.address)}"
        host, port = self.address
        return f"beanstalk://[{host}]:{port}" if ":" in host else f"beanstalk://{host}:{port}"

    def connect(self) -> "Connection":
        """A new connection. Raises :class:`~kqueue.model.errors.BrokerUnavailable`."""
        deadline = self.monotonic() + self.connect_timeout
        try:
            if self._names is None:
                addresses = [Address(socket.AF_UNIX, self.address)]
            else:
                addresses = self._names.addresses(self.connect_timeout)
            sock = dial(addresses, deadline - self.monotonic(), self.monotonic)
        # UnicodeError for a host such as a..b, ValueError for a path with a NUL, RuntimeError for no more threads.
        except (OSError, ValueError, RuntimeError) as error:
            raise BrokerUnavailable(
                f"{self.url}: cannot connect ({error}); start beanstalkd there, or correct the broker's URL"
            ) from error
        return Connection(Stream(sock, self.monotonic), self)


class Connection:
    """A conversation with the server. For one thread at a time."""

    def __init__(self, stream: Stream, endpoint: Endpoint) -> None:
        self._stream = stream
        self._endpoint = endpoint
        self._fork = ForkGuard()
        self._closed = False
        #: What was posted, and is not answered yet.
        self._owed: list[Command] = []
        #: The tube that puts go to; kept by whoever sends ``use``. None: unknown.
        self.using: str | None = wire.DEFAULT_TUBE
        #: Bytes of the longest body that the server takes; kept by whoever asks for it.
        self.max_job_size = 0

    def usable(self) -> bool:
        """Whether it may be spoken to: open, this process's own, and not hung up by the server.

        Between two batches the server has nothing to say but what it owes; if there is more to read, it is the end.
        """
        if self._closed or self._fork.is_inherited():
            return False
        if self._owed:
            try:
                self.exchange([])
            except BrokerUnavailable:
                return False
        return not self._stream.has_unread()

    def exchange(self, commands: Sequence[Command]) -> list[Reply]:
        """Send a batch; the replies in the same order. None of the commands may block.

        Raises :class:`~kqueue.model.errors.BrokerUnavailable`; then the connection is closed.
        """
        replies: list[Reply] = []
        in_flight: deque[Sequence[Command]] = deque()
        with self._conversation(len(commands)):
            self._read_owed()
            for part in _parts(commands):
                self._stream.send(b"".join([command.data for command in part]))
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
        if self._closed or self._fork.is_inherited():
            return
        if len(commands) > POST_COMMANDS:
            self.exchange(commands)
        elif commands:
            with self._conversation(len(commands)):
                self._read_owed()
                self._stream.send(b"".join([command.data for command in commands]))
                self._owed += commands

    def reserve(self, seconds: float, wakeup: Wakeup, exactly: bool = False) -> Reply | None:
        """One blocking reserve: the reply, or None if the time is up or the wakeup rang before it came.

        After None the connection is closed: a reserve left pending would take an entry for nobody. What begins to
        come has the time of an exchange. ``exactly``: the time is nearly never stretched to save a connection.
        """
        whole = max(1, math.ceil(seconds))
        # The server counts whole seconds from a moment later than ours. Where these are about to end
        # together, waiting a little for its TIMED_OUT saves a new connection.
        patience = whole + LATE_S if whole - seconds <= (NEAR_S if exactly else LATE_S) else seconds
        command = wire.reserve(whole)
        with self._conversation(1):
            self._read_owed()
            self._stream.send(command.data)
            if self._stream.fileno() in wait_readable([self._stream, wakeup], patience):
                self._allow(1)
                return self._read(command)
        self.close()
        return None

    def finish(self) -> None:
        """Hang up once the server has done what was posted, or in ``FINISH_S``. One that cannot write its answers
        any more drops the commands that it has not read yet. Idempotent.
        """
        if self._owed and not self._closed and not self._fork.is_inherited():
            with suppress(BrokerUnavailable), self._conversation(0):
                self._stream.allow(FINISH_S)
                self._read_owed()
        self.close()

    def close(self) -> None:
        """Hang up; what it has reserved is ready again. Idempotent. In a child of its owner only the child's copy
        of the socket is closed, and the server is told nothing.
        """
        if self._closed:
            return
        self._closed = True
        if self._fork.is_inherited():
            self._stream.drop()
        else:
            self._stream.close()

    def is_closed(self) -> bool:
        """Whether it was given up."""
        return self._closed

    def _allow(self, commands: int) -> None:
        """The time of an exchange, from now on."""
        self._stream.allow(self._endpoint.timeout + COMMAND_S * (commands + len(self._owed)))

    @contextmanager
    def _conversation(self, commands: int) -> Iterator[None]:
        self._allow(commands)
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
        line = self._stream.line()
        plain = wire.PLAIN.get(line)
        if plain is not None and plain.status in command.replies:
            return plain
        status, *values = line.split() or [b""]
        if status not in command.replies:
            raise _refusal(command, line, status, values)
        if len(values) != wire.NUMBERS.get(status, len(values)):
            raise ValueError(
                f"the server answered {line[:80]!r}, with another number of numbers than belongs there"
            )
        if status not in wire.WITH_BODY:
            # USING is followed by a name; all others by numbers or by nothing.
            return Reply(status, () if status == b"USING" else tuple(map(wire.number, values)))
        *numbers, size = map(wire.number, values)
        most = (command.longest or MAX_BODY) if status == b"OK" else wire.MAX_JOB_SIZE
        if size > most:
            raise ValueError(f"the server announced a body of {size} bytes, where no more than {most} can be right")
        kept = MAX_BODY if command.longest is None else command.longest
        return Reply(status, tuple(numbers), self._read_body(size, kept))

    def _read_body(self, size: int, kept: int) -> bytes:
        """The body; one of more than ``kept`` bytes is read and dropped, and no bytes stand for it."""
        parts = []
        unread = size
        while unread > MAX_BODY:
            part = self._stream.exactly(MAX_BODY)
            self._stream.extend(MAX_BODY * BYTE_S)
            unread -= MAX_BODY
            if size <= kept:
                parts.append(bytes(part))
        body = self._stream.exactly(unread + 2)
        if not body.endswith(b"\r\n"):
            raise ConnectionError("a body has no end")
        return b"".join((*parts, body[:-2])) if size <= kept else b""


def _parts(commands: Sequence[Command]) -> Iterator[Sequence[Command]]:
    first = size = 0
    for index, command in enumerate(commands):
        size += len(command.data)
        if size >= PART_BYTES or index - first == PART_COMMANDS - 1:
            yield commands[first : index + 1]
            first, size = index + 1, 0
    if first < len(commands):
        yield commands[first:]


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
