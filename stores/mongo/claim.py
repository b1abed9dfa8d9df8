"""Claiming in a MongoDB: read the candidates without their long payloads, then take them with one write."""

import heapq
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Protocol

from pymongo import WriteConcern
from pymongo.collection import Collection
from pymongo.errors import PyMongoError

from kqueue.contracts.budget import Budget
from kqueue.contracts.runs import Selection
from kqueue.model.job import Row, State
from kqueue.stores.mongo import commands, schema
from kqueue.stores.mongo.access import matching, read, write
from kqueue.stores.mongo.schema import Document
from kqueue.stores.mongo.server.moment import Moment
from kqueue.stores.transitions import claimed

#: Types in one query at most. With more than 200 the server no longer merges ranges of the index but sorts
#: the whole backlog (internalQueryMaxScansToExplode).
_TYPES_IN_QUERY = 100
#: Ids in the first query of a claim at least.
_FIRST_PAGE = 64


#: A claim without ids reads so many more rows at once, at most, after those that were held back.
_LARGEST_PAGE = 1000


class Door(Protocol):
    """Where candidates pass, or are held back."""

    @property
    def is_full(self) -> bool:
        """Whether it has held back so many that a claim without ids may end."""

    def expect(self, rows: Sequence[Document]) -> None:
        """These may come."""

    def passes(self, row: Document) -> bool:
        """False if it is held back."""


def candidates(
    jobs: Collection[Document],
    selection: Selection,
    budget: Budget,
    now: float,
    later: dict[str, float],
    *,
    door: Door | None = None,
) -> Iterator[Row]:
    """What may be claimed, in the selection's order, read as it is asked for.

    Rows chosen by id that are not due yet go into ``later`` with their ``run_at``.
    """
    if selection.ids is None:
        for found in _by_priority_on(jobs, selection.types, budget.jobs + 1, door):
            yield from _with_payloads(jobs, found, budget.payload_bytes, door)
        return
    for ids in commands.pages(selection.ids, max(_FIRST_PAGE, budget.jobs + 1)):
        due = []
        for row in _by_id(jobs, ids, selection.types):
            if not selection.serves(row["_id"], row["priority"]):
                continue
            if row["state"] == State.DELAYED and row["run_at"] > now:
                later[row["_id"]] = row["run_at"]
            else:
                due.append(row)
        yield from _with_payloads(jobs, due, budget.payload_bytes, door)


def take(
    jobs: Collection[Document], rows: Sequence[Row], owner: str, moment: Moment, *, alone: bool, floor: int
) -> list[Row]:
    """Claim ``rows`` as they were read, with fences above ``floor``; returns those that nobody
    else had changed since, as they are now.

    Where it raises, they may be claimed all the same, but not as ``alone`` if that can be helped: a job that
    never ran is not to be blamed for the end of its lease.

    What they say of their lease's end is at most what the server has written, which nobody reads back.
    """
    ours = [claimed(row, owner, moment.at, alone, fence_floor=floor) for row in rows]
    try:
        written = write(jobs, commands.claims(rows, owner, moment, alone=alone, floor=floor))
        if written.matched == len(rows):
            return ours
        got = matching(jobs, [row.id for row in rows], {"lease_owner": owner})
    except PyMongoError:
        if alone:
            deny_solitude(jobs, owner, rows[0].id)
        raise
    return [row for row in ours if row.id in got]


def deny_solitude(jobs: Collection[Document], owner: str, id: str) -> None:
    """After a claim that failed: if it was done all the same, the job did not run alone."""
    # Waits for no majority: that one is missing may be why the claim failed.
    here = jobs.with_options(write_concern=WriteConcern(w=1))
    with suppress(PyMongoError):
        here.update_one({"_id": id, "lease_owner": owner}, {"$set": {"alone": False}})


def _by_priority_on(
    jobs: Collection[Document], types: Sequence[str], size: int, door: Door | None
) -> Iterator[list[Document]]:
    """The first ``size`` rows; and where a door may have held them back, page after page of those behind them."""
    found = _by_priority(jobs, types, size)
    yield found
    seen: set[str] = set()
    while door is not None and not door.is_full and len(found) >= size:
        # Read again from the first: no position can be named that an index would find for several types.
        seen |= {row["_id"] for row in found}
        size += min(3 * size, _LARGEST_PAGE)
        found = _by_priority(jobs, types, size)
        yield [row for row in found if row["_id"] not in seen]


def _by_priority(jobs: Collection[Document], types: Sequence[str], most: int) -> list[Document]:
    types = sorted(set(types))
    found = [
        read(
            jobs,
            {"state": State.READY.value, "type": {"$in": types[at : at + _TYPES_IN_QUERY]}},
            schema.WITHOUT_LARGE,
            most,
            sort=[("priority", 1), ("place", 1)],
            index=schema.ORDER,
        )
        for at in range(0, len(types), _TYPES_IN_QUERY)
    ]
    return list(heapq.merge(*found, key=lambda row: (row["priority"], row["place"])))[:most]


def _by_id(jobs: Collection[Document], ids: Sequence[str], types: Sequence[str]) -> list[Document]:
    found = read(jobs, commands.claimable(ids, types), schema.WITHOUT_LARGE, len(ids))
    by_id = {row["_id"]: row for row in found}
    return [by_id[id] for id in ids if id in by_id]


def _with_payloads(
    jobs: Collection[Document], rows: Sequence[Document], room: int, door: Door | None
) -> Iterator[Row]:
    """The rows that pass, in order. Long payloads are read ahead, as many bytes as fit a window at once."""
    read: dict[str, bytes] = {}
    asked: set[str] = set()
    if door is not None:
        door.expect(rows)
    for at, row in enumerate(rows):
        if door is not None and not door.passes(row):
            continue
        payload = schema.payload_of(row)
        if payload is None:
            id = row["_id"]
            if id not in asked:
                ahead = _long_ahead(rows[at:], room)
                asked, read = set(ahead), _long_payloads(jobs, ahead)
            payload = read.get(id)
        if payload is not None:  # None: deleted since
            yield schema.to_row(row, payload)


def _long_ahead(rows: Sequence[Document], room: int) -> list[str]:
    """Ids of the next rows with long payloads that take up ``room`` bytes, and of the first beyond."""
    ids: list[str] = []
    for row in rows:
        if room < 0:
            break
        payload = schema.payload_of(row)
        if payload is None:
            ids.append(row["_id"])
        room -= row["size"] if payload is None else len(payload)
    return ids


def _long_payloads(jobs: Collection[Document], ids: Sequence[str]) -> dict[str, bytes]:
    found = read(jobs, {"_id": {"$in": list(ids)}}, {"large_payload": True}, len(ids))
    return {row["_id"]: row["large_payload"] for row in found}
