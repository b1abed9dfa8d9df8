"""One way to claim, for functions and coroutines: its leases, its pointers, and its end when it goes wrong.

    claim -> hold what was got -> judge the entries, count the stale -> post what becomes of them -> look after

A claim has committed before any handler starts, and no pointer is held while one runs.
"""

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

from kqueue.contracts.admission import Claimer
from kqueue.contracts.broker import EntryFate, Reservation, Subscription
from kqueue.contracts.budget import Budget
from kqueue.contracts.runs import Claim, RunsInOneWrite, Selection
from kqueue.contracts.settlements import Settled, Settlement
from kqueue.execution.completer import SettleBy
from kqueue.execution.context import LoopContext
from kqueue.execution.inflight import InflightJobs
from kqueue.loops.verdicts import judge, stale
from kqueue.model.errors import BrokerError, KQueueError
from kqueue.model.job import Row


class Found(NamedTuple):
    """What a reserve has found, to be claimed."""

    subscription: Subscription
    reservation: Reservation
    #: Of the reservation.
    selection: Selection
    #: What the claim may hold.
    budget: Budget


def fetch(
    found: Found,
    owner: str,
    context: LoopContext,
    *,
    holder: Claimer,
    alone: bool,
    hold: Callable[[list[Row], float], object],
    settle: Callable[[SettleBy], None] | None,
) -> int:
    """Claim for ``owner`` what was found, under the limits of its types, which ``holder`` keeps too. Returns how
    many pointers were stale: they had no row to claim at all.

    ``hold(rows, leased_at)`` is called as soon as the claim has committed, if it got any: from then on they are its
    own to end, whatever is raised. ``leased_at``: when their leases began, in monotonic seconds. ``alone``: see
    :meth:`kqueue.contracts.runs.Runs.claim`. ``settle(by)`` writes by ``by`` what has ended, if anything has: with
    the claim; None where the store does not do both in one.

    Raises as the store does. What was claimed and not held then is still to be given back: :func:`give_back_claim`.
    """
    selection = _in_turn(found) if found.budget.parts else found.selection
    limits = context.limiter.of(selection.types)
    selection = selection._replace(limits=limits, holder=holder) if limits else selection
    now = context.store.now()
    order = _Order(selection, found.budget, owner, context, alone=alone, hold=hold)
    if settle is not None:
        settle(order.with_settlements)
    claim = order.claim or order.by_itself(now)
    # A claim may have waited for the store; what is not due yet is awaited to the millisecond.
    now = context.store.now() if claim.later else now
    verdicts = judge(found.reservation.entries, claim, now, selection.pointed, selection.ids)
    _post(found.subscription, verdicts, context.logger)
    _look_after(claim, selection, context)
    return stale(verdicts, claim)


class _Order:
    """A claim that is to be made, and held as soon as it has committed."""

    def __init__(
        self,
        selection: Selection,
        budget: Budget,
        owner: str,
        context: LoopContext,
        *,
        alone: bool,
        hold: Callable[[list[Row], float], object],
    ) -> None:
        self._selection = selection
        self._budget = budget
        self._owner = owner
        self._alone = alone
        self._context = context
        self._hold = hold
        #: Once it has committed.
        self.claim: Claim | None = None

    def by_itself(self, now: float) -> Claim:
        return self._got(self._context.store.claim(self._selection, self._budget, self._owner, now, self._alone))

    def with_settlements(self, settlements: Sequence[Settlement], now: float) -> Settled:
        store = cast("RunsInOneWrite", self._context.store)
        settled, claim = store.settle_and_claim(
            settlements, self._selection, self._budget, self._owner, now, alone=self._alone
        )
        self._got(claim)
        return settled

    def _got(self, claim: Claim) -> Claim:
        self.claim = claim
        if claim.rows:
            self._hold(claim.rows, _leased_at(claim.rows, self._context))
        return claim


def release(found: Found, context: LoopContext) -> None:
    """Claim nothing: all of it back to its place."""
    _post(found.subscription, [EntryFate(entry, 0.0) for entry in found.reservation.entries], context.logger)


def give_back_claim(owner: str, context: LoopContext) -> None:
    """What was got by a claim that was interrupted, or whose reply was lost. It may fail, which must not hide the
    error that led here.
    """
    try:
        rows = context.store.claimed_by(owner)
        if rows:
            jobs = InflightJobs(context)
            jobs.claim(rows, context.clock.monotonic())
            jobs.give_back()
            jobs.settle()
            jobs.completer.await_rings()
    except KQueueError as error:
        context.logger.warning("not settled yet: %s", error)


def _in_turn(found: Found) -> Selection:
    """The selection with as many ids of each part first as that has places for: so what is too much of one keeps
    none of another out of the window.
    """
    left = [part.jobs for part in found.budget.parts]
    first: list[str] = []
    rest: list[str] = []
    for _, pointer in found.reservation.entries:
        index = found.budget.part_of.get(pointer.type)
        places = 0 if index is None else left[index]
        first += pointer.ids[:places]
        rest += pointer.ids[places:]
        if index is not None:
            left[index] = max(0, places - len(pointer.ids))
    return found.selection._replace(ids=(*first, *rest)) if first else found.selection


def _leased_at(rows: Sequence[Row], context: LoopContext) -> float:
    """In the claim, perhaps after a long wait for the store; never before it was asked for."""
    age = context.store.now() - ((rows[0].lease_until or 0.0) - rows[0].ttr)
    return context.clock.monotonic() - max(0.0, age)


def _look_after(claim: Claim, selection: Selection, context: LoopContext) -> None:
    """The store is there, and others may go in the place of those that it has held."""
    if claim.rows:
        context.outages.is_over(context.store.address)
    if claim.held:
        context.limiter.held_back(selection.limits, selection.holder)


def _post(subscription: Subscription, verdicts: list[EntryFate], logger: logging.Logger) -> None:
    """A claim stands whatever becomes of its pointers: entries come back when the connection drops, and are deleted
    then.
    """
    if verdicts:
        try:
            subscription.post(verdicts)
        except BrokerError as error:
            logger.warning("pointers not settled: %s", error)
