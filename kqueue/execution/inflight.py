"""The jobs that one part of a loop has in hand: claimed and not started, running, ended and not written yet.

Theory of operation. Whoever runs the handlers, what ends is pending and is written in one settle
(:mod:`kqueue.execution.completer`): with the next claim, when it has waited for ``settle_ms``, at ``flush()``, or
at once where nothing else is in hand that it could wait for. While a handler keeps the thread that would do it, the
watchdog's does; and it gives back those that wait behind such a handler for too long. Every write is fenced, so
whatever a thread does late changes nothing.

``lock`` guards the fields and is never held over I/O. A handler may fork, and the lock may be held by another
thread at that moment: so what a child could come by asks for the process before it takes the lock.
"""

import math
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from enum import Enum

from kqueue.contracts.settlements import Delete, Finish, Settlement, Unget, outcome, unfinished, unstarted
from kqueue.execution import endings
from kqueue.execution.completer import JOB_WRITE, Completer, SettleBy
from kqueue.execution.context import LoopContext
from kqueue.execution.inflight_job import InflightJob
from kqueue.execution.reports import RunReports
from kqueue.model.errors import AlreadySettled, KQueueError, LeaseLost
from kqueue.model.job import Row, State
from kqueue.system.forks import ForkGuard
from kqueue.system.locks import entry

#: Seconds after which what has not started is given back, if it waits behind a busy handler: twice the work that a
#: window should hold.
BOUND_S = 0.100
#: What a claim may take of the leases that it gets, before they are renewed.
CLAIMS_PART = 0.05
#: A job with less than this part of its lease left is not started.
LEAST_PART = 0.5


class RunIn(Enum):
    """Where the handlers of a loop run."""

    #: In the loop's own thread, one after another.
    OWN_THREAD = "own thread"
    #: One at a time in each of several.
    THREADS = "threads"
    #: As coroutines, many at once.
    EVENT_LOOP = "event loop"


