"""``run_jobs``: reserve, claim, settle the pointers, run the handlers, settle the rows.

    reserve pointers -> claim rows (committed before any handler starts) -> settle pointers
                     -> handlers, one by one -> settle rows (delete / retry / unget, fenced)

One Runner is one loop of one thread. What several loops of a process share stands in
:class:`kqueue.crew.Crew`.
"""

import logging
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kqueue.batch import BOUND_S, Batch, Desk
from kqueue.bell import Bell, wait_readable
from kqueue.broker import Broker, Reservation, Subscription, Verdict
from kqueue.crew import Crew
from kqueue.errors import BrokerError, KQueueError, LeaseLost, StoreError
from kqueue.execution import Handler, Outcome, execute
from kqueue.ids import IdMint
from kqueue.job import Row
from kqueue.pointers import judge, stale
from kqueue.reports import RunReport
from kqueue.retry import backoff
from kqueue.store import Selection
from kqueue.sweep import Sweep, Sweeper
from kqueue.watchdog import Watchdog
from kqueue.window import WORK_S, Limits, Sizer

#: Seconds that an idle loop waits at most before it looks around.
IDLE_S = 15.0
#: Seconds that a suspect waits for other loops to end their windows, and they for it: as long as windows of
#: fast jobs take. A loop that is busy for longer is not waited for.
ASIDE_S = 2.5 * BOUND_S


@dataclass(frozen=True, slots=True)
class RunLimits:
    """When a loop ends by itself."""

    count: int | None = None
    seconds: float | None = None
    wait: bool = False


@dataclass(slots=True)
class Progress:
    """What a loop has done so far."""

    started: float
    count: int = 0
    stale: int = 0
    foreign: int = 0
    #: Turns in a row that failed for a store or broker that is down.
    failures: int = 0


