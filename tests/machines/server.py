"""A beanstalkd in memory, with its faults at will.

:class:`FakeServer` keeps the entries and follows what was read and measured of beanstalkd 1.12: entries are served
by (priority, id); a TTR may fire or never fire; a dropped connection releases at once; a restart forgets
everything and gives ids from 1 again, or keeps all but who had reserved what; a full disk strands an entry
(reserved by nobody, found by delete only); any client may put garbage, delete, bury, reserve or pause.
"""

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from kqueue.brokers.beanstalk import wire
from kqueue.model.errors import BrokerUnavailable
from kqueue.system.clock import Clock, SystemClock
from kqueue.system.wakeup import Wakeup

T = TypeVar("T")

#: The words of ``depths``.
READY, DELAYED, RESERVED, BURIED = "ready", "delayed", "reserved", "buried"


class Outage(Enum):
    """How a call over the line fails."""

    #: The server never saw it.
    BEFORE = "before its effect"
    #: Done, and the reply is lost.
    AFTER = "after its effect"
    #: Not done when the client gave up; done when :meth:`FakeServer.catch_up` is called.
    LATE = "late"


class Connection:
    """One client's connection. It holds nothing: the server knows who reserved what."""


@dataclass(slots=True)
class Item:
    """An entry as the server keeps it."""

    id: int
    tube: str
    priority: int
    body: bytes
    state: str
    #: Wall clock: when a delayed one is ready, when a reserved one's TTR is over.
    until: float = 0.0
    #: Who reserved it; None where the server itself lost track of it.
    holder: Connection | None = None


