"""A broker on the fake server: the same contract as the real one.

:class:`FakeBroker` is one process's broker. Each of its calls goes over a *line*, which by default is a good one;
a test gives its own, and so decides for each call whether it fails before its effect, after it, or late.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, TypeVar

from kqueue.brokers.beanstalk import wire
from kqueue.brokers.beanstalk.subscription import whole_delay
from kqueue.contracts.broker import UNKNOWN_HEAD, Entry, EntryFate, Peek, Pointer, Reservation, Room, selected
from kqueue.contracts.repair import Head
from kqueue.model.errors import BrokerUnavailable
from kqueue.system.wakeup import Wakeup, wait_readable
from tests.machines.server import BURIED, DELAYED, READY, RESERVED, Connection, FakeServer

T = TypeVar("T")

#: Seconds that a wait for a delayed entry lasts at least, so that it is no busy loop.
SHORTEST_S = 0.01


class Line(Protocol):
    """How a call reaches the server. ``name`` is the broker's method; ``effect`` does it there."""

    def __call__(self, name: str, effect: Callable[[], T]) -> T:
        """What ``effect`` returned, or an error."""


class FakeBroker:
    """One process's broker on a :class:`FakeServer`. See :class:`kqueue.contracts.broker.Broker`."""

    def __init__(self, server: FakeServer, line: Line | None = None) -> None:
        self._server = server
        self._line: Line = line or (lambda name, effect: server.exchange(effect))
        self._prefix = ""
        self._subscriptions: list[FakeSubscription] = []

    @property
    def address(self) -> str:
        """Of the server, for messages."""
        return self._server.address

    @property
    def carries_pointers(self) -> bool:
        """True."""
        return True

    def open(self, prefix: str) -> None:
        """Tubes are named ``prefix + type``."""
        self._prefix = prefix

    def close(self) -> None:
        """Nothing is kept between calls."""

    def put(self, pointers: Sequence[tuple[Pointer, float]]) -> None:
        """Put each, as several entries where it has more ids than one can hold."""
        puts = [
            (self.tube(pointer.type), pointer.priority, float(whole_delay(delay)), body)
            for pointer, delay in pointers
            for body in wire.encode_all(pointer, self._server.max_job_size)
        ]
        if puts:
            self._line("put", lambda: [self._server.put(*one) for one in puts])

    def peek(self, types: Sequence[str], *, bury: bool = True) -> dict[str, Peek]:
        """What comes next; strangers before it are buried, or end the look."""
        return self._line("peek", lambda: {type: self._peek(type, bury) for type in types})

    def drain(self, type: str) -> int:
        """Delete what is not reserved; a pause ends."""
        return self._line("drain", lambda: self._drain(self.tube(type)))

    def subscribe(self, types: Sequence[str]) -> "FakeSubscription":
        """A view of some tubes."""
        if not types:
            raise ValueError("types: expected at least one job type")
        subscription = FakeSubscription(self._server, self._line, {self.tube(type): type for type in types})
        self._subscriptions.append(subscription)
        return subscription

    def depths(self, types: Sequence[str]) -> dict[str, dict[str, int]]:
        """Entries by type and state."""
        return self._line("depths", lambda: {type: self._depths(self.tube(type)) for type in types})

    def tube(self, type: str) -> str:
        """The name of the type's tube."""
        return self._prefix + type

    def hang_up(self) -> None:
        """The process is dead: the system closes its connections."""
        for subscription in self._subscriptions:
            subscription.close()

    def _peek(self, type: str, bury: bool) -> Peek:
        foreign = 0
        while item := self._server.peek_ready(self.tube(type)):
            pointer = pointer_of(item.body, [type])
            if pointer is not None:
                return Peek(Head(pointer.priority, pointer.put_at), foreign)
            if not bury:
                return Peek(UNKNOWN_HEAD, 1)
            connection = self._server.connect()
            self._server.reserve_id(item.id, connection)
            self._server.bury(item.id, connection)
            self._server.hang_up(connection)
            foreign += 1
        return Peek(None, foreign)

    def _drain(self, tube: str) -> int:
        self._server.pause(tube, 0)
        idle = [item for item in self._server.items(tube) if item.state != RESERVED]
        return sum(self._server.delete(item.id) for item in idle)

    def _depths(self, tube: str) -> dict[str, int]:
        states = [item.state for item in self._server.items(tube)]
        return {state: states.count(state) for state in (READY, DELAYED, RESERVED, BURIED)}


