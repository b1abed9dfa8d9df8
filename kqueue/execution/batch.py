"""The jobs of one window, whose handlers run one after another in the loop's own thread.

Theory of operation. The loop's thread starts the jobs in order; what ends is written when the window ends, or
before: see :mod:`kqueue.execution.inflight`. While a handler keeps the loop's thread, the watchdog's thread does
that in its place; and when the handler overruns the window's bound, it also gives the unstarted jobs back, so that
they do not wait behind it.
"""

import math
from collections.abc import Sequence

from kqueue.contracts.renewer import RenewalHold
from kqueue.execution.context import LoopContext
from kqueue.execution.inflight import BOUND_S, CLAIMS_PART, LEAST_PART, InflightJobs
from kqueue.execution.inflight_job import InflightJob
from kqueue.model.job import Row

#: Seconds between two looks of the watchdog at least.
SHORTEST_LOOK_S = 0.005


class Batch:
    """The jobs of one window, run one after another: see the module's text."""

    def __init__(self, rows: Sequence[Row], context: LoopContext, leased_at: float, alone: bool = False) -> None:
        """``leased_at``: when leases began, in monotonic seconds. ``alone``: claimed as alone in the process."""
        #: As they were claimed.
        self.rows = rows
        self.jobs = InflightJobs(context, look_s=max(SHORTEST_LOOK_S, context.settle_s))
        self.jobs.claim(rows, leased_at)
        if alone and len(rows) == 1:
            self.jobs.alone = self.jobs.unstarted[0]
        self._leased_at = leased_at
        #: Whether each start and end is to be told.
        self.is_heard = context.telemetry.is_heard()
        #: Of the renewer that renews leases while handlers run, if any of them wants it.
        self.renewal: RenewalHold | None = None

    def keep_renewal(self, renewal: RenewalHold) -> None:
        """It is the one that renews leases of these jobs."""
        self.renewal = renewal

    def leased_since(self) -> float:
        """When the leases began, in monotonic seconds. Before the first start it renews them, if they are late."""
        self.jobs.renew_unstarted()
        return min((one.leased_at for one in self.jobs.unstarted), default=self._leased_at)

    def start(self, now: float) -> InflightJob | None:
        """The next job to run, or None; the one before has ended. ``now`` in monotonic seconds.

        A lease is the handler's time: where the claim took a part of it that matters, all are renewed at the
        window's begin. Later a job with under half its lease left is never started: it and the rest are given back.
        """
        jobs = self.jobs
        with jobs.lock:
            jobs.running.clear()
            if not jobs.unstarted:
                return None
            is_first, job = jobs.bound_at == math.inf, jobs.unstarted[0]
            if now - job.leased_at <= (CLAIMS_PART if is_first else LEAST_PART) * job.row.ttr:
                return self._next(now)
        if is_first:
            jobs.renew_unstarted()
        else:
            jobs.give_back()
        with jobs.lock:
            return self._next(now)

    def settle_if_due(self, now: float) -> bool:
        """Settle if a job has waited for it long enough; whether it did. ``now`` in monotonic seconds."""
        due = now >= self.jobs.completer.due_at and self.jobs.is_here()
        if due:
            self.jobs.settle()
        return due

    def close(self) -> None:
        """Give back what has not started, or was interrupted, and settle everything.

        Does nothing in a child that a handler forked: the window is its parent's.
        """
        jobs = self.jobs
        if not jobs.is_here():
            return
        with jobs.lock:
            for job in jobs.running:
                if job.settlement is None:
                    if job.is_told:
                        jobs.tell_seconds(job)
                    jobs.unstarted.appendleft(job)
            jobs.running.clear()
            jobs.alone = None
        jobs.give_back()
        jobs.settle()
        jobs.completer.await_rings()

    def _next(self, now: float) -> InflightJob | None:
        """Under the lock."""
        jobs = self.jobs
        if not jobs.unstarted:
            return None
        if jobs.bound_at == math.inf:
            jobs.bound_at = now + BOUND_S  # from the first start, so that a slow claim does not use it up
        job = jobs.unstarted.popleft()
        jobs.running.add(job)
        job.started_at = now
        return job
