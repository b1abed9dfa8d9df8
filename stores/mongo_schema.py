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
}


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
    for name, nothing in LEFT_OUT.items():
        value = getattr(row, name)
        if value != nothing:
            document[name] = value
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
    """The stored row, with its payload from where :func:`payload_of` found it."""
    return Row(  # by position, and not in a loop over the names: one is made for each run
        document["_id"],
        document["type"],
        payload,
        document["encoding"],
        document["priority"],
        document["state"],
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
        document["created_at"],
        document["put_at"],
    )


def payload_of(document: Document) -> bytes | None:
    """The payload, or None if it is long and was not read."""
    payload: bytes | None = document.get("payload")
    return document.get("large_payload") if payload is None else payload


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
