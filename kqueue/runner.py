"""``run_jobs``: reserve, claim, settle the pointers, run the handlers, settle the rows.

    reserve pointers -> claim rows (committed before any handler starts) -> settle pointers
                     -> handlers, one by one -> settle rows (delete / retry / unget, fenced)

One Runner is one loop of one thread. What several loops of a process share stands in
:class:`kqueue.crew.Crew`.
"""

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kqueue.batch import Batch, Desk
from kqueue.bell import Bell, wait_readable
from kqueue.broker import Broker, Reservation, Subscription
from kqueue.crew import Crew
from kqueue.errors import BrokerError, KQueueError, LeaseLost, StoreError
from kqueue.execution import Handler, Outcome, execute
from kqueue.ids import IdMint
from kqueue.pointers import judge, stale
from kqueue.reports import RunReport
from kqueue.retry import backoff
from kqueue.store import Claim
from kqueue.sweep import Sweeper
from kqueue.watchdog import Watchdog
from kqueue.window import Sizer

#: Seconds that an idle loop waits at most before it looks around.
IDLE_S = 15.0
#: A suspect waits for other loops' windows for at most this part of its lease, and this many seconds.
ASIDE_PART = 0.25
ASIDE_S = 5.0
#: Seconds until a suspect that could not run alone is tried again.
ASIDE_AGAIN_S = 1.0


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
        desk: Desk,
        broker: Broker,
        sweeper: Sweeper,
        crew: Crew,
        handlers: Callable[[], Mapping[str, Handler]],
        limits: RunLimits,
        mint: IdMint,
    ) -> None:
        """``handlers()`` returns a mapping that is replaced, never changed, when a handler comes or goes."""
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
        self._watchdog = Watchdog(desk.clock)
        self._bell = Bell()
        self._stopped = False
        self._served: Mapping[str, Handler] = {}
        self._subscription: Subscription | None = None
        self._unsettled: list[Batch] = []

    def stop(self) -> None:
        """End the loop after the current job. Safe in a signal handler."""
        self._stopped = True
        self._bell.ring()
        if self._subscription is not None:
            self._subscription.wake()

    def run(self) -> RunReport:
        """Loop until a limit, or nothing is ready, or :meth:`stop`."""
        try:
            with self._crew.running(self):
                self._deny_solitude()
                self._loop()
        finally:
            for batch in self._unsettled:
                self._crew.let_go(batch)
            self._watchdog.close()
            self._unsubscribe()
        return self._report()

    def _loop(self) -> None:
        while True:
            try:
                self._settle_leftovers()
                subscription = self._subscribe()
                if self._is_over() or not self._turn(subscription):
                    return
                self._progress.failures = 0
            except (StoreError, BrokerError) as error:
                self._unsubscribe()
                if not self._limits.wait or self._is_stopped():
                    raise
                self._stand_back(error)

    def _turn(self, subscription: Subscription | None) -> bool:
        """One window. False if nothing was ready and the loop is not to wait."""
        swept = self._sweeper.sweep_if_due()
        if swept is not None:
            self._progress.foreign += swept.foreign_pointers
        patience = self._patience()
        if subscription is None:
            wait_readable([self._bell], patience)
            return self._limits.wait
        jobs_left = None if self._limits.count is None else self._limits.count - self._progress.count
        limits = self._sizer.limits(jobs_left, self._seconds_left())
        reservation = subscription.reserve(limits.jobs, patience)
        self._progress.foreign += reservation.foreign
        if reservation.selection is None:
            return self._limits.wait
        with self._crew.quarantine.window(self._is_over) as entered:
            if entered:
                alone = self._crew.quarantine.has_one_loop()
                now, claimed_at = self._store.now(), self._monotonic()
                owner = self._mint.make(1)[0]
                claim = self._store.claim(reservation.selection, limits, owner, now, alone)
                self._settle_pointers(subscription, reservation, claim, now)
                if claim.rows:
                    self._work(Batch(claim.rows, self._desk, claimed_at), claim, alone)
        return True

    def _settle_pointers(
        self, subscription: Subscription, reservation: Reservation, claim: Claim, now: float
    ) -> None:
        if not reservation.entries:
            return
        verdicts = judge(reservation.entries, claim, now)
        self._progress.stale += stale(verdicts, claim)
        try:
            subscription.settle(verdicts)
        except BrokerError as error:
            # The claim stands. The entries come back when the connection drops, and are deleted then.
            self._logger.warning("pointers not settled: %s", error)

    # -- one window --------------------------------------------------------------------------------------

    def _work(self, batch: Batch, claim: Claim, alone: bool) -> None:
        self._crew.hold(batch)
        interrupt: BaseException | None = None
        try:
            still_alone = alone and self._crew.quarantine.has_one_loop()
            if len(claim.rows) == 1 and claim.rows[0].suspicion:
                interrupt = self._work_aside(batch, claim.rows[0].ttr, still_alone)
            else:
                if alone and not still_alone:
                    batch.mark_alone(False)  # another loop has begun since the claim
                interrupt = self._run_handlers(batch)
        except LeaseLost as error:
            self._logger.warning("%s", error)
        finally:
            self._close(batch)
        if interrupt is not None:
            raise interrupt

    def _work_aside(self, batch: Batch, ttr: float, alone: bool) -> BaseException | None:
        with self._crew.quarantine.aside(min(ASIDE_S, ttr * ASIDE_PART)) as isolated:
            if not isolated:
                batch.postpone(ASIDE_AGAIN_S)
                return None
            if not alone:
                batch.mark_alone(True)
            return self._run_handlers(batch)

    def _run_handlers(self, batch: Batch) -> BaseException | None:
        """Start the batch's jobs one by one. Returns what is to end the loop, if a handler raised it."""
        self._watchdog.watch(batch)
        spent: dict[str, list[float]] = {}
        now = self._monotonic()
        interrupt: BaseException | None = None
        while interrupt is None and not self._is_over():
            job = batch.start(now)
            if job is None:
                break
            handler = self._handlers().get(job.type)
            if handler is None:  # removed since the claim; the batch gives back what is left
                break
            self._progress.count += 1
            interrupt = execute(handler, job, batch)
            batch.finish()
            began, now = now, self._monotonic()
            spent.setdefault(job.type, []).append(now - began)
            batch.settle_if_due(now)
        # By window, not by job: one that settles the others as well would seem slow.
        for type, seconds in spent.items():
            self._sizer.observe(type, len(seconds), sum(seconds))
        return interrupt

    def _close(self, batch: Batch) -> None:
        self._watchdog.rest()
        self._unsettled.append(batch)
        batch.close()
        self._unsettled.remove(batch)
        self._crew.let_go(batch)

    def _settle_leftovers(self) -> None:
        """What a store that was down could not take."""
        while self._unsettled:
            self._unsettled[0].close()
            self._crew.let_go(self._unsettled.pop(0))

    def _deny_solitude(self) -> None:
        """A loop begins: jobs of other loops, claimed as alone in the process, are so no more. But a suspect
        that is aside is: this loop takes no window until it has ended.
        """
        quarantine = self._crew.quarantine
        if not quarantine.has_one_loop() and not quarantine.is_taken():
            for batch in self._crew.batches():
                try:
                    batch.mark_alone(False)
                except KQueueError as error:
                    self._logger.warning("%s", error)

    # -- waiting and ending ------------------------------------------------------------------------------

    def _is_over(self) -> bool:
        """Whether no new job is to be taken."""
        limit = self._limits.count
        return self._is_stopped() or (limit is not None and self._progress.count >= limit)

    def _is_stopped(self) -> bool:
        return self._stopped or (self._deadline is not None and self._monotonic() >= self._deadline)

    def _seconds_left(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - self._monotonic())

    def _patience(self) -> float:
        """Seconds to wait for a job."""
        if not self._limits.wait:
            return 0.0
        # Whole seconds, as beanstalkd counts them: to end a wait before its time costs a new connection.
        wait = float(math.ceil(min(IDLE_S, self._sweeper.seconds_to_look())))
        left = self._seconds_left()
        return wait if left is None else min(wait, left)

    def _stand_back(self, error: KQueueError) -> None:
        self._progress.failures += 1
        pause = backoff(self._progress.failures)
        left = self._seconds_left()
        self._logger.warning("trying again in %.0f s: %s", pause, error)
        wait_readable([self._bell], pause if left is None else min(pause, left))

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
