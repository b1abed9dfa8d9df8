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
import time
from collections.abc import Callable, Iterator
from random import Random

from kqueue.broker import Broker
from kqueue.clock import Clock
from kqueue.doorbell import Doorbell
from kqueue.errors import BrokerError, BrokerUnavailable
from kqueue.findings import DryRun
from kqueue.outages import Outages
from kqueue.reports import Finding, SweepReport
from kqueue.rules import dated
from kqueue.store import Due, Head, JobStore
from kqueue.telling import Telling

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
        telling: Telling,
        outages: Outages,
    ) -> None:
        """``interval``: seconds between two sweeps of a store, whoever makes them."""
        self._store = store
        self._broker = broker
        self._doorbell = doorbell
        self._interval = interval
        self._max_crashes = max_crashes
        self._horizon = max(HORIZON_S, 2 * interval)
        self._clock = clock
        self._logger = logger
        self._telling = telling
        self._outages = outages
        self._look_at = -1.0
        self._unfinished: Sweep | None = None

    def begin_if_due(self) -> "Sweep | None":
        """A sweep to be stepped through: one that was given back unfinished, or a new one if nobody has begun one
        for ``interval`` seconds.
        """
        unfinished, self._unfinished = self._unfinished, None
        if unfinished is not None:
            return unfinished
        monotonic = self._clock.monotonic()
        if monotonic < self._look_at:
            return None
        # Looks more often than the interval, so that a sweeper that died is replaced soon.
        self._look_at = monotonic + self._interval / 4
        if not self._store.take_sweep(self._store.now(), self._interval):
            return None
        self._outages.is_over(self._store.address)  # it was written to
        return self._begin()

    def give_back(self, sweep: "Sweep") -> None:
        """Keep an unfinished sweep for the next loop."""
        self._unfinished = sweep

    def seconds_to_look(self) -> float:
        """Seconds until :meth:`begin_if_due` would look again."""
        return max(0.0, self._look_at - self._clock.monotonic())

    def sweep(self) -> SweepReport:
        """Sweep now. Raises ``BrokerUnavailable`` after the store's own part is done, if it is down."""
        self._store.take_sweep(self._store.now(), 0.0)
        sweep = self._begin()
        while sweep.step():
            pass
        return sweep.report()

    def findings(self, limit: int) -> Iterator[Finding]:
        """What :meth:`sweep` would do now, up to ``limit`` findings of a kind. Changes nothing.

        Raises ``BrokerUnavailable`` after what the store alone tells, if it is down.
        """
        dry_run = DryRun(
            self._store,
            self._broker,
            max_crashes=self._max_crashes,
            horizon=self._horizon,
            grace=GRACE_S,
            limit=limit,
        )
        return dry_run.findings()

    def _begin(self) -> "Sweep":
        return Sweep(
            self._store,
            self._broker,
            self._doorbell,
            max_crashes=self._max_crashes,
            horizon=self._horizon,
            logger=self._logger,
            telling=self._telling,
        )


