"""The connection to a MongoDB: its URL, one process's client, and the server's clock.

Theory of operation. The threads of a process share one client. ``close`` in one of them puts it aside, and the next
use opens another; the one that was put aside is closed by the last that uses it, so that nobody's command is cut
off. Who uses it is a set of tokens, and no lock: ``set.add`` and ``set.discard`` are atomic, and a signal handler
may come in at any point. A user first puts its token there and then looks whether the client was put aside; who
puts it aside does so first and then looks for tokens. So of the two at least one sees the other.

What a signal handler raises (``KeyboardInterrupt``, or a user's own error) may come anywhere within pymongo, which
holds its locks by conditions: one may stay held for ever then, see :mod:`kqueue.system.locks`. So what was raised
within pymongo, and not by it, has spoilt the client: it is forgotten, and the next use makes another. It is never
closed, since that may wait for the lock; the garbage collector ends its sockets, and its threads are daemons.
Signal handlers run in the main thread alone, so that one has a client of its own: no other thread waits for a lock
that was left held. And what a handler asks for while its own thread is within pymongo is refused.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple
from urllib.parse import quote

from bson import ObjectId
from pymongo import MongoClient, ReadPreference
from pymongo.database import Database
from pymongo.errors import PyMongoError
from pymongo.uri_parser import parse_uri

from kqueue.contracts.stored_times import latest
from kqueue.model.errors import StoreError, StoreUnavailable
from kqueue.model.urls import showable
from kqueue.stores.mongo import identity as identities
from kqueue.stores.mongo.identity import DatabasePlace, MongoIdentity
from kqueue.stores.mongo.schema import META, Document
from kqueue.stores.mongo.server.clock import Known, Look, Primaries, look
from kqueue.stores.mongo.server.interrupts import is_within_driver, spoils
from kqueue.stores.mongo.server.moment import Moment
from kqueue.system.clock import Clock
from kqueue.system.locks import REENTERED, OwnLock, entry, is_main_thread

#: Options of the client where the URL does not say otherwise. Times in milliseconds.
_DEFAULTS: dict[str, Any] = {
    "serverSelectionTimeoutMS": 5_000,
    "connectTimeoutMS": 5_000,
    "socketTimeoutMS": 30_000,
    # Less than the socket's: a majority that is missing is then told from a server that hangs.
    "wTimeoutMS": 20_000,
    "retryWrites": True,
    "journal": True,
    "appname": "kqueue",
}
#: And these, unless the URL chooses a write concern.
_MAJORITY: dict[str, Any] = {"w": "majority", "readConcernLevel": "majority"}


class Target(NamedTuple):
    """What a URL says."""

    url: str
    #: The URL for messages: without user, password and options.
    address: str
    database: str
    #: For ``MongoClient``, beside the URL.
    options: dict[str, Any]

    def __repr__(self) -> str:
        return f"Target({self.address!r})"  # no password in a traceback that shows values


def read_url(url: str) -> Target:
    """What ``url`` says; nothing is looked up. Raises ``ValueError``, naming ``store``, for what is no such URL."""
    expected = "expected mongodb://HOST:PORT/DATABASE"
    scheme, _, rest = url.partition("://")
    if scheme not in ("mongodb", "mongodb+srv"):
        raise ValueError(f"store: {expected}, got {showable(url)!r:.200}")
    try:
        # Read as plain mongodb://, since the other form would ask the DNS here.
        parsed = parse_uri(f"mongodb://{rest}")
    except (PyMongoError, ValueError) as error:
        # Not chained: it may quote the user and the password.
        raise ValueError(f"store: {expected}; {type(error).__name__} while reading it") from None
    hosts = ",".join(_host(host, None if scheme == "mongodb+srv" else port) for host, port in parsed["nodelist"])
    if not parsed["database"] or parsed["collection"]:
        raise ValueError(f"store: {expected}, such as {scheme}://{hosts}/app; one database's name must be there")
    given = {name.lower(): value for name, value in parsed["options"].items()}
    if given.get("w") == 0:
        raise ValueError("store: w=0 asks for no reply, so no job could be acknowledged; leave it away")
    defaults = _DEFAULTS | ({} if "w" in given else _MAJORITY)
    options = {name: value for name, value in defaults.items() if name.lower() not in given}
    return Target(url, f"{scheme}://{hosts}/{quote(parsed['database'])}", parsed["database"], options)


def _host(host: str, port: int | None) -> str:
    """As a URL has it: what is shown may be given again."""
    if host.startswith("/"):  # a socket in the file system
        return quote(host, safe="")
    name = f"[{host}]" if ":" in host else host
    return name if port is None else f"{name}:{port}"


class Link:
    """One process's clients, opened on first use: one for the main thread, one that all others share."""

    def __init__(
        self,
        target: Target,
        prepare: Callable[[Database[Document], str], None],
        clock: Clock | None,
        host: Clock,
        client: MongoClient[Document] | None,
    ) -> None:
        self._target = target
        self._prepare = prepare
        self._clock = clock
        self._host = host
        self._given = client
        #: Of one client, while it is opened. The main thread's own is waited for by no other.
        self._opening: dict[bool, OwnLock] = {True: threading.RLock(), False: threading.RLock()}
        #: By whether the main thread uses it.
        self._current: dict[bool, _Client] = {}
        self._placing: OwnLock = threading.RLock()
        #: Ids of sessions that have a transaction open.
        self._abandoned: list[Document] = []
        self._known: Known | None = None
        #: The election of the primary whose clock all leases are known to follow.
        self._followed: ObjectId | None = None
        self._next_place = 0
        #: Where the database is, and whose it is, as it was read last.
        self._place: DatabasePlace | None = None
        self._identity: MongoIdentity | None = None

    @contextmanager
    def use(self) -> Iterator[Database[Document]]:
        """The database, its schema made, until the end. Opens what is not open. Raises ``StoreUnavailable`` where a
        signal handler has interrupted this thread within it.
        """
        while True:
            is_main = is_main_thread()
            client, token = self._current.get(is_main) or self._open(is_main), _User(threading.get_ident())
            self._refuse_reentry(client)
            try:
                client.users.add(token)
                if not client.is_aside:
                    yield client.database
                    return
            except BaseException as error:
                client.is_spoilt |= spoils(error)
                raise
            finally:
                client.users.discard(token)
                if client.is_spoilt:
                    self._forget(is_main, client)
                else:
                    client.close_if_unused()

    def abandon_transaction(self, session: Document) -> None:
        """Its client is spoilt, and so cannot end it: the next one that is opened does."""
        self._abandoned.append(session)

    def exists(self) -> bool:
        """Whether the schema is there; nothing is made."""
        if self._current:
            return True
        client = self._connected()
        try:
            found = client.database[META].find_one({"_id": "schema"})
        except BaseException as error:
            client.put_aside(error)
            raise
        client.put_aside()
        return found is not None

    def close(self) -> None:
        """Close the clients if they are ours, once nobody uses them any more. Idempotent; the next use opens
        again.
        """
        for is_main in list(self._current):
            client = self._current.pop(is_main, None)
            if client is not None:
                client.put_aside()

    def identity(self) -> MongoIdentity:
        """Who the store is now. Another one that has taken its place is looked at as at an open."""
        with self.use() as database:
            place = self._place or identities.place_of(database)
            found = identities.read(database)
            if found is None or self._identity is None or found.id != self._identity.id:
                self._prepare(database, self._target.address)
                found = identities.adopt(database, place)
            self._identity = found
            return found

    def begin_anew(self) -> None:
        """As if the database were a copy."""
        with self.use() as database:
            identities.begin_anew(database, self._place or identities.place_of(database))

    def fence_floor(self) -> int:
        """Every claim gives a fence above it; as it was read last. Ask when the database is open."""
        return 0 if self._identity is None else self._identity.fence_floor

    def now(self) -> float:
        """The clock that was given, or the server's: the time here plus the offset to it. For what is ready; leases
        have a :meth:`moment`.

        Only the first look raises ``StoreUnavailable``: later, an offset that could not be refreshed will do.
        """
        if self._clock is not None:
            return self._clock.time()
        known = self._known
        if known is None or known.is_stale(self._host):
            try:
                known = self.look().known
            except (PyMongoError, StoreError):
                if known is None:
                    raise
                known = self._known = known.kept(self._host)
        return self._host.monotonic() + known.offset

    def moment(self, now: float) -> Moment:
        """For leases that are granted: ``now`` if the clock was given, else the server's own within the command."""
        return Moment(now, by_server=self._clock is None)

    def asked_moment(self, now: float) -> tuple[Moment, ObjectId | None]:
        """For leases that are judged: the server is asked for its time; and the election that made it the primary,
        if leases are not known to follow its clock yet.
        """
        if self._clock is not None:
            return Moment(now, by_server=False), None
        found = self.look()
        election = None if found.election == self._followed else found.election
        return Moment(found.time, by_server=True), election

    def follows(self, election: ObjectId) -> None:
        """All leases follow the clock of this primary now."""
        self._followed = election

    def look(self) -> Look:
        """Ask the server for its time."""
        with self.use() as database:
            found = look(database, self._host)
        self._known = found.known
        return found

    def forget_clock(self) -> None:
        """It may be another's since: look at it before it is asked for again."""
        known = self._known
        if known is not None:
            self._known = known.outdated()

    def places(self, count: int) -> range:
        """Numbers that stand for the order of adding: microseconds of the server's clock, each given once here.

        So the order is exact within a process; over processes it is as exact as their looks at the clock are
        (about a millisecond). An exact one would cost each add a second write, to a counter.
        """
        now = int(self.now() * 1e6)
        with entry(self._placing, StoreUnavailable, self._target.address):
            # After a clock that was ahead, what is added is not to stand behind all that others add.
            first = max(now, self._next_place) if self._next_place <= latest(now / 1e6) * 1e6 else now
            self._next_place = first + count
        return range(first, first + count)

    def _open(self, is_main: bool) -> "_Client":
        with entry(self._opening[is_main], StoreUnavailable, self._target.address):
            client = self._current.get(is_main)
            if client is None:
                client = self._connected()
                try:
                    self._prepare(client.database, self._target.address)
                    self._place = identities.place_of(client.database)
                    self._identity = identities.adopt(client.database, self._place)
                    self._end_abandoned(client.database)
                except BaseException as error:
                    client.put_aside(error)
                    raise
                self._current[is_main] = client
            return client

    def _end_abandoned(self, database: Database[Document]) -> None:
        sessions = list(self._abandoned)
        if sessions:
            with suppress(PyMongoError):  # the server ends them by itself, after a while
                database.client.admin.command("killSessions", sessions)
            del self._abandoned[: len(sessions)]

    def _forget(self, is_main: bool, client: "_Client") -> None:
        if self._current.get(is_main) is client:
            self._current.pop(is_main, None)

    def _refuse_reentry(self, client: "_Client") -> None:
        """Where this thread is within pymongo already, by the same client."""
        ident = threading.get_ident()
        if any(user.thread == ident for user in list(client.users)) and is_within_driver():
            raise StoreUnavailable(f"{self._target.address}: {REENTERED}")

    def _connected(self) -> "_Client":
        """With nothing made in the database."""
        given, target = self._given, self._target
        listeners = [Primaries(self.forget_clock)]
        client = given or MongoClient(target.url, event_listeners=listeners, **target.options)
        # Whatever the URL prefers: a secondary may be behind, and a claim would be read back from it.
        database = client.get_database(target.database, read_preference=ReadPreference.PRIMARY)
        return _Client(client, database, is_ours=given is None)


class _User:
    """One use of a client, by the thread of this number."""

    def __init__(self, thread: int) -> None:
        self.thread = thread


class _Client:
    """An open client, and who uses it."""

    def __init__(self, client: MongoClient[Document], database: Database[Document], *, is_ours: bool) -> None:
        self.database = database
        self.users: set[_User] = set()
        #: No new user is to come.
        self.is_aside = False
        #: A call of it was interrupted, so it may hold a lock for ever: nobody is to use or close it.
        self.is_spoilt = False
        self._client = client if is_ours else None

    def put_aside(self, error: BaseException | None = None) -> None:
        """Let nobody use it any more, and close it once those have ended who do. ``error``: why."""
        self.is_spoilt |= error is not None and spoils(error)
        self.is_aside = True
        self.close_if_unused()

    def close_if_unused(self) -> None:
        """Close it if it was put aside and nobody uses it any more. Idempotent. If that is interrupted it is not
        closed again.
        """
        if self.is_aside and not self.is_spoilt and not self.users:
            client, self._client = self._client, None
            if client is not None:
                client.close()
