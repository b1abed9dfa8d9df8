"""Reserves in the tubes, and asks the store where these are empty or away: a claim *past the tube*.

The store has every row, so whoever finds nothing in his tubes looks there, with an index probe, and claims what is
ready as without a beanstalkd: by priority and the order added, under the same limits and pauses. So a pointer that
was never put, comes late, or was lost with its tube costs the time until somebody looks and nothing else, and a
beanstalkd that is down stops no worker.

*When it looks.* A loop that does not wait looks as soon as the tubes are empty, so it ends only when nothing is
ready. One that waits does so in the tubes, and looks each time that it has waited there for a second in vain:
whoever is served by them leaves their jobs to whom these are handed out, and adds no probe. What was found in the
store is asked for there until there is no more. Idle loops of a process look a few times a second, all together.

*A broker that is away* is asked again after a back-off, by one loop after the other; meanwhile each asks the store
alone, several times a second.

*A pointer whose row was claimed so* is deleted by whoever meets it, as any that has nothing left to claim.

*A delay* is the tube's in whole seconds, rounded down. A loop that gets the pointer before its rows are due gives
it back for the rest, rounded up, so that it is there if this one dies or has other work then. It remembers the time
itself (:mod:`kqueue.dispatch.falling_due`): it waits in the tubes no longer than until then, claims the rows, and
deletes the pointer where it is.
"""

import logging
import math
from collections.abc import Sequence

from kqueue.contracts.broker import Broker, Entry, EntryFate, Reservation, Room, Subscription, selected
from kqueue.contracts.runs import Selection
from kqueue.contracts.store import JobStore
from kqueue.dispatch.back_off import BackOff
from kqueue.dispatch.doorbell import Doorbell
from kqueue.dispatch.falling_due import FallingDue
from kqueue.model.errors import BrokerError
from kqueue.system.clock import Clock
from kqueue.system.wakeup import Wakeup, wait_readable
from kqueue.telemetry.outages import Outages

#: Seconds that one reserve waits in the tubes at most.
WAIT_S = 1.0
#: Seconds between two probes of a process that finds nothing.
PROBE_S = 0.25
#: Seconds that a due row is left to its entry by a loop that waits: for one that came early and was given back.
ROUNDING_S = 2.0
#: Delayed rows that are made ready in one look at most.
PROMOTE_ROWS = 1000


class Dispatching:
    """What the loops of one process have to reserve with."""

    def __init__(
        self,
        store: JobStore,
        broker: Broker,
        doorbell: Doorbell,
        *,
        outages: Outages,
        clock: Clock,
        logger: logging.Logger,
    ) -> None:
        self.store = store
        self.broker = broker
        self.doorbell = doorbell
        self.outages = outages
        self.clock = clock
        self._logger = logger
        #: Of the broker, as a reserve sees it: it may take no puts, and have entries all the same.
        self.back_off = BackOff(clock.monotonic)
        #: When loops that find nothing may look into the store again, in monotonic seconds.
        self._probe_at = -math.inf

    def subscribe(self, types: Sequence[str], waits: bool) -> Subscription:
        """For a loop that waits for jobs, or ends where there is none."""
        tubes = self.broker.subscribe(types)
        return TubesThenStore(self, tubes, tuple(types), waits) if self.broker.carries_pointers else tubes

    def may_probe(self) -> bool:
        """Whether no loop has found the store empty just now. Two that ask at once may both."""
        return self.clock.monotonic() >= self._probe_at

    def probe(self, types: Sequence[str], waits: bool) -> bool:
        """Whether a claim from the store may find something. Raises ``StoreError``."""
        found = self._probe(types, waits and not self.back_off.is_on())
        self._probe_at = -math.inf if found else self.clock.monotonic() + PROBE_S
        return found

    def _probe(self, types: Sequence[str], is_patient: bool) -> bool:
        """Delayed rows that are due count; for one that is patient, unless their entries are only about to come."""
        until = self.store.now() - (ROUNDING_S if is_patient else 0.0)
        due_at = self.store.next_run_at()
        is_cut = due_at is not None and due_at <= until and self.store.promote(until, PROMOTE_ROWS) == PROMOTE_ROWS
        return self.store.has_ready(types) or is_cut

    def is_lost(self, error: BrokerError) -> None:
        """A reserve has failed."""
        self.outages.has_begun(self.broker.address)
        self.back_off.failed()
        if self.back_off.failures == 1:
            self._logger.warning("jobs run from the store until the broker is back: %s", error)

    def has_answered(self) -> None:
        """A reserve went well."""
        self.back_off.is_over()
        self.outages.is_over(self.broker.address)


