"""One window after another: claim rows, settle the pointers, run the handlers, settle the rows.

A claim has committed before any handler starts, and no pointer is held while one runs. Whatever ends a window, at
whatever line, no row stays claimed by nobody.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping

from kqueue.batch import BOUND_S, Batch
from kqueue.broker import Reservation, Subscription, Verdict
from kqueue.crew import Crew
from kqueue.ending import Ending
from kqueue.errors import BrokerError, KQueueError, LeaseLost, StoreError
from kqueue.execution import execute
from kqueue.following import Following
from kqueue.handlers import Handler
from kqueue.ids import IdMint
from kqueue.job import Row
from kqueue.lease import Grip
from kqueue.pointers import judge, stale
from kqueue.settling import Desk
from kqueue.store import Selection
from kqueue.watchdog import Watchdog
from kqueue.window import Limits, Sizer

#: Seconds that a suspect waits for other loops to end their windows, and they for it: as long as windows of
#: fast jobs take. A loop that is busy for longer is not waited for.
ASIDE_S = 2.5 * BOUND_S


class Turns:
    """The windows of one loop."""

    def __init__(
        self,
        desk: Desk,
        crew: Crew,
        handlers: Callable[[], Mapping[str, Handler]],
        ending: Ending,
        *,
        mint: IdMint,
        following: Following,
    ) -> None:
        self._desk = desk
        self._store = desk.store
        self._logger = desk.logger
        self._monotonic = desk.clock.monotonic
        self._crew = crew
        self._handlers = handlers
        self._ending = ending
        self._mint = mint
        self._following = following
        self._sizer = Sizer()
        self._watchdog = Watchdog(desk.clock, desk.logger)
        self._unsettled: list[Batch] = []
        #: Pointers that had no row to claim at all.
        self.stale = 0

    def close(self) -> None:
        """End the watchdog, and let go of what could not be settled."""
        if not self._ending.is_here():
            return
        for batch in self._unsettled:
            self._let_go(batch)
        self._watchdog.close()

    def limits(self) -> Limits:
        """What the next window may hold."""
        return self._sizer.limits(self._ending.jobs_left(), self._ending.seconds_left())

    def has_leftovers(self) -> bool:
        """Whether something is still to be settled."""
        return bool(self._unsettled)

    def settle_leftovers(self) -> None:
        """The window that ends, and what a store that was down could not take before."""
        self._watchdog.rest()
        while self._unsettled and self._ending.is_here():
            self._unsettled[0].close()
            self._let_go(self._unsettled.pop(0))

    def _let_go(self, batch: Batch) -> None:
        self._crew.let_go(batch)
        if batch.grip is not None:
            batch.grip.let_go()

    def take(self, subscription: Subscription, reservation: Reservation, limits: Limits) -> None:
        """Claim what was reserved and run it, or give it back if a suspect of another loop is aside.

        Raises what a handler raised to end the loop.
        """
        with self._crew.quarantine.window() as entered:
            if not entered:
                self._settle_pointers(subscription, [Verdict(entry, 0.0) for entry in reservation.entries])
            elif reservation.selection is not None:
                self._work(subscription, reservation, reservation.selection, limits)

    def deny_solitude(self) -> None:
        """Other loops' jobs that were claimed as alone in the process are so no more, now that this one is here.

        But a suspect that is aside is, until its time is over: this loop takes no window before.
        """
        quarantine = self._crew.quarantine
        if not quarantine.has_one_loop() and (not quarantine.is_taken() or quarantine.has_expired()):
            for batch in self._crew.batches():
                batch.deny_solitude()

    def _work(
        self, subscription: Subscription, reservation: Reservation, selection: Selection, limits: Limits
    ) -> None:
        owner = self._mint.make(1)[0]
        try:
            alone = self._crew.quarantine.has_one_loop()
            now = self._store.now()
            claim = self._store.claim(selection, limits, owner, now, alone)
            batch = self._hold(claim.rows, alone)
            verdicts = judge(reservation.entries, claim, now)
            self.stale += stale(verdicts, claim)
            self._settle_pointers(subscription, verdicts)
            if batch is not None:
                self._run(batch, claim.rows)
            self.settle_leftovers()
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
        if not self._ending.is_here():
            return
        try:
            if not isinstance(error, StoreError):
                self.settle_leftovers()
            if not self._unsettled:
                rows = self._store.held_by(owner)  # of a claim that was interrupted, or whose reply was lost
                if rows:
                    Batch(rows, self._desk, self._monotonic()).close()
        except KQueueError as failure:
            self._logger.warning("not settled yet: %s", failure)

    def _settle_pointers(self, subscription: Subscription, verdicts: list[Verdict]) -> None:
        if verdicts:
            try:
                subscription.post(verdicts)
            except BrokerError as error:
                # The claim stands. The entries come back when the connection drops, and are deleted then.
                self._logger.warning("pointers not settled: %s", error)

    def _run(self, batch: Batch, rows: list[Row]) -> None:
        """Raises what a handler raised to end the loop."""
        quarantine = self._crew.quarantine
        if len(rows) > 1 or not rows[0].suspicion:
            if not quarantine.has_one_loop():
                batch.deny_solitude()  # another loop has begun since the claim
            self._run_handlers(batch, rows)
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
                self._run_handlers(batch, rows)

    def _run_handlers(self, batch: Batch, rows: list[Row]) -> None:
        """Start the batch's jobs one by one. Raises what a handler raised to end the loop."""
        grip = batch.grip = self._following.hold(rows, self._handlers(), batch.leased_since)
        try:
            self._start_all(batch, grip, alone=len(rows) == 1)
        finally:
            if grip is not None:
                grip.rest()

    def _start_all(self, batch: Batch, grip: Grip | None, *, alone: bool) -> None:
        self._watchdog.watch(batch, alone=alone)
        ending = self._ending
        spent: defaultdict[str, list[float]] = defaultdict(list)
        now = self._monotonic()
        while not ending.is_over(now):
            job = batch.start(now)
            if job is None:
                break
            handler = self._handlers().get(job.type)
            if handler is None:  # removed since the claim; the batch gives back what is left
                break
            ending.count += 1
            settling = batch.seconds_settling
            if grip is not None:
                grip.start(job.id, now)
            interrupt = execute(handler, job, batch)
            if interrupt is not None:
                raise interrupt
            ended = self._monotonic()
            spent[job.type].append(ended - now - (batch.seconds_settling - settling))
            now = self._monotonic() if batch.settle_if_due(ended) else ended
        for type, seconds in spent.items():
            self._sizer.observe(type, len(seconds), max(0.0, sum(seconds)))
