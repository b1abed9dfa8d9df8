"""What has ended in a window and is to be written: together, in order, each run once.

Deletes are nearly all there is, and there are thousands a second. So they are told apart once, by their class, and
whatever is done for the others is not done for them.
"""

import logging
import math
import threading
from collections import Counter
from dataclasses import dataclass, field

from kqueue.clock import Clock
from kqueue.doorbell import Doorbell
from kqueue.execution import Outcome, outcome
from kqueue.job import Row
from kqueue.retry import RetryPolicy, backoff
from kqueue.store import Delete, Due, JobStore, Retry, Settled, Settlement, Unget

#: Seconds that a ring takes at most, where the broker is silent: it connects, and asks once.
RING_S = 5.0


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
    #: How runs ended; written by one settle at a time.
    tally: Counter[Outcome] = field(default_factory=Counter)


class Settling:
    """The settlements of one batch. :meth:`add` and :meth:`find` are called under the batch's lock."""

    def __init__(self, desk: Desk, lock: threading.Lock) -> None:
        """``lock``: the batch's, which is never held over I/O."""
        self._desk = desk
        self._lock = lock
        self._pending: list[tuple[Row, Settlement]] = []
        self._failures = 0
        #: Writes whose jobs that came back may still lack their pointers.
        self._ringing = 0
        self._rung = threading.Condition(lock)
        #: Orders the writes. Whoever holds it keeps a settle from coming in between.
        self.writing = threading.Lock()
        #: When what is pending is to be written, in monotonic seconds; infinity for never.
        self.due_at = math.inf
        #: The ids whose lease was lost.
        self.lost: set[str] = set()

    def add(self, row: Row, settlement: Settlement) -> None:
        """To be written ``settle_ms`` after the first that waits."""
        if not self._pending:
            self.due_at = self._desk.clock.monotonic() + self._desk.settle_s
        self._pending.append((row, settlement))

    def find(self, job_id: str) -> Settlement | None:
        """What is pending for this job. Under the batch's lock."""
        return next((settlement for _, settlement in self._pending if settlement.id == job_id), None)

    def is_failing(self) -> bool:
        """Whether the last write failed, so that what is pending waits for another."""
        return self._failures > 0

    def write(self) -> None:
        """Write what is pending, now.

        Raises ``StoreError``; then nothing is forgotten, and it is due again after a back-off.
        """
        ringing = False
        try:
            with self.writing:
                with self._lock:
                    pending = self._pending.copy()
                if not pending:
                    return
                settled, now = self._store(pending)
                with self._lock:
                    del self._pending[: len(pending)]
                    self.due_at = self._desk.clock.monotonic() + self._desk.settle_s if self._pending else math.inf
                    self._ringing += 1
                    ringing = True
                dues = self._account(pending, settled)
            if dues:  # out of the lock: a broker that is silent must not hold up a renew
                self._desk.doorbell.ring(dues, now)
        finally:
            if ringing:
                with self._rung:
                    self._ringing -= 1
                    self._rung.notify_all()

    def await_rings(self) -> None:
        """Wait until what another thread has written is in the tubes too: else a loop that drains would find these
        empty, and end.
        """
        with self._rung:
            self._rung.wait_for(lambda: not self._ringing, RING_S)

    def _store(self, pending: list[tuple[Row, Settlement]]) -> tuple[Settled, float]:
        try:
            now = self._desk.store.now()
            settled = self._desk.store.settle([settlement for _, settlement in pending], now)
        except Exception:
            self._failures += 1
            self.due_at = self._desk.clock.monotonic() + backoff(self._failures)
            raise
        self._failures = 0
        return settled, now

    def _account(self, pending: list[tuple[Row, Settlement]], settled: Settled) -> list[Due]:
        """Count what was written; returns what came back and wants pointers."""
        lost, unnamed = settled
        self.lost |= lost
        tally, logger = self._desk.tally, self._desk.logger
        for row, settlement in pending if lost else ():
            if settlement.id in lost and _has_run(settlement):
                tally[Outcome.LOST_LEASE] += 1
                logger.warning(
                    "job %s (%s): the lease with fence %d was lost, so that it was %s changed nothing",
                    row.id,
                    row.type,
                    row.fence,
                    outcome(settlement),
                )
        kept = [one for one in pending if one[1].id not in lost] if lost else pending
        others = [one for one in kept if type(one[1]) is not Delete]
        tally[Outcome.DELETED] += len(kept) - len(others)
        tally.update(outcome(settlement) for _, settlement in others if _has_run(settlement))
        if unnamed:
            tally[Outcome.DELETED] -= unnamed
            tally[Outcome.LOST_LEASE] += unnamed
            logger.warning("%d deletes of a window found no job: their leases were lost", unnamed)
        return [_due(row, one) for row, one in others if isinstance(one, Retry | Unget)]


def _has_run(settlement: Settlement) -> bool:
    return not isinstance(settlement, Unget) or settlement.started


def _due(row: Row, settlement: Retry | Unget) -> Due:
    given = settlement.priority if isinstance(settlement, Unget) else None
    priority = row.priority if given is None else given
    return Due(row.id, row.type, priority, settlement.run_at, settlement.put_at)