class TubesThenStore:
    """See :class:`kqueue.contracts.broker.Subscription`, and the module's text."""

    def __init__(self, dispatching: Dispatching, tubes: Subscription, types: tuple[str, ...], waits: bool) -> None:
        self._dispatching = dispatching
        self._tubes = tubes
        self._types = types
        self._waits = waits
        self._wakeup = Wakeup()
        #: Whether a reserve waits here, since the broker is away.
        self._waits_here = False
        self._falling_due = FallingDue(dispatching.clock)
        #: Whether the store is asked as soon as the tubes are empty: at first, and after it had something.
        self._asks_at_once = True

    def reserve(self, jobs: int, timeout: float, room: Room | None = None) -> Reservation:
        """See :meth:`kqueue.contracts.broker.Subscription.reserve`. Waits a second at most. What this process has
        rung is sent before, so what it added itself is served in its order. Raises ``StoreError``.
        """
        if self._wakeup.answer():
            return Reservation(None, [])
        self._dispatching.doorbell.flush()
        wait = min(timeout, WAIT_S, self._falling_due.seconds_left(room))
        found = self._reserve(jobs, 0.0 if self._asks_at_once else wait, room)
        due = self._falling_due.take(jobs, room)
        if due:
            return self._with_due(found, due)
        if found.selection is not None:
            return found
        types = self._types if room is None else tuple(type for type in self._types if room(type))
        self._asks_at_once = self._ask_store(types)
        if self._asks_at_once:
            return found._replace(selection=Selection(types))
        if self._dispatching.back_off.is_on():
            self._waits_here = wait > 0
            wait_readable([self._wakeup], min(wait, self._dispatching.back_off.seconds_left(), PROBE_S))
            self._waits_here = False
        return found

    def settle(self, verdicts: Sequence[EntryFate]) -> int:
        """See :meth:`kqueue.contracts.broker.Subscription.settle`."""
        self._falling_due.note(verdicts)
        return self._tubes.settle(verdicts)

    def post(self, verdicts: Sequence[EntryFate]) -> None:
        """See :meth:`kqueue.contracts.broker.Subscription.post`."""
        self._falling_due.note(verdicts)
        self._tubes.post(verdicts)

    def wake(self) -> None:
        """See :meth:`kqueue.contracts.broker.Subscription.wake`."""
        self._wakeup.ring()
        self._tubes.wake()

    def freed(self) -> None:
        """See :meth:`kqueue.contracts.broker.Subscription.freed`."""
        if self._falling_due.has_kept():
            self._tubes.wake()
        elif self._waits_here:
            self._wakeup.ring()
        else:
            self._tubes.freed()

    def close(self) -> None:
        """See :meth:`kqueue.contracts.broker.Subscription.close`."""
        self._tubes.close()

    def _reserve(self, jobs: int, timeout: float, room: Room | None) -> Reservation:
        """In the tubes, unless they are away."""
        if self._dispatching.back_off.is_on():
            return Reservation(None, [])
        try:
            found = self._tubes.reserve(jobs, timeout, room)
        except BrokerError as error:
            self._tubes.close()
            self._dispatching.is_lost(error)
            return Reservation(None, [])
        self._dispatching.has_answered()
        return found

    def _with_due(self, found: Reservation, due: list[Entry]) -> Reservation:
        """What has fallen due stands behind what the tubes had of its priority."""
        entries = sorted([*found.entries, *due], key=lambda entry: entry.pointer.priority)
        return found._replace(selection=selected(self._types, entries), entries=entries)

    def _ask_store(self, types: Sequence[str]) -> bool:
        """Whether a claim of ``types`` from it may find something."""
        if self._waits and not self._dispatching.may_probe():
            return False
        return self._dispatching.probe(types, self._waits)
