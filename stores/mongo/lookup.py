"""What is asked of the rows of a MongoDB: by an operator, and by who waits."""

import json
from collections.abc import Sequence
from typing import Any

from pymongo.collection import Collection
from pymongo.read_concern import ReadConcern

from kqueue.contracts.lookup import Backlog, EndedRows
from kqueue.model.job import Row, State
from kqueue.model.wording import shown
from kqueue.stores.mongo import commands, schema
from kqueue.stores.mongo.access import group, read
from kqueue.stores.mongo.keys_and_workers import key_note
from kqueue.stores.mongo.schema import Document

#: Microseconds that an end may be seen after a later one.
LATE_US = 3_000_000
#: Rows that a process may have claimed.
MOST_CLAIMED = 100_000
#: A projection that the index of :data:`~kqueue.stores.mongo.schema.ORDER` answers without a look at the row.
COVERED = {"_id": False, "type": True}

#: Rows in a stretch of an index, at least and at most.
STRETCHES = 20, 1000
_STATES = [state.value for state in State]
_BUT_RUNNING = [state.value for state in State if state is not State.RUNNING]
#: By what rows of a state are found; the others by their order.
_INDEX_OF = {
    **dict.fromkeys([State.DEAD.value, State.DONE.value, State.DELAYED.value], schema.ENDED),
    State.RUNNING.value: schema.LEASES,
}


def find(jobs: Collection[Document], type: str | None, state: str, after: str | None, most: int) -> list[Row]:
    """Up to ``most`` rows in ``state`` behind ``after``, in the order of ids."""
    where: Document = {"state": str(state)} | ({} if type is None else {"type": type})
    if after is not None:
        where["_id"] = {"$gt": after}
    index = _INDEX_OF.get(str(state), schema.ORDER)
    found = read(jobs, where, {"result": False, "log": False}, most, sort=[("_id", 1)], index=index)
    return [schema.whole_row(document) for document in found]


def ends(jobs: Collection[Document], type: str | None, after: str | None, most: int) -> EndedRows:
    """Done and dead rows by when they ended, in microseconds of the server's clock. Who writes at the same time as
    another may be seen later although its number is smaller: so those of the last :data:`LATE_US` are read again.
    The place says which of them were seen.
    """
    number, seen = _place(after)
    where: Document = {"ended": {"$gte": number - LATE_US}, "state": {"$in": [State.DEAD.value, State.DONE.value]}}
    where |= {} if type is None else {"type": type}
    order = [("ended", 1), ("_id", 1)]
    found = read(jobs, where, schema.WITHOUT_LOG, most + len(seen), sort=order, index=schema.ENDS)
    new = [document for document in found if [document["_id"], document["ended"]] not in seen][:most]
    if not new:
        return EndedRows([], after)
    number = max(number, new[-1]["ended"])
    seen += [[document["_id"], document["ended"]] for document in new]
    place = [number, [one for one in seen if one[1] >= number - LATE_US]]
    return EndedRows([schema.whole_row(document) for document in new], json.dumps(place, separators=(",", ":")))


def _place(after: str | None) -> tuple[int, list[list[Any]]]:
    try:
        number, seen = json.loads("[0,[]]" if after is None else after)
        return int(number), [[str(id), int(ended)] for id, ended in seen]
    except (ValueError, TypeError):
        raise ValueError(f"after: expected what a former call gave, got {shown(after)}") from None


def states(jobs: Collection[Document], ids: Sequence[str]) -> dict[str, str]:
    """The states of those that there are."""
    found = read(jobs, {"_id": {"$in": list(ids)}}, {"state": True}, len(ids)) if ids else []
    return {document["_id"]: document["state"] for document in found}


def held_types(jobs: Collection[Document], types: Sequence[str]) -> list[str]:
    """Those of ``types`` that have a held row, sorted."""
    return sorted(jobs.distinct("type", {"state": State.HELD.value, "type": {"$in": list(types)}}))