class Runner:
    """One ``run_jobs``."""

    def __init__(
        self,
        *,
        open: Callable[[], None],
        desk: Desk,
        broker: Broker,
        sweeper: Sweeper,
        crew: Crew,
        handlers: Callable[[], Mapping[str, Handler]],
        limits: RunLimits,
        mint: IdMint,
    ) -> None:
        """``open()`` opens what is not open; ``handlers()`` returns a mapping that is replaced, never changed, when
        a handler comes or goes.
        """
        self._open = open
        self._desk = desk
        self._store = desk.store
        self._logger: logging.Logger = desk.logger
        self._broker = broker
        self._sweeper = sweeper
        self._crew = crew
        self._handlers = handlers
        self._limits = limits
        self._mint = mint
        self._monotonic = desk.clock.monotonic
        self._progress = Progress(self._monotonic())
        self._deadline = None if limits.seconds is None else self._progress.started + limits.seconds
        self._sizer = Sizer()
        self._watchdog = Watchdog(desk.clock, desk.logger)
        self._pid = os.getpid()
        self._bell = Bell()
        self._stopped = False
        self._served: Mapping[str, Handler] = {}
        self._subscription: Subscription | None = None
        self._sweep: Sweep | None = None
        self._unsettled: list[Batch] = []

    def stop(self) -> None:
        """End the loop after the current job. Safe in a signal handler."""
        self._stopped = True
        self._ring()

    def wake(self) -> None:
        """End a wait for jobs, to look for what is new. A loop that does not wait must not be told that nothing
        is ready.
        """
        if self._limits.wait:
            self._ring()

    def _ring(self) -> None:
        self._bell.ring()
        subscription = self._subscription
        if subscription is not None:
            subscription.wake()

    def run(self) -> RunReport:
        """Loop until a limit, or nothing is ready, or :meth:`stop`."""
        try:
            with self._crew.running(self):
                self._loop()
        finally:
            if self._sweep is not None:
                self._sweeper.give_back(self._sweep)
            for batch in self._unsettled:
                self._crew.let_go(batch)
            self._watchdog.close()
            self._unsubscribe()
        return self._report()

    def _loop(self) -> None:
        while True:
            try:
                self._open()
                self._settle_leftovers()
                subscription = self._subscribe()
                if self._is_over() or not self._turn(subscription):
                    return
                self._progress.failures = 0
            except (StoreError, BrokerError) as error:
                self._unsubscribe()
                stopped = self._is_stopped()
                if not self._limits.wait or (stopped and self._unsettled):
                    raise
                if stopped:
                    return
                self._stand_back(error)

    def _turn(self, subscription: Subscription | None) -> bool:
        """A part of the sweep, and one window. False if nothing was ready and the loop is not to wait."""
        self._go_on_sweeping()
        if subscription is None:
            self._pause(self._patience())
            return self._limits.wait or self._sweep is not None
        self._crew.quarantine.wait_until_free(self._is_over)
        if self._is_over():
            return True
        self._deny_solitude()
        jobs_left = None if self._limits.count is None else self._limits.count - self._progress.count
        limits = self._sizer.limits(jobs_left, self._seconds_left())
        reservation = subscription.reserve(limits.jobs, self._patience())
        self._progress.foreign += reservation.foreign
        if reservation.selection is None:
            return self._limits.wait or self._sweep is not None
        with self._crew.quarantine.window() as entered:
            if entered:
                self._work(subscription, reservation, reservation.selection, limits)
            else:
                self._settle_pointers(subscription, [Verdict(entry, 0.0) for entry in reservation.entries])
        return True

    def _go_on_sweeping(self) -> None:
        """For as long as a window of jobs takes, so that a large repair and the jobs share the time."""
        if self._sweep is None:
            self._sweep = self._sweeper.begin_if_due()
        until = self._monotonic() + WORK_S
        while self._sweep is not None and not self._is_over():
            try:
                under_way = self._sweep.step()
            except BrokerError as error:
                self._logger.warning("sweep: %s", error)
                under_way = False
            if not under_way:
                self._progress.foreign += self._sweep.report().foreign_pointers
                self._sweep = None
            if self._monotonic() >= until:
                return

    # -- one window --------------------------------------------------------------------------------------

    def _work(
        self, subscription: Subscription, reservation: Reservation, selection: Selection, limits: Limits
    ) -> None:
        """Claim a window and run it. Whatever ends it, at whatever line, no row stays claimed by nobody."""
        owner = self._mint.make(1)[0]
        try:
            alone = self._crew.quarantine.has_one_loop()
            now = self._store.now()
            claim = self._store.claim(selection, limits, owner, now, alone)
            batch = self._hold(claim.rows, alone)
            verdicts = judge(reservation.entries, claim, now)
            self._progress.stale += stale(verdicts, claim)
            self._settle_pointers(subscription, verdicts)
            if batch is not None:
                self._run(batch, claim.rows)
            self._settle_leftovers()
        except BaseException as error:
            self._rescue(owner, error)
            raise

    def _hold(self, rows: list[Row], alone: bool) -> Batch | None:
        if not rows:
            return None
        # The lease began in the claim, perhaps after a long wait for the store; never before it was asked for.
        age = self._store.now() - ((rows[0].lease_until or 0.0) - rows[0].ttr)
        batch = Batch(rows, self._desk, self._monotonic() - max(0.0, age), alone)
        self._unsettled.append(batch)
        self._crew.hold(batch)
        return batch

    def _rescue(self, owner: str, error: BaseException) -> None:
        """Settle what has ended and give back the rest; a store that is down must not hide ``error``."""
        if os.getpid() != self._pid:
            return
        try:
            if not isinstance(error, KQueueError):
                self._settle_leftovers()
            if not self._unsettled:
                rows = self._store.held_by(owner)  # of a claim that was interrupted, or whose reply was lost
                if rows:
                    Batch(rows, self._desk, self._monotonic()).close()
        except KQueueError as failure:
            self._logger.warning("not settled yet: %s", failure)

    def _settle_pointers(self, subscription: Subscription, verdicts: list[Verdict]) -> None:
        if verdicts:
            try:
                subscription.settle(verdicts)
            except BrokerError as error:
                # The claim stands. The entries come back when the connection drops, and are deleted then.
                self._logger.warning("pointers not settled: %s", error)

    def _run(self, batch: Batch, rows: list[Row]) -> None:
        """Raises what a handler raised to end the loop."""
        quarantine = self._crew.quarantine
        if len(rows) > 1 or not rows[0].suspicion:
            if not quarantine.has_one_loop():
                batch.deny_solitude()  # another loop has begun since the claim
            self._run_handlers(batch)
            return
        with quarantine.aside(ASIDE_S) as isolated:
            if not isolated:
                batch.give_back(quarantine.again_in())
                return
            try:
                if not batch.is_alone:
                    batch.mark_alone()
            except LeaseLost as error:
                self._logger.warning("%s", error)
            else:
                self._run_handlers(batch)

    def _run_handlers(self, batch: Batch) -> None:
        """Start the batch's jobs one by one. Raises what a handler raised to end the loop."""
        self._watchdog.watch(batch)
        spent: dict[str, list[float]] = {}
        now = self._monotonic()
        while not self._is_over():
            job = batch.start(now)
            if job is None:
                break
            handler = self._handlers().get(job.type)
            if handler is None:  # removed since the claim; the batch gives back what is left
                break
            self._progress.count += 1
            interrupt = execute(handler, job, batch)
            settling = batch.finish()
            if interrupt is not None:
                raise interrupt
            ended = self._monotonic()
            spent.setdefault(job.type, []).append(max(0.0, ended - now - settling))
            now = self._monotonic() if batch.settle_if_due(ended) else ended
        for type, seconds in spent.items():
            self._sizer.observe(type, len(seconds), sum(seconds))

    def _settle_leftovers(self) -> None:
        """The window that ends, and what a store that was down could not take before."""
        self._watchdog.rest()
        while self._unsettled:
            self._unsettled[0].close()
            self._crew.let_go(self._unsettled.pop(0))

    def _deny_solitude(self) -> None:
        """Other loops' jobs that were claimed as alone in the process are so no more, now that this one is here.

        But a suspect that is aside is, until its time is over: this loop takes no window before.
        """
        quarantine = self._crew.quarantine
        if not quarantine.has_one_loop() and (not quarantine.is_taken() or quarantine.has_expired()):
            for batch in self._crew.batches():
                batch.deny_solitude()

    # -- waiting and ending ------------------------------------------------------------------------------

    def _is_over(self) -> bool:
        """Whether no new job is to be taken."""
        limit = self._limits.count
        return self._is_stopped() or (limit is not None and self._progress.count >= limit)

    def _is_stopped(self) -> bool:
        if self._pid != os.getpid():
            return True  # a handler forked, and its child came back here: the loop is its parent's
        return self._stopped or (self._deadline is not None and self._monotonic() >= self._deadline)

    def _seconds_left(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - self._monotonic())

    def _patience(self) -> float:
        """Seconds to wait for a job."""
        if not self._limits.wait or self._sweep is not None:
            return 0.0
        # Whole seconds, as beanstalkd counts them: to end a wait before its time costs a new connection.
        wait = float(math.ceil(min(IDLE_S, self._sweeper.seconds_to_look())))
        left = self._seconds_left()
        return wait if left is None else min(wait, left)

    def _stand_back(self, error: KQueueError) -> None:
        self._progress.failures += 1
        seconds = backoff(self._progress.failures)
        left = self._seconds_left()
        self._logger.warning("trying again in %.0f s: %s", seconds, error)
        self._pause(seconds if left is None else min(seconds, left))

    def _pause(self, seconds: float) -> None:
        """Sleep, unless :meth:`stop` or :meth:`wake` comes or came."""
        wait_readable([self._bell], seconds)
        self._bell.answer()

    def _subscribe(self) -> Subscription | None:
        """The subscription to all types that have a handler now; None without any."""
        handlers = self._handlers()
        if handlers is not self._served or self._subscription is None:
            self._unsubscribe()
            self._served = handlers
            self._subscription = self._broker.subscribe(sorted(handlers)) if handlers else None
        return self._subscription

    def _unsubscribe(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            subscription.close()

    def _report(self) -> RunReport:
        tally, progress = self._desk.tally, self._progress
        return RunReport(
            count=progress.count,
            deleted=tally[Outcome.DELETED],
            retried=tally[Outcome.RETRIED],
            ungot=tally[Outcome.UNGOT],
            dead=tally[Outcome.DEAD],
            lost_lease=tally[Outcome.LOST_LEASE],
            seconds=self._monotonic() - progress.started,
            stale_pointers=progress.stale,
            foreign_pointers=progress.foreign,
        )
