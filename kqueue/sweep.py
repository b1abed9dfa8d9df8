"""Find what has no pointer, and put it again.

A row is due for a pointer when it is known to have none (``put_at`` is None: a long delay near its time, a
lease that ran out, an add while the broker was down), or when it is shown to have lost it. The second is the
*head rule*: a tube is served in the order (priority, time of put). So if what the tube would serve next stands
behind the row, the row's own pointer is not in the tube any more, however long others have been waiting.

Each step marks rows first (compare-and-set on ``put_at``), then puts, in bounded batches. Of many sweeps at once
each row is marked by one; a sweep that dies between leaves rows whose pointer is missing, which the next
sweep finds. A wrong guess costs one spare pointer, never a spare run.
"""

import logging
from collections.abc import Callable
from functools import partial

from kqueue.broker import Broker
from kqueue.clock import Clock
from kqueue.doorbell import Doorbell
from kqueue.errors import BrokerError
from kqueue.reports import SweepReport
from kqueue.store import Due, JobStore

#: Seconds that a put may take, before its row counts as one whose pointer may be lost.
GRACE_S = 5.0
#: Rows in one batch.
BATCH = 1000
#: A delayed row without a pointer is put so many seconds before its time, or two sweeps before if that is more.
HORIZON_S = 60.0


class Sweeper:
    """Sweeps one store and its broker. Shared by the loops of a process."""

    def __init__(
        self,
        store: JobStore,
        broker: Broker,
        doorbell: Doorbell,
        *,
        interval: float,
        max_crashes: int,
        clock: Clock,
        logger: logging.Logger,
    ) -> None:
        """``interval``: seconds between two sweeps of a store, whoever makes them."""
        self._store = store
        self._broker = broker
        self._doorbell = doorbell
        self._interval = interval
        self._max_crashes = max_crashes
        self._clock = clock
        self._logger = logger
        self._look_at = -1.0

    def sweep_if_due(self) -> SweepReport | None:
        """Sweep if nobody has for ``interval`` seconds. A broker that is down is logged, not raised."""
        monotonic = self._clock.monotonic()
        if monotonic < self._look_at:
            return None
        # Looks more often than the interval, so that a sweeper that died is replaced soon.
        self._look_at = monotonic + self._interval / 4
        if not self._store.take_sweep(self._store.now(), self._interval):
            return None
        try:
            return self._sweep()
        except BrokerError as error:
            self._logger.warning("sweep: %s", error)
            return None

    def seconds_to_look(self) -> float:
        """Seconds until :meth:`sweep_if_due` would look again."""
        return max(0.0, self._look_at - self._clock.monotonic())

    def sweep(self) -> SweepReport:
        """Sweep now. Raises ``BrokerUnavailable`` after the store's own part is done, if it is down."""
        self._store.take_sweep(self._store.now(), 0.0)
        return self._sweep()

    def _sweep(self) -> SweepReport:
        started = self._clock.monotonic()
        promoted = self._promote()
        recovered, dead = self._recover()
        put = foreign = 0
        if self._broker.carries_pointers:
            put, foreign = self._put_lost()
            put += self._put_unput()
        if recovered or dead or put:
            self._logger.info(
                "sweep: %d leases had run out, %d jobs are dead by it, %d pointers put again",
                recovered + dead,
                dead,
                put,
            )
        return SweepReport(promoted, recovered, dead, put, foreign, self._clock.monotonic() - started)

    def _promote(self) -> int:
        total = 0
        while True:
            promoted = self._store.promote(self._store.now(), BATCH)
            total += promoted
            if promoted < BATCH:
                return total

    def _recover(self) -> tuple[int, int]:
        """(ready again, dead)."""
        ready = dead = 0
        while True:
            found = self._store.recover(self._store.now(), self._max_crashes, BATCH)
            ready, dead = ready + found.ready, dead + found.dead
            if found.ready + found.dead < BATCH:
                return ready, dead

    def _put_lost(self) -> tuple[int, int]:
        """Put those whose pointer is shown to be lost: (how many, foreign entries met)."""
        put = foreign = 0
        for type in self._store.ready_types():
            # As of before the first batch: once put, it is the head itself, and what it should be compared with
            # is what stood in the tube before.
            now = self._store.now()
            peek = self._broker.peek(type)
            find = partial(self._store.find_lost, type, peek.head, now, GRACE_S, BATCH)
            put, foreign = put + self._put_all(find), foreign + peek.foreign
        return put, foreign

    def _put_unput(self) -> int:
        """Put those known to have no pointer, near their time: the tube's own delay then wakes a worker."""
        horizon = max(HORIZON_S, 2 * self._interval)
        return self._put_all(lambda: self._store.find_unput(self._store.now() + horizon, BATCH))

    def _put_all(self, find: Callable[[], list[Due]]) -> int:
        total = 0
        while dues := find():
            self._broker.peek(dues[0].type)  # raises while nothing is marked yet, if the broker is down
            now = self._store.now()
            marked = self._store.mark(dues, now)
            self._doorbell.put(marked, now)
            total += len(marked)
            if len(dues) < BATCH:
                break
        return total
