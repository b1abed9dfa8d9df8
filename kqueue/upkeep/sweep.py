"""Find what has no pointer, and put it again.

A row is due for a pointer when it is known to have none (``put_at`` is None: a long delay near its time, a
lease that ran out, an add while the broker was down), or when it is shown to have lost it. The second is the
*head rule*: a tube is served in the order (priority, time of put). So if what the tube would serve next stands
behind the row, the row's own pointer is not in the tube any more, however long others have been waiting.

Each step marks rows first (compare-and-set on ``put_at``), then puts, in bounded batches. Of many sweeps at once
each row is marked by one; a sweep that dies between leaves rows whose pointer is missing, which the next
sweep finds. A wrong guess costs one spare pointer, never a spare run.

The head rule asks the tube of each type that has a ready row, and there may be a hundred thousand of these. So
one sweep looks at a part of them, a page at once, and the store remembers how far it came: at so many at most, and
at fewer where that takes long. The parts of a *round*
follow each other soon, in whatever process; the next round begins an interval later. All that has an index by its
time, of whatever type, is done by every part.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from kqueue.contracts.broker import Broker
from kqueue.contracts.repair import Due, Head
from kqueue.contracts.rules import GRACE_S, dated
from kqueue.contracts.store import JobStore
from kqueue.dispatch.doorbell import Doorbell
from kqueue.model.errors import BrokerError, BrokerUnavailable
from kqueue.model.reports import SweepReport
from kqueue.system.clock import Clock
from kqueue.telemetry.outages import Outages
from kqueue.telemetry.telemetry import Telemetry

#: Rows in one batch.
BATCH = 1000
#: Of those the ones that are read together, with their payloads.
MOST_READ = 100
#: Types whose tubes are looked at with one exchange, one statement and one write of the position.
PAGE_TYPES = 100
#: Types that one part of a round looks at, at most.
PART_TYPES = 2000
#: Seconds of looking at tubes after which a part ends too, whatever it has looked at: where the server takes long
#: for each, the jobs between two steps would wait for it.
PART_WORK_S = 0.25
#: Seconds from the beginning of a part to that of the next one.
PART_S = 1.0
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
        telemetry: Telemetry,
        outages: Outages,
    ) -> None:
        """``interval``: seconds between two rounds over a store, whoever makes them."""
        self._store = store
        self._broker = broker
        self._doorbell = doorbell
        self._interval = interval
        self._max_crashes = max_crashes
        self._horizon = max(HORIZON_S, 2 * interval)
        self._clock = clock
        self._logger = logger
        self._telemetry = telemetry
        self._outages = outages
        self._look_at = -1.0
        self._unfinished: Sweep | None = None
        #: The part that was begun last: it knows whether its round goes on.
        self._part: Sweep | None = None
        #: When, in monotonic seconds.
        self._part_at = -1.0

    def begin_if_due(self) -> "Sweep | None":
        """A sweep to be stepped through: one that was given back unfinished, or a new one if nobody has begun one
        for ``interval`` seconds.
        """
        unfinished, self._unfinished = self._unfinished, None
        if unfinished is not None:
            return unfinished
        monotonic = self._clock.monotonic()
        if self.seconds_to_look() > 0:
            return None
        # Looks more often than the interval, so that a sweeper that died is replaced soon.
        self._look_at = monotonic + self._interval / 4
        # Half of what it waited: the store's clock may be a little behind ours.
        since = min(PART_S / 2, self._interval) if self._is_under_way() else self._interval
        if not self._store.take_sweep(self._store.now(), since):
            self._part = None  # another process sweeps now
            return None
        self._outages.is_over(self._store.address)  # it was written to
        self._part, self._part_at = self._begin(most_types=PART_TYPES), monotonic
        return self._part

    def give_back(self, sweep: "Sweep") -> None:
        """Keep an unfinished sweep for the next loop."""
        self._unfinished = sweep

    def seconds_to_look(self) -> float:
        """Seconds until :meth:`begin_if_due` would look again."""
        look_at = self._look_at
        if self._is_under_way():
            look_at = min(look_at, self._part_at + PART_S)
        return max(0.0, look_at - self._clock.monotonic())

    def sweep(self) -> SweepReport:
        """Sweep all of it now, step by step. Raises ``BrokerUnavailable`` after the store's own part is done, if it
        is down.
        """
        self._store.take_sweep(self._store.now(), 0.0)
        sweep = self._begin(most_types=None)
        while sweep.step():
            pass
        return sweep.report()

    @property
    def horizon(self) -> float:
        """Seconds before its time that a delayed row is put."""
        return self._horizon

    def _is_under_way(self) -> bool:
        """Whether a round was left unfinished by the part that this process has done last."""
        return self._part is not None and self._part.leaves_more

    def _begin(self, most_types: int | None) -> "Sweep":
        return Sweep(
            self._store,
            self._broker,
            self._doorbell,
            most_types=most_types,
            max_crashes=self._max_crashes,
            horizon=self._horizon,
            clock=self._clock,
            logger=self._logger,
            telemetry=self._telemetry,
        )


class Sweep:
    """One sweep, done in steps of a batch each, so that a loop may run jobs in between."""

    def __init__(
        self,
        store: JobStore,
        broker: Broker,
        doorbell: Doorbell,
        *,
        most_types: int | None,
        max_crashes: int,
        horizon: float,
        clock: Clock,
        logger: logging.Logger,
        telemetry: Telemetry,
    ) -> None:
        """``most_types``: goes on with the round, and looks at so many types at most. With None it looks at all and
        leaves the round as it is. ``horizon``: seconds before its time that a delayed row is put.
        """
        self._store = store
        self._broker = broker
        self._doorbell = doorbell
        self._clock = clock
        self._most_types = most_types
        self._max_crashes = max_crashes
        self._horizon = horizon
        self._logger = logger
        self._telemetry = telemetry
        #: Once it has ended: whether there are types left in the round.
        self.leaves_more = False
        self._is_told = False
        self._started = clock.monotonic()
        #: Seconds in its own steps: between them a loop runs jobs.
        self._worked = 0.0
        self._promoted = self._recovered = self._dead = self._put = self._foreign = self._expired = 0
        self._redated = 0
        self._steps = self._all_steps()

    def step(self) -> bool:
        """Do one batch; False once there is nothing left to do. Raises as the store and the broker do.

        An end, and a broker that is down, are told once: see :class:`kqueue.Swept`.
        """
        began = self._clock.monotonic()
        try:
            under_way = next(self._steps, None) is not None
        except BrokerError:
            self._tell()
            raise
        finally:
            self._worked += self._clock.monotonic() - began
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
            redated=self._redated,
            seconds=self._clock.monotonic() - self._started,
        )

    def _all_steps(self) -> Iterator[int]:
        """Each value: rows found in one batch."""
        yield from _until_nothing_is_found(self._promote)
        yield from _until_nothing_is_found(self._recover)
        # After it, and before pointers are put: what is taken back may have been added by a clock that was ahead.
        yield from _until_nothing_is_found(self._repair_times)
        expired = self._expire()  # one batch first, which a broker that is down does not hold up
        yield expired
        if self._broker.carries_pointers:
            yield from self._put_unput()
            yield from self._look_at_all() if self._most_types is None else self._look_at_some(self._most_types)
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
        if self._redated:
            self._logger.warning(
                "sweep: %d stored times lay in the future and were set right: the store's clock was ahead",
                self._redated,
            )
        self._telemetry.swept(self.report())

    def _promote(self) -> int:
        promoted = self._store.promote(self._store.now(), BATCH)
        self._promoted += promoted
        return promoted

    def _recover(self) -> int:
        now = self._store.now()
        recovered = self._store.recover(now, self._max_crashes, BATCH)
        self._recovered += recovered.ready
        self._dead += recovered.dead
        died = [one.id for one in recovered.died]
        for first in range(0, len(died), MOST_READ):
            # What was deleted since then is told of by nobody.
            self._telemetry.died(self._store.get(died[first : first + MOST_READ]), now)
        return recovered.ready + recovered.dead

    def _repair_times(self, types: Sequence[str] | None = None) -> int:
        redated = self._store.repair_times(types, self._store.now(), BATCH)
        self._redated += redated
        return redated

    def _expire(self) -> int:
        expired = self._store.expire(self._store.now(), BATCH)
        self._expired += expired
        return expired

    def _put_unput(self) -> Iterator[int]:
        """Those known to have no pointer, near their time: the tube's own delay then wakes a worker."""
        now = self._store.now()
        while dues := self._store.find_unput(now + self._horizon, BATCH):
            types = sorted({due.type for due in dues})
            # Raises while nothing is marked yet, if the broker is down. And what stands in the tubes before this
            # put tells what is lost: once put, a batch is the head itself.
            looks = [self._look_at(types[at : at + PAGE_TYPES]) for at in range(0, len(types), PAGE_TYPES)]
            self._mark_and_put(dues, now)
            yield len(dues)
            for heads, looked_at in looks:
                yield from self._put_lost(heads, looked_at)

    def _look_at_all(self) -> Iterator[int]:
        position = ""
        while types := self._store.ready_types(position, PAGE_TYPES):
            yield from self._put_lost(*self._look_at(types))
            position = types[-1]

    def _look_at_some(self, most: int) -> Iterator[int]:
        """From where the round stands, at one page at least. A store of few types has only one, and no position."""
        enough = self._worked + PART_WORK_S
        start = position = self._store.sweep_position()
        for _ in range(0, most, PAGE_TYPES):
            types = self._store.ready_types(position, PAGE_TYPES)
            if types:
                yield from self._put_lost(*self._look_at(types))
            is_last = len(types) < PAGE_TYPES
            if is_last and not start:
                return
            position = start = "" if is_last else types[-1]
            self._store.keep_sweep_position(position)
            if is_last:
                return
            if self._worked >= enough:
                break
        self.leaves_more = True

    def _put_lost(self, heads: Mapping[str, Head | None], now: float) -> Iterator[int]:
        """Those whose pointer is shown to be lost by the heads of their tubes, as they were ``now``."""
        yield from _until_nothing_is_found(partial(self._repair_times, list(heads)))
        heads = {type: dated(head, now, GRACE_S) for type, head in heads.items()}
        while dues := self._store.find_lost(heads, now, GRACE_S, BATCH):
            self._mark_and_put(dues, now)
            yield len(dues)
        yield 0

    def _look_at(self, types: Sequence[str]) -> tuple[Mapping[str, Head | None], float]:
        """(what each tube would serve next, when it was)."""
        now = self._store.now()
        peeks = self._broker.peek(types)
        self._foreign += sum(peek.foreign for peek in peeks.values())
        return {type: peek.head for type, peek in peeks.items()}, now

    def _mark_and_put(self, dues: list[Due], found_by: float) -> None:
        """Marked with no earlier time than they were found by, none is found again, even if the clock goes back.
        It is the time of this very batch: with the first one's, what is added during a long sweep would stand in
        the tube before this batch and seem to be put after it, which is how a lost pointer looks.
        """
        now = max(found_by, self._store.now())
        marked = self._store.mark(dues, now)
        try:
            self._doorbell.put([due._replace(put_at=now) for due in marked], now)
        except BrokerUnavailable:
            raise
        except BrokerError as error:  # one type does not fit into this server: go on with the others
            self._logger.warning("sweep: %s", error)
        self._put += len(marked)


def _until_nothing_is_found(step: Callable[[], int]) -> Iterator[int]:
    while found := step():
        yield found
