"""What a MongoDB store counts at the gates of limited types, each with an index, whatever waits behind them."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence

from kqueue.contracts.admission import Limit
from kqueue.stores.gates import Leases, Place, gate_of, type_of
from kqueue.stores.mongo import schema
from kqueue.stores.mongo.access import group, read
from kqueue.stores.mongo.commands import HELD, READY, RUNNING
from kqueue.stores.mongo.schema import Document
from kqueue.stores.mongo.server.moment import Moment
from kqueue.stores.mongo.turns import Turns

#: Rows of a line that are read at first, and how many times more after them.
_FIRST_OF_LINE, _GROWTH = 2, 8


class MongoCounts:
    """As :class:`kqueue.stores.gates.GateCounts` says, at one time and within one turn: what was read once
    holds.
    """

    def __init__(self, turns: Turns, moment: Moment) -> None:
        self._turns = turns
        self._jobs = turns.jobs
        self._moment = moment
        #: By type and limit key.
        self._leases: dict[tuple[str, str | None], Leases] = {}
        self._admitted: dict[str, int] = {}
        #: Gates at which nobody stands.
        self._empty: set[str] = set()

    def look_ahead(self, type: str, keys: Collection[str]) -> None:
        """Two reads for all of the keys that may be asked for, instead of two for each."""
        gates = {gate_of(type, key) for key in self.look_at_leases(type, keys)}
        if gates:
            somebody = {"type": type, "state": {"$in": [HELD, READY]}, "gate": {"$in": sorted(gates)}}
            self._empty |= gates.difference(self._jobs.distinct("gate", somebody))

    def look_at_leases(self, type: str, keys: Collection[str]) -> list[str]:
        """One read for all keys, of which it returns those that were not read before."""
        new = sorted(key for key in keys if (type, key) not in self._leases)
        if new:
            self._read_leases(type, new)
        return new

    def leases(self, type: str, limit_key: str | None) -> Leases:
        """One read for all keys that :meth:`look_ahead` was told of."""
        if (type, limit_key) not in self._leases:
            self._read_leases(type, [limit_key])
        return self._leases[type, limit_key]

    def starts(self, limit: Limit) -> int:
        """In its last period."""
        return int(sum(rows for _, rows in self._turns.starts(limit, self._moment.at)))

    def first_start(self, limit: Limit) -> float | None:
        """Of those."""
        return next((at for at, _ in self._turns.starts(limit, self._moment.at)), None)

    def admitted(self, gate: str) -> int:
        """Ready ones, and those that :meth:`admit` was told of."""
        return self._admitted[gate]

    def look_at_admitted(self, type: str, gates: Collection[str]) -> None:
        """One read for all gates, before :meth:`admitted` is asked."""
        if not gates:
            return
        where = {"type": type, "state": READY, "gate": {"$in": sorted(gates)}}
        found = group(self._jobs, where, {"_id": "$gate", "rows": {"$sum": 1}}, schema.GATES)
        self._admitted |= dict.fromkeys(gates, 0) | {each["_id"]: each["rows"] for each in found}

    def admit(self, gate: str, rows: int) -> None:
        """The gate admits so many more."""
        self._admitted[gate] += rows

    def waiting(self, gate: str) -> Iterator[Place]:
        """Held and admitted ones, read as far as they are asked for."""
        if gate in self._empty:
            return
        type, seen, size = type_of(gate), 0, _FIRST_OF_LINE
        where = {"type": type, "state": {"$in": [HELD, READY]}, "gate": gate}
        while True:
            found = read(self._jobs, where, _PLACE, size, sort=_IN_LINE, index=schema.GATES)
            yield from ((row["priority"], row["place"]) for row in found[seen:])
            if len(found) < size:
                return
            seen, size = size, size * _GROWTH

    def _read_leases(self, type: str, keys: Collection[str | None]) -> None:
        """Of the type if ``keys`` holds None only, or of each key."""
        gates = {"$gt": ""} if None in keys else {"$in": [gate_of(type, key) for key in keys]}
        where = {"type": type, "state": RUNNING, "gate": gates} | self._moment.running_on()
        by = {"key": None if None in keys else "$limit_key", "holder": {"$ifNull": ["$holder", None]}}
        running: defaultdict[str | None, list[Document]] = defaultdict(list)
        for each in group(self._jobs, where, _LEASES | {"_id": by}, schema.GATES):
            running[each["_id"].get("key")].append(each)
        self._leases |= {(type, key): _leases_of(running[key]) for key in keys}


def _leases_of(groups: Sequence[Document]) -> Leases:
    """Of one type, or one key of it, by holder."""
    held = {each["_id"]["holder"]: each["rows"] for each in groups}
    return Leases(held.pop(None, 0), held, min((each["first"] for each in groups), default=None))


_PLACE = {"_id": False, "priority": True, "place": True}
_IN_LINE = [("priority", 1), ("place", 1)]
_LEASES: Document = {"rows": {"$sum": 1}, "first": {"$min": "$lease_until"}}
