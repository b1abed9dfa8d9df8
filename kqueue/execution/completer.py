"""What has ended and is to be written: together, in order, each run once.

Deletes are nearly all there is, and there are thousands a second. So they are told apart once, by their class, and
whatever is done for the others is not done for them.
"""

import math
import threading
from collections.abc import Callable, Collection, Sequence
from typing import Protocol, TypeAlias

from kqueue.contracts.admission import Claimer
from kqueue.contracts.repair import Due
from kqueue.contracts.settlements import Delete, Die, Outcome, Retry, Settled, Settlement, Unget, has_run, outcome
from kqueue.execution.context import LoopContext
from kqueue.execution.inflight_job import InflightJob
from kqueue.model.errors import KQueueError, StoreError
from kqueue.model.job import Row, State
from kqueue.model.retry import backoff
from kqueue.renewal.due import too_long
from kqueue.system.locks import entry, wait_until
from kqueue.telemetry.telemetry import Ended, Errors, Seconds, Settlings

#: Where a signal handler came in between.
JOB_WRITE = "a job's end or renewal"
#: Seconds that a ring takes at most, where the broker is silent: it connects, and asks once.
RING_S = 5.0
NO_IDS: frozenset[str] = frozenset()
#: As :meth:`kqueue.contracts.runs.Runs.settle`.
SettleBy: TypeAlias = Callable[[Sequence[Settlement], float], Settled]


class SomeInflight(Protocol):
    """Some of what is in hand. See :class:`kqueue.execution.inflight.InflightJobs`."""

    @property
    def unstarted(self) -> Collection[InflightJob]:
        """Claimed, and not started."""

    @property
    def running(self) -> Collection[InflightJob]:
        """Those that may still ask what became of their ends."""

    def threads_of(self, job_id: str) -> set[int]:
        """Where its handler may run, if it is one of these. Under the lock."""


