"""The connection to a MongoDB: its URL, one process's client, and the server's clock."""

import threading
import time
from collections.abc import Callable
from datetime import UTC
from typing import Any, NamedTuple

from pymongo import MongoClient, ReadPreference
from pymongo.database import Database
from pymongo.errors import PyMongoError
from pymongo.uri_parser import parse_uri

from kqueue.clock import Clock
from kqueue.errors import StoreError
from kqueue.stored_times import latest
from kqueue.stores import mongo_identity as identities
from kqueue.stores.mongo_identity import Identity, Place
from kqueue.stores.mongo_schema import META, Document
from kqueue.urls import showable

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
#: Seconds between two looks at the server's clock.
_CLOCK_REFRESH_S = 60.0


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
    hosts = ",".join(
        host if scheme == "mongodb+srv" or port is None else f"{host}:{port}" for host, port in parsed["nodelist"]
    )
    if not parsed["database"] or parsed["collection"]:
        raise ValueError(f"store: {expected}, such as {scheme}://{hosts}/app; one database's name must be there")
    given = {name.lower(): value for name, value in parsed["options"].items()}
    if given.get("w") == 0:
        raise ValueError("store: w=0 asks for no reply, so no job could be acknowledged; leave it away")
    defaults = _DEFAULTS | ({} if "w" in given else _MAJORITY)
    options = {name: value for name, value in defaults.items() if name.lower() not in given}
    return Target(url, f"{scheme}://{hosts}/{parsed['database']}", parsed["database"], options)


class Link:
    """One process's client, opened on first use. Shared by its threads."""

    def __init__(
        self,
        target: Target,
        prepare: Callable[[Database[Document], str], None],
        clock: Clock | None,
        client: MongoClient[Document] | None,
    ) -> None:
        self._target = target
        self._prepare = prepare
        self._clock = clock
        self._given = client
        self._lock = threading.Lock()
        self._own: MongoClient[Document] | None = None
        self._database: Database[Document] | None = None
        #: (seconds from this host's monotonic clock to the server's, monotonic time of the look).
        self._offset: tuple[float, float] | None = None
        self._next_place = 0
        #: Where the database is, and whose it is, as it was read last.
        self._place: Place | None = None
        self._identity: Identity | None = None

    def database(self) -> Database[Document]:
        """The database, its schema made. Opens what is not open."""
        database = self._database
        return self._open() if database is None else database

    def exists(self) -> bool:
        """Whether the schema is there; nothing is made."""
        if self._database is not None:
            return True
        with self._lock:
            return self._connected()[META].find_one({"_id": "schema"}) is not None

    def close(self) -> None:
        """Close the client if it is ours. Idempotent; the next use opens again."""
        with self._lock:
            client, self._own, self._database = self._own, None, None
        if client is not None:
            client.close()

    def identity(self) -> Identity:
        """Who the store is now. Another one that has taken its place is looked at as at an open."""
        database = self.database()
        place = self._place or identities.place_of(database)
        found = identities.read(database)
        if found is None or self._identity is None or found.id != self._identity.id:
            self._prepare(database, self._target.address)
            found = identities.adopt(database, place)
        self._identity = found
        return found

    def begin_anew(self) -> None:
        """As if the database were a copy."""
        database = self.database()
        identities.begin_anew(database, self._place or identities.place_of(database))

    def fence_floor(self) -> int:
        """Every claim gives a fence above it; as it was read last. Ask when the database is open."""
        return 0 if self._identity is None else self._identity.fence_floor

    def now(self) -> float:
        """The clock that was given, or the server's: monotonic time plus the offset to it.

        Only the first look raises ``StoreUnavailable``: later, an offset that could not be refreshed will do.
        """
        if self._clock is not None:
            return self._clock.time()
        if self._offset is None:
            self._offset = _look_at_clock(self.database())
        elif time.monotonic() - self._offset[1] > _CLOCK_REFRESH_S:
            self._offset = self._refreshed(self._offset)
        return time.monotonic() + self._offset[0]

    def _refreshed(self, offset: tuple[float, float]) -> tuple[float, float]:
        try:
            return _look_at_clock(self.database())
        except (PyMongoError, StoreError):
            return offset[0], time.monotonic()

    def places(self, count: int) -> range:
        """Numbers that stand for the order of adding: microseconds of the server's clock, each given once here.

        So the order is exact within a process; over processes it is as exact as their looks at the clock are
        (about a millisecond). An exact one would cost each add a second write, to a counter.
        """
        now = int(self.now() * 1e6)
        with self._lock:
            # After a clock that was ahead, what is added is not to stand behind all that others add.
            first = max(now, self._next_place) if self._next_place <= latest(now / 1e6) * 1e6 else now
            self._next_place = first + count
        return range(first, first + count)

    def _open(self) -> Database[Document]:
        with self._lock:
            if self._database is None:
                database = self._connected()
                self._prepare(database, self._target.address)
                self._place = identities.place_of(database)
                self._identity = identities.adopt(database, self._place)
                self._database = database
            return self._database

    def _connected(self) -> Database[Document]:
        """As it is, with nothing made in it. Under the lock."""
        client = self._given
        if client is None:
            client = self._own = self._own or MongoClient(self._target.url, **self._target.options)
        # Whatever the URL prefers: a secondary may be behind, and a claim would be read back from it.
        return client.get_database(self._target.database, read_preference=ReadPreference.PRIMARY)


def _look_at_clock(database: Database[Document]) -> tuple[float, float]:
    before = time.monotonic()
    # https://www.mongodb.com/docs/manual/reference/command/hello/: localTime is the server's, to the ms.
    local = database.command("hello")["localTime"]
    after = time.monotonic()
    return local.replace(tzinfo=UTC).timestamp() - (before + after) / 2, after
