"""Adding rows to a MongoDB, and what became of each when something fails."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from pymongo.collection import Collection
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    ExecutionTimeout,
    PyMongoError,
    ServerSelectionTimeoutError,
)

from kqueue.model.errors import AddFailed
from kqueue.model.job import Row
from kqueue.stores.mongo.access import matching
from kqueue.stores.mongo.schema import MAX_PAYLOAD_BYTES, Document, to_document
from kqueue.stores.mongo.server.errors import lost_its_primary, may_be_done, named

#: Bytes of payload in one command at most, so that the driver never splits it (it does at 48 MB).
_COMMAND_BYTES = 32 * 2**20
#: Rows in one command at most (the driver splits at 100,000).
_COMMAND_ROWS = 50_000


@dataclass
class _Outcome:
    """What became of the rows, as ids."""

    taken: list[str] = field(default_factory=list)
    not_taken: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    #: Why not all were taken.
    cause: PyMongoError | None = None


def insert(jobs: Collection[Document], rows: Sequence[Row], places: Sequence[int], address: str) -> None:
    """Insert ``rows``, each at its place: one command, or several if they are more than a command can hold.

    Raises ``AddFailed``, naming ``address``, if not all are known to be taken.
    """
    _refuse_too_long(rows, address)
    outcome = _Outcome()
    for start, end in _commands(rows):
        if outcome.cause is None:
            documents = [to_document(*both) for both in zip(rows[start:end], places[start:end], strict=True)]
            _insert_part(jobs, documents, outcome)
        else:
            outcome.not_taken += [row.id for row in rows[start:end]]
    if outcome.cause is not None:
        error = named(outcome.cause, address)
        raise AddFailed(
            f"of {len(rows)} jobs {len(outcome.taken)} were taken, {len(outcome.not_taken)} were not,"
            f" {len(outcome.unknown)} are unknown: {error}",
            taken=outcome.taken,
            not_taken=outcome.not_taken,
            unknown=outcome.unknown,
        ) from error


@contextmanager
def all_or_none(rows: Sequence[Row], address: str) -> Iterator[None]:
    """Around a transaction that adds ``rows``: what is raised is raised as ``AddFailed``, naming ``address``.

    The rows are unknown where nobody can tell what became of it.
    """
    _refuse_too_long(rows, address)
    ids = [row.id for row in rows]
    try:
        yield
    except PyMongoError as error:
        ours = named(error, address)
        if may_be_done(error):
            raise AddFailed(f"{len(rows)} jobs are unknown: {ours}", unknown=ids) from ours
        raise AddFailed(f"no job was added: {ours}", not_taken=ids) from ours


def _insert_part(jobs: Collection[Document], documents: list[Document], outcome: _Outcome) -> None:
    """One command. The driver sends it again if its reply is lost, and the server does it once."""
    ids = [document["_id"] for document in documents]
    try:
        jobs.insert_many(documents, ordered=False)
    except BulkWriteError as error:
        outcome.cause = error
        details = error.details or {}
        refused = {ids[item["index"]] for item in details.get("writeErrors", ())}
        outcome.not_taken += [id for id in ids if id in refused]
        # Written here, but no majority has said so in time: it may be undone.
        unsure = bool(details.get("writeConcernErrors")) or lost_its_primary(error)
        (outcome.unknown if unsure else outcome.taken).extend(id for id in ids if id not in refused)
    except ServerSelectionTimeoutError as error:
        # Never sent. (Had the first sending failed, and the second found no server, pymongo would raise
        # the first one's error.)
        outcome.cause = error
        outcome.not_taken += ids
    except (AutoReconnect, ExecutionTimeout) as error:
        outcome.cause = error
        there: set[str] = set()
        with suppress(PyMongoError):
            there = matching(jobs, ids, {})
        outcome.taken += [id for id in ids if id in there]
        # Not to be found proves nothing: it may be on its way, or have been run and deleted.
        outcome.unknown += [id for id in ids if id not in there]
    except PyMongoError as error:  # refused
        outcome.cause = error
        outcome.not_taken += ids
    else:
        outcome.taken += ids


def _refuse_too_long(rows: Sequence[Row], address: str) -> None:
    longest = max((len(row.payload) for row in rows), default=0)
    if longest > MAX_PAYLOAD_BYTES:
        raise AddFailed(
            f"{address}: a payload has {longest} bytes and MongoDB takes at most {MAX_PAYLOAD_BYTES};"
            f" none of {len(rows)} jobs was taken",
            not_taken=[row.id for row in rows],
        )


def _commands(rows: Sequence[Row]) -> Iterator[tuple[int, int]]:
    """Where to cut ``rows``, as (start, end), so that one command holds each part."""
    start, size = 0, 0
    for at, row in enumerate(rows):
        size += len(row.payload)
        if at > start and (size > _COMMAND_BYTES or at - start == _COMMAND_ROWS):
            yield start, at
            start, size = at, len(row.payload)
    if rows:
        yield start, len(rows)
