"""What a MongoDB store remembers for a time: unique keys, each with the job that has it, and workers.

A note says when it is to be looked at (``look_at``): at what time a key or a worker may be forgotten. A key whose
job still has a row then is looked at again after a while, so that a look at what is to be forgotten never walks
past those of all waiting jobs.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pymongo
from pymongo import DeleteMany, UpdateMany, UpdateOne
from pymongo.client_session import ClientSession
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import PyMongoError

from kqueue.contracts.workers import WorkerRecord
from kqueue.stores.gates import gate_of
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
    """The range of the ids ``"kind ..."``. Keys are named as gates are, so those of one type stand together too."""
    return {"$gte": f"{kind} ", "$lt": f"{kind}!"}  # '!' follows the space


# -- unique keys -----------------------------------------------------------------------------------------


def key_note(type: str, key: str) -> str:
    """The id of the note that says which job has the key."""
    return f"unique {gate_of(type, key)}"


class UniqueOnce:
    """Rows, as documents, to be added in a transaction as far as their keys are free. It may be begun again."""

    def __init__(
        self, database: Database[Document], documents: Sequence[Document], until: Mapping[str, float], now: float
    ) -> None:
        self._jobs, self._notes = database[schema.JOBS], database[schema.NOTES]
        self._documents, self._until, self._now = documents, until, now
        self._keys = {
            document["_id"]: key_note(document["type"], document["unique_key"])
            for document in documents
            if document.get("unique_key") is not None
        }
        #: As the last attempt has found: whose key each has, and what is to be added.
        self._holders: list[str] = []
        self._new: list[Document] = []

    def add(self, session: ClientSession) -> list[str]:
        """In a transaction. For each the id of the job that has its key then, its own if it has none."""
        taken, key_of = self._taken(session), self._keys.get
        ids = [document["_id"] for document in self._documents]
        self._holders = [taken.get(key_of(id, ""), id) for id in ids]
        self._new = [document for document in self._documents if key_of(document["_id"], "") not in taken]
        if self._new:
            self._jobs.insert_many(self._new, session=session)
        # Last, since others may want to change them too.
        notes = [
            UpdateOne({"_id": self._keys[id]}, {"$set": self._note(id)}, upsert=True)
            for id in (document["_id"] for document in self._new)
            if id in self._keys
        ]
        if notes:
            self._notes.bulk_write(notes, session=session)
        return self._holders

    def added(self) -> list[str] | None:
        """What :meth:`add` has given, if all that it has added is seen to be there."""
        new = {document["_id"] for document in self._new}
        return self._holders if matching(self._jobs, new, {}) == new else None

    def _taken(self, session: ClientSession) -> dict[str, str]:
        """The ids of the jobs that have keys of these rows, by the key's note."""
        wanted = {"_id": {"$in": [*self._keys.values()]}}
        notes = list(self._notes.find(wanted, batch_size=len(self._keys) + 1, session=session))
        over = [note["job"] for note in notes if note["until"] <= self._now]
        waiting: set[str] = set()
        if over:
            unfinished = {"_id": {"$in": over}, "state": {"$in": [*_UNFINISHED]}}
            found = self._jobs.find(unfinished, {"_id": True}, batch_size=len(over) + 1, session=session)
            waiting = {row["_id"] for row in found}
        return {note["_id"]: note["job"] for note in notes if note["until"] > self._now or note["job"] in waiting}

    def _note(self, id: str) -> Document:
        until = self._until[id]
        return {"job": id, "until": until, "look_at": max(until, self._now), "dated_at": self._now}


def free_keys(database: Database[Document], ids: Sequence[str]) -> None:
    """Forget the unique keys that jobs of these ids have."""
    write(database[schema.NOTES], [DeleteMany({"job": {"$in": list(ids)}})])


def free_orphans(database: Database[Document], type: str) -> None:
    """Forget the unique keys of a type whose job has no row any more. Reads all keys of the type."""
    notes, after = database[schema.NOTES], within(f"unique {gate_of(type, None)}")
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
