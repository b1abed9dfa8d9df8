"""Reading and writing rows of a MongoDB, each with one command; and finding out which rows a write got."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from pymongo.collection import Collection
from pymongo.errors import AutoReconnect, OperationFailure, ServerSelectionTimeoutError

from kqueue.stores.mongo.commands import Write
from kqueue.stores.mongo.schema import Document, make_indexes

T = TypeVar("T")

#: What the server says, with no code of its own (2, BadValue).
_NO_SUCH_INDEX = "hint provided does not correspond to an existing index"
#: In one reply.
_GROUPS = 10_000


def read(
    jobs: Collection[Document],
    where: Document,
    fields: Mapping[str, bool] | None,
    most: int,
    *,
    sort: Sequence[tuple[str, int]] | None = None,
    index: str | None = None,
) -> list[Document]:
    """Up to ``most`` (at least 1) matching rows.

    ``index`` is named where a trial of the server's planner could choose one that walks or sorts a backlog.
    If it is gone (somebody dropped the collection while we use it), all are made again.
    """
    # Without a batch size the first reply ends after 101 rows.
    how: dict[str, Any] = {"limit": most, "batch_size": most, "sort": sort}
    if index is None:
        return list(jobs.find(where, fields, **how))
    return _with_index(jobs, lambda: list(jobs.find(where, fields, **how).hint(index)))


def group(
    jobs: Collection[Document],
    where: Document,
    groups: Mapping[str, Any],
    index: str,
    *,
    first: tuple[str, int] | None = None,
) -> list[Document]:
    """The groups of the rows that match, by the named index. ``first``: of the first so many by a field of it."""
    limited: list[Document] = [] if first is None else [{"$sort": {first[0]: 1}}, {"$limit": first[1]}]
    stages: list[Document] = [{"$match": where}, *limited, {"$group": groups}]
    return _with_index(jobs, lambda: list(jobs.aggregate(stages, hint=index, batchSize=_GROUPS)))


def _with_index(jobs: Collection[Document], call: Callable[[], T]) -> T:
    try:
        return call()
    except OperationFailure as error:
        if _NO_SUCH_INDEX not in str(error):
            raise
        make_indexes(jobs.database)
        return call()


class WriteCount(NamedTuple):
    """What the reply to some writes said."""

    matched: int = 0
    deleted: int = 0
    #: By an update that found nothing to change.
    inserted: int = 0
    #: Sent twice, so the counts may miss what the first sending did.
    repeated: bool = False


def write(jobs: Collection[Document], writes: Sequence[Write], *, ordered: bool = False) -> WriteCount:
    """Send ``writes``: one command for all updates, one for all deletes. ``ordered``: the first that fails ends it.

    If the connection breaks they are sent once more, which their filters make safe.
    """
    if not writes:
        return WriteCount()
    repeated = False
    try:
        result = jobs.bulk_write(writes, ordered=ordered)
    except ServerSelectionTimeoutError:
        raise  # no server was found in time: nothing was sent, and a second wait would find none either
    except AutoReconnect as error:
        repeated = True
        try:
            result = jobs.bulk_write(writes, ordered=ordered)
        except ServerSelectionTimeoutError:
            raise error from None  # what was sent at first may be done
    return WriteCount(result.matched_count, result.deleted_count, result.upserted_count, repeated)


def matching(jobs: Collection[Document], ids: Iterable[str], where: Document) -> set[str]:
    """Those of ``ids`` whose rows match."""
    ids = list(ids)
    if not ids:
        return set()
    return {row["_id"] for row in read(jobs, {"_id": {"$in": ids}} | where, {"_id": True}, len(ids))}
