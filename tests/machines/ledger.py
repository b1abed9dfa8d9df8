"""The ledger: what is true of each job, kept outside the queue and beside every store call.

Each process of the model sees its store through :class:`Witness`, which compares the rows before and after each
call with the contract and with the ledger. What it finds is kept in ``violations`` and raised after the step, since
an assertion inside a handler would only be one more failed run.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from kqueue import JobInHand
from kqueue.contracts.budget import Budget
from kqueue.contracts.repair import Due, Recovered
from kqueue.contracts.runs import Claim, LeaseKey, RunsInOneWrite, Selection
from kqueue.contracts.settlements import Delete, Die, Finish, Retry, Settled, Settlement
from kqueue.contracts.store import JobStore
from kqueue.model.job import Row, State
from kqueue.model.payload import decode_result


class Key(NamedTuple):
    """One claim of one job."""

    id: str
    fence: int


class Ledger:
    """Facts that the queue cannot change. The invariants are those of the design's section 6."""

    def __init__(self, max_tries: int, max_crashes: int) -> None:
        self.max_tries = max_tries
        self.max_crashes = max_crashes
        #: Committed rows as they were added, by id.
        self.added: dict[str, Row] = {}
        self.acknowledged: set[str] = set()
        #: Ids whose row is rightly gone.
        self.removed: set[str] = set()
        self.dead: set[str] = set()
        #: Those that are kept as done, with the claims that ended them.
        self.done: dict[str, Key] = {}
        #: What a handler asked to be deleted, and what an operator did.
        self.finished: set[Key] = set()
        self.unwanted: set[str] = set()
        #: Which process made each claim; claims by the owner they were made under.
        self.claims: dict[Key, str] = {}
        self.started: set[Key] = set()
        self.last_started: dict[str, Key] = {}
        self.settled: set[Key] = set()
        #: Claims that a fault struck while they were unsettled.
        self.struck: set[Key] = set()
        self.fences: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.duplicates = 0
        self.violations: list[str] = []

    def require(self, truth: object, invariant: str, said: str) -> None:
        """Note a violation of ``invariant`` unless ``truth``."""
        if not truth:
            self.violations.append(f"{invariant}: {said}")

    def began(self, job: JobInHand) -> None:
        """A handler starts: I3 (once for each fence), I6 (it was added, and is unchanged), I7 (no duplicate run
        but of a claim that a fault struck).
        """
        key = Key(job.id, job.fence)
        added = self.added.get(job.id)
        self.require(added is not None, "I6", f"{key} runs and was never added")
        if added is not None:
            same = (job.type, job._row.payload, job._row.encoding) == (added.type, added.payload, added.encoding)
            self.require(same, "I6", f"{key} runs with another type or payload")
        self.require(key in self.claims, "I3", f"{key} runs and was never claimed")
        self.require(key not in self.started, "I3", f"{key} runs twice under one fence")
        before = self.last_started.get(job.id)
        if before is not None and before not in self.settled:
            self.duplicates += 1
            self.require(before in self.struck, "I7", f"{key} runs again, and no fault struck {before}")
        self.started.add(key)
        self.last_started[job.id] = key

    def strike(self, process: str) -> None:
        """A fault strikes all that ``process`` has claimed and not settled."""
        self.struck |= {key for key, owner in self.claims.items() if owner == process and key not in self.settled}

    def waiting(self) -> set[str]:
        """Ids that must be in the store."""
        return set(self.added) - self.removed

    def check(self, store: JobStore) -> None:
        """What must hold between any two steps."""
        rows = {row.id: row for row in store.get(list(self.added))}
        missing = self.waiting() - set(rows)
        self.require(not missing, "I1", f"{missing} are gone and nobody deleted them")
        self.require(self.acknowledged <= set(self.added), "I1", "acknowledged, and never committed")
        self.require(not self.removed & set(rows), "I5", "deleted jobs are there again")
        self.require(sum(store.counts().values()) == len(rows), "I6", "there are rows that nobody added")
        dead = {row.id for row in rows.values() if row.state == State.DEAD}
        self.require(dead == self.dead & set(rows), "I8", f"dead: {dead}, and should be {self.dead & set(rows)}")
        done = {row.id for row in rows.values() if row.state == State.DONE}
        self.require(done == set(self.done), "I8", f"done: {done}, and should be {set(self.done)}")
        for row in rows.values():
            self._check_row(row)
        assert not self.violations, self.violations

    def _check_row(self, row: Row) -> None:
        added = self.added[row.id]
        same = (row.type, row.payload, row.encoding) == (added.type, added.payload, added.encoding)
        self.require(same, "I6", f"{row.id} has changed in the store")
        self.require(row.fence == self.fences[row.id], "I3", f"{row.id} has fence {row.fence} after other claims")
        self.require(row.failures == self.failures[row.id], "I8", f"{row.id} counts {row.failures} failed runs")
        result = None if row.result is None else Key(*decode_result(row.result))
        # A delete by the job's id has none.
        is_own = result == self.done.get(row.id) or (result is None and row.id in self.unwanted)
        self.require(is_own, "I10", f"{row.id} has the result of {result}, and ended by {self.done.get(row.id)}")
        if row.state == State.RUNNING:
            left = Key(row.id, row.fence)
            self.require(left in self.struck, "I7", f"{left} is held by nobody that lives, and no fault struck it")


