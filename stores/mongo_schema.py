"""What the MongoDB store keeps: a row as a document, the indexes, and the version of both.

``kqueue_jobs`` holds a document for each job, ``_id`` being the job's id; ``kqueue_meta`` holds the schema's
version, the time of the last sweep and the settings.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

from pymongo import IndexModel
from pymongo.database import Database

from kqueue.errors import StoreError
from kqueue.job import Row, State

Document: TypeAlias = dict[str, Any]

JOBS = "kqueue_jobs"
META = "kqueue_meta"

#: Bytes. A longer payload stands in a field of its own, so that candidates can be read without it. A full
#: window of payloads of this length is as much as a window may hold (8 MB), and fits one reply (16 MB).
INLINE_BYTES = 16 * 1024
#: Bytes of payload at most: MongoDB's 16 MiB for a document, less what stands beside the payload.
#: https://www.mongodb.com/docs/manual/reference/limits/
MAX_PAYLOAD_BYTES = 16 * 2**20 - 64 * 1024
#: A projection: everything but a long payload.
WITHOUT_LARGE = {"large_payload": False}

#: By (priority, order added) within a state and type.
ORDER = "order"
#: Finds by the head rule without reading what waits.
LOST = "lost"
#: Rows known to have no pointer.
UNPUT = "unput"
#: Delayed rows by their time.
DELAYED = "delayed"
#: Running rows by the end of their lease.
LEASES = "leases"
#: Dead rows by id.
DEAD = "dead"

# Each index is paid for at each change of a row; the partial ones only by the rows of one state.
_INDEXES = (
    IndexModel({"state": 1, "type": 1, "priority": 1, "place": 1}, name=ORDER),
    IndexModel(
        {"type": 1, "priority": 1, "put_at": 1, "run_at": 1},
        name=LOST,
        partialFilterExpression={"state": str(State.READY)},
    ),
    IndexModel({"state": 1, "run_at": 1}, name=UNPUT, partialFilterExpression={"put_at": None}),
    IndexModel({"run_at": 1}, name=DELAYED, partialFilterExpression={"state": str(State.DELAYED)}),
    IndexModel({"lease_until": 1}, name=LEASES, partialFilterExpression={"state": str(State.RUNNING)}),
    IndexModel({"_id": 1, "type": 1}, name=DEAD, partialFilterExpression={"state": str(State.DEAD)}),
)

_SAME_IN_BOTH = tuple(name for name in Row._fields if name not in ("id", "payload", "state", "priority"))


def to_document(row: Row, place: int) -> Document:
    """The row as it is stored. ``place`` is its number in the order of adding."""
    document: Document = {name: getattr(row, name) for name in _SAME_IN_BOTH}
    document["_id"] = row.id
    # Plain types: BSON knows no enums.
    document["state"] = str(row.state)
    document["priority"] = int(row.priority)
    document["place"] = place
    document["size"] = len(row.payload)
    document["payload" if len(row.payload) <= INLINE_BYTES else "large_payload"] = row.payload
    return document


def whole_row(document: Document) -> Row:
    """The row of a document of which every field was read."""
    return to_row(document, payload_of(document) or b"")


def to_row(document: Document, payload: bytes) -> Row:
    """The stored row, with its payload from where :func:`payload_of` found it."""
    return Row(
        id=document["_id"],
        payload=payload,
        state=document["state"],
        priority=document["priority"],
        **{name: document[name] for name in _SAME_IN_BOTH},
    )


def payload_of(document: Document) -> bytes | None:
    """The payload, or None if it is long and was not read."""
    payload: bytes | None = document.get("payload", document.get("large_payload"))
    return payload


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
    for migrate in _MIGRATIONS[version:]:
        migrate(database)
    meta.update_one({"_id": "schema"}, {"$max": {"version": len(_MIGRATIONS)}}, upsert=True)


def make_indexes(database: Database[Document]) -> None:
    """Make those that are missing."""
    database[JOBS].create_indexes(list(_INDEXES))


#: From each version to the next; a new database starts at 0.
_MIGRATIONS: tuple[Callable[[Database[Document]], None], ...] = (make_indexes,)