class InflightJobs:
    """The jobs that one part of a loop has in hand, whoever runs their handlers: see the module's text. A loop has
    several parts where its types do not share their places.
    """

    def __init__(
        self,
        context: LoopContext,
        *,
        completer: Completer | None = None,
        now: Callable[[], float] | None = None,
        look_s: float = math.inf,
        awake: Callable[[], object] = lambda: None,
        written: Callable[[], object] = lambda: None,
        keeps: Callable[[InflightJob], bool | None] = lambda job: True,
        run_in: RunIn = RunIn.OWN_THREAD,
    ) -> None:
        """``completer``: the loop's; None: one of its own. ``now()`` is the store's time, by default the store's
        own. ``look_s``: seconds between two looks of the watchdog, while some have not started: how a running job
        will end is not known before it ends.

        ``awake()`` tells the watchdog that something is to be settled. ``written()`` is called after each settle.
        ``keeps(job)``: whether it is this one's handler that keeps ``thread`` now, None if it is not known whose
        does; by default always that. ``run_in``: in threads each handler has its own, that of its job.
        """
        self.context = context
        self.now = now or context.store.now
        self._monotonic = context.clock.monotonic
        self._look_s = look_s
        self._awake = awake
        self._written = written
        self._keeps = keeps
        self._run_in = run_in
        self._is_own_thread = run_in is RunIn.OWN_THREAD
        self._fork = ForkGuard()
        #: Where its handlers run, as :func:`threading.get_ident` has it; -1: not known yet, or each has its own.
        self.thread = -1
        self.completer = completer or Completer(context)
        self.lock = self.completer.lock
        #: Claimed, in the order in which they are to start.
        self.unstarted: deque[InflightJob] = deque()
        #: Those whose handlers run, until these have ended; also with an outcome.
        self.running: set[InflightJob] = set()
        #: Those of them that run in the call of another one: all of a batch but its first.
        self.followers: set[InflightJob] = set()
        self.completer.parts.append(self)
        self.reports = RunReports(context, self.lock)
        #: When what has not started has waited for long enough, in monotonic seconds.
        self.bound_at = math.inf
        #: The job that is stored to be alone in its process.
        self.alone: InflightJob | None = None
        #: Seconds of handlers' runs that went into settles, which are the store's and not the handlers'.
        self.seconds_settling = 0.0

    def is_here(self) -> bool:
        """Whether this is the loop's own process, and no child that a handler forked."""
        return not self._fork.is_inherited()

    def check_process(self) -> None:
        """Raises ``KQueueError`` in such a child."""
        if self._fork.is_inherited():
            raise endings.in_parents_hand(self._fork.pid, os.getpid())

    def are_any(self) -> bool:
        """Whether anything is in hand. From any thread."""
        return bool(self.unstarted or self.running) or not self.completer.is_written()

    def calls(self) -> int:
        """How many handlers run."""
        return len(self.running) - len(self.followers)

    # -- the loop's --------------------------------------------------------------------------------------

    def claim(self, rows: Sequence[Row], leased_at: float, *, alone: bool = False) -> None:
        """``rows`` are claimed; ``leased_at``: when their leases began, in monotonic seconds. ``alone``: one was,
        and is stored to be alone in its process.
        """
        claimed = InflightJob.of_claim(rows, leased_at, self)
        with self.lock:
            self.unstarted.extend(claimed)
            if alone:
                self.alone = claimed[0]

    def renew_unstarted(self) -> None:
        """Another lease for those that the claim, or a wait, took a part of it from that matters.

        Raises ``StoreError``.
        """
        now = self._monotonic()
        with self.lock:
            late = [one for one in self.unstarted if now - one.leased_at > CLAIMS_PART * one.row.ttr]
        if late:
            lost = self.context.store.renew([one.key for one in late], self.context.store.now())
            with self.lock:
                for one in late:
                    one.renewed(now)
                self.unstarted = deque(one for one in self.unstarted if one.row.id not in lost)

    def give_back(self, delay: float = 0.0, *, running_too: bool = False) -> list[InflightJob]:
        """What has not started is to go back, to run in ``delay`` seconds at the earliest, with the next settle.
        Returns it.
        """
        back_at = self.back_at(delay)
        with self.lock:
            if running_too:
                self.put_back(self._without_outcome(), back_at, unfinished)
            back = list(self.unstarted)
            self.put_back(back, back_at)
            self.unstarted.clear()
            if self.alone in back:
                self.alone = None
            self.bound_at = math.inf
        for one in back:
            one.let_go()
        return back

    def give_up(self) -> None:
        """Give back all that is in hand, now, although handlers go on: this process is about to end, and others are
        not to wait for its leases. Whatever the handlers still do with their jobs is refused.

        Called by another thread than theirs. Raises as :meth:`settle` does. Does nothing in a forked child.
        """
        if self.is_here():
            self.give_back(running_too=True)
            self.settle()

    def settle(self, by: SettleBy | None = None) -> None:
        """Write what has ended, now. ``by``: see :meth:`kqueue.execution.completer.Completer.write`.

        Raises ``StoreError``; then nothing is forgotten, and the next settle writes it again.
        """
        self.check_process()
        self.completer.write(by)
        self._written()

    # -- the supervisor's --------------------------------------------------------------------------------

    def lease_left(self, now: float) -> float | None:
        """Seconds that the lease of the job still holds whose handler keeps ``thread``, as far as this process
        knows, below 0 once it is over; if it is not known whose does, of the one that has least. None if none does.
        ``now`` in monotonic seconds.
        """
        known = [(one, self._keeps(one)) for one in self._without_outcome()]
        return min((one.lease_left(now) for one, keeps in known if keeps is not False), default=None)

    def at_work(self, now: float) -> set[int]:
        """The threads that handlers keep whose leases hold. ``now`` in monotonic seconds."""
        if self._run_in is RunIn.THREADS:
            return {one.thread for one in self._without_outcome() if one.lease_left(now) > 0}
        left = self.lease_left(now)
        return {self.thread} if left is not None and left > 0 else set()

    def past_lease(self, now: float) -> list[tuple[InflightJob, float]]:
        """Those that run, also with an outcome, and whose leases are over, or would be, each with the seconds since
        then. ``now`` in monotonic seconds.
        """
        with self.lock:
            running = list(self.running)
        late = [(one, -one.lease_left(now)) for one in running]
        return [(one, seconds) for one, seconds in late if seconds >= 0]

    # -- the watchdog's ----------------------------------------------------------------------------------

    def tell_late(self, now: float) -> None:
        """Warn of each handler that goes on beyond its lease, and again when that has doubled. ``now`` in monotonic
        seconds.
        """
        for job, seconds in self.past_lease(now):
            if seconds >= job.tell_late_at:
                job.tell_late_at = 2 * seconds
                ended = None if job.settlement is None else outcome(job.settlement)
                self.context.telemetry.goes_on(job.row, seconds, ended)

    def wants_attention_at(self, now: float) -> float:
        """When another thread is to call :meth:`attend`, in monotonic seconds; infinity for never."""
        due_at = min(self.completer.due_at, self.reports.due_at)
        if not self.unstarted:
            return due_at
        return min(now + self._look_s, due_at, self.bound_at)

    def attend(self, now: float) -> None:
        """Do what the loop's thread would, were it not busy in a handler. Raises as :meth:`settle` does; a settle
        that failed is due again after a back-off.
        """
        is_late = now >= self.bound_at and bool(self.unstarted)
        if is_late:
            self.give_back()
        if is_late or (now >= self.completer.due_at and self.is_here()):
            self.settle()
        if now >= self.reports.due_at and self.is_here():
            self.reports.write()

    # -- a handler's, through its JobInHand --------------------------------------------------------------

    def is_running(self, job: InflightJob) -> bool:
        """Whether its handler runs, also after its outcome."""
        return job in self.running

    def end(self, job: InflightJob, settlement: Settlement, error: BaseException | None = None) -> None:
        """Write down how the run of ``job`` ends, whose handler has raised ``error``, if any. Raises
        ``AlreadySettled``, and where it is settled at once, ``LeaseLost`` and ``StoreError``.
        """
        if self._fork.is_inherited():
            self.check_process()
        is_due = False
        with entry(self.lock, KQueueError, JOB_WRITE):
            if job.settlement is None and job in self.running:
                if job.is_told:
                    self.tell_seconds(job)
                if job.renewal is not None and job.follows():
                    job.leased_at = self._monotonic()  # what its handler still does has one TTR
                if error is not None and self.context.telemetry.tells_errors(error):
                    self.completer.errors[job.row.id, job.row.fence] = error
                if job.max_runtime is not None:
                    self.completer.bounds[job.row.id, job.row.fence] = job.max_runtime
                if self.reports.is_used:
                    settlement = self.reports.with_end(job.row, settlement)
                is_due = self.completer.add(job.row, settlement)
                job.settlement = settlement
                if not self._is_own_thread and self._is_last():
                    self.completer.due_at, is_due = self._monotonic(), True
            else:
                endings.check_repeated(job.row, job in self.running, job.settlement, settlement)
        if not self.context.settle_s and self._run_in is not RunIn.EVENT_LOOP:
            self._settle_now(job)
        elif is_due:
            self._awake()

    def tell(self, job: InflightJob, note: Callable[[RunReports], None]) -> None:
        """Have ``note`` note what the run of ``job`` tells of itself, unless that has ended."""
        self.check_process()
        with entry(self.lock, KQueueError, JOB_WRITE):
            if job.settlement is None and job in self.running:
                note(self.reports)

    def flush(self) -> None:
        """Write what has ended, and what runs have told, now. Raises as :meth:`settle`."""
        self.settle()
        self.reports.write()

    def renew(self, job: InflightJob) -> None:
        """Another TTR from now, durable when it returns. Raises ``LeaseLost``."""
        self.check_process()
        # So that no settle of the same job comes between the check and the write.
        with entry(self.completer.writing, KQueueError, JOB_WRITE):
            with self.lock:
                is_running = job in self.running
                if not is_running or job.settlement is not None:
                    raise endings.refusal(job.row, job.settlement if is_running else None)
            if not self._renews(job, None):
                raise LeaseLost(job.row.id, job.row.fence)

    # -- the operator's ----------------------------------------------------------------------------------

    def delete_by_id(self, job_id: str) -> bool:
        """Delete the job if it runs here and its lease holds, or has ended by its delete; True if so. Durable at
        once, unless a handler asks: then with its own settle, as the handler's own delete.
        """
        if not self.is_here():
            return False
        with entry(self.lock, KQueueError, JOB_WRITE):
            own = [one for one in self.completer.running() if one.row.id == job_id]
            running = [one for one in own if one.settlement is None]
            ended = self.completer.find(job_id)
            threads = [part.threads_of(job_id) for part in self.completer.parts]
        is_handler = threading.get_ident() in set().union(*threads)
        if running:
            newest = max(running, key=lambda one: one.row.fence)
            try:
                newest.delete(newest.row)
            except (AlreadySettled, LeaseLost):
                return False
            newest.is_unwanted = not is_handler
        elif ended is None:
            # Its end may be written before its handler asks again, and what is kept then is not to be deleted.
            return is_handler and any(
                isinstance(one.settlement, Delete | Finish) and not one.is_lost for one in own
            )
        if is_handler:
            return bool(running) or isinstance(ended, Delete | Finish)
        self.settle()
        found = self.context.store.get([job_id])
        return not found or found[0].state == State.DONE

    def threads_of(self, job_id: str) -> set[int]:
        """Where its handler may run, if it is one of these. Under the lock."""
        if self._run_in is not RunIn.THREADS:
            return {self.thread}
        return {one.thread for one in self.running if one.row.id == job_id}

    def drop(self, job_id: str) -> None:
        """The job is deleted: do not start it."""
        if self.is_here():
            with self.lock:
                dropped = [one for one in self.unstarted if one.row.id == job_id]
                self.unstarted = deque(one for one in self.unstarted if one.row.id != job_id)
            for one in dropped:
                one.let_go()
            if dropped:
                self._written()

    # -- blame -------------------------------------------------------------------------------------------

    def mark_alone(self) -> None:
        """Store that the one unstarted job runs alone in its process, with a new lease for it. One whose lease is
        lost is not started. Raises ``StoreError``.
        """
        for job in list(self.unstarted):
            if self._renews(job, True):
                self.alone = job
            else:
                self.context.telemetry.warn(job.row, LeaseLost(job.row.id, job.row.fence))
                self.drop(job.row.id)

    def deny_solitude(self) -> None:
        """Store that no job runs alone any more, if one was said to. Raises ``StoreError``."""
        if self.alone is None or not self.is_here():
            return
        with self.completer.writing:
            with self.lock:
                job, self.alone = self.alone, None
            if job is not None and job.settlement is None:
                try:
                    self._renews(job, False)
                except BaseException:
                    self.alone = job  # it is still said to be
                    raise

    # -- within, and for who runs the handlers -----------------------------------------------------------

    def tell_seconds(self, job: InflightJob) -> None:
        """Its run has ended, and that will be told if somebody listens. Under the lock."""
        if self.context.telemetry.is_heard():
            self.completer.seconds[job.row.id, job.row.fence] = self._monotonic() - job.started_at

    def put_back(
        self,
        jobs: Iterable[InflightJob],
        back_at: tuple[float, float | None, float],
        ending: Callable[[Row, float, float | None, float], Unget] = unstarted,
    ) -> None:
        """Have them go back, ``ending`` so, with the next settle. Under the lock."""
        for one in jobs:
            settlement = self.reports.with_end(one.row, ending(one.row, *back_at))
            self.completer.add(one.row, settlement)
            one.settlement = settlement

    def back_at(self, delay: float = 0.0) -> tuple[float, float | None, float]:
        """(run_at, put_at, asked_at) of what goes back, in ``delay`` seconds. It asks :attr:`now`."""
        now = self.now()
        return now + delay, self.context.doorbell.put_at(now + delay, now), now

    def _is_last(self) -> bool:
        """Whether nothing is in hand but what has just ended, a job or the last of a batch, which nobody comes by
        himself to write, unless it ran in the loop's own thread. Under the lock.
        """
        if self.unstarted or self.calls() != 1:
            return False
        if self.followers and not all(one.settlement is not None for one in self.running):
            return False
        return not self.completer.are_any_beside(self)

    def _settle_now(self, job: InflightJob) -> None:
        """Its handler waits for that. Raises ``LeaseLost``."""
        began = self._monotonic()
        try:
            self.completer.write()
        finally:
            self.seconds_settling += self._monotonic() - began
        if job.is_lost:
            raise LeaseLost(job.row.id, job.row.fence, unknown=job.is_unknown)

    def _without_outcome(self) -> list[InflightJob]:
        with self.lock:
            return [one for one in self.running if one.settlement is None]

    def _renews(self, job: InflightJob, alone: bool | None) -> bool:
        """False if its lease is lost."""
        at = self._monotonic()
        if self.context.store.renew([job.key], self.context.store.now(), alone):
            return False
        job.renewed(at)
        return True
