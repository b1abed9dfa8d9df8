"""One loop's view of some tubes: reserve entries, settle them at once, wait for more.

*Types that are not wanted now* stay watched as long as nothing of them comes. What comes all the same is given back
to its place, and its tube is *left out* from then on: it is known to hold more than there is room for. Once there
is room again, as many are reserved there as that is, and the tube is watched again where it had none. So a type
that is at its bound costs nothing until it holds up others, and then a few commands each time that a place of it
gets free.

While a tube is left out a wait is no wait in the server, since a place may get free at any time, and to cut such a
wait costs its connection: the others are looked at twenty times a second instead.
"""

import logging
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from kqueue.brokers.beanstalk import wire
from kqueue.brokers.beanstalk.connection import Connection, Endpoint
from kqueue.brokers.beanstalk.wire import Command, Reply
from kqueue.contracts.broker import Entry, EntryFate, Pointer, Reservation, Room, selected
from kqueue.system.clock import Clock
from kqueue.system.wakeup import Wakeup, wait_readable

#: Reserves in one batch at most: a window of jobs that were added one by one. With more than 500 reserved on a
#: connection the server's deletes get slower.
MAX_RESERVES = 500
#: A reserve asks for no more than so many times what the last one got and one more: so a tube that is nearly empty
#: is asked for little, and one that fills is soon asked for all.
GROWTH = 8
#: Entries that tell how many jobs the next ones hold. Few, so that a new kind of entry is soon the rule.
RECENT_ENTRIES = 16
#: Seconds that an entry may wait in the tube's own delay; longer delays are the store's.
MAX_DELAY = 3600
#: Seconds that one reserve waits at most.
MAX_WAIT = 3600.0
#: Entries given back for a while that can still be deleted, at most.
MAX_AWAY = 1000
#: Seconds between two looks while a tube is left out.
LOOK_S = 0.050

#: The server's word for an entry that was there when we settled it.
_SETTLED = frozenset({b"DELETED", b"RELEASED"})
#: What came, and by which connection.
_Got: TypeAlias = tuple[Connection, list[Reply]]


