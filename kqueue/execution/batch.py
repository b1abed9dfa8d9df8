"""The jobs of one window while they are in hand: started one by one, settled together.

Theory of operation. The loop's thread starts the jobs in order. What ends is pending and is written in one settle
(:mod:`kqueue.execution.completer`): when it has waited for ``settle_ms``, when the window ends, at ``flush()``, or
at once where no other job of the window is left to start. While a handler keeps the loop's thread, the watchdog's
thread does that in its place; and when the handler overruns the window's bound, it also gives the unstarted jobs
back, so that they do not wait behind it. Every write is fenced, so whatever either thread does late changes
nothing.

``_lock`` guards the fields and is never held over I/O. A handler may fork, and the lock may be held by the other
thread at that moment: so what a child could come by asks for the process before it takes the lock.
"""

import logging
import math
import os
import threading
from collections import deque
from collections.abc import Sequence

from kqueue.contracts.renewer import RenewalHold
from kqueue.contracts.runs import LeaseKey
from kqueue.contracts.settlements import Delete, Finish, Settlement, unfinished, unstarted
from kqueue.execution import endings
from kqueue.execution.completer import SETTLING, Completer
from kqueue.execution.context import LoopContext
from kqueue.execution.execute import Decision
from kqueue.execution.lease_check import LeaseCheck
from kqueue.execution.overtime import TimeLeft, time_left, unended
from kqueue.model.errors import AlreadySettled, KQueueError, LeaseLost
from kqueue.model.job import JobInHand, Priority, Row
from kqueue.model.retry import RetryPolicy
from kqueue.system.locks import entry

#: Seconds from a window's start after which its unstarted jobs are given back: twice the work it should hold.
BOUND_S = 0.100
#: What a claim may take of the leases that it gets, before they are renewed.
CLAIMS_PART = 0.05
#: Seconds between two looks of the watchdog at least.
SHORTEST_LOOK_S = 0.005


