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
import os
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
from kqueue.retry import RetryPolicy, backoff
from kqueue.store import Delete, Die, Due, Held, JobStore, Retry, Settled, Settlement, Unget

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

    def __init__(self, rows: Sequence[Row], desk: Desk, leased_at: float, alone: bool = False) -> None:
        """``leased_at``: when leases began, in monotonic seconds. ``alone``: claimed as alone in the process."""
        self._desk = desk
        self._pid, self._thread = os.getpid(), threading.get_ident()
        self._leased_at = leased_at
        self._alone = alone and len(rows) == 1
        #: Monotonic seconds; runs from the first start, so that a slow claim does not use it up.
        self._bound_at = math.inf
        self._lock = threading.Lock()
        self._settling = threading.Lock()
        self._unstarted = deque(rows)
        self._running: Row | None = None
        self._ending: Settlement | None = None
        self._pending: list[tuple[Row, Settlement]] = []
        #: When ``pending`` is to be written, in monotonic seconds.
        self._settle_at = math.inf
        self._failures = 0
        self._lost: set[str] = set()
        self._seconds_settling = 0.0

    # -- the loop's --------------------------------------------------------------------------------------

    def start(self, now: float) -> JobInHand | None:
        """The next job to run, or None. ``now`` in monotonic seconds.

        A job with under half its lease left is never started: at the window's begin, after a slow claim, all are
        renewed; later it and the rest are given back.
        """
        if os.getpid() != self._pid:
            return None
        with self._lock:
            late = bool(self._unstarted) and now - self._leased_at > self._unstarted[0].ttr / 2
        if late and self._bound_at == math.inf:
            self._renew_all()
        elif late:
            self.give_back()
        with self._lock:
            if not self._unstarted:
                return None
            self._bound_at = min(self._bound_at, now + BOUND_S)
            self._running, self._ending = self._unstarted.popleft(), None
            return JobInHand(self._running, self)

    def finish(self) -> float:
        """The running job's handler has ended, and the job is settled.

        Returns the seconds of its run that went into settles, which are the store's and not the handler's.
        """
        if os.getpid() != self._pid:
            return 0.0  # and the lock may have been held when the handler forked
        with self._lock:
            self._running = self._ending = None
            seconds, self._seconds_settling = self._seconds_settling, 0.0
        return seconds

    def close(self) -> None:
        """Give back what has not started, or was interrupted, and settle everything.

        Does nothing in a child that a handler forked: the window is its parent's.
        """
        if os.getpid() != self._pid:
            return
        with self._lock:
            if self._running is not None and self._ending is None:
                self._unstarted.appendleft(self._running)
            self._running = self._ending = None
        self.give_back()
        self.settle()

    def settle_if_due(self, now: float) -> bool:
        """Settle if a job has waited for it long enough; whether it did. ``now`` in monotonic seconds."""
        due = now >= self._settle_at and os.getpid() == self._pid
        if due:
            self.settle()
        return due

    def give_back(self, delay: float = 0.0) -> None:
        """What has not started is to go back, to run in ``delay`` seconds at the earliest, with the next settle."""
        now = self._desk.store.now()
        run_at = now + delay
        put_at = self._desk.doorbell.put_at(run_at, now)
        with self._lock:
            back = [(row, Unget(row.id, row.fence, run_at, None, put_at, started=False)) for row in self._unstarted]
            self._pend(back)
            self._unstarted.clear()

    def settle(self) -> None:
        """Write what has ended, now.

        Raises ``StoreError``; then nothing is forgotten, and the next settle writes it again.
        """
        self._check_process()
        with self._settling:
            with self._lock:
                pending = self._pending.copy()
            if not pending:
                return
            desk = self._desk
            try:
                now = desk.store.now()
                settled = desk.store.settle([settlement for _, settlement in pending], now)
            except Exception:
                self._failures += 1
                self._settle_at = desk.clock.monotonic() + backoff(self._failures)
                raise
            with self._lock:
                del self._pending[: len(pending)]
                self._settle_at = desk.clock.monotonic() + desk.settle_s if self._pending else math.inf
            self._failures = 0
            dues = self._account(pending, settled)
        if dues:  # out of the lock: a broker that is silent must not hold up a renew
            desk.doorbell.ring(dues, now)

    # -- the watchdog's ----------------------------------------------------------------------------------

    def wants_attention_at(self, now: float) -> float:
        """When another thread is to call :meth:`attend`, in monotonic seconds; infinity for never.

        What the running job will end with is not known before it ends, so while others wait for it there is
        something to look at every ``settle_ms``.
        """
        with self._lock:
            if not self._unstarted:
                return self._settle_at
            look_at = now + max(SHORTEST_LOOK_S, self._desk.settle_s)
            return min(look_at, self._settle_at, self._bound_at)

    def attend(self, now: float) -> None:
        """Do what the loop's thread would, were it not busy in a handler. Raises as :meth:`settle` does; a settle
        that failed is due again after a back-off.
        """
        if now >= self._bound_at and self._unstarted:
            self.give_back()
            self.settle()
        else:
            self.settle_if_due(now)

    # -- the handler's, through its JobInHand ------------------------------------------------------------

    def is_settled(self, job: JobInHand) -> bool:
        """Whether the running job has its outcome, or none is to be had here: the process is a forked child."""
        if os.getpid() != self._pid:
            return True
        with self._lock:
            return self._running is None or self._running.id != job.id or self._ending is not None

    def delete(self, row: Row) -> None:
        """The job is finished. Asked again after it could not be stored, it is tried again."""
        with self._lock:
            again = self._running is row and isinstance(self._ending, Delete)
        if again:
            self._settle_if_last(row)
        else:
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
        self._check_process()
        with self._settling:  # so that no settle of the same job comes between the check and the write
            with self._lock:
                self._check_open(row)
            if self._is_lost(row, None):
                raise LeaseLost(row.id, row.fence)

    def _end(self, row: Row, settlement: Settlement) -> None:
        self._check_process()
        with self._lock:
            self._check_open(row)
            self._pend([(row, settlement)])
            self._ending = settlement
        self._settle_if_last(row)

    def _settle_if_last(self, row: Row) -> None:
        """At once, where no other job of the window is left to start. Raises ``LeaseLost``."""
        with self._lock:
            is_last = not self._unstarted
        if is_last:
            began = self._desk.clock.monotonic()
            try:
                self.settle()
            finally:
                self._seconds_settling += self._desk.clock.monotonic() - began
            if row.id in self._lost:
                raise LeaseLost(row.id, row.fence)

    def _check_open(self, row: Row) -> None:
        if self._running is not row:
            raise AlreadySettled(f"job {row.id}: its run is over, so nothing was changed")
        if self._ending is not None:
            raise AlreadySettled(f"job {row.id}: it was {outcome(self._ending)} before; a run is settled once")

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise KQueueError(
                f"the job is in hand in process {self._pid}, and this is its child {os.getpid()}:"
                " settle and renew it in the parent"
            )

    # -- the operator's ----------------------------------------------------------------------------------

    def delete_by_id(self, job_id: str) -> bool:
        """Delete the job if it is the running one and its lease holds; True if so. Durable at once, unless its
        own handler asks.
        """
        if os.getpid() != self._pid:
            return False
        with self._lock:
            row = self._running
        if row is None or row.id != job_id:
            return False
        try:
            self.delete(row)
            if threading.get_ident() != self._thread:
                self.settle()
        except (AlreadySettled, LeaseLost):
            return False
        return row.id not in self._lost

    def drop(self, job_id: str) -> None:
        """The job is deleted: do not start it."""
        if os.getpid() == self._pid:
            with self._lock:
                self._unstarted = deque(row for row in self._unstarted if row.id != job_id)

    # -- blame -------------------------------------------------------------------------------------------

    @property
    def is_alone(self) -> bool:
        """Whether it is stored that the window's one job runs alone in its process."""
        return self._alone

    def mark_alone(self) -> None:
        """Store that the window's one job runs alone, with a new lease for it. Raises ``LeaseLost``."""
        row = self._mark(True)
        if row is not None:
            raise LeaseLost(row.id, row.fence)

    def deny_solitude(self) -> None:
        """Store that the window's one job does not run alone any more, if it was said to."""
        if self._alone:
            self._mark(False)

    def _mark(self, alone: bool) -> Row | None:
        """Returns the row if its lease is lost; one that has ended meanwhile is passed over."""
        with self._settling:
            with self._lock:
                ended = self._running is not None and self._ending is not None
                row = self._running or next(iter(self._unstarted), None)
            lost = row is not None and not ended and self._is_lost(row, alone)
            self._alone = alone
            return row if lost else None

    # -- within ------------------------------------------------------------------------------------------

    def _renew_all(self) -> None:
        store = self._desk.store
        leased_at = self._desk.clock.monotonic()
        with self._lock:
            held = [Held(row.id, row.fence, row.ttr) for row in self._unstarted]
        lost = store.renew(held, store.now())
        with self._lock:
            self._unstarted = deque(row for row in self._unstarted if row.id not in lost)
            self._leased_at = leased_at

    def _is_lost(self, row: Row, alone: bool | None) -> bool:
        store = self._desk.store
        return bool(store.renew([Held(row.id, row.fence, row.ttr)], store.now(), alone))

    def _pend(self, ended: Sequence[tuple[Row, Settlement]]) -> None:
        """Under the lock."""
        if ended and not self._pending:
            self._settle_at = self._desk.clock.monotonic() + self._desk.settle_s
        self._pending += ended

    def _account(self, pending: list[tuple[Row, Settlement]], settled: Settled) -> list[Due]:
        """Count what was written; returns what came back and wants pointers."""
        lost, unnamed = settled
        self._lost |= lost
        kept = [one for one in pending if one[1].id not in lost] if lost else pending
        desk = self._desk
        desk.tally.update(outcome(one) for _, one in kept if _has_run(one))
        if unnamed:
            desk.tally[Outcome.DELETED] -= unnamed
            desk.tally[Outcome.LOST_LEASE] += unnamed
            desk.logger.warning("%d deletes of a window found no job: their leases were lost", unnamed)
        for row, settlement in pending if lost else ():
            if settlement.id in lost and _has_run(settlement):
                desk.tally[Outcome.LOST_LEASE] += 1
                desk.logger.warning(
                    "job %s (%s): the lease with fence %d was lost, so that it was %s changed nothing",
                    row.id,
                    row.type,
                    row.fence,
                    outcome(settlement),
                )
        return [_due(row, one) for row, one in kept if isinstance(one, Retry | Unget)]


def _has_run(settlement: Settlement) -> bool:
    return not isinstance(settlement, Unget) or settlement.started


def _due(row: Row, settlement: Retry | Unget) -> Due:
    given = settlement.priority if isinstance(settlement, Unget) else None
    priority = row.priority if given is None else given
    return Due(row.id, row.type, priority, settlement.run_at, settlement.put_at)
