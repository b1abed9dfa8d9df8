"""The broker on one beanstalkd."""

import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

from kqueue.brokers.beanstalk import health, strays, wire
from kqueue.brokers.beanstalk.connection import Endpoint
from kqueue.brokers.beanstalk.draining import drain
from kqueue.brokers.beanstalk.pool import ConnectionPool
from kqueue.brokers.beanstalk.subscription import BeanstalkSubscription, whole_delay
from kqueue.brokers.beanstalk.wire import Command, Reply
from kqueue.contracts.broker import UNKNOWN_HEAD, Peek, Pointer, Stray
from kqueue.contracts.repair import Head
from kqueue.model import checks, tubes
from kqueue.model.errors import BrokerError, BrokerUnavailable
from kqueue.system.clock import Clock, SystemClock
from kqueue.system.forks import PerProcess

#: Said once by each process.
FOREIGN = "%s: entry %d is not ours and was buried: %r; look for who else puts into these tubes (said once)"
#: Where foreign entries and lost connections are told, unless a logger is given.
LOGGER_NAME = "kqueue.brokers.beanstalk.broker"
#: Tubes that are looked at in one round trip.
MAX_TUBES = 100
#: Foreign entries of a tube that one ``peek`` looks past before it gives up.
MAX_LOOKS = 1000
#: Seconds that all of them may take.
LOOKS_S = 10.0
#: What it means when a put is not INSERTED, and what to do.
NOT_PUT = {
    b"BURIED": "the server is out of memory and keeps them buried, where they cannot ring: give it more",
    b"OUT_OF_MEMORY": "the server has no memory or no disk left: give it more",
    b"DRAINING": "the server is in drain mode (SIGUSR1): restart it",
    b"JOB_TOO_BIG": "the server takes smaller entries than it said: start it with the default -z",
}