class Witness:
    """Every call of one process on its store, checked against the ledger. Called as the store is."""

    def __init__(self, store: JobStore, ledger: Ledger, process: str) -> None:
        self._store = store
        self._ledger = ledger
        self._process = process
        if isinstance(store, RunsInOneWrite):
            self.settle_and_claim = self._settle_and_claim

    def __getattr__(self, name: str) -> Any:
        """Calls that change nothing of what the ledger knows."""
        return getattr(self._store, name)

    def add(self, rows: Sequence[Row]) -> None:
        """From here on these jobs may never be lost."""
        self._store.add(rows)
        self._ledger.added.update({row.id: row for row in rows})

    def claim(self, selection: Selection, limits: Budget, owner: str, now: float, alone: bool) -> Claim:
        """I3, I5, I6; and nothing is claimed that is not waiting and due."""
        before = self._rows()
        claim = self._store.claim(selection, limits, owner, now, alone)
        self._claimed(claim, before, now, alone)
        return claim

    def _settle_and_claim(
        self,
        settlements: Sequence[Settlement],
        selection: Selection,
        limits: Budget,
        owner: str,
        now: float,
        *,
        alone: bool,
    ) -> tuple[Settled, Claim]:
        """Both at once: what was given back may be claimed again."""
        assert isinstance(self._store, RunsInOneWrite)
        before = self._rows()
        settled, claim = self._store.settle_and_claim(settlements, selection, limits, owner, now, alone=alone)
        again = {row.id for row in claim.rows}.intersection(one.id for one in settlements)
        self._settled(settlements, settled, before, again)
        given_back = {id: before[id]._replace(state=State.READY) for id in again}
        self._claimed(claim, {**before, **given_back}, now, alone)
        return settled, claim

    def _claimed(self, claim: Claim, before: Mapping[str, Row], now: float, alone: bool) -> None:
        ledger = self._ledger
        for row in claim.rows:
            key = Key(row.id, row.fence)
            was = before.get(row.id)
            ledger.require(row.id not in ledger.removed, "I5", f"{key} was claimed after it was deleted")
            ledger.require(key not in ledger.claims, "I3", f"{key} was claimed twice")
            due = was is not None and (
                was.state == State.READY or (was.state == State.DELAYED and was.run_at <= now)
            )
            ledger.require(due, "I4", f"{key} was claimed, and was {was}")
            ledger.require(was is not None and row.fence == was.fence + 1, "I3", f"{key} does not follow {was}")
            by_itself = alone and len(claim.rows) == 1
            ledger.require(
                row.alone == by_itself, "I8", f"{key} may be blamed: {row.alone}, and should: {by_itself}"
            )
            ledger.claims[key] = self._process
            ledger.fences[row.id] = row.fence

    def renew(self, held: Sequence[LeaseKey], now: float, alone: bool | None = None) -> frozenset[str]:
        """I4."""
        before = self._rows()
        lost = self._store.renew(held, now, alone)
        after = self._rows()
        for job in held:
            if not self._holds(before.get(job.id), job.fence):
                self._ledger.require(job.id in lost, "I4", f"{job} was renewed by who does not hold it")
                self._unchanged(before, after, job.id)
        return lost

    def settle(self, settlements: Sequence[Settlement], now: float) -> Settled:
        """I4: only the holder. I8: a row goes only by a delete that its handler or an operator asked for."""
        before = self._rows()
        settled = self._store.settle(settlements, now)
        self._settled(settlements, settled, before, ())
        return settled

    def _settled(
        self,
        settlements: Sequence[Settlement],
        settled: Settled,
        before: Mapping[str, Row],
        again: Collection[str],
    ) -> None:
        """``again``: ids that were claimed in the same write, after it."""
        ledger, after = self._ledger, self._rows()
        for one in settlements:
            was, key = before.get(one.id), Key(one.id, one.fence)
            if not self._holds(was, one.fence):
                ledger.require(one.id in settled.lost or settled.unnamed, "I4", f"{one} by who does not hold it")
                self._unchanged(before, after, one.id)
                continue
            ledger.require(one.id not in settled.lost, "I4", f"{one} is told to be lost, by its holder")
            ledger.settled.add(key)
            row = after.get(one.id)
            if one.id in again and row is not None:  # as it was in between
                row = row._replace(lease_owner=None, lease_until=None)
            self._outcome(one, key, row)

    def delete(self, ids: Sequence[str]) -> int:
        """I8: an operator asked for it."""
        count = self._store.delete(ids)
        self._ledger.require(self._ledger.unwanted.issuperset(ids), "I8", f"{ids} were deleted unasked")
        self._remove(ids)
        return count

    def expire(self, now: float, limit: int) -> int:
        """Only what is done, once it need not be kept any more."""
        before = self._rows()
        count = self._store.expire(now, limit)
        gone = set(before) - set(self._rows())
        for id in gone:
            over = before[id].state == State.DONE and (before[id].keep_until or 0.0) <= now
            self._ledger.require(over, "I8", f"{before[id]} was forgotten")
        self._remove(gone)
        return count

    def purge(self, type: str, limit: int) -> int:
        """What runs stays."""
        before = self._rows()
        count = self._store.purge(type, limit)
        gone = set(before) - set(self._rows())
        idle = all(before[id].type == type and before[id].state != State.RUNNING for id in gone)
        self._ledger.require(idle, "I8", f"a purge of {type} took {gone}")
        self._remove(gone)
        return count

    def revive(self, ids: Sequence[str], reason: str, now: float, put_at: float | None) -> list[Due]:
        """Only the dead come back."""
        made = self._store.revive(ids, reason, now, put_at)
        for due in made:
            self._ledger.require(due.id in self._ledger.dead, "I8", f"{due.id} was revived and was not dead")
            self._ledger.dead.discard(due.id)
            self._ledger.failures[due.id] = 0
        return made

    def recover(self, now: float, max_crashes: int, limit: int) -> Recovered:
        """Only leases that ran out, which is a fault for their jobs; dead only after deaths alone (I8)."""
        ledger, before = self._ledger, self._rows()
        recovered = self._store.recover(now, max_crashes, limit)
        after = self._rows()
        for id, was in before.items():
            row = after.get(id)
            if row is None or row == was:
                ledger.require(row is not None, "I1", f"a sweep lost {id}")
                continue
            over = was.state == State.RUNNING and was.lease_until is not None and was.lease_until <= now
            ledger.require(over, "I7", f"{id} was recovered from {was}")
            ledger.struck.add(Key(id, was.fence))
            if row.state == State.DEAD:
                guilty = was.alone and was.crashes + 1 >= max_crashes
                ledger.require(guilty, "I8", f"{id} is dead by {was.crashes} deaths and one, alone: {was.alone}")
                ledger.dead.add(id)
        return recovered

    def _outcome(self, one: Settlement, key: Key, row: Row | None) -> None:
        ledger = self._ledger
        if isinstance(one, Delete):
            asked = key in ledger.finished or one.id in ledger.unwanted
            ledger.require(asked, "I8", f"{key} was deleted unasked")
            ledger.require(row is None, "I5", f"{key} is there after its delete")
            self._remove([one.id])
            return
        if isinstance(one, Finish):
            asked = key in ledger.finished or one.id in ledger.unwanted
            ledger.require(asked, "I8", f"{key} was finished unasked")
            ledger.require(row is not None and row.state == State.DONE, "I8", f"{key} is {row} after its end")
            ledger.done[one.id] = key
        if row is None:
            ledger.require(False, "I1", f"{one} lost the row")
            return
        free = row.lease_owner is None and row.lease_until is None
        ledger.require(free, "I4", f"{key} is still leased after {one}")
        if isinstance(one, Retry | Die):
            ledger.failures[one.id] += 1
        if isinstance(one, Die):
            enough = ledger.failures[one.id] >= ledger.max_tries
            ledger.require(enough, "I8", f"{key} died after {ledger.failures[one.id]} failed runs")
            ledger.dead.add(one.id)
        elif one.id in ledger.dead:
            ledger.dead.discard(one.id)  # a late holder's word is later than the sweep's

    def _remove(self, ids: Sequence[str] | set[str]) -> None:
        self._ledger.removed |= set(ids) & set(self._ledger.added)
        self._ledger.dead -= set(ids)
        for id in ids:
            self._ledger.done.pop(id, None)

    def _rows(self) -> dict[str, Row]:
        return {row.id: row for row in self._store.get(list(self._ledger.waiting()))}

    def _unchanged(self, before: dict[str, Row], after: dict[str, Row], id: str) -> None:
        self._ledger.require(before.get(id) == after.get(id), "I4", f"{id} was changed by a late holder")

    @staticmethod
    def _holds(row: Row | None, fence: int) -> bool:
        return row is not None and row.fence == fence and row.lease_owner is not None