class FakeServer:
    """Tubes in memory. For any number of threads and brokers of one process."""

    address = "fake:"

    def __init__(self, clock: Clock | None = None, *, max_job_size: int = 65535) -> None:
        """``clock``: the wall clock that delays and TTRs are counted by, as beanstalkd does."""
        self.clock = clock or SystemClock()
        self.max_job_size = max_job_size
        #: Whether a TTR fires by itself. If not, only the owner's next command or its end frees the entry.
        self.fires_ttr = True
        #: Whether nobody answers.
        self.is_down = False
        #: Whether puts are refused (drain mode, no memory, no disk).
        self.refuses_puts = False
        self._lock = threading.RLock()
        self._items: dict[int, Item] = {}
        self._next_id = 1
        self._connections: set[Connection] = set()
        self._paused: dict[str, float] = {}
        self._late: list[Callable[[], object]] = []
        self._bells: dict[Wakeup, None] = {}

    # -- the line ----------------------------------------------------------------------------------------

    def exchange(self, effect: Callable[[], T], outage: Outage | None = None) -> T:
        """One request and its reply."""
        if self.is_down or outage is Outage.BEFORE:
            raise BrokerUnavailable(f"{self.address}: nobody answers")
        if outage is Outage.LATE:
            self._late.append(effect)
            raise BrokerUnavailable(f"{self.address}: no answer in time")
        result = effect()
        if outage is Outage.AFTER:
            raise BrokerUnavailable(f"{self.address}: the connection broke before the reply")
        return result

    def catch_up(self) -> None:
        """Do what clients gave up waiting for. Nobody reads the replies, so what is refused is forgotten."""
        while self._late:
            with suppress(BrokerUnavailable):
                self._late.pop(0)()

    @contextmanager
    def rings(self, wakeup: Wakeup) -> Iterator[None]:
        """Ring ``wakeup`` meanwhile whenever an entry may have become ready."""
        self._bells[wakeup] = None
        try:
            yield
        finally:
            del self._bells[wakeup]

    # -- what clients say --------------------------------------------------------------------------------

    def connect(self) -> Connection:
        """A new connection."""
        connection = Connection()
        self._connections.add(connection)
        return connection

    def is_connected(self, connection: Connection) -> bool:
        """Whether the server still knows it."""
        return connection in self._connections

    def hang_up(self, connection: Connection) -> None:
        """The client's end is closed: what it has reserved is ready at once. Comes after what it sent before."""
        if self._late:
            self._late.append(lambda: self._drop(connection))
        else:
            self._drop(connection)

    def put(self, tube: str, priority: int, delay: float, body: bytes) -> int:
        """Insert an entry; its id."""
        with self._lock:
            if self.refuses_puts:
                raise BrokerUnavailable(f"{self.address}: the entry was not put: DRAINING")
            item = Item(self._next_id, tube, priority, body, READY)
            self._next_id += 1
            self._items[item.id] = item
            self._wait_or_ready(item, delay)
            return item.id

    def reserve(self, tubes: Sequence[str], connection: Connection) -> Item | None:
        """The next ready entry: lowest priority number first, then lowest id."""
        with self._lock:
            self._hear(connection)
            item = self._first([tube for tube in tubes if self._paused.get(tube, 0.0) <= self.clock.time()])
            if item is not None:
                self._hold(item, connection)
            return item

    def delete(self, id: int, connection: Connection | None = None) -> bool:
        """Whether it was there for this client. One reserved by another client is not; a stranded one is."""
        with self._lock:
            self._hear(connection)
            item = self._items.get(id)
            if item is None or (item.holder is not None and item.holder is not connection):
                return False
            del self._items[id]
            return True

    def release(self, id: int, priority: int, delay: float, connection: Connection) -> bool:
        """Whether it was this client's, and is now given back. With the same priority it keeps its place."""
        with self._lock:
            self._hear(connection)
            item = self._held(id, connection)
            if item is not None:
                item.priority = priority
                self._wait_or_ready(item, delay)
            return item is not None

    def bury(self, id: int, connection: Connection) -> bool:
        """Whether it was this client's, and is now put aside."""
        with self._lock:
            self._hear(connection)
            item = self._held(id, connection)
            if item is not None:
                item.state, item.holder = BURIED, None
            return item is not None

    def peek_ready(self, tube: str) -> Item | None:
        """What the tube would serve next, paused or not."""
        with self._lock:
            self._tick()
            return self._first([tube])

    def reserve_id(self, id: int, connection: Connection) -> bool:
        """Take this entry, whatever its place."""
        with self._lock:
            self._tick()
            item = self._items.get(id)
            if item is None or item.state == RESERVED:
                return False
            self._hold(item, connection)
            return True

    def kick(self, tube: str) -> int:
        """Make the buried entries of a tube ready or, if there are none, the delayed ones; how many."""
        with self._lock:
            mine = [item for item in self._items.values() if item.tube == tube]
            kicked = [item for item in mine if item.state == BURIED] or [i for i in mine if i.state == DELAYED]
            for item in kicked:
                self._wait_or_ready(item, 0)
            return len(kicked)

    def pause(self, tube: str, seconds: float) -> None:
        """Serve nothing from the tube for so long; 0 resumes it."""
        self._paused[tube] = self.clock.time() + seconds
        self._ring()

    def items(self, tube: str | None = None) -> list[Item]:
        """All entries of a tube, or of all tubes, in the order of their ids."""
        with self._lock:
            self._tick()
            return [item for item in self._items.values() if tube in {None, item.tube}]

    def seconds_to_change(self) -> float:
        """Seconds until a delayed entry falls due, or infinity."""
        with self._lock:
            delayed = [item.until for item in self._items.values() if item.state == DELAYED]
        return min(delayed, default=math.inf) - self.clock.time()

    # -- what befalls it ---------------------------------------------------------------------------------

    def restart(self, *, binlog: bool) -> None:
        """All connections end. Without a binlog all is forgotten and ids begin at 1; with one, reserved entries
        are ready again, and ids begin at 1 only if nothing was left.
        """
        with self._lock:
            self._late.clear()
            self._connections.clear()
            self._paused.clear()
            if not binlog:
                self._items.clear()
            for item in self._items.values():
                if item.state == RESERVED:
                    self._wait_or_ready(item, 0)
            if not self._items:
                self._next_id = 1

    def strand(self, id: int) -> None:
        """A delayed release or a bury met a full disk: reserved by nobody from now on, and found by delete only."""
        with self._lock:
            item = self._items[id]
            item.state, item.holder, item.until = RESERVED, None, math.inf

    # -- within ------------------------------------------------------------------------------------------

    def _hear(self, connection: Connection | None) -> None:
        """Any command of the owner frees what it held for too long, even where no TTR fires by itself."""
        self._tick()
        if connection is not None and connection not in self._connections:
            raise BrokerUnavailable(f"{self.address}: the connection is closed")
        for item in self._items.values():
            if connection is not None and item.holder is connection and item.until <= self.clock.time():
                self._wait_or_ready(item, 0)

    def _tick(self) -> None:
        now = self.clock.time()
        for item in self._items.values():
            ttr_is_over = item.state == RESERVED and self.fires_ttr
            if item.until <= now and (item.state == DELAYED or ttr_is_over):
                self._wait_or_ready(item, 0)

    def _first(self, tubes: Sequence[str]) -> Item | None:
        ready = [item for item in self._items.values() if item.state == READY and item.tube in tubes]
        return min(ready, key=lambda item: (item.priority, item.id), default=None)

    def _hold(self, item: Item, connection: Connection) -> None:
        item.state, item.holder, item.until = RESERVED, connection, self.clock.time() + wire.ENTRY_TTR

    def _held(self, id: int, connection: Connection) -> Item | None:
        item = self._items.get(id)
        return item if item is not None and item.holder is connection else None

    def _wait_or_ready(self, item: Item, delay: float) -> None:
        item.state, item.holder = DELAYED if delay > 0 else READY, None
        item.until = self.clock.time() + delay
        self._ring()

    def _drop(self, connection: Connection) -> None:
        with self._lock:
            self._connections.discard(connection)
            for item in self._items.values():
                if item.holder is connection:
                    self._wait_or_ready(item, 0)

    def _ring(self) -> None:
        for wakeup in list(self._bells):
            wakeup.ring()