class BeanstalkBroker:
    """Pointers in the tubes of one beanstalkd. See :class:`kqueue.contracts.broker.Broker`.

    ``address`` is ``(host, port)`` or the path of a Unix socket; ``timeout`` is the seconds of a whole exchange,
    and ``connect_timeout`` those until a server is connected. Puts, peeks and depths of one process share
    connections; a subscription has its own.
    """

    def __init__(
        self,
        address: tuple[str, int] | str,
        *,
        timeout: float = 1.0,
        connect_timeout: float = 1.0,
        clock: Clock | None = None,
        logger: logging.Logger | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._endpoint = Endpoint(
            address,
            _positive("timeout", timeout),
            _positive("connect_timeout", connect_timeout),
            self._clock.monotonic,
        )
        self._logger = logger or logging.getLogger(LOGGER_NAME)
        self._prefix: str | None = None
        self._pools = PerProcess(lambda: ConnectionPool(self._endpoint))

    @property
    def address(self) -> str:
        """Its URL, for messages."""
        return self._endpoint.url

    @property
    def carries_pointers(self) -> bool:
        """True: jobs are announced by pointers in tubes."""
        return True

    def open(self, prefix: str) -> None:
        """See :meth:`kqueue.contracts.broker.Broker.open`. A name that would be too long ends in a digest."""
        self._prefix = prefix

    def close(self) -> None:
        """See :meth:`kqueue.contracts.broker.Broker.close`. A later call connects again."""
        pool = self._pools.existing()
        if pool is not None:
            pool.close()

    def put(self, pointers: Sequence[tuple[Pointer, float]]) -> None:
        """See :meth:`kqueue.contracts.broker.Broker.put`."""
        if not pointers:
            return
        with self._pools.get().connection() as connection:
            max_job_size = connection.max_job_size
            using = connection.using
            commands: list[Command] = []
            too_long: set[str] = set()
            for pointer, delay in pointers:
                tube, seconds = self._tube(pointer.type), whole_delay(delay)
                try:
                    bodies = list(wire.encode_all(pointer, max_job_size))
                except wire.NoRoom:
                    too_long.add(pointer.type)
                    continue
                if tube != using:
                    commands.append(wire.use(tube))
                    using = tube
                commands += [wire.put(pointer.priority, seconds, body) for body in bodies]
            connection.using = None  # unknown, should a signal handler raise
            replies = connection.exchange(commands)
            connection.using = using
        self._refuse_not_put(replies)
        if too_long:
            raise self._too_long(too_long, max_job_size)

    def peek(self, types: Sequence[str], *, bury: bool = True) -> dict[str, Peek]:
        """See :meth:`kqueue.contracts.broker.Broker.peek`. One round trip for each 100 types, and two more for each
        entry in a row that is not ours.
        """
        peeks: dict[str, Peek] = {}
        for first in range(0, len(types), MAX_TUBES):
            peeks |= self._peek(types[first : first + MAX_TUBES], bury)
        return peeks

    def _peek(self, types: Sequence[str], bury: bool) -> dict[str, Peek]:
        names = {type: self._tube(type) for type in types}
        #: Of those that are not looked at to the end: entries that are not ours.
        foreign = dict.fromkeys(types, 0)
        peeks: dict[str, Peek] = {}
        pool = self._pools.get()
        until = self._clock.monotonic() + LOOKS_S
        while foreign:
            with pool.connection() as connection:
                connection.using = None
                looks = connection.exchange(
                    [look for type in foreign for look in (wire.use(names[type]), wire.peek_ready())]
                )
                connection.using = names[next(reversed(foreign))]
                found = dict(zip(list(foreign), looks[1::2], strict=True))
                strangers = {type: reply for type, reply in found.items() if _is_stranger(type, reply)}
                for type in found.keys() - strangers.keys():
                    peeks[type] = Peek(_head(type, found[type]), foreign.pop(type))
                if strangers and not bury:
                    return peeks | dict.fromkeys(strangers, Peek(UNKNOWN_HEAD, 1))
                if strangers:
                    self._warn_once(next(iter(strangers.values())))
                    # Another worker may have taken it in between: then both are NOT_FOUND, and we look again.
                    ids = [reply.values[0] for reply in strangers.values()]
                    connection.exchange([one for id in ids for one in (wire.reserve_job(id), wire.bury(id))])
            is_late = self._clock.monotonic() >= until
            for type in strangers:
                foreign[type] += 1
                if is_late or foreign[type] == MAX_LOOKS:
                    peeks[type] = Peek(UNKNOWN_HEAD, foreign.pop(type))
        return peeks

    def drain(self, type: str) -> int:
        """See :meth:`kqueue.contracts.broker.Broker.drain`. A paused tube is resumed, and stays so: it is empty."""
        with closing(self._endpoint.connect()) as connection:
            return drain(connection, self._tube(type))

    def strays(self, before: float) -> list[Stray]:
        """See :meth:`kqueue.contracts.broker.Broker.strays`. At most 10,000 tubes are looked at, 100 in a round
        trip.
        """
        with self._pools.get().connection() as connection, self._believed():
            return strays.find(connection, self._beginning(), before)

    def empty(self, beginning: str) -> int:
        """See :meth:`kqueue.contracts.broker.Broker.empty`."""
        if beginning == self._beginning():
            raise ValueError(f"beginning: {beginning!r} is that of the tubes of this store; purge its jobs instead")
        with self._pools.get().connection() as connection, self._believed():
            names = strays.of(connection, beginning)
        deleted = 0
        for name in names:
            with closing(self._endpoint.connect()) as connection:
                deleted += drain(connection, name)
        return deleted

    def subscribe(self, types: Sequence[str]) -> BeanstalkSubscription:
        """See :meth:`kqueue.contracts.broker.Broker.subscribe`."""
        if not types:
            raise ValueError("types: expected at least one job type")
        types_by_tube = {self._tube(type): type for type in types}
        wire.watch_only(tuple(types_by_tube))  # refuses bad names now, not at the first reserve
        return BeanstalkSubscription(self._endpoint, types_by_tube, self._clock, self._logger, self._warn_once)

    def warnings(self, types: Sequence[str]) -> list[str]:
        """See :meth:`kqueue.contracts.broker.Broker.warnings`. At most 1,000 tubes are looked at, and none if no
        tube of the server is paused or has anything buried.
        """
        with self._pools.get().connection() as connection:
            [server] = connection.exchange([wire.stats()])
        touched = self._figures(server, health.TOUCHED)
        of_tubes = self._figures_of(types[: health.MOST_TUBES]) if any(touched.values()) else {}
        left_out = len(types) - len(of_tubes) if of_tubes else 0
        found = health.warnings(wire.parse_stats(server.body), of_tubes, left_out)
        return [f"{self.address}: {warning}" for warning in found]

    def depths(self, types: Sequence[str]) -> dict[str, dict[str, int]]:
        """See :meth:`kqueue.contracts.broker.Broker.depths`. A tube that does not exist has zeros."""
        return {type: health.depths(of_tube) for type, of_tube in self._figures_of(types).items()}

    def _figures_of(self, types: Sequence[str]) -> dict[str, dict[str, int]]:
        """What is asked of each type's tube."""
        commands = {type: wire.stats_tube(self._tube(type)) for type in types}
        pool = self._pools.get()
        found: dict[str, dict[str, int]] = {}
        for first in range(0, len(types), MAX_TUBES):
            page = types[first : first + MAX_TUBES]
            with pool.connection() as connection:
                replies = connection.exchange([commands[type] for type in page])
            found |= {type: self._figures(reply, health.FIGURES) for type, reply in zip(page, replies, strict=True)}
        return found

    def _tube(self, type: str) -> str:
        return tubes.name(self._beginning(), checks.job_type(type))

    def _beginning(self) -> str:
        if self._prefix is None:
            raise BrokerError(f"{self.address}: the broker was not opened; call open(prefix) first")
        return self._prefix

    @contextmanager
    def _believed(self) -> Iterator[None]:
        """What is no answer is said to be one of no beanstalkd."""
        try:
            yield
        except ValueError as error:
            raise BrokerUnavailable(f"{self.address}: {error}; is it a beanstalkd?") from error

    def _figures(self, reply: Reply, names: Sequence[str]) -> dict[str, int]:
        """Of the server or of a tube; 0 where it has none. Raises ``BrokerUnavailable`` for what is no number."""
        figures = wire.parse_stats(reply.body)
        try:
            return {name: wire.figure(figures, name) for name in names}
        except ValueError as error:
            raise BrokerUnavailable(f"{self.address}: {error}; is it a beanstalkd?") from error

    def _warn_once(self, stranger: Reply) -> None:
        """Tell of a foreign entry, if none was told of before."""
        pool = self._pools.get()
        if not pool.has_warned:
            pool.has_warned = True
            self._logger.warning(FOREIGN, self.address, stranger.values[0], stranger.body[:80])

    def _too_long(self, types: set[str], max_job_size: int) -> BrokerError:
        names = ", ".join(map(repr, sorted(types)))
        return BrokerError(
            f"{self.address}: no pointer of type {names} fits its max-job-size of {max_job_size} bytes: start it"
            " with a larger -z, or shorten the type's name. All other pointers were put, and the jobs are safe in"
            " the store"
        )

    def _refuse_not_put(self, replies: Sequence[Reply]) -> None:
        if NOT_PUT.keys().isdisjoint(reply.status for reply in replies):
            return
        outcomes = Counter(reply.status for reply in replies)
        failed = {status: count for status, count in outcomes.items() if status in NOT_PUT}
        reasons = "; ".join(f"{n} {status.decode()}, {NOT_PUT[status]}" for status, n in failed.items())
        raise BrokerUnavailable(
            f"{self.address}: of the entries {outcomes[b'INSERTED']} were put, {sum(failed.values())} not:"
            f" {reasons}."
            " Their jobs are safe in the store: the sweep puts them again"
        )


def _pointer_of(type: str, body: bytes) -> Pointer | None:
    try:
        pointer = wire.decode(body)
    except ValueError:
        return None
    return pointer if pointer.type == type else None


def _is_stranger(type: str, reply: Reply) -> bool:
    """Whether a peek found an entry that is not ours, or malformed."""
    return reply.status != b"NOT_FOUND" and _pointer_of(type, reply.body) is None


def _head(type: str, reply: Reply) -> Head | None:
    """What a peek found that is no stranger."""
    pointer = None if reply.status == b"NOT_FOUND" else _pointer_of(type, reply.body)
    return None if pointer is None else Head(pointer.priority, pointer.put_at)


def _positive(name: str, seconds: float) -> float:
    if not 0 < seconds < math.inf:
        raise ValueError(f"{name}: expected seconds > 0, got {seconds!r}")
    return seconds
