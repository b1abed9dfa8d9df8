"""What a MongoDB store keeps beside jobs, a small document each: settings, pauses, the last ticks of schedules."""

import secrets
from collections.abc import Sequence
from typing import Any

from pymongo import ReturnDocument
from pymongo.client_session import ClientSession
from pymongo.collection import Collection
from pymongo.database import Database

from kqueue.contracts.intake import Span, Tick
from kqueue.stores.mongo import schema
from kqueue.stores.mongo.keys_and_workers import within
from kqueue.stores.mongo.schema import Document
from kqueue.stores.mongo.server.errors import suppress_read_only


def setting(meta: Collection[Document], name: str, default: str) -> str:
    """The setting's value; ``default`` is stored if it has none, unless the user may only read."""
    stored: Any = meta.find_one({"_id": f"setting {name}"})
    if stored is None:
        with suppress_read_only():
            # Of two upserts at once by _id the server itself turns the second into an update:
            # https://www.mongodb.com/docs/manual/reference/method/db.collection.update/#upsert-with-unique-index
            stored = meta.find_one_and_update(
                {"_id": f"setting {name}"},
                {"$setOnInsert": {"value": default}},
                upsert=True,
                return_document=ReturnDocument.AFTER,
            )
    return default if stored is None else str(stored["value"])


def remember(meta: Collection[Document], name: str, value: str) -> None:
    """In the place of what was there."""
    meta.update_one({"_id": f"remembered {name}"}, {"$set": {"value": value}}, upsert=True)


def remembered(meta: Collection[Document], name: str) -> str | None:
    """What was given last."""
    found = meta.find_one({"_id": f"remembered {name}"})
    return None if found is None else str(found["value"])


def pause(meta: Collection[Document], type: str, now: float) -> bool:
    """False if it was paused already."""
    since = {"$setOnInsert": {"since": now}}
    return meta.update_one({"_id": f"paused {type}"}, since, upsert=True).upserted_id is not None


def resume(meta: Collection[Document], type: str) -> bool:
    """False if it was not paused."""
    return meta.delete_one({"_id": f"paused {type}"}).deleted_count > 0


def paused(meta: Collection[Document]) -> dict[str, float]:
    """What is paused, and since when."""
    return {_name(found): found["since"] for found in meta.find({"_id": within("paused")})}


def last_ticks(meta: Collection[Document]) -> dict[str, float]:
    """The last tick of each schedule."""
    return {_name(found): found["last"] for found in meta.find({"_id": within("schedule")})}


def added_ticks(meta: Collection[Document]) -> dict[str, tuple[Span, ...]]:
    """The spans of time whose ticks were added, by schedule."""
    found = meta.find({"_id": within("schedule")})
    return {_name(one): tuple((first, last) for first, last in one.get("added", ())) for one in found}


class TickOnce:
    """A tick and its rows, to be added in a transaction that may have to be begun again."""

    def __init__(self, database: Database[Document], tick: Tick, documents: Sequence[Document]) -> None:
        self._jobs, self._meta = database[schema.JOBS], database[schema.META]
        self._tick, self._documents = tick, documents
        self._schedule: Document = {"_id": f"schedule {tick.schedule}"}
        self._token = secrets.token_hex(8)

    def add(self, session: ClientSession) -> bool:
        """In a transaction. False if the schedule has gone on."""
        found = self._meta.find_one(self._schedule, session=session)
        if (None if found is None else found["last"]) != self._tick.before:
            return False
        if self._documents:
            self._jobs.insert_many(self._documents, session=session)
        # Last, since others want to change it too.
        fields = {"last": self._tick.after, "added": self._tick.added, "written_by": self._token}
        self._meta.update_one(self._schedule, {"$set": fields}, upsert=True, session=session)
        return True

    def added(self) -> bool | None:
        """True if it is seen to be there."""
        return True if self._meta.find_one(self._schedule | {"written_by": self._token}) else None


def _name(document: Document) -> str:
    name: str = document["_id"].partition(" ")[2]
    return name
