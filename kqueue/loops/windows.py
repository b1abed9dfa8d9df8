"""One window after another: claim rows, settle the pointers, run the handlers, settle the rows.

A claim has committed before any handler starts, and no pointer is held while one runs. Whatever ends a window, at
whatever line, no row stays claimed by nobody.
"""

from collections import defaultdict
from functools import partial

from kqueue.contracts.admission import Claimer
from kqueue.contracts.budget import Budget, is_suspect
from kqueue.execution.batch import Batch
from kqueue.execution.execute import execute
from kqueue.execution.inflight import BOUND_S
from kqueue.loops.claiming import Found, fetch, give_back_claim, release
from kqueue.loops.lazy_asyncio import Awaiter
from kqueue.loops.runner import WindowsParts
from kqueue.loops.sizer import Sizer
from kqueue.loops.stopping import LoopControls
from kqueue.loops.watchdog import Watchdog
from kqueue.model.errors import KQueueError, StoreError
from kqueue.model.job import JobInHand, Row

#: Seconds that a suspect waits for other loops to end their windows, and they for it: as long as windows of
#: fast jobs take. A loop that is busy for longer is not waited for.
ASIDE_S = 2.5 * BOUND_S


class Windows:
    """The windows of one loop."""

    def __init__(self, parts: WindowsParts, controls: LoopControls) -> None:
        self._context, self._registry, self._handlers, self._mint, self._auto_renew = parts
        context = self._context
        self._logger = context.logger
        self._monotonic = context.clock.monotonic
        self._stopping = controls.stopping
        self._sizer = Sizer()
        self._watchdog = Watchdog(context.clock, context.logger)
        self._awaiter = Awaiter()
        self._unsettled: list[Batch] = []
        #: It runs one at a time.
        self._holder = Claimer(self._mint.make(1)[0], hands=1)
        #: Pointers that had no row to claim at all.
        self.stale = 0

    def close(self) -> None:
        """End the watchdog and the event loop, and let go of what could not be settled."""
        if not self._stopping.is_here():
            return
        for batch in self._unsettled:
            self._let_go(batch)
        self._watchdog.close()
        self._awaiter.close()

    def budget(self) -> Budget:
        """What the next window may hold."""
        left = [number for number in (self._stopping.jobs_left(), self._registry.share()) if number is not None]
        return self._sizer.budget(min(left, default=None), self._stopping.seconds_left())

    def has_leftovers(self) -> bool:
        """Whether something is still to be settled."""
        return bool(self._unsettled)

    def settle_leftovers(self) -> None:
        """The window that ends, and what a store that was down could not take before."""
        self._watchdog.rest()
        while self._unsettled and self._stopping.is_here():
            self._unsettled[0].close()
            self._let_go(self._unsettled[0])
            del self._unsettled[0]

    def _let_go(self, batch: Batch) -> None:
        self._registry.let_go(batch.jobs)
        if batch.renewal is not None:
            batch.renewal.let_go()

    def wait_for_more(self) -> bool:
        """False: no job is in hand between two windows."""
        return False

    def finish(self) -> None:
        """Nothing: no job is in hand between two windows."""

    def take(self, found: Found) -> None:
        """Claim what was found and run it, or give it back if a suspect of another loop is aside.

        Raises what a handler raised to end the loop.
        """
        try:
            with self._registry.isolation.window(self) as entered:
                if entered:
                    # It waited for this, perhaps for long: a suspect that had its time meanwhile is alone no more.
                    self.deny_solitude()
                    self._work(found)
                else:
                    release(found, self._context)
        finally:
            self._registry.isolation.forget(self)

    def deny_solitude(self) -> None:
        """See :meth:`kqueue.loops.registry.Registry.deny_solitude`."""
        self._registry.deny_solitude()

    def _work(self, found: Found) -> None:
        owner = self._mint.make(1)[0]
        try:
            alone = self._registry.isolation.has_one_loop()
            hold = partial(self._hold, alone)
            self.stale += fetch(found, owner, self._context, holder=self._holder, alone=alone, hold=hold)
            if self._unsettled:
                self._run(self._unsettled[-1])
            self.settle_leftovers()
        except BaseException as error:
            self._rescue(owner, error)
            raise

    def _hold(self, alone: bool, rows: list[Row], leased_at: float) -> None:
        batch = Batch(rows, self._context, leased_at, alone)
        batch.jobs.completer.holder = self._holder
        self._unsettled.append(batch)
        self._registry.hold(batch.jobs)

    def _rescue(self, owner: str, error: BaseException) -> None:
        """Settle what has ended and give back the rest; a store that is down must not hide ``error``."""
        if not self._stopping.is_here():
            return
        try:
            if not isinstance(error, StoreError):
                self.settle_leftovers()
        except KQueueError as failure:
            self._logger.warning("not settled yet: %s", failure)
        if not self._unsettled:
            give_back_claim(owner, self._context)

    def _run(self, batch: Batch) -> None:
        """Raises what a handler raised to end the loop."""
        rows, isolation = batch.rows, self._registry.isolation
        if len(rows) > 1 or not is_suspect(rows[0]):
            if not isolation.has_one_loop():
                batch.jobs.deny_solitude()  # another loop has begun since the claim
            self._run_handlers(batch)
            return
        with isolation.aside(ASIDE_S, self) as isolated:
            if isolated:
                if batch.jobs.alone is None:
                    batch.jobs.mark_alone()
                if batch.jobs.unstarted:
                    self._run_handlers(batch)
                return
        if rows[0].suspicion:
            batch.jobs.give_back(isolation.again_in())
        else:  # it was alone when its worker died, which may have been the power: it is not to wait for ever
            batch.jobs.deny_solitude()
            self._run_handlers(batch)

    def _run_handlers(self, batch: Batch) -> None:
        """Start the batch's jobs one by one. Raises what a handler raised to end the loop."""
        if any(handler.is_async for handler in self._handlers().values()):
            self._awaiter.open()
        self._auto_renew.hold(batch.rows, self._handlers(), batch.leased_since, batch.keep_renewal)
        spent: defaultdict[str, list[float]] = defaultdict(list)
        self._watchdog.watch(batch.jobs, alone=len(batch.rows) == 1)
        try:
            self._call_handlers(batch, spent)
        finally:
            if batch.renewal is not None:
                batch.renewal.rest()
            if self._stopping.is_here():
                self._context.telemetry.ran(spent)
        for type, seconds in spent.items():
            self._sizer.observe(type, len(seconds), max(0.0, sum(seconds)))

    def _call_handlers(self, batch: Batch, spent: defaultdict[str, list[float]]) -> None:
        """Adds to ``spent``, by type, the seconds of each."""
        stopping, heard, renewal, jobs = self._stopping, batch.is_heard, batch.renewal, batch.jobs
        wait = self._awaiter.wait
        now = self._monotonic()
        while not stopping.is_over(now):
            job = batch.start(now)
            if job is None:
                break
            type = job.row.type
            handler = self._handlers().get(type)
            if handler is None:  # removed since the claim; the batch gives back what is left
                break
            if heard:
                job.tell_start()
                now = job.started_at = self._monotonic()  # its time does not begin before all have listened
            stopping.count += 1
            settling = jobs.seconds_settling
            if renewal is not None:
                renewal.start(job.row.id, now)
                job.renewal, job.max_runtime = renewal, handler.max_runtime
            try:
                interrupt = execute(handler, JobInHand(job.row, job), job, wait)
            finally:
                ended = self._monotonic()
                spent[type].append(ended - now - (jobs.seconds_settling - settling))
            if interrupt is not None:
                raise interrupt
            if job.cut_short() is not None:
                self._awaiter.check()
            now = self._monotonic() if batch.settle_if_due(ended) else ended
