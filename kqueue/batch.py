"""The jobs of one window while they are in hand: started one by one, settled together.

Theory of operation. The loop's thread starts the jobs in order. What ends waits in ``pending`` and is written
in one settle: when it has waited for ``settle_ms``, when the window ends, at ``flush()``, or at once where no
other job of the window is left to start. While a handler keeps the loop's thread, the watchdog's thread does
that in its place; and when the handler overruns the window's bound, it also gives the unstarted jobs back,
so that they do not wait behind it. Every write is fenced, so whatever either thread does late changes nothing.

``_lock`` guards the fields and is never held over I/O; ``_settling`` orders the settles.
"""

import logging
import math
import threading
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from kqueue import arguments
from kqueue.clock import Clock
from kqueue.doorbell import Doorbell
from kqueue.errors import AlreadySettled, KQueueError, LeaseLost
from kqueue.execution import Outcome, outcome, reason_text
from kqueue.job import JobInHand, Priority, Row
from kqueue.retry import RetryPolicy
from kqueue.store import Delete, Die, Due, Held, JobStore, Retry, Settlement, Unget

#: Seconds from a window's start after which its unstarted jobs are given back: twice the work it should hold.
BOUND_S = 0.100
#: Seconds between two looks of the watchdog at least.
SHORTEST_LOOK_S = 0.005


@dataclass(frozen=True, slots=True)
class Desk:
    """What all batches of a loop work with."""

    store: JobStore
    doorbell: Doorbell
    policy: RetryPolicy
    #: Seconds that an ended job may wait to be settled.
    settle_s: float
    clock: Clock
    logger: logging.Logger
    #: How runs ended; written under each batch's ``_settling``.
    tally: Counter[Outcome] = field(default_factory=Counter)


