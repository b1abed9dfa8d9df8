"""What the MongoDB store keeps: a row as a document, the indexes, and the version of both.

``kqueue_jobs`` holds a document for each job, ``_id`` being the job's id, and one for each type that has limits
(see :mod:`kqueue.stores.mongo.turns`). ``kqueue_notes`` holds what is remembered for a time: unique keys and
workers. ``kqueue_meta`` holds the little that stays: the schema's version, the time of the last sweep, the
settings, the last ticks of schedules, and what is paused.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from operator import attrgetter
from typing import Any, TypeAlias

from pymongo import IndexModel
from pymongo.database import Database
from pymongo.errors import OperationFailure

from kqueue.contracts.admission import hands_of
from kqueue.model import history
from kqueue.model.errors import StoreError
from kqueue.model.job import Row, State
from kqueue.stores.gates import gate_of

Document: TypeAlias = dict[str, Any]

JOBS = "kqueue_jobs"
META = "kqueue_meta"
NOTES = "kqueue_notes"

#: Bytes. A longer payload stands in a field of its own, so that candidates can be read without it. A full
#: window of payloads of this length is as much as a window may hold (8 MB), and fits one reply (16 MB).
INLINE_BYTES = 16 * 1024
#: Bytes of payload at most: MongoDB's 16 MiB for a document, less what stands beside the payload.
#: https://www.mongodb.com/docs/manual/reference/limits/
MAX_PAYLOAD_BYTES = 16 * 2**20 - 64 * 1024
#: A projection: what a claim reads of a candidate. No long payload, which may be too much for one reply, and no
#: history and nothing that its runs have told.
WITHOUT_LARGE = {"large_payload": False, "history": False, "progress": False, "log": False}

#: A projection: all that a row has. The log of a job is asked for by itself.
WITHOUT_LOG = {"log": False}

#: Rows that do not run, by (priority, order added) within a state and type.
ORDER = "order of what waits"
#: Finds by the head rule without reading what waits; and what is ready and is known to have no pointer.
LOST = "lost"
#: Rows known to have no pointer that are not ready, by their time within a state.
UNPUT = "unput and not ready"
#: Delayed rows by their time.
DELAYED = "delayed"
#: Running rows by their TTR, of which there are few, and the end of their lease: so both those that are over and
#: those that are too long stand together. With their types, to be counted.
LEASES = "leases of types by ttr"
#: Dead and done rows by id within a state, and delayed ones with them.
ENDED = "ended"
#: Done rows by the end of their keeping.
KEPT = "kept"
#: Rows that stand at a gate or have passed one, by (priority, order added) within a state and gate.
GATES = "gates"
#: What waits for its time, is kept, or is dead, by when that was asked for (``dated_at``: ``asked_at``, or else
#: ``created_at``); and what counts the starts of a type, by the last of them. And notes, by when they were written.
DATED = "dated"
#: Done and dead rows by when they ended.
ENDS = "ends"
#: Notes by the time when they are to be looked at.
LOOK_AT = "look_at"
#: Unique keys by the job that has them.
JOB = "job"

# Each index is paid for at each change of a row: a key of a plain row costs some 7 microseconds, and to see that a
# row has none in an index some 2. So one that runs has a key in its id and its lease only; and where texts are
# compared, that is by the names of the states: dead, delayed, done < held < ready < running.
_BUT_RUNNING: Document = {"state": {"$lt": str(State.RUNNING)}}
_BEFORE_READY: Document = {"state": {"$lt": str(State.READY)}}
_BEFORE_HELD: Document = {"state": {"$lt": str(State.HELD)}}
_INDEXES = (
    IndexModel(
        {"state": 1, "type": 1, "priority": 1, "place": 1}, name=ORDER, partialFilterExpression=_BUT_RUNNING
    ),
    IndexModel(
        {"type": 1, "priority": 1, "put_at": 1, "run_at": 1},
        name=LOST,
        partialFilterExpression={"state": str(State.READY)},
    ),
    IndexModel({"state": 1, "run_at": 1}, name=UNPUT, partialFilterExpression=_BEFORE_READY | {"put_at": None}),
    IndexModel({"run_at": 1}, name=DELAYED, partialFilterExpression={"state": str(State.DELAYED)}),
    IndexModel(
        {"state": 1, "ttr": 1, "lease_until": 1, "type": 1},
        name=LEASES,
        partialFilterExpression={"state": str(State.RUNNING)},
    ),
    IndexModel({"state": 1, "_id": 1, "type": 1}, name=ENDED, partialFilterExpression=_BEFORE_HELD),
    IndexModel({"keep_until": 1}, name=KEPT, partialFilterExpression={"state": str(State.DONE)}),
    IndexModel(
        {"type": 1, "state": 1, "gate": 1, "priority": 1, "place": 1},
        name=GATES,
        partialFilterExpression={"gate": {"$exists": True}},
    ),
    IndexModel({"dated_at": 1}, name=DATED, partialFilterExpression={"dated_at": {"$exists": True}}),
    IndexModel({"ended": 1, "_id": 1}, name=ENDS, partialFilterExpression={"ended": {"$exists": True}}),
)
_NOTE_INDEXES = (
    IndexModel({"look_at": 1}, name=LOOK_AT),
    IndexModel({"job": 1}, name=JOB, partialFilterExpression={"job": {"$exists": True}}),
    IndexModel({"dated_at": 1}, name=DATED, partialFilterExpression={"dated_at": {"$exists": True}}),
)

#: Fields that a document lacks while they have these values, as nearly all rows do. To a filter None is the same as
#: no field; 0 is not.
LEFT_OUT: Document = {
    "delay": 0.0,
    "failures": 0,
    "crashes": 0,
    "suspicion": 0,
    "lease_owner": None,
    "lease_until": None,
    "reason": None,
    "gate": None,
    "keep_until": None,
    "history": None,
    "unique_key": None,
    "limit_key": None,
    "scheduled_for": None,
    "asked_at": None,
    "own_options": None,
    "result": None,
    "progress": None,
}
#: What version 5 called the own options of a job.
_OWN_OPTIONS_BEFORE = "retries"
#: Of these it is known by an index when that was asked for.
DATED_STATES = frozenset({State.DELAYED, State.DONE, State.DEAD})
_left_out_of = attrgetter(*LEFT_OUT)
_NOTHING = tuple(LEFT_OUT.values())


def to_document(row: Row, place: int) -> Document:
    """The row as it is stored. ``place`` is its number in the order of adding.

    What indexes and filters look at stands first, and what says nothing is left out: the server walks a document
    from its beginning, for each index, whenever it changes. Without both, a job costs it a tenth more.
    """
    document: Document = {
        "_id": row.id,
        # Plain types: BSON knows no enums.
        "state": str(row.state),
        "type": row.type,
        "priority": int(row.priority),
        "place": place,
        "put_at": row.put_at,
        "run_at": row.run_at,
        "fence": row.fence,
        "tries": row.tries,
        "alone": row.alone,
        "ttr": row.ttr,
        "created_at": row.created_at,
        "encoding": row.encoding,
    }
    values = _left_out_of(row)
    if values != _NOTHING:  # all at once, since one is made for each job
        document |= {
            name: value for name, value, nothing in zip(LEFT_OUT, values, _NOTHING, strict=True) if value != nothing
        }
        if row.gate is not None and row.state == State.RUNNING:
            document["gate"] = gate_of(row.type, row.limit_key)
            document["holder"] = None if hands_of(row.gate) is None else row.gate
        if row.history is not None:  # as an array, so that the server can add to it
            document["history"] = [history.values(run) for run in history.read(row.history)]
    if row.state in DATED_STATES:
        document["dated_at"] = row.created_at if row.asked_at is None else row.asked_at
    if len(row.payload) <= INLINE_BYTES:
        document["payload"] = row.payload
    else:
        document["size"] = len(row.payload)
        document["large_payload"] = row.payload
    return document


def whole_row(document: Document) -> Row:
    """The row of a document of which every field was read."""
    return to_row(document, payload_of(document) or b"")


def to_row(document: Document, payload: bytes) -> Row:
    """The stored row, with its payload from where :func:`payload_of` found it.

    A row that runs under limits is stored with the last gate that it has passed, so that it is counted there, and
    what it counts with stands in ``holder``, if that is more than the row.
    """
    state, gate = document["state"], document.get("gate")
    if gate is not None and state == State.RUNNING:
        gate = document.get("holder") or gate_of(document["type"], None)
    return Row(  # by position, and not in a loop over the names: one is made for each run
        document["_id"],
        document["type"],
        payload,
        document["encoding"],
        document["priority"],
        state,
        document.get("delay", 0.0),
        document["run_at"],
        document["ttr"],
        document["fence"],
        document["tries"],
        document.get("failures", 0),
        document.get("crashes", 0),
        document.get("suspicion", 0),
        document["alone"],
        document.get("lease_owner"),
        document.get("lease_until"),
        document.get("reason"),
        gate,
        document.get("keep_until"),
        _history(document.get("history")),
        document["created_at"],
        document["put_at"],
        document.get("unique_key"),
        document.get("limit_key"),
        document.get("scheduled_for"),
        document.get("asked_at"),
        document.get("own_options", document.get(_OWN_OPTIONS_BEFORE)),
        document.get("result"),
        document.get("progress"),
    )


def payload_of(document: Document) -> bytes | None:
    """The payload, or None if it is long and was not read."""
    payload: bytes | None = document.get("payload")
    return document.get("large_payload") if payload is None else payload


def _history(runs: list[list[Any]] | None) -> str | None:
    return None if runs is None else json.dumps(runs, separators=(",", ":"))


def prepare(database: Database[Document], address: str) -> None:
    """Make or migrate the schema.

    Any number of processes may do so at once: every step may be repeated. Raises ``StoreError`` if the
    schema is newer than this KQueue knows; then nothing was changed.
    """
    meta = database[META]
    stored = meta.find_one({"_id": "schema"})
    version = 0 if stored is None else stored["version"]
    if version > len(_MIGRATIONS):
        raise StoreError(
            f"{address}: its schema is version {version} and this KQueue knows {len(_MIGRATIONS)};"
            " upgrade kqueue here, or use another database"
        )
    if version == len(_MIGRATIONS):
        return  # who may only read gets here too
    for migrate in dict.fromkeys(_MIGRATIONS[version:]):
        migrate(database)
    meta.update_one({"_id": "schema"}, {"$max": {"version": len(_MIGRATIONS)}}, upsert=True)


def make_indexes(database: Database[Document]) -> None:
    """Make those that are missing."""
    database[JOBS].create_indexes(list(_INDEXES))
    database[NOTES].create_indexes(list(_NOTE_INDEXES))


def date_rows(database: Database[Document]) -> None:
    """To version 3: the times that jobs are for, of those that schedules have added; only these were added after
    their time. And what lies ahead, so that it is found.
    """
    jobs = database[JOBS]
    _replace_indexes(database, ["leases"])
    if jobs.find_one({}, {"_id": True}) is None:
        return
    after = {"delay": {"$in": [None, 0.0]}, "$expr": {"$lt": ["$run_at", "$created_at"]}}
    jobs.update_many(after | {"scheduled_for": None}, [{"$set": {"scheduled_for": "$run_at"}}])
    now = {"$divide": [{"$toLong": "$$NOW"}, 1000]}
    ahead = {"state": str(State.DELAYED), "fence": 0, "$expr": {"$gt": ["$created_at", now]}}
    jobs.update_many(ahead, [{"$set": {"dated_at": "$created_at"}}])


def leave_out_running(database: Database[Document]) -> None:
    """To version 4: what runs has no key in the indexes of what waits."""
    _replace_indexes(database, ["order", "unput", "leases by ttr", "dead", "done"])


def _replace_indexes(database: Database[Document], old: Sequence[str]) -> None:
    make_indexes(database)
    for name in old:
        with suppress(OperationFailure):  # it is gone, or never was
            database[JOBS].drop_index(name)


#: From each version to the next; a new database starts at 0. What stands twice is done once: version 2 has more
#: indexes, versions 5 and 6 fields that older ones do not know.
_MIGRATIONS: Sequence[Callable[[Database[Document]], None]] = (
    make_indexes,
    make_indexes,
    date_rows,
    leave_out_running,
    make_indexes,
    make_indexes,
)
