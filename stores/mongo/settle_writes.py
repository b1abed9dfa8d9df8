"""How runs end, as writes for a MongoDB: settlements, and what becomes of those whose lease ran out. Pure.

What adds to a row's history must name the lease's owner, which only the row knows. So those writes are pipelines,
which may copy one field into another [1]_; values stand in them as ``$literal``, since a text that begins with
``$`` would name a field. Deletes and what is given back are plain.

.. [1] https://www.mongodb.com/docs/manual/tutorial/update-documents-with-aggregation-pipeline/
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pymongo import DeleteMany, UpdateMany

from kqueue.contracts.repair import Abandoned
from kqueue.contracts.reporting import MOST_LINES, MOST_LOG_BYTES, Report
from kqueue.contracts.rules import recovery
from kqueue.contracts.settlements import NO_ROOM, Delete, Die, Finish, Retry, Settlement, Unget
from kqueue.model.history import MOST, TRACEBACKS
from kqueue.model.job import State
from kqueue.model.reasons import MAX_TRACEBACK, storable
from kqueue.stores.mongo.commands import (
    DEAD,
    DONE,
    NO_DEATHS,
    RUNNING,
    SETTLED,
    Write,
    among,
    latest_place,
    literal,
    none_of,
)
from kqueue.stores.mongo.schema import MAX_PAYLOAD_BYTES, Document
from kqueue.stores.mongo.server.moment import Moment
from kqueue.stores.transitions import waiting

#: Bytes of a payload beside which tracebacks have room in a document.
MOST_BESIDE_TRACEBACKS = MAX_PAYLOAD_BYTES - TRACEBACKS * MAX_TRACEBACK
#: The same, also beside what runs tell: a log, whose lines cost more than their texts, and a progress.
MOST_BESIDE_REPORTS = MOST_BESIDE_TRACEBACKS - 2 * MOST_LOG_BYTES - 32 * 1024
#: No field says 0 as well.
_NONE: Document = {"$in": [0, None]}


def settlements(many: Sequence[Settlement], token: str, now: float, last: int) -> list[Write]:
    """Deletes, one write for each fence; then the others, one write for all that say the same. ``last``: a place
    behind those of all that wait.
    """
    deletes: defaultdict[int, list[str]] = defaultdict(list)
    updates: defaultdict[tuple[type, Any], list[str]] = defaultdict(list)
    for one in many:
        if isinstance(one, Delete):
            deletes[one.fence].append(one.id)
        else:
            updates[type(one), one._replace(id="", report=None)].append(one.id)
    return [
        *(DeleteMany(among(ids, SETTLED) | {"fence": fence}) for fence, ids in deletes.items()),
        *(_ending(alike, ids, token, now, last) for (_, alike), ids in updates.items()),
    ]


def reporting(one: Report) -> Write:
    """What a run tells. If it is sent twice, the second time changes nothing."""
    token = [one.fence, one.number]
    where = among([one.id], SETTLED) | {"fence": one.fence, "reported": {"$ne": token}}
    changes: Document = {"reported": {"$literal": token}}
    if one.progress is not None:
        changes["progress"] = {"$literal": one.progress}
    if one.lines:
        changes |= _with_lines(one)
    return UpdateMany(where, [{"$set": changes}])


def _with_lines(one: Report) -> Document:
    """``logged`` and ``log_bytes``: lines and bytes so far. Each line says how many bytes there were before it."""
    number: Document = {"$ifNull": ["$logged", 0]}
    size: Document = {"$ifNull": ["$log_bytes", 0]}
    lines, before = [], 0
    for place, (at, text) in enumerate(one.lines, 1):
        lines.append([{"$add": [number, place]}, at, one.tries, {"$literal": text}, {"$add": [size, before]}])
        before += len(text.encode())
    grown = {"$slice": [{"$concatArrays": [{"$ifNull": ["$log", []]}, lines]}, -MOST_LINES]}
    from_byte = {"$add": [size, before - MOST_LOG_BYTES]}
    is_kept = {"$gte": [{"$arrayElemAt": ["$$line", 4]}, from_byte]}
    kept = {"$filter": {"input": grown, "as": "line", "cond": is_kept}}
    has_room = {"$lte": [{"$ifNull": ["$size", 0]}, MOST_BESIDE_REPORTS]}
    return {
        "logged": {"$add": [number, len(lines)]},
        "log_bytes": {"$add": [size, before]},
        "log": {"$cond": [has_room, kept, []]},
    }


class Recovery(NamedTuple):
    """What becomes of abandoned rows."""

    ready: list[Write]
    #: Each with what makes it so.
    dead: list[tuple[Abandoned, Write]]


def recoveries(found: Sequence[Abandoned], moment: Moment, max_crashes: int, last: int) -> Recovery:
    """Take abandoned rows from their holder, if their leases are over by the clock that they were found by, and by
    that of the server that does it. ``last`` as above.
    """
    now = moment.at
    groups: defaultdict[tuple[bool, int], list[Abandoned]] = defaultdict(list)
    for row in found:
        groups[row.alone, row.crashes if row.alone else 0].append(row)
    recovered = Recovery([], [])
    for (alone, crashes), rows in groups.items():
        state, reason = recovery(alone, crashes, max_crashes)
        as_read: Document = {"alone": True, "crashes": crashes or _NONE} if alone else {"alone": False}
        fields = {"state": str(state), "reason": reason, "put_at": None, "lease_until": None}
        told = {"$literal": reason}
        changes = _run_ended(fields, now, told, one_more="crashes" if alone else "suspicion")
        changes[0]["$set"] |= {"run_at": {"$min": ["$run_at", now]}, "place": last}
        if state == State.DEAD:
            changes[0]["$set"]["ended"] = last
            died = ((row, UpdateMany(_abandoned([row], moment) | as_read, changes)) for row in rows)
            recovered.dead.extend(died)
        else:
            recovered.ready.append(UpdateMany(_abandoned(rows, moment) | as_read, changes))
    return recovered


def _abandoned(rows: Sequence[Abandoned], moment: Moment) -> Document:
    """Those of ``rows`` whose leases are over, by both clocks."""
    over = ({"state": none_of(RUNNING)}, {"lease_until": {"$gt": moment.at}}, moment.running_on())
    return among([row.id for row in rows], *over)


def _ending(alike: Finish | Retry | Unget | Die, ids: list[str], token: str, now: float, last: int) -> Write:
    where = among(ids, SETTLED) | {"fence": alike.fence}
    at = now if isinstance(alike, Die) or alike.asked_at is None else alike.asked_at
    fields: Document = SETTLED | {"lease_until": None, "alone": False, "written_by": token}
    fields |= {"asked_at": at, "dated_at": at}
    match alike:
        case Finish(keep_until=keep_until, result=result, reason=reason):
            fields |= {"state": DONE, "keep_until": keep_until, "put_at": None, "ended": last} | NO_DEATHS
            said: Document = {"$literal": None if reason is None else storable(reason)}
            if result is None:
                return UpdateMany(where, _run_ended(fields, now, said))
            has_room = {"$lte": [{"$ifNull": ["$size", 0]}, MOST_BESIDE_REPORTS - len(result)]}
            changes = _run_ended(fields, now, {"$cond": [has_room, said, {"$literal": NO_ROOM}]})
            changes[0]["$set"]["result"] = {"$cond": [has_room, {"$literal": result}, "$$REMOVE"]}
            return UpdateMany(where, changes)
        case Die(reason=reason, traceback=told):
            fields |= {"state": DEAD, "reason": storable(reason), "put_at": None, "ended": last} | NO_DEATHS
            return UpdateMany(where, _ended_badly(fields, now, reason, told))
        case Retry(run_at=run_at, reason=reason, put_at=put_at, traceback=told):
            fields |= {"state": str(waiting(run_at, now)), "run_at": run_at, "put_at": put_at}
            fields |= {"reason": storable(reason)} | NO_DEATHS
            changes = _ended_badly(fields, now, reason, told)
            changes[0]["$set"]["place"] = last
            return UpdateMany(where, changes)
        case Unget(run_at=run_at, priority=priority, put_at=put_at, started=started, reason=reason):
            fields |= {"state": str(waiting(run_at, now)), "run_at": run_at, "put_at": put_at}
            fields |= {} if reason is None else {"reason": storable(reason)}
            fields |= {} if priority is None else {"priority": int(priority)}
            added_by = _added_by(now)
            if started:
                fields |= NO_DEATHS | {"place": last}
                del added_by["place"]
            return UpdateMany(
                where, {"$set": fields, "$min": added_by, "$inc": {"tries": -1}, "$unset": {"gate": ""}}
            )


def _added_by(now: float) -> Document:
    """What has run was added by now, whatever a clock said that was ahead."""
    return {"created_at": now, "place": latest_place(now)}


def _ended_badly(fields: Mapping[str, Any], now: float, reason: str, traceback: str | None) -> list[Document]:
    told = {"$literal": storable(reason)}
    return _run_ended(fields, now, told, one_more="failures", traceback=traceback)


def _run_ended(
    fields: Mapping[str, Any],
    now: float,
    reason: Document,
    *,
    one_more: str | None = None,
    traceback: str | None = None,
) -> list[Document]:
    """Set ``fields``, add one to the field ``one_more``, and add the run to the history. It stands at no gate.
    ``reason``: an expression.
    """
    run: list[Any] = ["$lease_owner", now, reason]
    before: Document = {"$ifNull": ["$history", []]}
    runs: Document = {"$concatArrays": [before, [run]]}
    if traceback is not None:
        raised = [*run, {"$literal": storable(traceback)}]
        with_it = {"$concatArrays": [_without_old_tracebacks(before), [raised]]}
        has_room = {"$lte": [{"$ifNull": ["$size", 0]}, MOST_BESIDE_TRACEBACKS]}
        runs = {"$cond": [has_room, with_it, runs]}
    changes = literal(fields)
    changes["history"] = {"$slice": [runs, -MOST]}
    changes |= {name: {"$min": [f"${name}", bound]} for name, bound in _added_by(now).items()}
    if one_more is not None:
        changes[one_more] = {"$add": [{"$ifNull": [f"${one_more}", 0]}, 1]}
    return [{"$set": changes}, {"$project": {"gate": False}}]


def _without_old_tracebacks(runs: Document) -> Document:
    """These runs, of which the last few alone keep their traceback, since one more comes."""
    last = {"$subtract": [{"$size": runs}, TRACEBACKS - 1]}
    run = {"$arrayElemAt": [runs, "$$place"]}
    bare = {"$cond": [{"$gte": ["$$place", last]}, run, {"$slice": [run, 3]}]}
    return {"$map": {"input": {"$range": [0, {"$size": runs}]}, "as": "place", "in": bare}}
