"""Reading and writing rows of a MongoDB, each with one command; and finding out which rows a write got."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from pymongo.collection import Collection
from pymongo.errors import AutoReconnect, OperationFailure, ServerSelectionTimeoutError

from kqueue.stores.mongo_commands import Write
from kqueue.stores.mongo_schema import Document, make_indexes

#: What the server says, with no code of its own (2, BadValue).
_NO_SUCH_INDEX = "hint provided does not correspond to an existing index"


def read(
    jobs: Collection[Document],
    where: Document,
    fields: Mapping[str, bool] | None,
    limit: int,
    *,
    sort: Sequence[tuple[str, int]] | None = None,
    index: str | None = None,
) -> list[Document]:
    """Up to ``limit`` (at least 1) matching rows.

    ``index`` is named where a trial of the server's planner could choose one that walks or sorts a backlog.
    If it is gone (somebody dropped the collection while we use it), all are made again.
    """
    # Without a batch size the first reply ends after 101 rows.
    found = jobs.find(where, fields, limit=limit, batch_size=limit, sort=sort)
    if index is None:
        return list(found)
    try:
        return list(found.hint(index))
    except OperationFailure as error:
        if _NO_SUCH_INDEX not in str(error):
            raise
        make_indexes(jobs.database)
        return list(found.rewind())


class Written(NamedTuple):
    """What the reply to some writes said."""

    matched: int = 0
    deleted: int = 0
    #: Sent twice, so the counts may miss what the first sending did.
    repeated: bool = False


def write(jobs: Collection[Document], writes: Sequence[Write]) -> Written:
    """Send ``writes``: one command for all updates, one for all deletes.

    If the connection breaks they are sent once more, which their filters make safe.
    """
    if not writes:
        return Written()
    repeated = False
    try:
        result = jobs.bulk_write(writes, ordered=False)
    except ServerSelectionTimeoutError:
        raise  # no server was found in time: nothing was sent, and a second wait would find none either
    except AutoReconnect:
        repeated = True
        result = jobs.bulk_write(writes, ordered=False)
    return Written(result.matched_count, result.deleted_count, repeated)


def matching(jobs: Collection[Document], ids: Iterable[str], where: Document) -> set[str]:
    """Those of ``ids`` whose rows match."""
    ids = list(ids)
    return {row["_id"] for row in read(jobs, {"_id": {"$in": ids}} | where, {"_id": True}, len(ids))}
