"""Times of a MongoDB that lie too far ahead: found by their indexes, and set right, each by a compare-and-set.

What is looked for is a range of an index that holds nothing else while no clock was wrong. Where ranges of many
types and priorities are looked at, the server jumps from the end of one to the begin of the next.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from pymongo import UpdateMany
from pymongo.database import Database

from kqueue.contracts.stored_times import (
    CHANGED,
    Misdated,
    StoredTimes,
    furthest,
    latest,
    longest_lease,
    past,
    set_right,
    shifted,
)
from kqueue.stores.mongo import schema
from kqueue.stores.mongo.access import read, write
from kqueue.stores.mongo.commands import ANY_TYPE, HELD, READY, RUNNING, Write, latest_place, literal
from kqueue.stores.mongo.keys_and_workers import dates_of, within
from kqueue.stores.mongo.schema import LEFT_OUT, Document
from kqueue.stores.mongo.server.moment import Moment
from kqueue.stores.mongo.settle import ttrs

#: A projection: what tells whether the times of a row are wrong, or those of the starts of a type.
_FIELDS: Document = dict.fromkeys([*StoredTimes._fields, "type", "place", "turn", "starts"], True)
#: So nothing is overwritten that anybody has changed meanwhile.
_COMPARED = ("state", "fence", "run_at", "put_at", "lease_until")
_DATED = [str(state) for state in sorted(schema.DATED_STATES)]


class MongoTimes:
    """At one moment."""

    def __init__(self, database: Database[Document], moment: Moment, most: int) -> None:
        self._jobs, self._notes, self._meta = (database[name] for name in (schema.JOBS, schema.NOTES, schema.META))
        self._moment, self._now, self._limit = moment, moment.at, most
        self._ahead: Document = {"$gt": latest(moment.at)}

    def find(self, types: Sequence[str] | None) -> list[Misdated]:
        """See :meth:`kqueue.contracts.store.JobStore.find_misdated`."""
        found = [self._misdated(document) for document in self._documents(types)]
        if types is None:
            found += [_noted(note) for note in self._noted()]
            found += [Misdated("pause", _name(one), None, one["since"]) for one in self._paused()]
        return found

    def repair(self, types: Sequence[str] | None) -> int:
        """See :meth:`kqueue.contracts.store.JobStore.repair_times`."""
        in_order = sorted(self._documents(types), key=lambda document: document.get("place", 0))
        matched = write(self._jobs, [self._set_right(*one) for one in enumerate(in_order)]).matched
        if types is not None:
            return matched
        notes = write(self._notes, [self._date_note(note) for note in self._noted()]).matched
        since = {"$set": {"since": self._now}}
        pauses = [UpdateMany({"_id": one["_id"], "since": one["since"]}, since) for one in self._paused()]
        return matched + notes + write(self._meta, pauses).matched

    # -- what lies ahead ---------------------------------------------------------------------------------

    def _documents(self, types: Sequence[str] | None) -> Iterator[Document]:
        """Rows, and what counts the starts of a type."""
        if types is not None:
            put = {"state": READY, "type": {"$in": list(types)}, "put_at": self._ahead}
            yield from self._read(put, schema.LOST)
            return
        unput = {"put_at": None, "run_at": self._ahead}
        yield from self._read({"state": READY} | ANY_TYPE | unput, schema.LOST)
        yield from self._read({"state": HELD} | unput, schema.UNPUT)
        dated = {"dated_at": self._ahead, "$or": [{"state": {"$in": _DATED}}, {"turn": {"$exists": True}}]}
        # Within a turn its starts are left alone: who has it writes them.
        yield from (one for one in self._read(dated, schema.DATED) if one.get("turn", 0) % 2 == 0)
        for lot in ttrs(self._jobs):
            longest = [(ttr, {"$gt": longest_lease(ttr, self._now)}) for ttr in lot]
            ranges = [{"state": RUNNING, "ttr": ttr, "lease_until": too_long} for ttr, too_long in longest]
            yield from self._read({"$or": ranges}, schema.LEASES)

    def _noted(self) -> list[Document]:
        """Unique keys and workers."""
        return read(self._notes, {"dated_at": self._ahead}, None, self._limit, index=schema.DATED)

    def _paused(self) -> list[Document]:
        return list(self._meta.find({"_id": within("paused"), "since": self._ahead}))

    def _read(self, where: Document, index: str) -> list[Document]:
        return read(self._jobs, where, _FIELDS, self._limit, index=index)

    def _misdated(self, document: Document) -> Misdated:
        if "turn" in document:
            return Misdated("start", _name(document), _name(document), max(at for at, _ in document["starts"]))
        return Misdated("job", document["_id"], document["type"], furthest(_times(document), self._now))

    # -- and what is written -----------------------------------------------------------------------------

    def _set_right(self, number: int, document: Document) -> Write:
        """``number``: in the order added among those that are set right together."""
        if "turn" in document:
            return self._date_starts(document)
        times = _times(document)
        right = set_right(times, self._now)
        both = [(name, getattr(times, name), getattr(right, name)) for name in CHANGED]
        fields: Document = {name: after for name, before, after in both if after != before}
        if document["place"] > latest_place(self._now):
            fields["place"] = int(self._now * 1e6) + number
        if right.state in schema.DATED_STATES:
            fields["dated_at"] = right.created_at if right.asked_at is None else right.asked_at
        # In $nor, as in mongo_commands: so the server looks at ``_id`` alone.
        as_read = [{name: {"$ne": document.get(name)}} for name in _COMPARED]
        changes = literal(fields)
        if "lease_until" in fields:  # a whole TTR, from when it is written
            changes["lease_until"] = self._moment.until(times.ttr)
        return UpdateMany({"_id": document["_id"], "$nor": as_read}, [{"$set": changes}])

    def _date_starts(self, document: Document) -> Write:
        """As one more turn, so that who has read the starts before reads them again."""
        starts = sorted([past(at, self._now), rows] for at, rows in document["starts"])
        turn: int = document["turn"]
        fields = {"starts": starts, "dated_at": self._now, "turn": turn + 2}
        return UpdateMany({"_id": document["_id"], "turn": turn}, {"$set": fields})

    def _date_note(self, note: Document) -> Write:
        where: Document = {"_id": note["_id"], "dated_at": note["dated_at"]}
        if "job" in note:
            until = shifted(note["until"], note["dated_at"], self._now)
            return UpdateMany(
                where, {"$set": {"until": until, "look_at": max(until, self._now), "dated_at": self._now}}
            )
        seen_at, started_at = past(note["seen_at"], self._now), past(note["started_at"], self._now)
        fields = {"seen_at": seen_at, "started_at": started_at} | dates_of(seen_at, started_at)
        return UpdateMany(where, {"$set": fields})


def _times(document: Document) -> StoredTimes:
    fields: dict[str, Any] = LEFT_OUT | document
    return StoredTimes(*(fields[name] for name in StoredTimes._fields))


def _noted(note: Document) -> Misdated:
    if "job" in note:
        type, _, key = _name(note).partition(" ")
        return Misdated("unique key", key, type, note["dated_at"])
    return Misdated("worker", _name(note), None, note["dated_at"])


def _name(document: Document) -> str:
    name: str = document["_id"].partition(" ")[2]
    return name