class Batch:
    """Holds the jobs of one window. See the module's text."""

    def __init__(self, rows: Sequence[Row], desk: Desk, claimed_at: float) -> None:
        """``claimed_at``: monotonic seconds, from before the claim."""
        self._desk = desk
        self._claimed_at = claimed_at
        self._bound_at = claimed_at + BOUND_S
        self._lock = threading.Lock()
        self._settling = threading.Lock()
        self._unstarted = deque(rows)
        self._running: Row | None = None
        self._ending: Settlement | None = None
        self._pending: list[tuple[Row, Settlement]] = []
        self._pending_since = math.inf

    # -- the loop's --------------------------------------------------------------------------------------

    def start(self, now: float) -> JobInHand | None:
        """The next job to run, or None. ``now`` in monotonic seconds.

        A job with under half its lease left is never started: it and the rest are given back.
        """
        with self._lock:
            if self._unstarted and now - self._claimed_at > self._unstarted[0].ttr / 2:
                self._give_back()
            if not self._unstarted:
                return None
            self._running, self._ending = self._unstarted.popleft(), None
            return JobInHand(self._running, self)

    def finish(self) -> None:
        """The running job's handler has ended, and the job is settled."""
        with self._lock:
            self._running = self._ending = None

    def postpone(self, seconds: float) -> None:
        """Give back what has not started, to run in ``seconds`` at the earliest."""
        with self._lock:
            self._give_back(seconds)

    def close(self) -> None:
        """Give back what has not started, or was interrupted, and settle everything."""
        with self._lock:
            if self._running is not None and self._ending is None:
                self._unstarted.appendleft(self._running)
            self._running = self._ending = None
            self._give_back()
        self.settle()

    def settle_if_due(self, now: float) -> None:
        """Settle if a job has waited for it long enough. ``now`` in monotonic seconds."""
        if now >= self._pending_since + self._desk.settle_s:
            self.settle()

    def settle(self) -> Sequence[str]:
        """Write what has ended, now. Returns the ids whose lease was lost.

        Raises ``StoreError``; then nothing is forgotten, and the next settle writes it again.
        """
        with self._settling:
            with self._lock:
                pending, self._pending, self._pending_since = self._pending, [], math.inf
            if not pending:
                return ()
            try:
                return self._write(pending)
            except BaseException:
                with self._lock:
                    self._pending = pending + self._pending
                    self._pending_since = self._desk.clock.monotonic()
                raise

    # -- the watchdog's ----------------------------------------------------------------------------------

    def wants_attention_at(self, now: float) -> float:
        """When another thread is to call :meth:`attend`, in monotonic seconds; infinity for never."""
        with self._lock:
            if not self._unstarted and not self._pending:
                return math.inf
            settle_at = min(self._pending_since, now) + max(SHORTEST_LOOK_S, self._desk.settle_s)
            return min(settle_at, self._bound_at) if self._unstarted else settle_at

    def attend(self, now: float) -> None:
        """Do what the loop's thread would, were it not busy in a handler. Never raises: what fails is kept
        and fails again in the loop.
        """
        if now >= self._bound_at:
            with self._lock:
                self._give_back()
        try:
            if now >= self._bound_at or now >= self._pending_since + self._desk.settle_s:
                self.settle()
        except KQueueError as error:
            self._desk.logger.warning("not settled yet: %s", error)

    # -- the handler's, through its JobInHand ------------------------------------------------------------

    def is_settled(self, job: JobInHand) -> bool:
        """Whether the running job has its outcome."""
        with self._lock:
            return self._running is None or self._running.id != job.id or self._ending is not None

    def delete(self, row: Row) -> None:
        """The job is finished."""
        if not (self._running is row and isinstance(self._ending, Delete)):
            self._end(row, Delete(row.id, row.fence))

    def retry(self, row: Row, reason: str, delay: float | None) -> None:
        """Again later, or dead if the tries are used up. ``delay`` in seconds; None: by the retry policy."""
        reason = reason_text(arguments.text("reason", reason))
        delay = None if delay is None else arguments.number("delay", delay, 0)
        after = self._desk.policy.delay_after(row.failures + 1)
        if after is None:
            self._end(row, Die(row.id, row.fence, reason))
        else:
            now = self._desk.store.now()
            run_at = now + (after if delay is None else delay)
            put_at = self._desk.doorbell.put_at(run_at, now)
            self._end(row, Retry(row.id, row.fence, run_at, reason, put_at))

    def unget(self, row: Row, priority: Priority | str | int | None, delay: float) -> None:
        """Back unrun. ``delay`` in seconds."""
        level = None if priority is None else arguments.priority(priority)
        delay = arguments.number("delay", delay, 0)
        now = self._desk.store.now()
        put_at = self._desk.doorbell.put_at(now + delay, now)
        self._end(row, Unget(row.id, row.fence, now + delay, level, put_at, started=True))

    def renew(self, row: Row) -> None:
        """Another TTR from now."""
        with self._lock:
            self._check_open(row)
        self._renew(row)

    def _end(self, row: Row, settlement: Settlement) -> None:
        with self._lock:
            self._check_open(row)
            self._ending = settlement
            self._pend([(row, settlement)])
            is_last = not self._unstarted
        if is_last and row.id in self.settle():
            raise LeaseLost(row.id, row.fence)

    def _check_open(self, row: Row) -> None:
        if self._running is not row:
            raise AlreadySettled(f"job {row.id}: its run is over, so nothing was changed")
        if self._ending is not None:
            raise AlreadySettled(f"job {row.id}: it was {outcome(self._ending)} before; a run is settled once")

    # -- the operator's ----------------------------------------------------------------------------------

    def delete_by_id(self, job_id: str) -> bool:
        """Delete the job if it is the running one; True if so. If it has not started, it will not start."""
        with self._lock:
            row = self._running
            if row is None or row.id != job_id:
                self._unstarted = deque(one for one in self._unstarted if one.id != job_id)
                return False
        try:
            self.delete(row)
        except (AlreadySettled, LeaseLost):
            return False
        return True

    def mark_alone(self, alone: bool) -> None:
        """Store whether the job of this window runs alone in its process, with a new lease for it.

        Raises ``LeaseLost``.
        """
        with self._lock:
            rows = [*self._unstarted] if self._running is None else [self._running]
        for row in rows:
            self._renew(row, alone)

    # -- within ------------------------------------------------------------------------------------------

    def _renew(self, row: Row, alone: bool | None = None) -> None:
        store = self._desk.store
        if store.renew([Held(row.id, row.fence, row.ttr)], store.now(), alone):
            raise LeaseLost(row.id, row.fence)

    def _give_back(self, delay: float = 0.0) -> None:
        """Turn what has not started into pending ungets. Under the lock; writes nothing."""
        if self._unstarted:
            now = self._desk.store.now()
            run_at = now + delay
            put_at = self._desk.doorbell.put_at(run_at, now)
            self._pend(
                [(row, Unget(row.id, row.fence, run_at, None, put_at, started=False)) for row in self._unstarted]
            )
            self._unstarted.clear()

    def _pend(self, ended: list[tuple[Row, Settlement]]) -> None:
        if not self._pending:
            self._pending_since = self._desk.clock.monotonic()
        self._pending += ended

    def _write(self, pending: list[tuple[Row, Settlement]]) -> Sequence[str]:
        desk = self._desk
        now = desk.store.now()
        lost, unnamed = desk.store.settle([settlement for _, settlement in pending], now)
        kept = [one for one in pending if one[1].id not in lost] if lost else pending
        self._count(kept, unnamed)
        if lost:
            self._count_lost([one for one in pending if one[1].id in lost])
        dues = [_due(row, one) for row, one in kept if isinstance(one, Retry | Unget)]
        if dues:
            desk.doorbell.ring(dues, now)
        return tuple(lost)

    def _count(self, kept: list[tuple[Row, Settlement]], unnamed: int) -> None:
        tally = self._desk.tally
        tally.update(outcome(one) for _, one in kept if _has_run(one))
        if unnamed:
            tally[Outcome.DELETED] -= unnamed
            tally[Outcome.LOST_LEASE] += unnamed
            self._desk.logger.warning("%d deletes of a window found no job: their leases were lost", unnamed)

    def _count_lost(self, lost: list[tuple[Row, Settlement]]) -> None:
        for row, settlement in lost:
            if _has_run(settlement):
                self._desk.tally[Outcome.LOST_LEASE] += 1
                self._desk.logger.warning(
                    "job %s (%s): the lease with fence %d was lost, so that it was %s changed nothing",
                    row.id,
                    row.type,
                    row.fence,
                    outcome(settlement),
                )


def _has_run(settlement: Settlement) -> bool:
    return not isinstance(settlement, Unget) or settlement.started


def _due(row: Row, settlement: Retry | Unget) -> Due:
    given = settlement.priority if isinstance(settlement, Unget) else None
    priority = row.priority if given is None else given
    return Due(row.id, row.type, priority, settlement.run_at, settlement.put_at)
