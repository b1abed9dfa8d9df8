"""Claims of limited types in a MongoDB, and admission: who passes the gates is decided and written in one turn."""

import secrets
from collections.abc import Collection as Many
from collections.abc import Iterable, Iterator, Sequence

from pymongo.collection import Collection
from pymongo.errors import PyMongoError

from kqueue.contracts.admission import Admission, Claimer, Limit
from kqueue.contracts.budget import Budget
from kqueue.contracts.repair import Due
from kqueue.contracts.runs import Claim, Selection
from kqueue.model.job import Row
from kqueue.stores.gates import FEW_HELD, MOST_HELD, Candidate, Gates, bounded, free, free_at, gate_of, key_of
from kqueue.stores.mongo import commands, schema
from kqueue.stores.mongo.access import matching, read
from kqueue.stores.mongo.claim import candidates, deny_solitude, take
from kqueue.stores.mongo.commands import HELD
from kqueue.stores.mongo.gate_counts import MongoCounts
from kqueue.stores.mongo.schema import Document
from kqueue.stores.mongo.server.moment import Moment
from kqueue.stores.mongo.turns import Change, Turns, in_turn
from kqueue.stores.transitions import claimed

_BEST_FIRST = [("priority", 1), ("place", 1)]


class LimitedJobs:
    """The jobs of types with limits, for one call. It raises ``StoreUnavailable``, naming ``address``, where others
    have their turn all the time. A claim gives fences above ``fence_floor``.
    """

    def __init__(self, jobs: Collection[Document], address: str, fence_floor: int = 0) -> None:
        self._jobs, self._address, self._floor = jobs, address, fence_floor

    def claim(self, selection: Selection, budget: Budget, owner: str, moment: Moment, alone: bool) -> Claim:
        """See :meth:`kqueue.contracts.store.JobStore.claim`. Leases run from when its turn came."""

        def attempt(turns: Turns, waited: float) -> Claim:
            claim = _LimitedClaim(
                self._jobs, turns, selection, owner, moment.later(waited), fence_floor=self._floor
            )
            return claim.attempt(budget, moment.at, alone)

        return in_turn(self._jobs, [one.type for one in selection.limits], self._address, attempt)

    def admit(
        self,
        limit: Limit,
        keys: Many[str] | None,
        moment: Moment,
        put_at: float | None,
        most: int,
        *,
        holder: Claimer | None,
    ) -> Admission:
        """See :meth:`kqueue.contracts.store.JobStore.admit`."""

        def attempt(turns: Turns, waited: float) -> Admission:
            turns.check(limit.type)
            return _Admitting(turns, limit, moment, holder).attempt(keys, put_at, most)

        return in_turn(self._jobs, [limit.type], self._address, attempt)


