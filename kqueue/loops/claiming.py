"""What belongs to a claim, whoever makes it: its leases, its pointers, and its end when it goes wrong."""

import logging
from collections.abc import Sequence

from kqueue.contracts.broker import EntryFate, Reservation, Subscription
from kqueue.contracts.budget import Budget
from kqueue.contracts.runs import Claim, Selection
from kqueue.execution.batch import Batch
from kqueue.execution.context import LoopContext
from kqueue.model.errors import BrokerError
from kqueue.model.job import Row


def claim_rows(
    selection: Selection, budget: Budget, owner: str, context: LoopContext, *, alone: bool
) -> tuple[Claim, float]:
    """Claim under the limits of the types; (the claim, its time by the store's clock)."""
    limits = context.limiter.of(selection.types)
    if limits:
        selection = selection._replace(limits=limits)
    now = context.store.now()
    return context.store.claim(selection, budget, owner, now, alone), now


def look_after(claim: Claim, selection: Selection, context: LoopContext) -> None:
    """It has committed, and its pointers are settled: the store is there, and others may go in the place of those
    that it has held.
    """
    if claim.rows:
        context.outages.is_over(context.store.address)
    if claim.held:
        context.limiter.held_back(context.limiter.of(selection.types))


def leased_at(rows: Sequence[Row], context: LoopContext) -> float:
    """When the leases of a claim began, in monotonic seconds: in the claim, perhaps after a long wait for the
    store; never before it was asked for.
    """
    age = context.store.now() - ((rows[0].lease_until or 0.0) - rows[0].ttr)
    return context.clock.monotonic() - max(0.0, age)


def give_back_claim(owner: str, context: LoopContext) -> None:
    """What was got by a claim that was interrupted, or whose reply was lost. Raises as the store does."""
    rows = context.store.claimed_by(owner)
    if rows:
        Batch(rows, context, context.clock.monotonic()).close()


def release(reservation: Reservation) -> list[EntryFate]:
    """All of it back to its place."""
    return [EntryFate(entry, 0.0) for entry in reservation.entries]


def post_verdicts(subscription: Subscription, verdicts: list[EntryFate], logger: logging.Logger) -> None:
    """Settle the pointers of a claim. It stands whatever becomes of them: entries come back when the connection
    drops, and are deleted then.
    """
    if verdicts:
        try:
            subscription.post(verdicts)
        except BrokerError as error:
            logger.warning("pointers not settled: %s", error)
