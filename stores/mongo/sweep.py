"""What a sweep asks of the rows of a MongoDB, and where it stands."""

import secrets
from collections.abc import Callable, Mapping, Sequence

from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError

from kqueue.contracts.repair import Due, Head
from kqueue.stores.mongo import commands, schema
from kqueue.stores.mongo.access import matching, read, write
from kqueue.stores.mongo.schema import Document

#: In ``kqueue_meta``: when the last sweep began, and the type that the next one goes on after.
_LAST, _POSITION = "last sweep", "sweep position"


def take(meta: Collection[Document], now: float, interval: float) -> bool:
    """Whether a sweep is due; then it is taken."""
    is_due = {"_id": _LAST, "$or": [{"at": {"$lte": now - interval}}, {"at": {"$gt": now}}]}
    try:
        meta.update_one(is_due, {"$set": {"at": now}}, upsert=True)
    except DuplicateKeyError:  # it is there and not due
        return False
    return True


def position(meta: Collection[Document]) -> str:
    """Empty at the begin of a round."""
    return str((meta.find_one({"_id": _POSITION}) or {}).get("type", ""))


def keep_position(meta: Collection[Document], type: str) -> None:
    """For whoever goes on with the round."""
    meta.update_one({"_id": _POSITION}, {"$set": {"type": type}}, upsert=True)


def due(jobs: Collection[Document], now: float, most: int) -> list[Due]:
    """Delayed rows whose time has come."""
    earliest = [("run_at", 1)]
    found = read(jobs, commands.due(now), commands.DUE, most, sort=earliest, index=schema.DELAYED)
    return [commands.to_due(row) for row in found]


def promote(jobs: Collection[Document], now: float, most: int) -> int:
    """How many of those became ready. 0 means that none is left, and not that others were faster."""
    while found := due(jobs, now, most):
        promoted = write(jobs, commands.promotions([row.id for row in found], now)).matched
        if promoted:
            return promoted
    return 0


def expire(jobs: Collection[Document], now: float, most: int) -> int:
    """How many finished rows were deleted that were kept long enough. 0 means that none is left."""
    earliest = [("keep_until", 1)]
    while found := read(jobs, commands.kept(now), {"_id": True}, most, sort=earliest, index=schema.KEPT):
        deleted = write(jobs, commands.expiries([row["_id"] for row in found])).deleted
        if deleted:
            return deleted
    return 0


def unput(jobs: Collection[Document], until: float, most: int) -> list[Due]:
    """Rows that are known to have no pointer, and may run by then."""
    ready, delayed = commands.unput(until)
    found = read(jobs, ready, commands.DUE, most, index=schema.LOST)
    if len(found) < most:
        found += read(jobs, delayed, commands.DUE, most - len(found), index=schema.UNPUT)
    return [commands.to_due(row) for row in found]


def lost(
    jobs: Collection[Document], heads: Mapping[str, Head | None], now: float, grace: float, most: int
) -> list[Due]:
    """Rows whose pointer is shown to be lost by the heads of their tubes."""
    if not heads:
        return []
    where = {"$or": [term for type, head in heads.items() for term in commands.lost(type, head, now, grace)]}
    best = [("type", 1), ("priority", 1), ("put_at", 1)]
    found = read(jobs, where, commands.DUE, most, sort=best, index=schema.LOST)
    return [commands.to_due(row) for row in found]


def mark(jobs: Collection[Document], dues: Sequence[Due], put_at: float) -> list[Due]:
    """Those that nobody else has marked, or run, since they were found."""
    if not dues:
        return []
    token = secrets.token_hex(8)
    written = write(jobs, commands.marks(dues, token, put_at))
    if written.matched == len(dues):
        return list(dues)
    ours = matching(jobs, [one.id for one in dues], {"written_by": token})
    return [one for one in dues if one.id in ours]


def made_ready(
    jobs: Collection[Document], ids: Sequence[str], writes: Callable[[str], list[commands.Write]]
) -> list[Due]:
    """What ``writes(token)`` makes ready of ``ids``, in their order: the token that it leaves is read then."""
    if not ids:
        return []
    token = secrets.token_hex(8)
    write(jobs, writes(token))
    made = {"_id": {"$in": list(ids)}, "written_by": token}
    dues = {row["_id"]: commands.to_due(row) for row in read(jobs, made, commands.DUE, len(ids))}
    return [dues[id] for id in dict.fromkeys(ids) if id in dues]