def find_unique(jobs: Collection[Document], type: str, key: str) -> Row | None:
    """The row of the job that took the unique key last."""
    note = jobs.database[schema.NOTES].find_one({"_id": key_note(type, key)}, {"job": True})
    document = None if note is None else jobs.find_one({"_id": note["job"]}, schema.WITHOUT_LOG)
    return None if document is None else schema.whole_row(document)


def claimed(jobs: Collection[Document], owner: str | Document, most: int) -> list[Row]:
    """What runs under claims of ``owner``, or of all owners that match. Walks the index of what runs.

    Reads what the primary has: of a claim that failed for want of a majority, that one has nothing yet.
    """
    here = jobs.with_options(read_concern=ReadConcern("local"))
    where = {"state": State.RUNNING.value, "lease_owner": owner}
    found = read(here, where, {"history": False, "log": False}, most, index=schema.LEASES)
    return [schema.whole_row(document) for document in found]


def counts(jobs: Collection[Document], type: str | None) -> dict[str, int]:
    """Rows by state, all states named."""
    of_type: Document = {} if type is None else {"type": type}
    rows = {"_id": "$state", "rows": {"$sum": 1}}
    found = [
        *group(jobs, {"state": {"$in": _BUT_RUNNING}} | of_type, rows, schema.ORDER),
        *group(jobs, {"state": State.RUNNING.value} | of_type, rows, schema.LEASES),
    ]
    return dict.fromkeys(_STATES, 0) | {each["_id"]: each["rows"] for each in found}


def types_in(jobs: Collection[Document], state: State, after: str, most: int) -> list[str]:
    """Up to ``most`` types after ``after`` that have a row in ``state``, sorted.

    Each command looks at a stretch of the index and gives the types in it; the next one begins after the last of
    these. Stretches get longer while types have few rows, and are short among those with a long backlog.
    """
    found: list[str] = []
    rows = STRETCHES[0]
    while len(found) < most:
        beyond = {"state": state.value, "type": {"$gt": found[-1] if found else after}}
        stretch = group(jobs, beyond, {"_id": "$type"}, schema.ORDER, first=("type", rows))
        if not stretch:
            break
        found += sorted(each["_id"] for each in stretch)
        rows = min(4 * rows, STRETCHES[1]) if len(stretch) > 1 else STRETCHES[0]
    return found[:most]


def overview(jobs: Collection[Document]) -> list[Backlog]:
    """Rows by type and state, sorted."""
    place = {"type": "$type", "state": "$state"}
    stages: list[Document] = [
        {"$match": {"state": {"$in": _STATES}}},
        {"$group": {"_id": place, "rows": {"$sum": 1}, "oldest_run_at": {"$min": "$run_at"}}},
    ]
    return sorted(Backlog(**found.pop("_id"), **found) for found in jobs.aggregate(stages))


def ahead(jobs: Collection[Document], row: Row, most: int) -> int:
    """Ready rows that come before ``row``, ``most`` at most; 0 if the row is gone."""
    stored = jobs.find_one({"_id": row.id}, {"place": True})
    if stored is None:
        return 0
    ahead = 0
    for where in commands.ahead(row, stored["place"]):
        if ahead < most:
            ahead += len(read(jobs, where, COVERED, most - ahead, index=schema.ORDER))
    return ahead


def has_ready(jobs: Collection[Document], types: Sequence[str]) -> bool:
    """Whether any row of these types is ready."""
    ready = {"state": State.READY.value, "type": {"$in": list(types)}}
    return bool(read(jobs, ready, COVERED, 1, index=schema.ORDER))


def next_run_at(jobs: Collection[Document]) -> float | None:
    """The earliest ``run_at`` of a delayed row, or None."""
    delayed = {"state": State.DELAYED.value}
    first = read(jobs, delayed, {"run_at": True}, 1, sort=[("run_at", 1)], index=schema.DELAYED)
    return first[0]["run_at"] if first else None
