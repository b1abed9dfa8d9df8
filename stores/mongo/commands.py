"""The MongoDB store's writes and filters, as values: pure, no I/O.

Theory of operation. Every write here is a compare-and-set: its filter holds what was read (fence, state,
``put_at``), so of two that come at once one matches. Writes to many documents are not retried by the
driver [1]_, but these may be repeated after a lost reply: what the first attempt has changed no longer matches,
or is changed to the same. Where the reply's count does not tell which rows a write got, they are read back by
what it left in them: ``lease_owner`` or a token (``written_by``).

What begins or ends a lease is a pipeline, so that the server's own clock grants it:
:mod:`kqueue.stores.mongo.server.moment`. Values stand in pipelines as ``$literal``, since a text that begins with
``$`` would name a field.

State and times stand in ``$nor``, which uses no index: so the server has only ``_id`` to choose from, and
never walks a backlog that happens to begin with the same rows.

.. [1] https://www.mongodb.com/docs/manual/core/retryable-writes/
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from pymongo import DeleteMany, DeleteOne, UpdateMany, UpdateOne

from kqueue.contracts.admission import SPACE_IN_GATES, Claimer
from kqueue.contracts.operator import JobChange
from kqueue.contracts.repair import Abandoned, Due, Head
from kqueue.contracts.runs import LeaseKey
from kqueue.contracts.stored_times import latest
from kqueue.model.job import Row, State
from kqueue.model.reasons import storable
from kqueue.stores.mongo.schema import LEFT_OUT, Document
from kqueue.stores.mongo.server.moment import Moment

Write: TypeAlias = UpdateMany | UpdateOne | DeleteMany | DeleteOne

READY, DELAYED, RUNNING = (str(state) for state in (State.READY, State.DELAYED, State.RUNNING))
HELD, DEAD, DONE = (str(state) for state in (State.HELD, State.DEAD, State.DONE))

#: Begins the range of an index that begins with the type: then the server jumps from one type and priority to the
#: next. Else it would walk.
ANY_TYPE: Document = {"type": {"$gte": ""}}
#: No death is held against a job any more.
NO_DEATHS: Document = {"crashes": 0, "suspicion": 0}
#: A run that is settled has no holder any more.
SETTLED: Document = {"lease_owner": None}
#: In a pipeline: the row stands at the last of its gates, see :func:`kqueue.stores.gates.gate_of`.
#: (``$concat`` of a field that is not there is null.)
_WORDS: Document = {"$split": ["$type", " "]}
_NEXT_WORD: Document = {"$concat": ["$$value", SPACE_IN_GATES, "$$this"]}
_JOINED: Document = {"$reduce": {"input": _WORDS, "initialValue": None, "in": {"$ifNull": [_NEXT_WORD, "$$this"]}}}
_IN_GATES: Document = {"$cond": [{"$eq": [{"$size": _WORDS}, 1]}, "$type", _JOINED]}
_COUNTED: Document = {"gate": {"$ifNull": [{"$concat": [_IN_GATES, " ", "$limit_key"]}, _IN_GATES]}}
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
    return among(ids, {"state": none_of(READY, DELAYED)}) | {"type": {"$in": list(types)}}


def claims(
    rows: Sequence[Row],
    owner: str,
    moment: Moment,
    *,
    alone: bool,
    floor: int,
    limited: Collection[str] = (),
    holder: Claimer | None = None,
) -> list[Write]:
    """Claim ``rows`` with fences above ``floor``: one write for all that were read alike. Those of ``limited``
    types are counted, together where there is a ``holder``.

    A late holder may settle a row between our read and this write, at the same fence; ``lease_owner`` is then
    taken off, so it is compared too.
    """
    groups: defaultdict[tuple[int, str | None, bool, str | None], list[str]] = defaultdict(list)
    for row in rows:
        is_limited = row.type in limited
        gate_end = None if holder is None or not is_limited else holder.gate_end(row.type)
        groups[row.fence, row.lease_owner, is_limited, gate_end].append(row.id)
    lease = literal({"state": RUNNING, "lease_owner": owner, "alone": alone}) | {
        "lease_until": moment.until("$ttr")
    }
    claims: list[Write] = []
    for (fence, late_holder, is_limited, gate_end), ids in groups.items():
        where = among(ids, {"state": none_of(READY, DELAYED)}) | {"fence": fence, "lease_owner": late_holder}
        changes = lease | {"fence": {"$literal": max(fence, floor) + 1}, "tries": {"$add": ["$tries", 1]}}
        if is_limited:
            changes |= _COUNTED | {"holder": None if gate_end is None else {"$concat": [_IN_GATES, gate_end]}}
        claims.append(UpdateMany(where, [{"$set": changes}]))
    return claims


def holds(held: Mapping[str, Sequence[str]], now: float) -> list[Write]:
    """Hold rows, given by the gates that hold them."""
    return [
        UpdateMany(
            among(ids, {"state": none_of(READY, DELAYED)}, {"state": DELAYED, "run_at": {"$gt": now}}),
            {"$set": {"state": HELD, "gate": gate, "put_at": None}},
        )
        for gate, ids in held.items()
    ]


def admissions(ids: Sequence[str], token: str, put_at: float | None, now: float) -> list[Write]:
    """Make held rows ready. They keep their gate. They were due before, whatever a clock said that was ahead."""
    ready = {"state": READY, "put_at": put_at, "written_by": token}
    return (
        [UpdateMany(among(ids, {"state": none_of(HELD)}), {"$set": ready, "$min": {"run_at": now}})] if ids else []
    )


def renewals(keys: Sequence[LeaseKey], moment: Moment, alone: bool | None) -> list[Write]:
    """Another TTR where the fence matches and the row is running."""
    return [
        UpdateMany(_in_hand(ids, fence, RUNNING), [{"$set": _lease(moment.until(ttr), alone)}])
        for (fence, ttr), ids in _alike(keys).items()
    ]


def returns(keys: Sequence[LeaseKey], moment: Moment, alone: bool | None) -> list[Write]:
    """Another TTR where the fence matches and the row is ready again since its lease ran out. Where its type has
    limits it is counted again; where it has none nobody looks.
    """
    return [
        UpdateMany(_in_hand(ids, fence, READY), [{"$set": _lease(moment.until(ttr), alone) | _COUNTED}])
        for (fence, ttr), ids in _alike(keys).items()
    ]


def revivals(ids: Sequence[str], token: str, reason: str, now: float, put_at: float | None) -> list[Write]:
    """Make the dead among ``ids`` ready."""
    fresh = {"state": READY, "run_at": now, "put_at": put_at, "reason": storable(reason), "written_by": token}
    fresh |= {"asked_at": now, "dated_at": now}
    fresh |= {"tries": 0, "failures": 0} | NO_DEATHS | SETTLED
    return [UpdateMany(among(ids, {"state": none_of(DEAD)}), {"$set": fresh})]


def hastenings(ids: Sequence[str], token: str, now: float, put_at: float | None) -> list[Write]:
    """Make the delayed among ``ids`` ready before their time."""
    ready = {"state": READY, "run_at": now, "put_at": put_at, "asked_at": now, "dated_at": now, "written_by": token}
    return [UpdateMany(among(ids, {"state": none_of(DELAYED)}), {"$set": ready})]


def change(change: JobChange, now: float, put_at: float | None, put_until: float) -> list[Document]:
    """A pipeline for a row that waits. What waits for a time stands at no gate."""
    values: Document = {} if change.priority is None else {"priority": int(change.priority)}
    is_held: Document = {"$eq": ["$state", HELD]}
    stages: list[Document] = []
    if change.run_at is not None:
        values |= {"run_at": change.run_at, "asked_at": now, "dated_at": now}
        if change.run_at > now:
            values["state"], is_held = DELAYED, {"$literal": False}
            stages.append({"$project": {"gate": False}})
        else:
            values["state"] = {"$cond": [is_held, HELD, READY]}
    is_far = {"$gt": ["$run_at" if change.run_at is None else change.run_at, put_until]}
    values["put_at"] = {"$cond": [{"$or": [is_held, is_far]}, None, put_at]}
    return [{"$set": values}, *stages]


def promotions(ids: Sequence[str], now: float) -> list[Write]:
    """Make the delayed among ``ids`` ready that are due."""
    if not ids:
        return []
    due = among(ids, {"state": none_of(DELAYED)}, {"run_at": {"$gt": now}})
    return [UpdateMany(due, {"$set": {"state": READY}})]


def purges(ids: Sequence[str]) -> list[Write]:
    """Delete those of ``ids`` that do not run."""
    return [DeleteMany(among(ids, {"state": RUNNING}))] if ids else []


def expiries(ids: Sequence[str]) -> list[Write]:
    """Delete those of ``ids`` that are done."""
    return [DeleteMany(among(ids, {"state": none_of(DONE)}))] if ids else []


def marks(dues: Sequence[Due], token: str, put_at: float) -> list[Write]:
    """Write ``put_at`` where it still is as it was read."""
    groups: defaultdict[float | None, list[str]] = defaultdict(list)
    for due in dues:
        groups[due.put_at].append(due.id)
    return [
        UpdateMany(
            among(ids, {"state": none_of(READY, DELAYED)}) | {"put_at": as_read},
            {"$set": {"put_at": put_at, "written_by": token}},
        )
        for as_read, ids in groups.items()
    ]


def due(now: float) -> Document:
    """Delayed rows that may be made ready."""
    return {"state": DELAYED, "run_at": {"$lte": now}}


def abandoned(ttrs: Sequence[float], now: float) -> Document:
    """Running rows of these TTRs whose lease has run out."""
    return {"state": RUNNING, "ttr": {"$in": list(ttrs)}, "lease_until": {"$lte": now}}


def latest_place(now: float) -> int:
    """No row that was added by now has a later place: places are microseconds."""
    return int(latest(now) * 1e6)


def kept(now: float) -> Document:
    """Done rows that need not be kept any more."""
    return {"state": DONE, "keep_until": {"$lte": now}}


def ahead(row: Row, place: int) -> list[Document]:
    """Ready rows of its type that come before a row; each is a range of the index."""
    ready: Document = {"state": READY, "type": row.type}
    best = ready | {"priority": {"$lt": int(row.priority)}}
    return [best, ready | {"priority": int(row.priority), "place": {"$lt": place}}]


def unput(until: float) -> tuple[Document, Document]:
    """Rows that have no pointer and want one: the ready, and the delayed."""
    return {"state": READY, "put_at": None} | ANY_TYPE, {
        "state": DELAYED,
        "put_at": None,
        "run_at": {"$lte": until},
    }


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


def literal(fields: Mapping[str, Any]) -> Document:
    """For a pipeline: there a text that begins with ``$`` would name a field."""
    return {name: {"$literal": value} for name, value in fields.items()}


def _alike(keys: Sequence[LeaseKey]) -> Mapping[tuple[int, float], list[str]]:
    """Ids by fence and TTR."""
    groups: defaultdict[tuple[int, float], list[str]] = defaultdict(list)
    for job in keys:
        groups[job.fence, job.ttr].append(job.id)
    return groups


def _in_hand(ids: Sequence[str], fence: int, state: str) -> Document:
    return among(ids, {"state": none_of(state)}, SETTLED) | {"fence": fence}


def _lease(until: Document, alone: bool | None) -> Document:
    """For a pipeline."""
    fields = {"state": RUNNING} if alone is None else {"state": RUNNING, "alone": alone}
    return literal(fields) | {"lease_until": until}


def among(ids: Sequence[str], *refused: Document) -> Document:
    """Rows among ``ids`` that none of ``refused`` matches."""
    return {"_id": {"$in": list(ids)}, "$nor": list(refused)}


def none_of(*states: str) -> Document:
    """Any state but these."""
    return {"$nin": list(states)}
