"""The MongoDB store's writes and filters, as values: pure, no I/O.

Theory of operation. Every write here is a compare-and-set: its filter holds what was read (fence, state,
``put_at``), so of two that come at once one matches. Writes to many documents are not retried by the
driver [1]_, but these may be repeated after a lost reply: what the first attempt has changed no longer matches,
or is changed to the same. Where the reply's count does not tell which rows a write got, they are read back by
what it left in them: ``lease_owner`` or a token (``written_by``).

State and times stand in ``$nor``, which uses no index: so the server has only ``_id`` to choose from, and
never walks a backlog that happens to begin with the same rows.

.. [1] https://www.mongodb.com/docs/manual/core/retryable-writes/
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple, TypeAlias

from pymongo import DeleteMany, UpdateMany

from kqueue.job import Row, State
from kqueue.rules import recovery
from kqueue.store import Abandoned, Delete, Die, Due, Head, Held, Retry, Settlement, Unget
from kqueue.stores.mongo_schema import LEFT_OUT, Document
from kqueue.stores.transitions import waiting

Write: TypeAlias = UpdateMany | DeleteMany

READY, DELAYED, RUNNING, DEAD = (str(s) for s in (State.READY, State.DELAYED, State.RUNNING, State.DEAD))

_NO_DEATHS: Document = {"crashes": 0, "suspicion": 0}
#: No field says 0 as well.
_NONE: Document = {"$in": [0, None]}
#: A run that is settled has no holder any more.
_SETTLED: Document = {"lease_owner": None}
_DUE_FIELDS = ("_id", "type", "priority", "run_at", "put_at")
#: A projection: what a ``Due`` needs.
DUE = dict.fromkeys(_DUE_FIELDS, True)
_ABANDONED_FIELDS = ("_id", "type", "alone", "crashes", "lease_owner", "lease_until")
#: A projection: what an ``Abandoned`` needs.
ABANDONED = dict.fromkeys(_ABANDONED_FIELDS, True)


def to_due(document: Document) -> Due:
    """The ``Due`` of a document read with :data:`DUE`."""
    return Due(*(document[name] for name in _DUE_FIELDS))


def to_abandoned(document: Document) -> Abandoned:
    """The ``Abandoned`` of a document read with :data:`ABANDONED`."""
    fields = LEFT_OUT | document
    return Abandoned(*(fields[name] for name in _ABANDONED_FIELDS))


def claimable(ids: Sequence[str], types: Sequence[str]) -> Document:
    """Ready and delayed rows among ``ids``, the delayed ones due or not."""
    return _among(ids, {"state": _not(READY, DELAYED)}) | {"type": {"$in": list(types)}}


def claims(rows: Sequence[Row], owner: str, now: float, alone: bool) -> list[Write]:
    """Claim ``rows``: one write for all that were read alike.

    A late holder may settle a row between our read and this write, at the same fence; ``lease_owner`` is then
    taken off, so it is compared too.
    """
    groups: defaultdict[tuple[int, float, str | None], list[str]] = defaultdict(list)
    for row in rows:
        groups[row.fence, row.ttr, row.lease_owner].append(row.id)
    return [
        UpdateMany(
            _among(ids, {"state": _not(READY, DELAYED)}) | {"fence": fence, "lease_owner": late_holder},
            {
                "$set": {"state": RUNNING, "lease_owner": owner, "lease_until": now + ttr, "alone": alone},
                "$inc": {"fence": 1, "tries": 1},
            },
        )
        for (fence, ttr, late_holder), ids in groups.items()
    ]


def renewals(held: Sequence[Held], now: float, alone: bool | None) -> list[Write]:
    """Another TTR where the fence matches and the row is running, or ready again since its lease ran out."""
    groups: defaultdict[tuple[int, float], list[str]] = defaultdict(list)
    for job in held:
        groups[job.fence, job.ttr].append(job.id)
    return [
        UpdateMany(
            _among(ids, {"state": _not(RUNNING, READY)}, _SETTLED) | {"fence": fence},
            {"$set": {"state": RUNNING, "lease_until": now + ttr} | ({} if alone is None else {"alone": alone})},
        )
        for (fence, ttr), ids in groups.items()
    ]


def settlements(many: Sequence[Settlement], token: str, now: float) -> list[Write]:
    """Deletes, one write for each fence; then the others, one write for all that say the same."""
    deletes: defaultdict[int, list[str]] = defaultdict(list)
    updates: defaultdict[tuple[type, Any], list[str]] = defaultdict(list)
    for one in many:
        if isinstance(one, Delete):
            deletes[one.fence].append(one.id)
        else:
            updates[type(one), one._replace(id="")].append(one.id)
    return [
        *(DeleteMany(_among(ids, _SETTLED) | {"fence": fence}) for fence, ids in deletes.items()),
        *chain.from_iterable(_endings(alike, ids, token, now) for (_, alike), ids in updates.items()),
    ]


def revivals(ids: Sequence[str], token: str, reason: str, now: float, put_at: float | None) -> list[Write]:
    """Make the dead among ``ids`` ready."""
    fresh = {"state": READY, "run_at": now, "put_at": put_at, "reason": _text(reason), "written_by": token}
    fresh |= {"tries": 0, "failures": 0} | _NO_DEATHS | _SETTLED
    return [UpdateMany(_among(ids, {"state": _not(DEAD)}), {"$set": fresh})]


def promotions(ids: Sequence[str], now: float) -> list[Write]:
    """Make the delayed among ``ids`` ready that are due."""
    if not ids:
        return []
    due = _among(ids, {"state": _not(DELAYED)}, {"run_at": {"$gt": now}})
    return [UpdateMany(due, {"$set": {"state": READY}})]


class Recovery(NamedTuple):
    """What becomes of abandoned rows."""

    ready: list[Write]
    dead: list[Write]


def recoveries(found: Sequence[Abandoned], now: float, max_crashes: int) -> Recovery:
    """Take abandoned rows from their holder."""
    groups: defaultdict[tuple[bool, int], list[str]] = defaultdict(list)
    for row in found:
        groups[row.alone, row.crashes if row.alone else 0].append(row.id)
    recovered = Recovery([], [])
    for (alone, crashes), ids in groups.items():
        state, reason = recovery(alone, crashes, max_crashes)
        still = _among(ids, {"state": _not(RUNNING)}, {"lease_until": {"$gt": now}})
        as_read: Document = {"alone": True, "crashes": crashes or _NONE} if alone else {"alone": False}
        fields = {"state": str(state), "reason": reason, "put_at": None, "lease_until": None}
        death = "crashes" if alone else "suspicion"
        (recovered.dead if state == State.DEAD else recovered.ready).append(
            UpdateMany(still | as_read, {"$set": fields, "$inc": {death: 1}})
        )
    return recovered


def purges(ids: Sequence[str]) -> list[Write]:
    """Delete those of ``ids`` that do not run."""
    return [DeleteMany(_among(ids, {"state": RUNNING}))] if ids else []


def marks(dues: Sequence[Due], token: str, put_at: float) -> list[Write]:
    """Write ``put_at`` where it still is as it was read."""
    groups: defaultdict[float | None, list[str]] = defaultdict(list)
    for due in dues:
        groups[due.put_at].append(due.id)
    return [
        UpdateMany(
            _among(ids, {"state": _not(READY, DELAYED)}) | {"put_at": as_read},
            {"$set": {"put_at": put_at, "written_by": token}},
        )
        for as_read, ids in groups.items()
    ]


def due(now: float) -> Document:
    """Delayed rows that may be made ready."""
    return {"state": DELAYED, "run_at": {"$lte": now}}


def abandoned(now: float) -> Document:
    """Running rows whose lease has run out."""
    return {"state": RUNNING, "lease_until": {"$lte": now}}


def unput(until: float) -> Document:
    """Rows that have no pointer and want one."""
    return {"put_at": None, "$or": [{"state": READY}, {"state": DELAYED, "run_at": {"$lte": until}}]}


def lost(type: str, head: Head | None, now: float, grace: float) -> list[Document]:
    """The head rule as filters, the best priority first; each is a range of the index."""
    old = now - grace
    waited: Document = {"state": READY, "type": type, "put_at": {"$lte": old}, "run_at": {"$lte": old}}
    if head is None:
        return [waited]
    behind = {"put_at": {"$lte": old, "$lt": head.put_at - grace}}
    return [waited | {"priority": {"$lt": head.priority}}, waited | {"priority": head.priority} | behind]


def pages(ids: Iterable[str], size: int) -> Iterator[list[str]]:
    """``ids``, each once, in lists of ``size`` and then twice as many each time.

    So a window of one reads little of a long pointer, and a long run of ids that are gone costs few reads.
    """
    rest = list(dict.fromkeys(ids))
    while rest:
        page, rest = rest[:size], rest[size:]
        yield page
        size *= 2


def _endings(alike: Retry | Unget | Die, ids: list[str], token: str, now: float) -> list[Write]:
    where = _among(ids, _SETTLED) | {"fence": alike.fence}
    fields: Document = _SETTLED | {"lease_until": None, "alone": False, "written_by": token}
    if isinstance(alike, Die):
        fields |= {"state": DEAD, "reason": _text(alike.reason), "put_at": None} | _NO_DEATHS
        return [UpdateMany(where, {"$set": fields, "$inc": {"failures": 1}})]
    fields |= {"state": str(waiting(alike.run_at, now)), "run_at": alike.run_at, "put_at": alike.put_at}
    if isinstance(alike, Retry):
        fields |= {"reason": _text(alike.reason)} | _NO_DEATHS
        return [UpdateMany(where, {"$set": fields, "$inc": {"failures": 1}})]
    if alike.priority is not None:
        fields["priority"] = int(alike.priority)
    if alike.started:
        fields |= _NO_DEATHS
    return [UpdateMany(where, {"$set": fields, "$inc": {"tries": -1}})]


def _among(ids: Sequence[str], *refused: Document) -> Document:
    """Rows among ``ids`` that none of ``refused`` matches."""
    return {"_id": {"$in": list(ids)}, "$nor": list(refused)}


def _not(*states: str) -> Document:
    return {"$nin": list(states)}


def _text(reason: str) -> str:
    """BSON holds no lone surrogates, and a reason may quote a file's name with some."""
    return reason.encode("utf-8", "backslashreplace").decode("utf-8")