class _LimitedClaim:
    """One attempt to claim, and the door of its candidates."""

    def __init__(
        self,
        jobs: Collection[Document],
        turns: Turns,
        selection: Selection,
        owner: str,
        start: Moment,
        *,
        fence_floor: int,
    ) -> None:
        """``start``: from when the leases run."""
        self._jobs, self._turns, self._floor = jobs, turns, fence_floor
        self._selection, self._owner, self._start = selection, owner, start
        self._limits = {limit.type: limit for limit in selection.limits}
        self._counts = MongoCounts(turns, start)
        self._gates = Gates(selection.limits, self._counts, selection.holder)
        self._has_some = self._has_enough = False
        #: Ids of those that are held, by gate; and their types.
        self._held: dict[str, list[str]] = {}
        self._held_types: set[str] = set()

    def attempt(self, budget: Budget, now: float, alone: bool) -> Claim:
        """Raises ``NotOurTurn`` if another was faster."""
        later: dict[str, float] = {}
        passing = candidates(self._turns.jobs, self._selection, budget, now, later, door=self)
        rows, cut = budget.fit(self._count(passing, budget.jobs))
        blame, held = alone and len(rows) == 1, 0
        types = sorted(self._held_types.union(row.type for row in rows if row.type in self._limits))
        if types:
            rows, held = self._take(rows, types, blame)
        elif rows:
            rows = take(self._jobs, rows, self._owner, self._start, alone=blame, floor=self._floor)
        return Claim(rows, cut, later, held)

    @property
    def is_full(self) -> bool:
        """See :class:`kqueue.stores.mongo.claim.Door`."""
        return sum(map(len, self._held.values())) >= (FEW_HELD if self._has_some else MOST_HELD)

    def _count(self, passing: Iterable[Row], most: int) -> Iterator[Row]:
        """The same; after ``most`` of them the window is full, so the next one is left out, whatever it is."""
        for number, row in enumerate(passing, 1):
            self._has_some, self._has_enough = True, number >= most
            yield row

    def expect(self, rows: Sequence[Document]) -> None:
        """Look for all of their keys at once."""
        keys: dict[str, set[str]] = {}
        for row in rows:
            limit, key = self._limits.get(row["type"]), row.get("limit_key")
            if limit is not None and key is not None and bounded(limit, key):
                keys.setdefault(limit.type, set()).add(key)
        for type, wanted in keys.items():
            self._counts.look_ahead(type, wanted)

    def passes(self, row: Document) -> bool:
        """Whether no gate holds it back."""
        type = row["type"]
        if type not in self._limits or self._has_enough:
            return True
        self._turns.check(type)
        # Two rows have the same place if they came back from a run together, or if two processes added them in the
        # same microsecond. Neither is then before the other.
        gate = self._gates.stop(
            Candidate(row["priority"], row["place"], type, row.get("gate"), row.get("limit_key"))
        )
        if gate is not None:
            self._held.setdefault(gate, []).append(row["_id"])
            self._held_types.add(type)
        return gate is None

    def _take(self, rows: list[Row], types: Sequence[str], alone: bool) -> tuple[list[Row], int]:
        """(those claimed, as they are now, and how many were held)."""
        ids, held = [row.id for row in rows], [id for at_gate in self._held.values() for id in at_gate]
        claims = commands.claims(
            rows,
            self._owner,
            self._start,
            alone=alone,
            floor=self._floor,
            limited=self._limits,
            holder=self._selection.holder,
        )
        writes = [*claims, *commands.holds(self._held, self._start.at)]

        def is_made() -> bool:
            return bool(self._got(ids)) if ids else len(self._still_held(held)) == len(held)

        try:
            done = self._turns.take(types, Change(writes, is_made), self._started(rows), self._start.at)
            if done < len(ids) + len(held):  # others have changed some since they were read
                got = self._got(ids)
                rows, held = [row for row in rows if row.id in got], list(self._still_held(held))
        except PyMongoError:
            if alone:
                deny_solitude(self._jobs, self._owner, ids[0])
            raise
        gate, floor, at = self._gates.while_running, self._floor, self._start.at
        ours = [claimed(row, self._owner, at, alone, gate=gate(row.type), fence_floor=floor) for row in rows]
        return ours, len(held)

    def _got(self, ids: Sequence[str]) -> set[str]:
        return matching(self._turns.jobs, ids, {"lease_owner": self._owner})

    def _still_held(self, ids: Sequence[str]) -> set[str]:
        return matching(self._turns.jobs, ids, {"state": HELD})

    def _started(self, rows: Sequence[Row]) -> dict[Limit, int]:
        counted = [limit for limit in self._limits.values() if limit.starts is not None]
        started = {limit: sum(row.type == limit.type for row in rows) for limit in counted}
        return {limit: number for limit, number in started.items() if number}


class _Admitting:
    """One attempt to admit."""

    def __init__(self, turns: Turns, limit: Limit, moment: Moment, holder: Claimer | None) -> None:
        self._turns, self._limit, self._now, self._holder = turns, limit, moment.at, holder
        self._counts = MongoCounts(turns, moment)

    def attempt(self, keys: Many[str] | None, put_at: float | None, most: int) -> Admission:
        """Raises ``NotOurTurn`` if another was faster."""
        type = self._limit.type
        gates = self._gates_with_held(keys)
        self._counts.look_at_leases(type, [key for key in map(key_of, gates) if key is not None])
        self._counts.look_at_admitted(type, gates)
        dues: list[Due] = []
        times: list[float | None] = []
        for gate in gates:
            key = key_of(gate)
            free_places = free(self._limit, key, self._counts, self._holder) - self._counts.admitted(gate)
            places = int(max(0, min(free_places, most - len(dues))))
            waiting = self._held_at(gate, places + 1) if places else []
            dues += [commands.to_due(row)._replace(put_at=put_at) for row in waiting[:places]]
            self._counts.admit(gate, len(waiting[:places]))
            if not places or len(waiting) > places:  # some wait on
                times.append(free_at(self._limit, key, self._counts))
        done = self._write([due.id for due in dues], put_at)
        next_at = min((time for time in times if time is not None), default=None)
        return Admission([due for due in dues if due.id in done], next_at)

    def _gates_with_held(self, keys: Many[str] | None) -> list[str]:
        """Their names, sorted: that of the type is the first."""
        type = self._limit.type
        asked: Document = {"$gt": ""}
        if keys is not None:
            asked = {"$in": [gate_of(type, key) for key in {None, *keys}]}
        return sorted(self._turns.jobs.distinct("gate", {"type": type, "state": HELD, "gate": asked}))

    def _held_at(self, gate: str, most: int) -> list[Document]:
        where = {"type": self._limit.type, "state": HELD, "gate": gate}
        return read(self._turns.jobs, where, commands.DUE, most, sort=_BEST_FIRST, index=schema.GATES)

    def _write(self, ids: list[str], put_at: float | None) -> Many[str]:
        """Those that are admitted. Without any it takes the turn all the same: a claim that has read what there was
        before a place was free, and is about to hold a row, has to look again.
        """
        token = secrets.token_hex(8)

        def admitted() -> set[str]:
            return matching(self._turns.jobs, ids, {"written_by": token})

        change = Change(commands.admissions(ids, token, put_at, self._now), lambda: bool(admitted()))
        done = self._turns.take([self._limit.type], change, {}, self._now)
        return ids if done == len(ids) else admitted()