class Completer:
    """The settlements of what one loop has in hand, all its parts together. :meth:`add` and :meth:`find` are called
    under its lock.
    """

    def __init__(self, context: LoopContext) -> None:
        self._context = context
        #: The loop's, which is never held over I/O.
        self.lock = self._lock = threading.RLock()
        #: All of what is in hand.
        self.parts: list[SomeInflight] = []
        self._pending: list[Ended] = []
        self._failures = 0
        #: One token for each write whose jobs that came back may still lack their pointers, and whose places at
        #: limits may not be given yet.
        self._ringing: set[object] = set()
        #: Writes that are done, and whose pointers are put.
        self.writes = 0
        #: Orders the writes. Whoever holds it keeps a settle from coming in between.
        self.writing = threading.RLock()
        #: When what is pending is to be written, in monotonic seconds; infinity for never.
        self.due_at = math.inf
        #: Who has claimed them, where there is one that limits count together.
        self.holder: Claimer | None = None
        #: Ids that a write may have settled though it failed.
        self._unsure: set[str] = set()
        #: Seconds that a run took, until its end is told. Whoever told its start puts them here.
        self.seconds: Seconds = {}
        #: What a handler raised, by id and fence of its run, until its end is told: not longer, since that holds
        #: all its frames.
        self.errors: Errors = {}
        #: Seconds after which a renewer ended a run if it went on, of those that have ended; by id and fence.
        self.bounds: dict[tuple[str, int], float] = {}

    def add(self, row: Row, settlement: Settlement) -> bool:
        """To be written ``settle_ms`` after the first that waits; whether it is the first."""
        is_first = not self._pending
        if is_first:
            self.due_at = self._context.clock.monotonic() + self._context.settle_s
        self._pending.append((row, settlement))
        return is_first

    def find(self, job_id: str) -> Settlement | None:
        """What is pending for this job."""
        return next((settlement for _, settlement in self._pending if settlement.id == job_id), None)

    def running(self) -> list[InflightJob]:
        """Those of all parts whose handlers run. Under the lock."""
        return [job for part in self.parts for job in part.running]

    def are_any_beside(self, part: SomeInflight) -> bool:
        """Whether another part has anything in hand. Under the lock."""
        return len(self.parts) > 1 and any(one is not part and (one.unstarted or one.running) for one in self.parts)

    def is_failing(self) -> bool:
        """Whether the last write failed, so that what is pending waits for another."""
        return self._failures > 0

    def is_written(self) -> bool:
        """Whether all that has ended is written."""
        return self.due_at == math.inf

    def write(self, by: SettleBy | None = None) -> None:
        """Write what is pending, now. ``by``: how, by default the store's ``settle``. It is not called if nothing
        is.

        Raises ``StoreError``; then nothing is forgotten, and it is due again after a back-off. Raises
        ``KQueueError`` in a signal handler that has interrupted a write or renewal of the same thread.
        """
        me = object()
        try:
            with entry(self.writing, KQueueError, JOB_WRITE):
                with self._lock:
                    pending = self._pending.copy()
                if not pending:
                    return
                try:
                    settled, now = self._store(pending, by or self._context.store.settle)
                    with self._lock:
                        del self._pending[: len(pending)]
                        self.due_at = self._due_at()
                        self._ringing.add(me)
                except BaseException as error:  # an interrupt too: the store may have gone on
                    if not isinstance(error, StoreError) or error.may_be_done:
                        self._unsure.update(settlement.id for _, settlement in pending)
                    raise
                written = self._account(pending, settled, now)
            dues = [_due(row, one) for row, one in written.others if isinstance(one, Retry | Unget)]
            # Out of the lock: a broker that is silent must not hold up a renew.
            if dues:
                self._context.doorbell.ring(dues, now)
            self._context.limiter.freed((row for row, _ in pending), self.holder)
            self._context.outages.is_over(self._context.store.address)
            self._context.telemetry.settled(written, self.seconds, self.errors)
        finally:
            self.writes += me in self._ringing
            self._ringing.discard(me)

    def await_rings(self) -> None:
        """Wait until what another thread has written is rung and told, and what it let in at limits is ready: else
        a loop that drains would find nothing, and end.
        """
        wait_until(lambda: not self._ringing, RING_S)

    def _due_at(self) -> float:
        """Of the first that waits."""
        return self._context.clock.monotonic() + self._context.settle_s if self._pending else math.inf

    def _store(self, pending: list[Ended], by: SettleBy) -> tuple[Settled, float]:
        try:
            now = self._context.store.now()
            settled = by([settlement for _, settlement in pending], now)
        except Exception:
            self._failures += 1
            self.due_at = self._context.clock.monotonic() + backoff(self._failures)
            raise
        self._failures = 0
        return settled, now

    def _account(self, pending: list[Ended], settled: Settled, now: float) -> Settlings:
        """Count what was written."""
        lost, unnamed, _ = settled
        was_unsure = unknown = NO_IDS
        if self._unsure or settled.unsure:
            was_unsure, self._unsure = frozenset(self._unsure), set()
            lost, unknown = self._sort(pending, settled, was_unsure)
        tally = self._context.tally
        if lost:
            with self._lock:
                for job in self.running():
                    if job.settlement is not None and job.row.id in lost:
                        job.is_lost, job.is_unknown = True, job.row.id in unknown
        if self.bounds:
            overrun = self._overrun(pending, lost, now)
            lost, pending = lost - overrun, [one for one in pending if one[1].id not in overrun]
        if lost:
            for _, one in pending:
                if one.id in lost and has_run(one):
                    tally[Outcome.UNKNOWN if one.id in unknown else Outcome.LOST_LEASE] += 1
        kept = [one for one in pending if one[1].id not in lost] if lost else pending
        others = [one for one in kept if type(one[1]) is not Delete]
        tally[Outcome.DELETED] += len(kept) - len(others)
        tally.update(outcome(settlement) for _, settlement in others if has_run(settlement))
        if unnamed:
            tally[Outcome.DELETED] -= unnamed
            tally[Outcome.UNKNOWN if was_unsure else Outcome.LOST_LEASE] += unnamed
            why = "their leases were lost" if not was_unsure else "they had been done, or their leases were lost"
            self._context.logger.warning("%d deletes of a window found no job: %s", unnamed, why)
        return Settlings(now, pending, lost, others, unknown)

    def _overrun(self, pending: Sequence[Ended], lost: frozenset[str], now: float) -> frozenset[str]:
        """The ids of those that are lost since their renewer had ended their runs, which took too long. They are
        counted as that, and told, if nobody has heard of it yet.
        """
        bounds, keys = self.bounds, [(row.id, row.fence) for row, _ in pending]
        bounded = {key: bounds.pop(key) for key in keys if key in bounds}
        suspected = {row.id: row for row, _ in pending if row.id in lost and (row.id, row.fence) in bounded}
        unheard = [row.id for row in suspected.values() if (row.id, row.fence) not in self._context.overruns]
        for found in self._look_up(unheard):
            row = suspected[found.id]
            seconds = bounded[row.id, row.fence]
            if found.fence == row.fence and found.lease_owner is None and found.reason == too_long(seconds):
                is_dead = found.state == State.DEAD
                retry = Retry(row.id, row.fence, found.run_at, found.reason, None)
                self._context.tell_overrun(
                    row, Die(row.id, row.fence, found.reason) if is_dead else retry, seconds, now
                )
        overrun = set()
        for row in suspected.values():
            ended = self._context.overruns.get((row.id, row.fence))
            if ended is not None:
                overrun.add(row.id)
                self._context.tally[outcome(ended)] += 1
                self.seconds.pop((row.id, row.fence), None)
                self.errors.pop((row.id, row.fence), None)
        return frozenset(overrun)

    def _look_up(self, ids: Sequence[str]) -> list[Row]:
        """None of them if the store does not say."""
        if not ids:
            return []
        try:
            return self._context.store.get(ids)
        except StoreError:
            return []

    def _sort(
        self, pending: Sequence[Ended], settled: Settled, was_unsure: Collection[str]
    ) -> tuple[frozenset[str], frozenset[str]]:
        """(what changed nothing as far as is known, that of which it is unknown), of what found nothing to settle.

        Where an earlier attempt may have done it, and the lease that it was claimed with is not over yet, nobody
        else could: it is done.
        """
        doubtful = settled.unsure.union(id for id in settled.lost if id in was_unsure)
        now = self._context.store.now()
        done = {row.id for row, _ in pending if row.id in doubtful and (row.lease_until or 0.0) > now}
        return settled.lost.union(doubtful) - done, doubtful - done


def _due(row: Row, settlement: Retry | Unget) -> Due:
    given = settlement.priority if isinstance(settlement, Unget) else None
    priority = row.priority if given is None else given
    return Due.of(row)._replace(priority=priority, run_at=settlement.run_at, put_at=settlement.put_at)
