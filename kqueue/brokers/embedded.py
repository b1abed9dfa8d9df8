"""The broker without a server: the store itself says what is ready.

There are no pointers. A reserve asks the store whether anything is ready, and the claim that follows takes
whatever is first. So it also works between processes that share one store: whoever waits watches the
store's pulse, and is woken at once by puts of its own process.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from kqueue.contracts.broker import EntryFate, Peek, Pointer, Reservation, Room, Stray
from kqueue.contracts.runs import Selection
from kqueue.contracts.store import JobStore
from kqueue.system.clock import Clock, SystemClock
from kqueue.system.wakeup import Wakeup, wait_readable

#: Delayed rows that are made ready in one look at most.
PROMOTE_ROWS = 1000
#: Seconds between two looks at the store's pulse: soon after there was a job, and later on. A job that another
#: process adds waits half as long. An idle worker that went on looking often would take more than 1 % of a core.
PULSE_S = 0.015
IDLE_PULSE_S = 0.050
#: Seconds that are soon after.
SOON_S = 5.0
#: Seconds between two looks for ready rows in a store without a pulse: from the first, doubling to the last.
FIRST_LOOK_S = 0.010
LAST_LOOK_S = 0.100
#: Seconds that one pause lasts at least, so that no wait is a busy loop.
SHORTEST_S = 0.001


class EmbeddedBroker:
    """Lets ``store`` dispatch. See :class:`kqueue.contracts.broker.Broker`."""

    def __init__(self, store: JobStore, *, clock: Clock | None = None) -> None:
        self._store = store
        self._clock = clock or SystemClock()
        #: One wakeup for each reserve that waits now. Adding, removing and listing are atomic, so no lock is
        #: needed, and none can be found locked after a fork or in a signal handler.
        self._waiting: dict[Wakeup, None] = {}

    @property
    def address(self) -> str:
        """The store's URL, for messages."""
        return self._store.address

    @property
    def carries_pointers(self) -> bool:
        """False: the store dispatches."""
        return False

    def open(self, prefix: str) -> None:
        """Nothing: there are no tubes."""

    def close(self) -> None:
        """Nothing: the store is its owner's to close."""

    def put(self, pointers: Sequence[tuple[Pointer, float]]) -> None:
        """Wake those who wait in this process; the rows are in the store already."""
        if pointers:
            for wakeup in list(self._waiting):
                wakeup.ring()

    def peek(self, types: Sequence[str], *, bury: bool = True) -> dict[str, Peek]:
        """Nothing: no entry waits anywhere."""
        return dict.fromkeys(types, Peek(None))

    def drain(self, type: str) -> int:
        """0: there is nothing to drain."""
        return 0

    def subscribe(self, types: Sequence[str]) -> "EmbeddedSubscription":
        """See :meth:`kqueue.contracts.broker.Broker.subscribe`."""
        if not types:
            raise ValueError("types: expected at least one job type")
        return EmbeddedSubscription(self, self._store, self._clock, tuple(types))

    def warnings(self, types: Sequence[str]) -> list[str]:
        """None: there is no server."""
        return []

    def strays(self, before: float) -> list[Stray]:
        """There are no tubes."""
        return []

    def empty(self, beginning: str) -> int:
        """There are no tubes."""
        return 0

    def depths(self, types: Sequence[str]) -> dict[str, dict[str, int]]:
        """Empty: there are no tubes."""
        return {}

    @contextmanager
    def told_of_puts(self, wakeup: Wakeup) -> Iterator[None]:
        """Ring ``wakeup`` at each put of this process meanwhile."""
        self._waiting[wakeup] = None
        try:
            yield
        finally:
            del self._waiting[wakeup]


class EmbeddedSubscription:
    """See :class:`kqueue.contracts.broker.Subscription`. It reserves nothing, so there is nothing to settle or
    close.
    """

    def __init__(self, broker: EmbeddedBroker, store: JobStore, clock: Clock, types: tuple[str, ...]) -> None:
        self._broker = broker
        self._store = store
        self._clock = clock
        self._types = types
        self._wake = Wakeup()
        self._put = Wakeup()
        #: When the earliest delayed row falls due, as of the last look.
        self._due_at: float | None = None
        #: When there was something to claim last, in monotonic seconds.
        self._busy_at = -math.inf
        #: Those that the reserve under way is for.
        self._wanted = types
        #: Whether one that it is not for may be wanted by now.
        self._is_freed = False

    def reserve(self, jobs: int, timeout: float, room: Room | None = None) -> Reservation:
        """See :meth:`kqueue.contracts.broker.Subscription.reserve`. A selection without ids: all that is ready.

        Where more rows are due than one look makes ready, ours may be among the rest: then there is a selection
        too, so that the caller looks at its own limits and reserves again.
        """
        if self._wake.answer():
            return Reservation(None, [])
        self._wanted = self._types if room is None else tuple(type for type in self._types if room(type))
        is_there = self._look() or (timeout > 0 and self._wait(self._clock.monotonic() + timeout))
        self._is_freed = False  # whoever sets it from here on is heard before the next wait
        if is_there:
            self._busy_at = self._clock.monotonic()
            return Reservation(Selection(self._wanted), [])
        return Reservation(None, [])

    def settle(self, verdicts: Sequence[EntryFate]) -> int:
        """0: no entry was reserved."""
        return 0

    def post(self, verdicts: Sequence[EntryFate]) -> None:
        """Nothing: no entry was reserved."""

    def wake(self) -> None:
        """See :meth:`kqueue.contracts.broker.Subscription.wake`."""
        self._wake.ring()

    def freed(self) -> None:
        """See :meth:`kqueue.contracts.broker.Subscription.freed`."""
        self._is_freed = True
        if len(self._wanted) < len(self._types):
            self._put.ring()

    def close(self) -> None:
        """Nothing to close."""

    def _look(self) -> bool:
        """Make what is due ready, one batch of it. Whether a claim may find something now or after the next."""
        now = self._store.now()
        self._due_at = self._store.next_run_at()
        if self._is_due(now):
            self._store.promote(now, PROMOTE_ROWS)
            self._due_at = self._store.next_run_at()
        return self._store.has_ready(self._wanted) or self._is_due(now)

    def _wait(self, deadline: float) -> bool:
        """Whether anything became ready before the deadline or :meth:`wake`."""
        with self._broker.told_of_puts(self._put):
            pulse: object = None
            pause = FIRST_LOOK_S
            ringing: set[int] = set()
            while True:
                # Both are asked first, so that a change during the look is seen the next time.
                rang = self._put.fileno() in ringing and self._put.answer()
                if self._is_freed and len(self._wanted) < len(self._types):
                    return False
                before, pulse = pulse, self._store.pulse()
                if (rang or pulse is None or pulse != before or self._is_due(self._store.now())) and self._look():
                    return True
                remaining = deadline - self._clock.monotonic()
                if remaining <= 0:
                    return False
                ringing = wait_readable([self._wake, self._put], min(remaining, self._pause(pulse, pause)))
                if self._wake.fileno() in ringing and self._wake.answer():
                    return False
                pause = min(LAST_LOOK_S, pause * 2)

    def _is_due(self, now: float) -> bool:
        return self._due_at is not None and self._due_at <= now

    def _pause(self, pulse: object, without_pulse: float) -> float:
        if pulse is None:
            pause = without_pulse
        else:
            pause = PULSE_S if self._clock.monotonic() < self._busy_at + SOON_S else IDLE_PULSE_S
        if self._due_at is not None:
            pause = min(pause, self._due_at - self._store.now())
        return max(SHORTEST_S, pause)
