"""One job of a loop of coroutines while it is in hand."""

from typing import Protocol

from kqueue import endings
from kqueue.job import Priority, Row
from kqueue.settling import Desk
from kqueue.store import Delete, Held, Settlement


class Fleet(Protocol):
    """Where a flight belongs. See :class:`kqueue.flights.Flights`."""

    @property
    def desk(self) -> Desk:
        """What it works with."""

    def now(self) -> float:
        """The store's time. Never waits."""

    def is_here(self) -> bool:
        """Whether this is the loop's own process, and no child that a handler forked."""

    def end(self, flight: "Flight", settlement: Settlement) -> None:
        """Write down how the run of ``flight`` ends. Raises ``AlreadySettled``. Never waits."""

    def renew(self, flight: "Flight") -> None:
        """Another TTR from now, durable when it returns. Raises ``LeaseLost``."""


class Flight:
    """Answers for one :class:`~kqueue.JobInHand`. What it is asked for, its fleet writes."""

    __slots__ = ("_fleet", "leased_at", "row", "settlement")

    def __init__(self, row: Row, leased_at: float, fleet: Fleet) -> None:
        self.row = row
        #: When its lease began, in monotonic seconds.
        self.leased_at = leased_at
        #: How its run ended, if it has. Under the lock of its fleet.
        self.settlement: Settlement | None = None
        self._fleet = fleet

    @property
    def held(self) -> Held:
        """As ``renew`` of a store wants it."""
        return Held(self.row.id, self.row.fence, self.row.ttr)

    def is_settled(self) -> bool:
        """Whether its run has an outcome, or none is to be had here: the process is a forked child."""
        return self.settlement is not None or not self._fleet.is_here()

    def delete(self, row: Row) -> None:
        """The job is finished. A second time changes nothing."""
        self._fleet.end(self, Delete(row.id, row.fence))

    def retry(self, row: Row, reason: str, delay: float | None) -> None:
        """Again later, or dead if the tries are used up. ``delay`` in seconds; None: by the retry policy."""
        fleet, desk = self._fleet, self._fleet.desk
        fleet.end(
            self,
            endings.retried(row, reason, delay, policy=desk.policy, now=fleet.now, put_at=desk.doorbell.put_at),
        )

    def unget(self, row: Row, priority: Priority | str | int | None, delay: float) -> None:
        """Back unrun. ``delay`` in seconds."""
        fleet = self._fleet
        fleet.end(self, endings.given_back(row, priority, delay, now=fleet.now, put_at=fleet.desk.doorbell.put_at))

    def renew(self, row: Row) -> None:
        """Another TTR from now. Waits for the store."""
        self._fleet.renew(self)
