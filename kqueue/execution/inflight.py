"""The jobs of one loop of coroutines while they are in hand: many at once, settled together.

Theory of operation. A job is *claimed* by the loop's thread, *boards* when it is handed to the event loop, is *in
the air* while its coroutine runs, and lands when that has ended. Three threads come here. The event loop's runs the
coroutines and is never made to wait: what ends there is only noted, under a lock that is never held over I/O. The
watchdog's writes it to the store, ``settle_ms`` after the first that waits, or at once if nothing else is in the
air. The loop's own claims more as soon as there are places. Every write is fenced, as everywhere.

A coroutine that has had its time is cancelled by the event loop. Where one keeps the event loop, so that it cannot
do this, the watchdog sees it before the end of the lease: see ``late``.

Jobs that board while a coroutine keeps the event loop busy would wait behind it: the watchdog gives them back after
``BOUND_S``, as it does with those of a window.

Suspects (see :mod:`kqueue.contracts.budget`) fly in small groups, the smaller the more deaths they have seen.
"""

import math
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack

from kqueue.contracts.budget import SOLITUDE_S, suspect_jobs
from kqueue.contracts.settlements import Delete, Finish, Settlement, Unget, unfinished, unstarted
from kqueue.execution import endings
from kqueue.execution.batch import BOUND_S, CLAIMS_PART
from kqueue.execution.completer import SETTLING, Completer
from kqueue.execution.context import LoopContext
from kqueue.execution.inflight_job import InflightJob
from kqueue.model.errors import AlreadySettled, KQueueError, LeaseLost
from kqueue.model.job import Row, State
from kqueue.system.locks import entry

#: A job with less than this part of its lease left is not started.
LEAST_PART = 0.5
#: Seconds between two looks whether coroutines are late, at most and at least.
LOOK_S = 1.0
SHORTEST_LOOK_S = 0.02
#: The part of the time that a cancelled coroutine has to end, after which one that is still there counts as late.
#: After twice that time its lease is over.
LATE_PART = 1.6


