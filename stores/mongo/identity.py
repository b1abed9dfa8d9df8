"""Who a store in a MongoDB is: its random id, the database that the id is bound to, and where its fences begin.

See :mod:`kqueue.stores.sqlite.identity` for what they are for. A database is known by its name and its replica set:
by the set's own random id where we may read it (``replSetGetConfig`` asks for the role clusterMonitor), else by its
name. What is restored into a database of the same name, on the same set, looks like the original: see
``docs/backup.rst``.
"""

import time
from typing import Any, Final, NamedTuple

from pymongo import ReturnDocument
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import OperationFailure

from kqueue.model import tubes
from kqueue.stores.mongo.schema import JOBS, META, Document
from kqueue.stores.mongo.server.errors import suppress_read_only

#: What a copy's fences begin above at least, beside the time: the clock may have gone back since the last copy.
STRIDE: Final = 2**32
_IDENTITY: Final[Document] = {"_id": "identity"}


class MongoIdentity(NamedTuple):
    """Of a store, as it was read."""

    id: str
    #: Every claim gives a fence above it.
    fence_floor: int


class DatabasePlace(NamedTuple):
    """What a database is known by."""

    database: str
    #: Of its replica set; None for none.
    set_name: str | None
    #: Of its replica set; None where it cannot be read.
    set_id: str | None

    def is_of(self, bound_to: Document) -> bool:
        """Whether ``bound_to``, as it was stored, is this place, as far as both know."""
        known = bound_to.get("set_id")
        if self.database != bound_to.get("database"):
            return False
        if known is not None and self.set_id is not None:
            return bool(known == self.set_id)
        return self.set_name == bound_to.get("set_name")


def place_of(database: Database[Document]) -> DatabasePlace:
    """Costs two commands, none of which needs a right."""
    admin = database.client.admin
    set_name = admin.command("hello").get("setName")
    return DatabasePlace(database.name, set_name, None if set_name is None else _set_id(admin))


def adopt(database: Database[Document], place: DatabasePlace) -> MongoIdentity:
    """The identity of the store at ``place``, which gets one if it has none, and another one if it is a copy. One
    read if not. Of many that do so at once one wins. Who may only read gets one that is not kept.
    """
    meta = database[META]
    found = meta.find_one(_IDENTITY)
    with suppress_read_only():
        while found is None or not place.is_of(found["bound_to"]):
            found = _write(meta, found, place)
        if found["bound_to"].get("set_id") is None and place.set_id is not None:  # one more thing to know it by
            meta.update_one(_IDENTITY | {"store_id": found["store_id"]}, {"$set": {"bound_to": place._asdict()}})
    if found is None or not place.is_of(found["bound_to"]):
        # A copy that may only be read has tubes of its own, which are those of nobody.
        return MongoIdentity(tubes.new_id(), 0 if found is None else found["fence_floor"])
    return MongoIdentity(found["store_id"], found["fence_floor"])


def begin_anew(database: Database[Document], place: DatabasePlace) -> None:
    """As if the database were a copy."""
    meta = database[META]
    _write(meta, meta.find_one(_IDENTITY), place)


def read(database: Database[Document]) -> MongoIdentity | None:
    """None if it has none."""
    found = database[META].find_one(_IDENTITY)
    return None if found is None else MongoIdentity(found["store_id"], found["fence_floor"])


def _write(meta: Collection[Document], before: Document | None, place: DatabasePlace) -> Document | None:
    """A compare-and-set on the id that was read. What is there then, whoever wrote it."""
    floor = 0
    # What has jobs and no id is of an older version, and may be a copy for all that one can tell.
    if before is not None or meta.database[JOBS].find_one({}, {"_id": True}) is not None:
        floor = max(0 if before is None else before["fence_floor"] + STRIDE, int(time.time() * 1e6))
    after = {"store_id": tubes.new_id(), "bound_to": place._asdict(), "fence_floor": floor}
    if before is None:
        # Of two upserts at once by _id the server itself turns the second into an update.
        return meta.find_one_and_update(
            _IDENTITY, {"$setOnInsert": after}, upsert=True, return_document=ReturnDocument.AFTER
        )
    meta.update_one(_IDENTITY | {"store_id": before["store_id"]}, {"$set": after})
    return meta.find_one(_IDENTITY)


def _set_id(admin: Database[Document]) -> str | None:
    try:
        config: dict[str, Any] = admin.command("replSetGetConfig")["config"]
    except (OperationFailure, KeyError):
        return None
    found = config.get("settings", {}).get("replicaSetId")
    return None if found is None else str(found)
