"""The clock of a MongoDB's primary, as a process knows it: by a look now and then, and by the time that passes
here.

A look is old at once where another member takes over, or where this host's own time of day is set, as it is after a
virtual machine was paused. What is known so is for what is ready; leases have
:mod:`kqueue.stores.mongo.server.moment`.
"""

import math
from collections.abc import Callable
from datetime import UTC
from typing import Any, NamedTuple

from bson import ObjectId
from pymongo.database import Database
from pymongo.monitoring import (
    ServerHeartbeatFailedEvent,
    ServerHeartbeatListener,
    ServerHeartbeatStartedEvent,
    ServerHeartbeatSucceededEvent,
)

from kqueue.stores.mongo.schema import Document
from kqueue.system.clock import Clock

#: Seconds between two looks at the server's clock, if nothing has happened to it or to ours.
_REFRESH_S = 60.0
#: Seconds that this host's clock may be set by before the server's is looked at again.
_DRIFT_S = 1.0


class Primaries(ServerHeartbeatListener):
    """Tells when another server is the primary, or none.

    By the driver's heartbeats, which it tells of in the thread that has them, before it goes by what they say. Of
    changes of its topology it tells up to half a second later, by another thread, which every close waits for.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        #: The election of each server that says that it is the primary.
        self._elections: dict[Any, ObjectId | None] = {}

    def started(self, event: ServerHeartbeatStartedEvent) -> None:
        """Nothing."""

    def succeeded(self, event: ServerHeartbeatSucceededEvent) -> None:
        """A server has said what it is."""
        server, before = event.connection_id, dict(self._elections)
        if event.reply.is_writable:
            self._elections[server] = event.reply.election_id
        else:
            self._elections.pop(server, None)
        if self._elections != before:
            self._changed()

    def failed(self, event: ServerHeartbeatFailedEvent) -> None:
        """A server does not answer."""
        if event.connection_id in self._elections:
            del self._elections[event.connection_id]
            self._changed()


class Known(NamedTuple):
    """What is known of the server's clock."""

    #: Seconds from this host's steady clock to it.
    offset: float
    #: When it was looked at, by the steady clock.
    looked_at: float
    #: Seconds from the steady clock to this host's time of day then.
    ours: float

    def is_stale(self, host: Clock) -> bool:
        """Whether to look again: it is long ago, or this host's own clock was set since."""
        now = host.monotonic()
        return now - self.looked_at > _REFRESH_S or abs(host.time() - now - self.ours) > _DRIFT_S

    def outdated(self) -> "Known":
        """The clock may be another's since."""
        return self._replace(looked_at=-math.inf)

    def kept(self, host: Clock) -> "Known":
        """As it is, for a while more."""
        now = host.monotonic()
        return self._replace(looked_at=now, ours=host.time() - now)


class Look(NamedTuple):
    """At the server's clock."""

    known: Known
    #: Seconds since 1970.
    time: float
    #: Which one made it the primary.
    election: ObjectId | None


def look(database: Database[Document], host: Clock) -> Look:
    """Ask the primary for its time. ``host``: this host's own clock."""
    before = host.monotonic()
    # https://www.mongodb.com/docs/manual/reference/command/hello/: localTime is the server's, to the ms.
    hello = database.command("hello")
    after = host.monotonic()
    at: float = hello["localTime"].replace(tzinfo=UTC).timestamp()
    known = Known(at - (before + after) / 2, after, host.time() - after)
    return Look(known, at, hello.get("electionId"))
