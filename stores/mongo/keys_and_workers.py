"""What a MongoDB store remembers for a time: unique keys, each with the job that has it, and workers.

A note says when it is to be looked at (``look_at``): at what time a key or a worker may be forgotten. A key whose
job still has a row then is looked at again after a while, so that a look at what is to be forgotten never walks
past those of all waiting jobs.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import pymongo
from pymongo import DeleteMany, UpdateMany
from pymongo.client_session import ClientSession
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import PyMongoError

from kqueue.contracts.workers import WorkerRecord
from kqueue.stores.mongo import schema
from kqueue.stores.mongo.access import matching, read, write
from kqueue.stores.mongo.commands import Write
from kqueue.stores.mongo.schema import Document
from kqueue.stores.transitions import FORGET_AFTER_S, UNFINISHED

#: Seconds until a key whose job has a row is looked at again.
_LOOK_AGAIN_S = 600.0
#: Seconds that it may take to forget something; what is not forgotten then is forgotten later.
_FORGETTING_S = 1.0
#: Looks at notes in one call: else keys would come faster than they go.
_MOST_LOOKS = 20
#: Keys that a purge reads at once.
_PAGE = 1000
_UNFINISHED = frozenset(str(state) for state in UNFINISHED)


def within(kind: str) -> Document:
    """The range of the ids ``"kind ..."``. A type holds no space, so the ids of one type stand together too."""
    return {"$gte": f"{kind} ", "$lt": f"{kind}!"}  # '!' follows the space


# -- unique keys -----------------------------------------------------------------------------------------


class UniqueOnce:
    """A row, as a document, to be added in a transaction if its key is free. It may have to be begun again."""

    def __init__(self, database: Database[Document], document: Document, until: float, now: float) -> None:
        self._jobs, self._notes = database[schema.JOBS], database[schema.NOTES]
        self._document, self._until, self._now = document, until, now
        self._id: str = document["_id"]

    def add(self, session: ClientSession) -> str:
        """In a transaction. The id of the job that has the key then."""
        key: Document = {"_id": f"unique {self._document['type']} {self._document['unique_key']}"}
        note = self._notes.find_one(key, session=session)
        if note is not None:
            id: str = note["job"]
            if note["until"] > self._now:
                return id
            holder = self._jobs.find_one({"_id": id}, {"state": True}, session=session)
            if holder is not None and holder["state"] in _UNFINISHED:
                return id
        self._jobs.insert_one(self._document, session=session)
        # Last, since others may want to change it too.
        fields = {"job": self._id, "until": self._until, "look_at": max(self._until, self._now)}
        fields["dated_at"] = self._now
        self._notes.update_one(key, {"$set": fields}, upsert=True, session=session)
        return self._id

    def added(self) -> str | None:
        """Its id if it is seen to be there."""
        return next(iter(matching(self._jobs, [self._id], {})), None)


def free_keys(database: Database[Document], ids: Sequence[str]) -> None:
    """Forget the unique keys that jobs of these ids have."""
    write(database[schema.NOTES], [DeleteMany({"job": {"$in": list(ids)}})])


def free_orphans(database: Database[Document], type: str) -> None:
    """Forget the unique keys of a type whose job has no row any more. Reads all keys of the type."""
    notes, after = database[schema.NOTES], within(f"unique {type}")
    while page := read(notes, {"_id": after}, {"job": True}, _PAGE, sort=[("_id", 1)]):
        gone = _without_row(database, page)
        if gone:
            free_keys(database, gone)
        if len(page) < _PAGE:
            return
        after = after | {"$gt": page[-1]["_id"]}


def free_orphans_among(database: Database[Document], ids: Sequence[str]) -> None:
    """Forget the unique keys of those of ``ids`` that have no row."""
    there = matching(database[schema.JOBS], ids, {})
    free_keys(database, [id for id in ids if id not in there])


def _without_row(database: Database[Document], notes: Iterable[Document]) -> list[str]:
    """The jobs of these keys that have no row. A key and its row come at once, so a row that is read later is there
    if it ever was.
    """
    ids = [note["job"] for note in notes]
    there = matching(database[schema.JOBS], ids, {}) if ids else set()
    return [id for id in ids if id not in there]


# -- workers ---------------------------------------------------------------------------------------------


def see_worker(notes: Collection[Document], worker: WorkerRecord) -> None:
    """Write it in the place of what was there."""
    fields: dict[str, Any] = worker._asdict() | {"types": list(worker.types)}
    notes.replace_one(
        {"_id": f"worker {worker.id}"}, fields | dates_of(worker.seen_at, worker.started_at), upsert=True
    )


def dates_of(seen_at: float, started_at: float) -> Document:
    """When a worker may be forgotten, and the later of its times."""
    return {"look_at": seen_at + FORGET_AFTER_S, "dated_at": max(seen_at, started_at)}


def forget_worker(notes: Collection[Document], id: str) -> None:
    """Forget a worker that has left."""
    notes.delete_one({"_id": f"worker {id}"})


def workers(notes: Collection[Document]) -> list[WorkerRecord]:
    """All workers that are remembered, by id."""
    found = notes.find(
        {"_id": within("worker")}, {"_id": False, "look_at": False, "dated_at": False}, sort=[("_id", 1)]
    )
    return [WorkerRecord(**note | {"types": tuple(note["types"])}) for note in found]


# -- forgetting ------------------------------------------------------------------------------------------


def forget(database: Database[Document], now: float, most: int) -> None:
    """Look at the notes whose time has come, up to ``most`` at a time, and forget those that nobody asks for any
    more.
    """
    for _ in range(_MOST_LOOKS):
        if not _forget_some(database, now, most):
            return


def _forget_some(database: Database[Document], now: float, most: int) -> bool:
    """Whether there may be more."""
    notes = database[schema.NOTES]
    found = read(notes, {"look_at": {"$lte": now}}, None, most, sort=[("look_at", 1)], index=schema.LOOK_AT)
    if not found:
        return False
    keys = [note for note in found if "job" in note]
    gone = _without_row(database, keys)
    kept = {note["job"] for note in keys}.difference(gone)
    due = {"_id": {"$in": [note["_id"] for note in found]}, "look_at": {"$lte": now}}
    writes: list[Write] = [
        # A key that another job took meanwhile is that job's.
        DeleteMany(due | {"job": {"$in": [None, *gone]}}),
        UpdateMany(due | {"job": {"$in": list(kept)}}, {"$set": {"look_at": now + _LOOK_AGAIN_S}}),
    ]
    try:
        with pymongo.timeout(_FORGETTING_S):
            write(notes, writes)
    except PyMongoError as error:
        # One that is killed in a transaction keeps its key shut for a while. No sweep is to wait so long.
        if not error.timeout:
            raise
        return False
    return len(found) == most