class Sweep:
    """One sweep, done in steps of a batch each, so that a loop may run jobs in between."""

    def __init__(
        self,
        store: JobStore,
        broker: Broker,
        doorbell: Doorbell,
        *,
        max_crashes: int,
        horizon: float,
        logger: logging.Logger,
        telling: Telling,
    ) -> None:
        """``horizon``: seconds before its time that a delayed row is put."""
        self._store = store
        self._broker = broker
        self._doorbell = doorbell
        self._max_crashes = max_crashes
        self._horizon = horizon
        self._logger = logger
        self._telling = telling
        self._is_told = False
        self._started = time.monotonic()
        self._promoted = self._recovered = self._dead = self._put = self._foreign = self._expired = 0
        self._looks: dict[str, tuple[Head | None, float]] = {}
        self._steps = self._all_steps()

    def step(self) -> bool:
        """Do one batch; False once there is nothing left to do. Raises as the store and the broker do.

        An end, and a broker that is down, are told once: see :class:`kqueue.Swept`.
        """
        try:
            under_way = next(self._steps, None) is not None
        except BrokerError:
            self._tell()
            raise
        if not under_way:
            self._tell()
        return under_way

    def report(self) -> SweepReport:
        """What it did so far."""
        return SweepReport(
            promoted=self._promoted,
            recovered=self._recovered,
            dead=self._dead,
            put=self._put,
            foreign_pointers=self._foreign,
            expired=self._expired,
            seconds=time.monotonic() - self._started,
        )

    def _all_steps(self) -> Iterator[int]:
        """Each value: rows found in one batch."""
        yield from _until_nothing_is_found(self._promote)
        yield from _until_nothing_is_found(self._recover)
        expired = self._expire()  # one batch first, which a broker that is down does not hold up
        yield expired
        if self._broker.carries_pointers:
            yield from self._put_unput()
            for type in _from_anywhere(self._store.ready_types(), self._store.now()):
                yield from self._put_lost(type)
                yield 0
        if expired:
            yield from _until_nothing_is_found(self._expire)

    def _tell(self) -> None:
        if self._is_told:
            return
        self._is_told = True
        if self._recovered or self._dead or self._put:
            self._logger.info(
                "sweep: %d leases had run out, %d jobs are dead by it, %d pointers put again",
                self._recovered + self._dead,
                self._dead,
                self._put,
            )
        self._telling.swept(self.report())

    def _promote(self) -> int:
        promoted = self._store.promote(self._store.now(), BATCH)
        self._promoted += promoted
        return promoted

    def _recover(self) -> int:
        ready, dead = self._store.recover(self._store.now(), self._max_crashes, BATCH)
        self._recovered += ready
        self._dead += dead
        return ready + dead

    def _expire(self) -> int:
        expired = self._store.expire(self._store.now(), BATCH)
        self._expired += expired
        return expired

    def _put_unput(self) -> Iterator[int]:
        """Those known to have no pointer, near their time: the tube's own delay then wakes a worker."""
        now = self._store.now()

        def batch() -> int:
            dues = self._store.find_unput(now + self._horizon, BATCH)
            for type in {due.type for due in dues}:
                self._look_at(type)  # raises while nothing is marked yet, if the broker is down
            return self._mark_and_put(dues, now)

        yield from _until_nothing_is_found(batch)

    def _put_lost(self, type: str) -> Iterator[int]:
        """Those whose pointer is shown to be lost."""
        head, now = self._look_at(type)

        def batch() -> int:
            dues = self._store.find_lost(type, dated(head, now, GRACE_S), now, GRACE_S, BATCH)
            return self._mark_and_put(dues, now)

        yield from _until_nothing_is_found(batch)

    def _look_at(self, type: str) -> tuple[Head | None, float]:
        """(the tube's head, when it was). As of before the sweep's first put to it: once put, a batch is the head
        itself, and what counts is what stood in the tube before.
        """
        if type not in self._looks:
            now = self._store.now()
            head, foreign = self._broker.peek(type)
            self._foreign += foreign
            self._looks[type] = head, now
        return self._looks[type]

    def _mark_and_put(self, dues: list[Due], found_by: float) -> int:
        """Marked with no earlier time than they were found by, none is found again, even if the clock goes back.
        It is the time of this very batch: with the first one's, what is added during a long sweep would stand in
        the tube before this batch and seem to be put after it, which is how a lost pointer looks.
        """
        if dues:
            now = max(found_by, self._store.now())
            marked = self._store.mark(dues, now)
            try:
                self._doorbell.put([due._replace(put_at=now) for due in marked], now)
            except BrokerUnavailable:
                raise
            except BrokerError as error:  # one type does not fit into this server: go on with the others
                self._logger.warning("sweep: %s", error)
            self._put += len(marked)
        return len(dues)


def _until_nothing_is_found(step: Callable[[], int]) -> Iterator[int]:
    while found := step():
        yield found


def _from_anywhere(types: list[str], now: float) -> list[str]:
    """All of them, from another one on each time: so runs that are too short for a whole sweep come to each."""
    start = Random(now).randrange(len(types)) if types else 0  # noqa: S311 (no secret)
    return types[start:] + types[:start]
