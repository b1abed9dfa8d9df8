"""Whether the job in hand is still ours and still wanted: what its keeper has told, and what the store shows."""

import math
from collections.abc import Callable
from enum import Enum, auto

from kqueue.errors import KQueueError
from kqueue.job import Row, State
from kqueue.lease import Grip, Word
from kqueue.store import JobStore

#: Seconds between two looks into the store.
LOOK_S = 1.0


class Standing(Enum):
    """Of a job in hand, as its row in the store shows it."""

    OURS = auto()
    #: The lease is over. Nobody has taken the job yet, so it may be renewed or settled.
    LATE = auto()
    #: Taken by another, or settled elsewhere.
    LOST = auto()
    #: Deleted, or finished elsewhere.
    GONE = auto()


def standing(row: Row, found: Row | None, now: float) -> Standing:
    """``row`` as it was claimed, ``found`` as it is in the store, ``now`` by the store's clock."""
    if found is None or found.state == State.DONE:
        return Standing.GONE
    if (found.fence, found.lease_owner) != (row.fence, row.lease_owner):
        return Standing.LOST
    if found.state != State.RUNNING or found.lease_until is None or found.lease_until <= now:
        return Standing.LATE
    return Standing.OURS


class Lookout:
    """Of one run. Asked by its handler, from any of its threads, as often as it likes."""

    def __init__(
        self,
        row: Row,
        store: JobStore,
        monotonic: Callable[[], float],
        leased_at: float,
        grip: Grip | None = None,
    ) -> None:
        """``leased_at``: when the lease began, in monotonic seconds. ``grip``: of the keeper that renews it."""
        self.row = row
        self._store = store
        self._monotonic = monotonic
        self._grip = grip
        self._standing = Standing.OURS
        self._look_at = leased_at + LOOK_S
        self._ends_at = leased_at + row.ttr

    def lease_lost(self) -> bool:
        """See :attr:`kqueue.JobInHand.lease_lost`."""
        self._look()
        if self._grip is None:
            return self._standing is not Standing.OURS or self._monotonic() >= self._ends_at
        # A lease that looks over is the keeper's to renew, or to call lost.
        return self._grip.word(self.row.id) is not None or self._is_final()

    def cancelled(self) -> bool:
        """See :attr:`kqueue.JobInHand.cancelled`."""
        if self._grip is not None and self._grip.word(self.row.id) is Word.OVER:
            return True
        self._look()
        return self._standing is Standing.GONE

    def renewed(self, at: float) -> None:
        """The lease began anew ``at``, in monotonic seconds."""
        self._standing, self._look_at, self._ends_at = Standing.OURS, at + LOOK_S, at + self.row.ttr

    def _is_final(self) -> bool:
        return self._standing in {Standing.LOST, Standing.GONE}

    def _look(self) -> None:
        now = self._monotonic()
        if now < self._look_at or self._is_final():
            return
        self._look_at = now + LOOK_S
        try:
            found = self._store.get([self.row.id])
            at = self._store.now()
        except KQueueError:
            return
        row = found[0] if found else None
        self._standing = standing(self.row, row, at)
        until = math.inf if row is None or row.lease_until is None else row.lease_until
        self._ends_at = now + until - at