class InflightJobs:
    """Those of one loop. See the module's text."""

    def __init__(
        self,
        context: LoopContext,
        *,
        is_loop_thread: Callable[[], bool],
        awake: Callable[[], None],
        ring: Callable[[], None],
        keeps_loop: Callable[[InflightJob], bool | None] = lambda job: None,
        late: Callable[[list[InflightJob]], None] = lambda inflight: None,
    ) -> None:
        """``is_loop_thread()``: whether the event loop's thread asks. ``awake()`` tells the watchdog that something
        is to be settled; ``ring()`` wakes the loop's own thread, where it waits for a landing.

        ``keeps_loop(job)``: whether it is this one's code that runs now; None if it is not known whose.
        ``late(inflight)``: they should have been cancelled, and the event loop does not come to them.
        """
        self._context = context
        self._store = context.store
        self._monotonic = context.clock.monotonic
        self._pid = os.getpid()
        self._is_loop_thread = is_loop_thread
        self._awake = awake
        self._ring = ring
        self._keeps_loop = keeps_loop
        self._late = late
        self._lock = threading.RLock()
        self._settling = Completer(context, self._lock)
        self._claimed: list[InflightJob] = []
        self._boarding: list[InflightJob] = []
        self._air: set[InflightJob] = set()
        #: When to see whether some are late, in monotonic seconds.
        self._look_at = 0.0
        #: When those that board have waited for long enough, in monotonic seconds.
        self._bound_at = math.inf
        #: Whether the event loop has yet to come to those that boarded.
        self._is_called = False
        #: The job that is stored to be alone in its process.
        self._alone: InflightJob | None = None
        #: Whether the loop's thread waits for a landing.
        self._is_awaited = False
        #: The process's window that is left once nothing is in hand.
        self._window: ExitStack | None = None
        #: The store's time, and the monotonic time when it was read.
        self._time = (0.0, 0.0)
        #: See :class:`kqueue.loops.registry.Jobs`: the event loop's, which a handler may keep. -1: it is not known
        #: yet.
        self.thread = -1

    @property
    def context(self) -> LoopContext:
        """What its inflight work with."""
        return self._context

    # -- the loop's --------------------------------------------------------------------------------------

    def read_clock(self) -> None:
        """Ask for the store's time, which may ask a server, so that :meth:`now` need not."""
        self._time = (self._store.now(), self._monotonic())

    def now(self) -> float:
        """The store's time by the last :meth:`read_clock`. Never waits."""
        at, read_at = self._time
        return at + self._monotonic() - read_at

    def places(self, concurrency: int) -> int:
        """How many more jobs may be claimed. If none, the loop's thread is rung when that may have changed."""
        since = self._monotonic() - SOLITUDE_S
        with self._lock:
            most = min(concurrency, _most(one for one in self._air if one.leased_at > since))
            places = 0 if self._is_called else max(0, int(most) - len(self._air))
            self._is_awaited = not places
            return places

    def claim(self, rows: Sequence[Row], leased_at: float) -> float:
        """``rows`` are claimed; ``leased_at``: when their leases began, in monotonic seconds. Returns how many may
        be in the air, with these: infinity if there is no suspect among them.
        """
        with self._lock:
            self._claimed = [InflightJob(row, leased_at, self) for row in rows]
            return _most(self._claimed)

    def fits(self, most: float) -> bool:
        """Whether at most ``most`` are in the air with those claimed. If not, the loop's thread is rung at the next
        landing.
        """
        with self._lock:
            self._is_awaited = len(self._air) + len(self._claimed) > most
            return not self._is_awaited

    def renew_late(self) -> None:
        """Another lease for those claimed, where the claim or a wait took a part of it that matters.

        Raises ``StoreError``.
        """
        now = self._monotonic()
        with self._lock:
            late = [one for one in self._claimed if now - one.leased_at > CLAIMS_PART * one.row.ttr]
        if late:
            lost = self._store.renew([one.held for one in late], self._store.now())
            with self._lock:
                for one in late:
                    one.renewed(now)
                self._claimed = [one for one in self._claimed if one.row.id not in lost]

    def claimed(self) -> list[InflightJob]:
        """Those that have not boarded."""
        with self._lock:
            return self._claimed.copy()

    def board(self) -> None:
        """Those claimed are to start. The caller has the event loop call :meth:`take_off`."""
        with self._lock:
            self._boarding, self._claimed = self._claimed, []
            self._is_called, self._bound_at = True, self._monotonic() + BOUND_S

    def give_back(self, delay: float = 0.0) -> None:
        """What has not started is to go back, to run in ``delay`` seconds at the earliest, with the next settle."""
        with self._lock:
            unstarted = [*self._claimed, *self._boarding]
            self._give_back(unstarted, delay)
            self._claimed, self._boarding, self._bound_at = [], [], math.inf
        _let_go(unstarted)
        if unstarted:
            self._awake()

    def in_the_air(self) -> int:
        """How many coroutines run. If any, the loop's thread is rung at the next landing."""
        with self._lock:
            self._is_awaited = bool(self._air)
            return len(self._air)

    def are_under_way(self) -> bool:
        """Whether any runs or is about to. If so, the loop's thread is rung at the next landing."""
        with self._lock:
            self._is_awaited = self._is_called or bool(self._air)
            return self._is_awaited

    def is_failing(self) -> bool:
        """Whether what has ended could not be written."""
        return self._settling.is_failing()

    def is_written(self) -> bool:
        """Whether all that has ended is written."""
        return self._settling.due_at == math.inf

    def writes(self) -> int:
        """How often something that has ended was written, and its pointers put."""
        return self._settling.writes

    def await_rings(self) -> None:
        """Wait until what came back is in the tubes too."""
        self._settling.await_rings()

    def keep(self, window: ExitStack) -> None:
        """Leave ``window`` once nothing is in hand: until then no suspect of another loop is alone."""
        with self._lock:
            if self._window is None and self._is_holding():
                self._window = window.pop_all()

    def give_up(self) -> None:
        """Give back all that is in hand, now, although coroutines go on: see
        :meth:`kqueue.loops.registry.Jobs.give_up`.
        """
        if self.is_here():
            self.give_back()
            with self._lock:
                flying = (one for one in self._air if one.settlement is None)
                self._give_back(flying, 0.0, unfinished)
            self.settle()

    def lease_left(self, now: float) -> float | None:
        """Of the coroutine that keeps the event loop, if it is one of these; if it is not known whose does, of the
        one that has least. Asked all the time, also where none does.
        """
        with self._lock:
            flying = [one for one in self._air if one.settlement is None]
        known = [(one, self._keeps_loop(one)) for one in flying]
        return min((_lease_left(one, now) for one, keeps in known if keeps is not False), default=None)

    def past_lease(self, at: float) -> list[Row]:
        """Those in the air that have no outcome and whose leases were over ``at``, in monotonic seconds."""
        with self._lock:
            return [one.row for one in self._air if one.settlement is None and _lease_left(one, at) <= 0]

    # -- the event loop's --------------------------------------------------------------------------------

    def take_off(self, is_over: bool) -> list[InflightJob]:
        """Those whose coroutines are to start now. If ``is_over``, or with under half its lease left, a job is
        given back instead.
        """
        now = self._monotonic()
        starting: list[InflightJob] = []
        late: list[InflightJob] = []
        with self._lock:
            for one in self._boarding:
                is_late = is_over or now - one.leased_at > LEAST_PART * one.row.ttr
                (late if is_late else starting).append(one)
            self._boarding, self._bound_at, self._is_called = [], math.inf, False
            if not self._air:
                self._look_at = now + LOOK_S
            for one in starting:
                one.started_at = now
                self._look_at = min(self._look_at, now + _late_in(one))
            self._air.update(starting)
            self._give_back(late, 0.0)
        _let_go(late)
        if late:
            self._awake()
        self._tell()
        return starting

    def land(self, job: InflightJob) -> bool:
        """The coroutine of ``job`` has ended, or is abandoned: its place is free. It has its outcome, or its
        handler was never called. False if it has landed before.
        """
        with self._lock:
            was_there = job in self._air
            self._air.discard(job)
            is_cut_off = was_there and job.settlement is None
            if is_cut_off:
                self._tell_seconds(job)
                self._give_back([job], 0.0, endings.unbegun)
            if self._alone is job:
                self._alone = None
        if not was_there:
            self._tell()
            return False
        self._context.telemetry.ran({job.row.type: [self._monotonic() - job.started_at]})
        job.let_go()
        if is_cut_off:
            self._awake()
        self._leave_if_empty()
        self._tell()
        return True

    # -- the watchdog's ----------------------------------------------------------------------------------

    def wants_attention_at(self, now: float) -> float:
        """When another thread is to call :meth:`attend`, in monotonic seconds; infinity for never."""
        look_at = self._look_at if self._air else math.inf
        return min(self._settling.due_at, self._bound_at, look_at)

    def attend(self, now: float) -> None:
        """Give back what waits for a busy event loop, and write what has ended. Raises as :meth:`settle` does."""
        if now >= self._look_at:
            self._look_for_late(now)
        late: list[InflightJob] = []
        with self._lock:
            is_late = now >= self._bound_at
            if is_late:
                late, self._boarding, self._bound_at = self._boarding, [], math.inf
                self._give_back(late, 0.0)
        _let_go(late)
        if is_late or now >= self._settling.due_at:
            self.settle()

    # -- a handler's, through its JobInHand --------------------------------------------------------------

    def is_here(self) -> bool:
        """Whether this is the loop's own process, and no child that a handler forked."""
        return os.getpid() == self._pid

    def end(self, job: InflightJob, settlement: Settlement) -> None:
        """Write down how the run of ``job`` ends. Raises ``AlreadySettled``. Never waits."""
        self._check_process()
        with self._lock:
            if job not in self._air or job.settlement is not None:
                endings.check_repeated(job.row, job in self._air, job.settlement, settlement)
                return
            is_due = self.is_written()
            self._tell_seconds(job)
            if job.follows():
                job.leased_at = self._monotonic()  # what its coroutine still does has one TTR
            job.settlement = settlement
            self._settling.add(job.row, settlement)
            if len(self._air) == 1 and not self._boarding:
                self._settling.due_at, is_due = self._monotonic(), True
        if is_due:
            self._awake()

    def renew(self, job: InflightJob) -> None:
        """Another TTR from now, durable when it returns. Raises ``LeaseLost``."""
        self._check_process()
        # So that no settle of the same job comes between the check and the write.
        with entry(self._settling.writing, KQueueError, SETTLING):
            with self._lock:
                is_in_the_air = job in self._air
                if not is_in_the_air or job.settlement is not None:
                    raise endings.refusal(job.row, job.settlement if is_in_the_air else None)
            at = self._monotonic()
            if self._store.renew([job.held], self._store.now()):
                raise LeaseLost(job.row.id, job.row.fence)
        job.renewed(at)

    def is_over(self, job: InflightJob) -> bool:
        """Whether its run is over, or was not ours any more when it ended."""
        with self._lock:
            return job not in self._air or job.is_lost or job.row.id in self._settling.lost

    # -- the operator's ----------------------------------------------------------------------------------

    def settle(self) -> None:
        """Write what has ended, now. Raises ``StoreError``; then nothing is forgotten, and it is due again."""
        self._check_process()
        self._settling.write()
        with self._lock:
            for one in self._air:
                one.is_lost |= one.row.id in self._settling.lost
            self._settling.lost.clear()  # it would grow as long as the loop lives
            self._settling.unknown.clear()
        self.read_clock()
        self._leave_if_empty()

    def delete_by_id(self, job_id: str) -> bool:
        """Delete the job if it is in the air and its lease holds, or has ended by its delete; True if so. Durable
        at once, or with the next settle if a coroutine asks.
        """
        if not self.is_here():
            return False
        with entry(self._lock, KQueueError, SETTLING):
            ended = self._settling.find(job_id)
            running = [one for one in self._air if one.row.id == job_id and one.settlement is None]
        if running:
            newest = max(running, key=lambda one: one.row.fence)
            try:
                newest.delete(newest.row)
            except AlreadySettled:
                return False
        elif not isinstance(ended, Delete | Finish):
            return False
        if self._is_loop_thread():
            return True
        self.settle()
        found = self._store.get([job_id])
        return not found or found[0].state == State.DONE

    def drop(self, job_id: str) -> None:
        """The job is deleted: do not start it."""
        if self.is_here():
            with self._lock:
                dropped = [one for one in (*self._claimed, *self._boarding) if one.row.id == job_id]
                self._claimed = [one for one in self._claimed if one.row.id != job_id]
                self._boarding = [one for one in self._boarding if one.row.id != job_id]
            _let_go(dropped)

    # -- blame -------------------------------------------------------------------------------------------

    def mark_alone(self) -> None:
        """Store that the one claimed job runs alone in its process, with a new lease for it. One whose lease is
        lost is claimed no more. Raises ``StoreError``.
        """
        began = self._monotonic()
        for job in self._claimed.copy():
            if self._store.renew([job.held], self._store.now(), True):
                self._context.telemetry.warn(job.row, LeaseLost(job.row.id, job.row.fence))
                self.drop(job.row.id)
            else:
                job.renewed(began)
                self._alone = job

    def deny_solitude(self) -> None:
        """Store that no job runs alone any more, if one was said to. Raises ``StoreError``."""
        if self._alone is None or not self.is_here():
            return
        with self._settling.writing:
            with self._lock:
                job, self._alone = self._alone, None
            if job is not None and job.settlement is None:
                at = self._monotonic()
                try:
                    lost = self._store.renew([job.held], self._store.now(), False)
                except BaseException:
                    self._alone = job  # it is still said to be
                    raise
                if not lost:
                    job.renewed(at)

    # -- within ------------------------------------------------------------------------------------------

    def _look_for_late(self, now: float) -> None:
        with self._lock:
            flying = list(self._air)
        late_in = [(one, _late_in(one)) for one in flying]
        late = [one for one, seconds in late_in if seconds <= 0]
        if late:
            self._late(late)
        soonest = min((seconds for _, seconds in late_in if seconds > 0), default=math.inf)
        self._look_at = now + min(LOOK_S, max(soonest, SHORTEST_LOOK_S))

    def _tell_seconds(self, job: InflightJob) -> None:
        """Under the lock."""
        if self._context.telemetry.is_heard():
            self._settling.seconds[job.row.id] = self._monotonic() - job.started_at

    def _give_back(
        self,
        inflight: Iterable[InflightJob],
        delay: float,
        ending: Callable[[Row, float, float | None, float], Unget] = unstarted,
    ) -> None:
        """Under the lock."""
        now = self.now()
        put_at = self._context.doorbell.put_at(now + delay, now)
        for one in inflight:
            one.settlement = ending(one.row, now + delay, put_at, now)
            self._settling.add(one.row, one.settlement)

    def _is_holding(self) -> bool:
        """Under the lock. Those claimed do not count: they stand in a window of the loop's thread."""
        return bool(self._air or self._boarding) or not self.is_written()

    def _leave_if_empty(self) -> None:
        with self._lock:
            if self._is_holding() or self._window is None:
                return
            window, self._window = self._window, None
        window.close()

    def _tell(self) -> None:
        """Tell the loop's thread, if it waits for it, that there may be places."""
        with self._lock:
            is_awaited, self._is_awaited = self._is_awaited, False
        if is_awaited:
            self._ring()

    def _check_process(self) -> None:
        if not self.is_here():
            raise endings.in_parents_hand(self._pid, os.getpid())


def _let_go(inflight: Iterable[InflightJob]) -> None:
    for one in inflight:
        one.let_go()


def _late_in(job: InflightJob) -> float:
    """Seconds until the event loop should have cancelled its coroutine, and let it end or abandoned it."""
    left = job.time_left()
    return left.seconds + LATE_PART * left.ending_s


def _lease_left(job: InflightJob, now: float) -> float:
    return job.row.ttr if job.follows() else job.leased_at + job.row.ttr - now


def _most(inflight: Iterable[InflightJob]) -> float:
    """How many may be in the air together, if these are."""
    return min((suspect_jobs(one.row.suspicion) for one in inflight if one.row.suspicion), default=math.inf)