class FakeSubscription:
    """See :class:`kqueue.contracts.broker.Subscription`. After an error its connection is thrown away."""

    def __init__(self, server: FakeServer, line: Line, types_by_tube: dict[str, str]) -> None:
        self._server = server
        self._line = line
        self._types_by_tube = types_by_tube
        self._types = tuple(types_by_tube.values())
        self._tubes: list[str] = []
        self._is_freed = False
        self._wake = Wakeup()
        self._news = Wakeup()
        self._connection: Connection | None = None
        self._held: dict[int, int] = {}
        self._last_token = 0

    def reserve(self, jobs: int, timeout: float, room: Room | None = None) -> Reservation:
        """A selection without ids says that only strangers came."""
        if self._wake.answer():
            return Reservation(None, [])
        self._tubes = [tube for tube, type in self._types_by_tube.items() if room is None or room(type)]
        try:
            return self._reserve(jobs, timeout)
        finally:
            self._is_freed = False

    def _reserve(self, jobs: int, timeout: float) -> Reservation:
        deadline = self._server.clock.monotonic() + timeout
        with self._server.rings(self._news):
            while True:
                connection = self._connected()
                entries, foreign = self._call("reserve", partial(self._take, jobs, connection))
                if entries or foreign:
                    return Reservation(selected(self._types, entries), entries, foreign)
                left = deadline - self._server.clock.monotonic()
                if left <= 0:
                    return Reservation(None, [])
                due = max(SHORTEST_S, self._server.seconds_to_change())
                wait_readable([self._wake, self._news], min(left, due))
                self._news.answer()
                if self._wake.answer() or (self._is_freed and len(self._tubes) < len(self._types)):
                    return Reservation(None, [])

    def settle(self, verdicts: Sequence[EntryFate]) -> int:
        """How many were not ours any more: all, once the connection is gone."""
        connection = self._connection
        if connection is None or not self._server.is_connected(connection):
            self.close()
            return len(verdicts)
        known = [(self._held.pop(one.entry.token, None), one) for one in verdicts]
        return self._call("settle", lambda: sum(not self._settle(id, one, connection) for id, one in known))

    def post(self, verdicts: Sequence[EntryFate]) -> None:
        """Answered before the next call, so here at once."""
        self.settle(verdicts)

    def wake(self) -> None:
        """From any thread or a signal handler."""
        self._wake.ring()

    def freed(self) -> None:
        """From any thread."""
        self._is_freed = True
        self._news.ring()

    def close(self) -> None:
        """What it has reserved is ready again."""
        self._held.clear()
        if self._connection is not None:
            self._server.hang_up(self._connection)
            self._connection = None

    def _call(self, name: str, effect: Callable[[], T]) -> T:
        try:
            return self._line(name, effect)
        except BrokerUnavailable:
            self.close()
            raise

    def _take(self, jobs: int, connection: Connection) -> tuple[list[Entry], int]:
        entries: list[Entry] = []
        foreign = wanted = 0
        while wanted < jobs and (item := self._server.reserve(self._tubes, connection)):
            pointer = pointer_of(item.body, self._types)
            if pointer is None:
                self._server.bury(item.id, connection)
                foreign += 1
                continue
            self._last_token += 1
            self._held[self._last_token] = item.id
            entries.append(Entry(self._last_token, pointer))
            wanted += len(pointer.ids)
        return entries, foreign

    def _connected(self) -> Connection:
        if self._connection is None or not self._server.is_connected(self._connection):
            self.close()
            self._connection = self._server.connect()
        return self._connection

    def _settle(self, id: int | None, verdict: EntryFate, connection: Connection) -> bool:
        if id is None:
            return False
        if verdict.release_in is None:
            return self._server.delete(id, connection)
        delay = float(whole_delay(verdict.release_in))
        return self._server.release(id, verdict.entry.pointer.priority, delay, connection)


def pointer_of(body: bytes, types: Sequence[str]) -> Pointer | None:
    """The pointer that an entry holds, if it is one of ours."""
    try:
        pointer = wire.decode(body)
    except ValueError:
        return None
    return pointer if pointer.type in types else None