class Batch:
    """Holds the jobs of one window. See the module's text."""

    def __init__(self, rows: Sequence[Row], context: LoopContext, leased_at: float, alone: bool = False) -> None:
        """``leased_at``: when leases began, in monotonic seconds. ``alone``: claimed as alone in the process."""
        self._context = context
        self._pid = os.getpid()
        #: The loop's.
        self.thread = threading.get_ident()
        self._leased_at = leased_at
        self._alone = alone and len(rows) == 1
        #: Monotonic seconds; runs from the first start, so that a slow claim does not use it up.
        self._bound_at = math.inf
        self._lock = threading.RLock()
        self._settling = Completer(context, self._lock)
        #: Whether each start and end is to be told.
        self.is_heard = context.telemetry.is_heard()
        self._unstarted = deque(rows)
        #: The job that was started last, until the next one is or the batch is closed; and how it ended, if it has.
        self._running: Row | None = None
        self._settlement: Settlement | None = None
        #: When it was started, in monotonic seconds.
        self._started_at = 0.0
        #: The last job that was renewed by itself, and when its lease began, in monotonic seconds.
        self._renewed: tuple[str, float] | None = None
        #: Of the renewer that renews leases while handlers run, if any of them wants it.
        self.renewal: RenewalHold | None = None
        #: Seconds that the running job may take, where its lease follows it; None: without end.
        self.max_runtime: float | None = None
        #: How the running job's run ends, if its coroutine was cancelled and it settles nothing itself.
        self._cut: Decision | None = None
        self._lease_check: LeaseCheck | None = None
        #: The running job, if it was deleted by its id and not by its handler.
        self._deleted: Row | None = None
        #: Seconds of handlers' runs that went into settles, which are the store's and not the handlers'.
        self.seconds_settling = 0.0

    # -- the loop's --------------------------------------------------------------------------------------

    def leased_since(self) -> float:
        """When the leases began, in monotonic seconds. Before the first start it renews them, if they are late."""
        with self._lock:
            is_late = self._is_late(self._context.clock.monotonic())
        if is_late:
            self._renew_all()
        return self._leased_at

    def start(self, now: float) -> JobInHand | None:
        """The next job to run, or None; the one before has ended. ``now`` in monotonic seconds.

        A lease is the handler's time: where the claim took a part of it that matters, all are renewed at the
        window's begin. Later a job with under half its lease left is never started: it and the rest are given back.
        """
        with self._lock:
            self._running = self._settlement = self._cut = None
            if not self._is_late(now):
                return self._next(now)
        if self._bound_at == math.inf:
            self._renew_all()
        else:
            self.give_back()
        with self._lock:
            return self._next(now)

    def tell_start(self) -> float:
        """Tell that the handler of the running job is about to be called; returns when, in monotonic seconds: its
        time does not begin before all have listened. Raises an interrupt that comes meanwhile.
        """
        if self._running is not None:
            self._context.telemetry.started(self._running)
        self._started_at = self._context.clock.monotonic()
        return self._started_at

    def settle_if_due(self, now: float) -> bool:
        """Settle if a job has waited for it long enough; whether it did. ``now`` in monotonic seconds."""
        due = now >= self._settling.due_at and os.getpid() == self._pid
        if due:
            self.settle()
        return due

    def close(self) -> None:
        """Give back what has not started, or was interrupted, and settle everything.

        Does nothing in a child that a handler forked: the window is its parent's.
        """
        if os.getpid() != self._pid:
            return
        with self._lock:
            if self._running is not None and self._settlement is None:
                if self.is_heard:
                    self._settling.seconds[self._running.id] = self._ran_for()
                self._unstarted.appendleft(self._running)
            self._running = self._settlement = None
        self.give_back()
        self.settle()
        self._settling.await_rings()

    def give_back(self, delay: float = 0.0) -> None:
        """What has not started is to go back, to run in ``delay`` seconds at the earliest, with the next settle."""
        back_at = self._back_at(delay)
        with self._lock:
            self._give_back_unstarted(*back_at)

    def give_up(self) -> None:
        """Give back the running job too, now, although its handler goes on: this process is about to end, and
        others are not to wait for its leases. Whatever the handler still does with its job is refused.

        Called by another thread than the loop's. Raises as :meth:`settle` does. Does nothing in a forked child.
        """
        if os.getpid() != self._pid:
            return
        back_at = self._back_at()
        with self._lock:
            row = self._running
            if row is not None and self._settlement is None:
                self._settlement = unfinished(row, *back_at)
                self._settling.add(row, self._settlement)
            self._give_back_unstarted(*back_at)
        self.settle()

    def settle(self) -> None:
        """Write what has ended, now.

        Raises ``StoreError``; then nothing is forgotten, and the next settle writes it again.
        """
        self._check_process()
        self._settling.write()

    # -- the supervisor's --------------------------------------------------------------------------------

    def lease_left(self, now: float) -> float | None:
        """Seconds that the running job's lease still holds, as far as this process knows; below 0 once it is over.
        None where no handler runs, or its job is settled. ``now`` in monotonic seconds.
        """
        with self._lock:
            row = self._running
            if row is None or self._settlement is not None:
                return None
            return row.ttr if self._follows(row) else self._leased_since(row) + row.ttr - now

    def past_lease(self, at: float) -> list[Row]:
        """The running job, if it has no outcome and its lease was over ``at``, in monotonic seconds."""
        row, left = self._running, self.lease_left(at)
        return [] if row is None or left is None or left > 0 else [row]

    # -- its coroutine's event loop's --------------------------------------------------------------------

    def time_left(self) -> TimeLeft:
        """What the running job's coroutine still has, also after its outcome."""
        with self._lock:
            row = self._running
            if row is None:
                raise RuntimeError("no job of the window runs")
            return time_left(
                row,
                self._context.clock.monotonic(),
                leased_at=self._leased_since(row),
                started_at=self._started_at,
                max_runtime=self.max_runtime,
                follows=self._follows(row),
            )

    def cut(self, decision: Decision) -> None:
        """The running job's coroutine is cancelled, since its time is over."""
        self._cut = decision

    def cut_short(self) -> Decision | None:
        """How the run ends if its handler settles nothing itself; None if it was not cancelled."""
        return self._cut

    def abandon(self) -> None:
        """It has not ended, although it was cancelled."""
        row, cut = self._running, self._cut
        if row is not None and cut is not None:
            self._cut = unended(cut)
            text = "%s: it is abandoned, and what it still does with its job changes nothing"
            self._context.telemetry.log(logging.WARNING, row, text, self._cut.reason)

    # -- the watchdog's ----------------------------------------------------------------------------------

    def wants_attention_at(self, now: float) -> float:
        """When another thread is to call :meth:`attend`, in monotonic seconds; infinity for never.

        What the running job will end with is not known before it ends, so while others wait for it there is
        something to look at every ``settle_ms``.
        """
        with self._lock:
            if not self._unstarted:
                return self._settling.due_at
            look_at = now + max(SHORTEST_LOOK_S, self._context.settle_s)
            return min(look_at, self._settling.due_at, self._bound_at)

    def attend(self, now: float) -> None:
        """Do what the loop's thread would, were it not busy in a handler. Raises as :meth:`settle` does; a settle
        that failed is due again after a back-off.
        """
        if now >= self._bound_at and self._unstarted:
            self.give_back()
            self.settle()
        else:
            self.settle_if_due(now)

    # -- the handler's, through its JobInHand ------------------------------------------------------------

    def is_settled(self) -> bool:
        """Whether the running job has its outcome, or none is to be had here: the process is a forked child."""
        return self._settlement is not None or os.getpid() != self._pid or self._running is None

    def raised(self, error: BaseException) -> None:
        """The handler of the running job raised ``error``."""
        row = self._running
        if row is not None and os.getpid() == self._pid:
            self._context.telemetry.raised(row, error)

    def delete(self, row: Row) -> None:
        """The job is finished. Asked again after it could not be stored, it is tried again."""
        self._end(row, self._context.delete(row))

    def retry(self, row: Row, reason: str, delay: float | None) -> None:
        """Again later, or dead if the tries are used up. ``delay`` in seconds; None: by the retry policy."""
        self.end(row, endings.again(reason, delay))

    def unget(self, row: Row, priority: Priority | str | int | None, delay: float) -> None:
        """Back unrun. ``delay`` in seconds."""
        self.end(row, endings.back(priority, delay))

    def policy(self, row: Row) -> RetryPolicy:
        """The retry policy of the job's type."""
        return self._context.options.of(row.type).retry

    def end(self, row: Row, decision: Decision) -> None:
        """End the run as it was decided."""
        self._end(row, self._context.settlement(row, decision))

    def renew(self, row: Row) -> None:
        """Another TTR from now."""
        self._check_process()
        # So that no settle of the same job comes between the check and the write.
        with entry(self._settling.writing, KQueueError, SETTLING):
            with self._lock:
                if self._running is not row or self._settlement is not None:
                    raise endings.refusal(row, self._settlement if self._running is row else None)
            at = self._context.clock.monotonic()
            if self._fails_to_renew(row, None):
                raise LeaseLost(row.id, row.fence)
        self._lease_check_of(row).renewed(at)

    def lease_lost(self, row: Row) -> bool:
        """Whether the job is not safely ours any more."""
        self._check_process()
        if self._running is not row or self._deleted is row:
            return True
        if self._settlement is not None:
            return row.id in self._settling.lost
        return self._lease_check_of(row).lease_lost()

    def cancelled(self, row: Row) -> bool:
        """Whether nobody wants its result any more."""
        self._check_process()
        if self._running is not row or self._settlement is not None:
            return self._deleted is row
        return self._lease_check_of(row).cancelled()

    def _lease_check_of(self, row: Row) -> LeaseCheck:
        lease_check = self._lease_check
        if lease_check is None or lease_check.row is not row:
            context = self._context
            lease_check = LeaseCheck(row, context.store, context.clock.monotonic, self._leased_at, self.renewal)
            self._lease_check = lease_check
        return lease_check

    def _end(self, row: Row, settlement: Settlement) -> None:
        self._check_process()
        with entry(self._lock, KQueueError, SETTLING):
            before = self._settlement
            if self._running is row and before is None:
                if self.is_heard:
                    self._settling.seconds[row.id] = self._ran_for()
                if self._follows(row):
                    self._renewed = row.id, self._context.clock.monotonic()  # what it still does has one TTR
                self._settling.add(row, settlement)
                self._settlement = settlement
            else:
                endings.check_repeated(row, self._running is row, before, settlement)
            is_last = not self._unstarted
        if is_last:
            self._settle_last(row)

    def _settle_last(self, row: Row) -> None:
        """At once, since no other job of the window is left to start. Raises ``LeaseLost``."""
        began = self._context.clock.monotonic()
        try:
            self._settling.write()
        finally:
            self.seconds_settling += self._context.clock.monotonic() - began
        self._settling.check(row)

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise endings.in_parents_hand(self._pid, os.getpid())

    # -- the operator's ----------------------------------------------------------------------------------

    def delete_by_id(self, job_id: str) -> bool:
        """Delete the job if it is the running one and its lease holds, or one that has ended by its delete; True if
        so. Durable at once, unless its own handler asks.
        """
        if os.getpid() != self._pid:
            return False
        with entry(self._lock, KQueueError, SETTLING):
            row = self._running
            ended = self._settling.find(job_id)
        if ended is not None:
            self.settle()
            return isinstance(ended, Delete | Finish) and job_id not in self._settling.lost
        if row is None or row.id != job_id:
            return False
        try:
            self.delete(row)
            if threading.get_ident() != self.thread:
                self._deleted = row
                self.settle()
        except (AlreadySettled, LeaseLost):
            return False
        return row.id not in self._settling.lost

    def drop(self, job_id: str) -> None:
        """The job is deleted: do not start it."""
        if os.getpid() == self._pid:
            with self._lock:
                self._unstarted = deque(row for row in self._unstarted if row.id != job_id)

    # -- blame -------------------------------------------------------------------------------------------

    @property
    def is_alone(self) -> bool:
        """Whether it is stored that the window's one job runs alone in its process."""
        return self._alone

    def mark_alone(self) -> None:
        """Store that the window's one job runs alone, with a new lease for it. Raises ``LeaseLost``."""
        row = self._mark(True)
        if row is not None:
            raise LeaseLost(row.id, row.fence)

    def deny_solitude(self) -> None:
        """Store that the window's one job does not run alone any more, if it was said to."""
        if self._alone:
            self._mark(False)

    def _mark(self, alone: bool) -> Row | None:
        """Returns the row if its lease is lost; one that has ended meanwhile is passed over."""
        with self._settling.writing:
            with self._lock:
                ended = self._running is not None and self._settlement is not None
                row = self._running or next(iter(self._unstarted), None)
            lost = row is not None and not ended and self._fails_to_renew(row, alone)
            self._alone = alone
            return row if lost else None

    # -- within ------------------------------------------------------------------------------------------

    def _back_at(self, delay: float = 0.0) -> tuple[float, float | None, float]:
        """(run_at, put_at, asked_at) of what goes back, in ``delay`` seconds."""
        now = self._context.store.now()
        return now + delay, self._context.doorbell.put_at(now + delay, now), now

    def _give_back_unstarted(self, run_at: float, put_at: float | None, asked_at: float) -> None:
        """Under the lock."""
        for row in self._unstarted:
            self._settling.add(row, unstarted(row, run_at, put_at, asked_at))
        self._unstarted.clear()

    def _is_late(self, now: float) -> bool:
        """Under the lock."""
        if not self._unstarted:
            return False
        part = CLAIMS_PART if self._bound_at == math.inf else 0.5
        return now - self._leased_at > part * self._unstarted[0].ttr

    def _next(self, now: float) -> JobInHand | None:
        """Under the lock."""
        if not self._unstarted:
            return None
        if self._bound_at == math.inf:
            self._bound_at = now + BOUND_S
        row = self._running = self._unstarted.popleft()
        self._started_at = now
        return JobInHand(row, self)

    def _follows(self, row: Row) -> bool:
        """Whether the running job's lease is renewed while its handler runs. Not once it has its outcome."""
        return self._settlement is None and self.renewal is not None and self.renewal.renews(row.id)

    def _leased_since(self, row: Row) -> float:
        """Under the lock. When the running job's lease began, as far as this process knows."""
        renewed = self._renewed
        return self._leased_at if renewed is None or renewed[0] != row.id else renewed[1]

    def _ran_for(self) -> float:
        """Seconds since the running job was started."""
        return self._context.clock.monotonic() - self._started_at

    def _renew_all(self) -> None:
        store = self._context.store
        leased_at = self._context.clock.monotonic()
        with self._lock:
            held = [LeaseKey(row.id, row.fence, row.ttr) for row in self._unstarted]
        lost = store.renew(held, store.now())
        with self._lock:
            self._unstarted = deque(row for row in self._unstarted if row.id not in lost)
            self._leased_at = leased_at

    def _fails_to_renew(self, row: Row, alone: bool | None) -> bool:
        store = self._context.store
        leased_at = self._context.clock.monotonic()
        lost = bool(store.renew([LeaseKey(row.id, row.fence, row.ttr)], store.now(), alone))
        if not lost:
            self._renewed = row.id, leased_at
        return lost
