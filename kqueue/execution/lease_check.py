"""Whether the job in hand is still ours and still wanted: what its renewer has told, and what the store shows."""

import math
from collections.abc import Callable
from enum import Enum, auto

from kqueue.contracts.renewer import RenewalEnd, RenewalHold
from kqueue.contracts.store import JobStore
from kqueue.model.errors import KQueueError
from kqueue.model.job import Row, State

#: Seconds between two looks into the store.
LOOK_S = 1.0


class LeaseState(Enum):
    """Of a job in hand, as its row in the store shows it."""

    OURS = auto()
    #: The lease is over. Nobody has taken the job yet, so it may be renewed or settled.
    LATE = auto()
    #: Taken by another, or settled elsewhere.
    LOST = auto()
    #: Deleted, or finished elsewhere.
    GONE = auto()


def lease_state(row: Row, found: Row | None, now: float) -> LeaseState:
    """``row`` as it was claimed, ``found`` as it is in the store, ``now`` by the store's clock."""
    if found is None or found.state == State.DONE:
        return LeaseState.GONE
    if (found.fence, found.lease_owner) != (row.fence, row.lease_owner):
        return LeaseState.LOST
    if found.state != State.RUNNING or found.lease_until is None or found.lease_until <= now:
        return LeaseState.LATE
    return LeaseState.OURS


class LeaseCheck:
    """Of one run. Asked by its handler, from any of its threads, as often as it likes."""

    def __init__(
        self,
        row: Row,
        store: JobStore,
        monotonic: Callable[[], float],
        leased_at: float,
        renewal: RenewalHold | None = None,
    ) -> None:
        """``leased_at``: when the lease began, in monotonic seconds. ``renewal``: of the renewer that renews it."""
        self.row = row
        self._store = store
        self._monotonic = monotonic
        self._renewal = renewal
        #: How the renewer has ended, as far as it was heeded here.
        self._heard: RenewalEnd | None = None
        self._standing = LeaseState.OURS
        self._look_at = leased_at + LOOK_S
        self._ends_at = leased_at + row.ttr

    def lease_lost(self) -> bool:
        """See :attr:`kqueue.JobInHand.lease_lost`."""
        self._look()
        if self._renewal is None:
            return self._standing is not LeaseState.OURS or self._monotonic() >= self._ends_at
        # A lease that looks over is the renewer's to renew, or to call lost.
        return self._renewal.end_of(self.row.id) is not None or self._is_final()

    def cancelled(self) -> bool:
        """See :attr:`kqueue.JobInHand.cancelled`."""
        end = self._renewal.end_of(self.row.id) if self._renewal is not None else None
        if end is RenewalEnd.OVER:
            return True
        if end is not self._heard:
            # Who has lost its lease learns at once to whom: the renewer knows only that it is gone.
            self._heard, self._look_at = end, -math.inf
        self._look()
        return self._standing is LeaseState.GONE

    def renewed(self, at: float) -> None:
        """The lease began anew ``at``, in monotonic seconds."""
        self._standing, self._look_at, self._ends_at = LeaseState.OURS, at + LOOK_S, at + self.row.ttr

    def _is_final(self) -> bool:
        return self._standing in {LeaseState.LOST, LeaseState.GONE}

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
        self._standing = lease_state(self.row, row, at)
        until = math.inf if row is None or row.lease_until is None else row.lease_until
        self._ends_at = now + until - at