class BeanstalkSubscription:
    """See :class:`kqueue.contracts.broker.Subscription`. Its connection is made at the first reserve."""

    def __init__(
        self,
        endpoint: Endpoint,
        types_by_tube: Mapping[str, str],
        clock: Clock,
        logger: logging.Logger,
        warn: Callable[[Reply], object],
    ) -> None:
        """``warn`` is told the first of each entries in a row that are not ours."""
        self._endpoint = endpoint
        self._tubes = {type: tube for tube, type in types_by_tube.items()}
        self._types = tuple(types_by_tube.values())
        #: Those whose tubes the connection does not watch now: never all.
        self._left_out: dict[str, None] = {}
        self._clock = clock
        self._logger = logger
        self._warn = warn
        self._wakeup = Wakeup()
        #: Whether a reserve waits that leaves a type out.
        self._is_looking = False
        #: Whether one may be that the reserve under way is not for.
        self._is_freed = False
        self._connection: Connection | None = None
        #: For waits that are to be cut short while entries are away: to cut one costs its connection.
        self._spare: Connection | None = None
        #: Entries that are reserved, from token to their connection and tube id. An id means nothing on another
        #: connection: after a restart the server gives the same ids to other entries.
        self._held: dict[int, tuple[Connection, int]] = {}
        #: In the same way, those that were given back for a while.
        self._away: dict[int, tuple[Connection, int]] = {}
        self._last_token = 0
        #: Entries that the last reserve got.
        self._got = 0
        #: How many jobs each of the last entries held; one that is not ours holds none.
        self._recent: deque[int] = deque(maxlen=RECENT_ENTRIES)

    def reserve(self, jobs: int, timeout: float, room: Room | None = None) -> Reservation:
        """See :meth:`kqueue.contracts.broker.Subscription.reserve`. Waits an hour at most.

        Where only strangers came and the time is up, ours may stand behind them: then the selection is there
        and holds no ids, so that the caller looks at its own limits and reserves again.
        """
        if self._wakeup.answer():
            return Reservation(None, [])
        found = self._reserve(jobs, self._clock.monotonic() + min(timeout, MAX_WAIT), room)
        self._is_freed = False  # whoever sets it from here on is heard before the next wait
        return found

    def _reserve(self, jobs: int, deadline: float, room: Room | None) -> Reservation:
        foreign = 0
        got: _Got | None = self._reserve_now(self._batch_size(jobs), room)
        while got is not None:
            came, buried = self._sift(*got)
            entries = came if room is None else self._wanted(came, room)
            foreign += buried
            if entries or (buried and self._clock.monotonic() >= deadline):
                return Reservation(selected(self._types, entries), entries, foreign)
            if not buried and not came:
                got = self._wait(deadline, room)
            elif self._wakeup.answer():
                break
            else:
                got = self._reserve_now(self._batch_size(jobs), room)
        return Reservation(None, [], foreign)

    def settle(self, verdicts: Sequence[EntryFate]) -> int:
        """See :meth:`kqueue.contracts.broker.Subscription.settle`."""
        connection = self._connection
        if connection is None or not connection.usable():
            self.close()
            return len(verdicts)
        replies = [
            reply
            for connection, commands in self._orders(verdicts).items()
            if commands and connection.usable()
            for reply in connection.exchange(commands)
        ]
        return len(verdicts) - sum(reply.status in _SETTLED for reply in replies)

    def post(self, verdicts: Sequence[EntryFate]) -> None:
        """See :meth:`kqueue.contracts.broker.Subscription.post`. A connection that broke shows at the next
        reserve.
        """
        for connection, commands in self._orders(verdicts).items():
            connection.post(commands)

    def _orders(self, verdicts: Sequence[EntryFate]) -> dict[Connection, list[Command]]:
        """What the connections that reserved them are to be told; nothing about those that none holds."""
        orders: dict[Connection, list[Command]] = {}
        for entry, release_in in verdicts:
            where = self._held.pop(entry.token, None)
            if where is not None:
                connection, tube_id = where
                if release_in is None:
                    command = wire.delete(tube_id)
                else:
                    command = wire.release(tube_id, entry.pointer.priority, whole_delay(release_in))
                    if release_in:
                        self._remember(entry.token, where)
                orders.setdefault(connection, []).append(command)
            elif release_in is None and entry.token in self._away:
                connection, tube_id = self._away.pop(entry.token)
                orders.setdefault(connection, []).append(wire.delete(tube_id))
        return orders

    def _remember(self, token: int, where: tuple[Connection, int]) -> None:
        """It is given back for a while. The oldest is forgotten where there are too many."""
        self._away[token] = where
        if len(self._away) > MAX_AWAY:
            del self._away[next(iter(self._away))]

    def wake(self) -> None:
        """See :meth:`kqueue.contracts.broker.Subscription.wake`."""
        self._wakeup.ring()

    def freed(self) -> None:
        """See :meth:`kqueue.contracts.broker.Subscription.freed`."""
        self._is_freed = True
        if self._is_looking:
            self._wakeup.ring()

    def close(self) -> None:
        """See :meth:`kqueue.contracts.broker.Subscription.close`. A later reserve connects again."""
        self._held.clear()
        self._away.clear()
        self._left_out.clear()
        connections = [one for one in (self._connection, self._spare) if one is not None]
        self._connection = self._spare = None
        for connection in connections:
            connection.finish()

    def _connected(self) -> Connection:
        if self._connection is None or not self._connection.usable():
            self.close()
            self._connection = self._connect()
        return self._connection

    def _connect(self) -> Connection:
        connection = self._endpoint.connect()
        connection.exchange(wire.watch_only(list(self._tubes.values())))
        return connection

    def _batch_size(self, jobs: int) -> int:
        if not self._recent:
            return 1
        most = min(MAX_RESERVES, GROWTH * (self._got + 1))
        jobs_seen = sum(self._recent)
        return min(most, max(1, math.ceil(jobs * len(self._recent) / jobs_seen))) if jobs_seen else most

    def _reserve_now(self, count: int, room: Room | None) -> _Got:
        connection = self._connected()
        if not self._left_out:
            return connection, self._reserved(connection.exchange([wire.reserve(0)] * count))
        commands, asked = self._commands(count, room)
        reserved = self._reserved(connection.exchange(commands))
        came = {pointer.type for one in reserved if (pointer := self._pointer(one.body)) is not None}
        self._watch([type for type in asked if type not in came])
        return connection, reserved

    def _commands(self, count: int, room: Room | None) -> tuple[list[Command], list[str]]:
        """(the commands, the types that are left out and wanted now): of each of these as many as there is room
        for, then of those that are watched.
        """
        commands: list[Command] = []
        asked = [type for type in self._left_out if room is None or room(type)]
        for type in asked:
            most = count if room is None else self._batch_size(room(type))
            tube = self._tubes[type]
            commands += [wire.watch(tube), *[wire.reserve(0)] * most, wire.ignore(tube)]
        if room is None or any(room(type) for type in self._types if type not in self._left_out):
            commands += [wire.reserve(0)] * count
        return commands, asked

    def _wanted(self, entries: list[Entry], room: Room) -> list[Entry]:
        """Those of which any are wanted. The others are given back, and left out from now on."""
        wanted = [entry for entry in entries if room(entry.pointer.type)]
        if len(wanted) < len(entries):
            others = [entry for entry in entries if not room(entry.pointer.type)]
            self.post([EntryFate(entry, 0.0) for entry in others])
            self._leave_out({entry.pointer.type: None for entry in others}, room)
        return wanted

    def _leave_out(self, types: dict[str, None], room: Room) -> None:
        new = [type for type in types if type not in self._left_out]
        if len(self._left_out) + len(new) == len(self._types):  # one has to be watched
            self._watch([type for type in self._left_out if room(type)])
        connection = self._connected()
        connection.post([wire.ignore(self._tubes[type]) for type in new])
        self._left_out.update(dict.fromkeys(new))

    def _watch(self, types: list[str]) -> None:
        """They are left out no more."""
        if types and self._connection is not None:
            self._connection.post([wire.watch(self._tubes[type]) for type in types])
            for type in types:
                self._left_out.pop(type, None)

    def _wait(self, deadline: float, room: Room | None) -> _Got | None:
        """What came, or None if the time is up, the wakeup rang, or a type may be wanted that is left out."""
        if self._left_out:
            return self._look_again(deadline, room)
        seconds = deadline - self._clock.monotonic()
        if seconds <= 0:
            return None
        connection = self._to_wait_on()
        reply = connection.reserve(seconds, self._wakeup, exactly=bool(self._away))
        if reply is None:
            if connection is self._spare:
                self._spare = None
            else:
                self.close()
            self._wakeup.answer()
            return None
        return None if reply.status == b"TIMED_OUT" else (connection, self._reserved([reply]))

    def _look_again(self, deadline: float, room: Room | None) -> _Got | None:
        """As :meth:`_wait`, while a tube is left out."""
        self._is_looking = deadline > self._clock.monotonic()  # first: from here on it is rung
        try:
            while not self._is_freed:
                seconds = deadline - self._clock.monotonic()
                if seconds <= 0:
                    break
                wait_readable([self._wakeup], min(seconds, LOOK_S))
                if self._wakeup.answer():
                    break
                got = self._reserve_now(1, room)
                if got[1]:
                    return got
            return None
        finally:
            self._is_looking = False

    def _to_wait_on(self) -> Connection:
        """Not the one on which entries are away, if there are any."""
        connection = self._connected()
        if not self._away:
            return connection
        if self._spare is None or not self._spare.usable():
            self._spare = self._connect()
        return self._spare

    def _reserved(self, replies: list[Reply]) -> list[Reply]:
        reserved = [reply for reply in replies if reply.status == b"RESERVED"]
        self._got = len(reserved)
        if not reserved and any(reply.status == b"DEADLINE_SOON" for reply in replies):
            # Something was held for almost a minute. The server repeats this answer without a pause until
            # that is let go, and does not say what it is: let all go. But if it came behind entries, it is
            # these that have little time left (whoever put them chose it), and they are settled at once.
            self._logger.warning("%s: an entry was held for too long; reconnecting", self._endpoint.url)
            self.close()
        return reserved

    def _sift(self, connection: Connection, replies: Sequence[Reply]) -> tuple[list[Entry], int]:
        """(the entries that are ours, how many were not and are buried now)."""
        entries, strangers = [], []
        for reply in replies:
            pointer = self._pointer(reply.body)
            if pointer is None:
                strangers.append(reply)
                self._recent.append(0)
            else:
                entries.append(self._hold(connection, reply.values[0], pointer))
        if strangers and not connection.is_closed():
            self._warn(strangers[0])
            connection.exchange([wire.bury(reply.values[0]) for reply in strangers])
        return entries, len(strangers)

    def _pointer(self, body: bytes) -> Pointer | None:
        try:
            pointer = wire.decode(body)
        except ValueError:
            return None
        return pointer if pointer.type in self._types else None

    def _hold(self, connection: Connection, tube_id: int, pointer: Pointer) -> Entry:
        self._last_token += 1
        self._held[self._last_token] = connection, tube_id
        self._recent.append(len(pointer.ids))
        return Entry(self._last_token, pointer)


def whole_delay(seconds: float) -> int:
    """A delay as beanstalkd wants it: whole seconds, rounded up, an hour at most."""
    if not seconds >= 0:
        raise ValueError(f"delay: expected seconds >= 0, got {seconds!r}")
    return math.ceil(min(seconds, MAX_DELAY))
