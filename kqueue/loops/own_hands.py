"""A loop's own thread as the hands of its dispatcher: one job after another, functions and coroutines alike."""

import threading
from collections import defaultdict

from kqueue.contracts.renewer import RenewalHold
from kqueue.execution.batch import execute_batch, started
from kqueue.execution.execute import execute
from kqueue.execution.inflight_job import InflightJob
from kqueue.loops.lazy_asyncio import Awaiter
from kqueue.loops.part import HandsParts
from kqueue.model.handlers import Handler
from kqueue.model.job import JobInHand


class OwnHands:
    """See :class:`kqueue.loops.part.Hands`."""

    def __init__(self, parts: HandsParts) -> None:
        self._context, self._registry, self._handlers, self._jobs, self._controls = parts[:5]
        self._auto_renew = parts.auto_renew
        self._awaiter = Awaiter()
        #: Of the renewer that renews leases while handlers run, if any of them wants it.
        self._renewal: RenewalHold | None = None
        #: Seconds of those that have run since they were told, by type.
        self._spent: defaultdict[str, list[float]] = defaultdict(list)

    @property
    def thread(self) -> int:
        """The one that asks."""
        return threading.get_ident()

    def open(self) -> None:
        """Make the event loop, where something is to be awaited. Raises ``OSError``."""
        if any(handler.is_async for handler in self._handlers().values()):
            self._awaiter.open()

    def number(self) -> int:
        """One at a time."""
        return 1

    def free(self) -> int:
        """It runs nothing, where it asks."""
        return 1

    def renew(self, jobs: list[InflightJob]) -> None:
        """All in one: they start one after another."""
        self._auto_renew.hold([job.row for job in jobs], self._handlers(), self._leased_since, self._keep_renewal)

    def start(self) -> None:
        """Run them, to the last. Raises what a handler raised to end the loop."""
        # What the watchdog has written may have come back: its last end is told before its next start.
        self._jobs.jobs.completer.await_rings()
        try:
            self._run()
        finally:
            self.rest()

    def ring(self) -> None:
        """Nothing: its thread comes by itself."""

    def keeps_loop(self, job: InflightJob) -> bool | None:
        """There is one at most."""
        return True

    def late(self, jobs: list[InflightJob]) -> None:
        """Never: what runs in a thread cannot be cancelled."""

    def rest(self) -> None:
        """See :meth:`kqueue.execution.concurrent_jobs.ConcurrentJobs.rest`. In a child that a handler forked:
        nothing, what is in hand is its parent's.
        """
        if not self._controls.stopping.is_here():
            return
        renewal = self._renewal
        spent, self._spent = self._spent, defaultdict(list)
        if renewal is not None:
            renewal.rest()
        self._jobs.rest(spent)
        if renewal is not None:
            renewal.let_go()
        self._renewal = None  # last: where a signal strikes before, this is called again

    def close(self) -> None:
        """End the event loop."""
        self._awaiter.close()

    def _leased_since(self) -> float:
        """When the leases began, in monotonic seconds. What took a part of them is made up for before."""
        jobs = self._jobs.jobs
        jobs.renew_unstarted()
        with jobs.lock:
            return min((one.leased_at for one in jobs.unstarted), default=self._context.clock.monotonic())

    def _keep_renewal(self, renewal: RenewalHold) -> None:
        self._renewal = renewal

    def _run(self) -> None:
        stopping, renewal, jobs = self._controls.stopping, self._renewal, self._jobs
        heard, wait = self._context.telemetry.is_heard(), self._awaiter.wait
        monotonic, inflight, spent = self._context.clock.monotonic, jobs.jobs, self._spent
        completer = inflight.completer
        now = monotonic()
        while not stopping.is_over(now):
            job = jobs.take_next(now)
            if job is None:
                break
            type = job.row.type
            handler = self._handlers().get(type)
            if handler is None:  # removed since the claim: what is left goes back
                break
            if handler.batch is not None:
                now = self._run_batch(handler, handler.batch, job, heard)
                continue
            if heard:
                job.tell_start()
                now = job.started_at = monotonic()  # its time does not begin before all have listened
            stopping.count += 1
            settling = inflight.seconds_settling
            if renewal is not None:
                renewal.start(job.row.id, now)
                job.renewal, job.max_runtime = renewal, handler.max_runtime
            try:
                interrupt = execute(handler, JobInHand(job.row, job), job, wait)
            finally:
                ended = monotonic()
                spent[type].append(ended - now - (inflight.seconds_settling - settling))
            if interrupt is not None:
                raise interrupt
            if job.cut_decision is not None:
                self._awaiter.check()
            is_settled = ended >= completer.due_at and jobs.settle_if_due(ended)
            now = monotonic() if is_settled else ended

    def _run_batch(self, handler: Handler, most: int, first: InflightJob, heard: bool) -> float:
        """``first``, and those that go into the same call. Returns when it ended, in monotonic seconds."""
        monotonic, inflight = self._context.clock.monotonic, self._jobs.jobs
        batch = self._jobs.take_with(first, most)
        self._controls.stopping.count += len(batch)
        now = started(batch, self._context.clock, heard=heard)
        settling = inflight.seconds_settling
        if self._renewal is not None:
            # Of those that stand before the one that runs the renewer knows that they have started.
            for one in batch:
                self._renewal.start(one.row.id, now)
                one.renewal, one.max_runtime = self._renewal, handler.max_runtime
        try:
            interrupt = execute_batch(handler, batch, self._awaiter.wait)
        finally:
            ended = monotonic()
            seconds = (ended - now - (inflight.seconds_settling - settling)) / len(batch)
            self._spent[first.row.type].extend([seconds] * len(batch))
        if interrupt is not None:
            raise interrupt
        if first.cut_decision is not None:
            self._awaiter.check()
        return monotonic() if self._jobs.settle_if_due(ended) else ended
