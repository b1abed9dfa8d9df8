"""What belongs to a claim, whoever makes it: its leases, its pointers, and its end when it goes wrong."""

import logging
from collections.abc import Sequence

from kqueue.batch import Batch
from kqueue.broker import Reservation, Subscription, Verdict
from kqueue.errors import BrokerError
from kqueue.job import Row
from kqueue.settling import Desk
from kqueue.store import Claim, Selection
from kqueue.window import Limits


def claim_rows(selection: Selection, limits: Limits, owner: str, desk: Desk, *, alone: bool) -> tuple[Claim, float]:
    """Claim under the limits of the types; (the claim, its time by the store's clock)."""
    throttles = desk.gatekeeper.of(selection.types)
    if throttles:
        selection = selection._replace(throttles=throttles)
    now = desk.store.now()
    return desk.store.claim(selection, limits, owner, now, alone), now


def look_after(claim: Claim, selection: Selection, desk: Desk) -> None:
    """It has committed, and its pointers are settled: the store is there, and others may go in the place of those
    that it has held.
    """
    if claim.rows:
        desk.outages.is_over(desk.store.address)
    if claim.held:
        desk.gatekeeper.held_back(desk.gatekeeper.of(selection.types))


def leased_at(rows: Sequence[Row], desk: Desk) -> float:
    """When the leases of a claim began, in monotonic seconds: in the claim, perhaps after a long wait for the
    store; never before it was asked for.
    """
    age = desk.store.now() - ((rows[0].lease_until or 0.0) - rows[0].ttr)
    return desk.clock.monotonic() - max(0.0, age)


def give_back_claim(owner: str, desk: Desk) -> None:
    """What was got by a claim that was interrupted, or whose reply was lost. Raises as the store does."""
    rows = desk.store.held_by(owner)
    if rows:
        Batch(rows, desk, desk.clock.monotonic()).close()


def release(reservation: Reservation) -> list[Verdict]:
    """All of it back to its place."""
    return [Verdict(entry, 0.0) for entry in reservation.entries]


def post_verdicts(subscription: Subscription, verdicts: list[Verdict], logger: logging.Logger) -> None:
    """Settle the pointers of a claim. It stands whatever becomes of them: entries come back when the connection
    drops, and are deleted then.
    """
    if verdicts:
        try:
            subscription.post(verdicts)
        except BrokerError as error:
            logger.warning("pointers not settled: %s", error)
