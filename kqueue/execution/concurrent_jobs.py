"""The jobs of one dispatcher: many run at once, in threads or as coroutines of an event loop.

Theory of operation. A job is *claimed* by the dispatcher's thread, *starts* when a thread takes it or when it is
handed to the event loop, *runs* while its handler does, and has *ended* when that has. Who runs handlers is never
made to wait: what ends there is only noted, under a lock that is never held over I/O. The watchdog's thread writes
it to the store, ``settle_ms`` after the first that waits, or at once if nothing else runs. The dispatcher's own
claims more as soon as there are places, for threads some ahead: then none of them waits for a commit, and who takes
the one that leaves few rings. See :mod:`kqueue.execution.inflight`.

A coroutine that has had its time is cancelled by the event loop. Where one keeps the event loop, so that it cannot
do this, the watchdog sees it before the end of the lease: see ``late``.

Suspects (see :mod:`kqueue.contracts.budget`) run in small groups, the smaller the more deaths they have seen.
"""

import math
import threading
from collections.abc import Callable, Collection, Iterable
from contextlib import ExitStack

from kqueue.contracts.budget import SOLITUDE_S, suspect_jobs
from kqueue.execution import endings
from kqueue.execution.context import LoopContext
from kqueue.execution.inflight import BOUND_S, LEAST_PART, InflightJobs
from kqueue.execution.inflight_job import InflightJob

#: Seconds between two looks whether coroutines are late, at most and at least.
LOOK_S = 1.0
SHORTEST_LOOK_S = 0.02
#: The part of the time that a cancelled coroutine has to end, after which one that is still there counts as late.
#: After twice that time its lease is over.
LATE_PART = 1.6


class ConcurrentJobs:
    """The jobs of one dispatcher, many at once: see the module's text."""

    def __init__(
        self,
        context: LoopContext,
        *,
        awake: Callable[[], None],
        ring: Callable[[], None],
        keeps_loop: Callable[[InflightJob], bool | None] = lambda job: None,
        late: Callable[[list[InflightJob]], None] = lambda late: None,
        threads: bool = False,
    ) -> None:
        """``awake()`` tells the watchdog that something is to be settled; ``ring()`` wakes the dispatcher's thread,
        where it waits for an end.

        ``keeps_loop(job)``: whether it is this one's code that runs now; None if it is not known whose.
        ``late(jobs)``: they should have been cancelled, and the event loop does not come to them. ``threads``:
        whether their handlers run in threads, which get what they run by :meth:`take`.
        """
        self._context = context
        self._store = context.store
        self._monotonic = context.clock.monotonic
        self._awake = awake
        self._ring = ring
        self._late = late
        self.jobs = InflightJobs(
            context,
            now=self.now,
            look_s=max(SHORTEST_LOOK_S, context.settle_s) if threads else math.inf,
            awake=awake,
            written=self._written,
            keeps=keeps_loop,
            threads=threads,
        )
        self._threads = threads
        self._lock = self.jobs.lock
        #: When to see whether some coroutines are late, in monotonic seconds.
        self._look_at = math.inf
        #: The dispatcher's thread is to be rung when no more than so many wait for a thread; -1: not for that.
        self._few = -1
        #: (type, seconds) of those that have ended since :meth:`spent`.
        self._spent: list[tuple[str, float]] = []
        #: Whether the event loop has yet to come to those that boarded.
        self._is_called = False
        #: Whether the loop's thread waits for an end.
        self._is_awaited = False
        #: The process's window that is left once nothing is in hand.
        self._window: ExitStack | None = None
        #: The store's time, and the monotonic time when it was read.
        self._time = (0.0, 0.0)

    # -- the loop's --------------------------------------------------------------------------------------

    def read_clock(self) -> None:
        """Ask for the store's time, which may ask a server, so that :meth:`now` need not."""
        self._time = (self._store.now(), self._monotonic())

    def now(self) -> float:
        """The store's time by the last :meth:`read_clock`. Never waits."""
        at, read_at = self._time
        return at + self._monotonic() - read_at

    def places(self, number: int, ahead: int = 0) -> int:
        """How many more jobs may be claimed, where ``number`` may run and ``ahead`` wait for a thread. If none, the
        dispatcher's thread is rung when that may have changed: not before half of those that wait are taken.
        """
        since = self._monotonic() - SOLITUDE_S
        with self._lock:
            running, waiting = self.jobs.running, self.jobs.unstarted
            most = min(number + ahead, _most(one for one in (*running, *waiting) if one.leased_at > since))
            places = 0 if self._is_called else max(0, int(most) - len(running) - len(waiting))
            few = ahead // 2
            if places and len(waiting) > few:
                places, self._few, self._is_awaited = 0, few, False
            else:
                self._few, self._is_awaited = -1, not places
            return places

    def waiting(self) -> int:
        """How many are claimed and have not started."""
        return len(self.jobs.unstarted)

    def spent(self) -> list[tuple[str, float]]:
        """(type, seconds) of each that has ended since the last call."""
        with self._lock:
            spent, self._spent = self._spent, []
            return spent

    def most_beside(self) -> float:
        """How many may run beside those claimed: infinity if there is no suspect among them."""
        with self._lock:
            return _most(one for one in self.jobs.unstarted if not one.may_start)

    def fits(self, most: float) -> bool:
        """Whether at most ``most`` run with those claimed. If not, the dispatcher's thread is rung at the next
        end.
        """
        with self._lock:
            self._is_awaited = len(self.jobs.running) + len(self.jobs.unstarted) > most
            return not self._is_awaited

    def board(self) -> None:
        """Those claimed are to start. The caller has the event loop call :meth:`take_off`, or wakes threads that
        :meth:`take` them.
        """
        with self._lock:
            for one in self.jobs.unstarted:
                one.may_start = True
            self._is_called, self.jobs.bound_at = not self._threads, self._monotonic() + BOUND_S

    def give_back(self, delay: float = 0.0) -> None:
        """What has not started is to go back, to run in ``delay`` seconds at the earliest, with the next settle."""
        if self.jobs.give_back(delay):
            self._awake()

    def running(self) -> int:
        """How many handlers run. If any, the dispatcher's thread is rung at the next end."""
        with self._lock:
            self._is_awaited = bool(self.jobs.running)
            return len(self.jobs.running)

    def are_under_way(self) -> bool:
        """Whether any runs or is about to. If so, the dispatcher's thread is rung at the next end."""
        with self._lock:
            self._is_awaited = self._is_called or self._waits_for_thread() or bool(self.jobs.running)
            return self._is_awaited

    def keep(self, window: ExitStack) -> None:
        """Leave ``window`` once nothing is in hand: until then no suspect of another loop is alone."""
        with self._lock:
            if self._window is None and self._is_holding():
                self._window = window.pop_all()

    # -- the event loop's --------------------------------------------------------------------------------

    def take_off(self, is_over: bool) -> list[InflightJob]:
        """Those whose coroutines are to start now. If ``is_over``, or with under half its lease left, a job is
        given back instead.
        """
        now, jobs = self._monotonic(), self.jobs
        starting: list[InflightJob] = []
        late: list[InflightJob] = []
        with self._lock:
            for one in jobs.unstarted:
                is_late = is_over or now - one.leased_at > LEAST_PART * one.row.ttr
                (late if is_late else starting).append(one)
            jobs.unstarted.clear()
            jobs.bound_at, self._is_called = math.inf, False
            if not jobs.running:
                self._look_at = now + LOOK_S
            for one in starting:
                one.started_at, one.is_told = now, True
                self._look_at = min(self._look_at, now + _late_in(one))
            jobs.running.update(starting)
            jobs.put_back(late, jobs.back_at())
        for one in late:
            one.let_go()
        if late:
            self._awake()
        self._tell()
        return starting

    # -- a thread's, and at its end the event loop's -----------------------------------------------------

    def take(self, served: Collection[str]) -> InflightJob | None:
        """The next one, which starts now in the calling thread; None if there is none, or this is a forked child.
        One of a type that is not ``served``, or with under half its lease left, is given back instead.
        """
        jobs = self.jobs
        if not jobs.is_here():
            return None
        job, late = None, []
        now = self._monotonic()
        with self._lock:
            while job is None and self._waits_for_thread():
                one = jobs.unstarted.popleft()
                if one.row.type not in served or now - one.leased_at > LEAST_PART * one.row.ttr:
                    late.append(one)
                else:
                    job = one
            if job is not None:
                job.started_at, job.thread = now, threading.get_ident()
                jobs.running.add(job)
            jobs.put_back(late, jobs.back_at())
            jobs.bound_at = now + BOUND_S if self._waits_for_thread() else math.inf
            is_low = len(jobs.unstarted) <= self._few
            if is_low:
                self._few = -1
        for one in late:
            one.let_go()
        if late:
            self._awake()
        if is_low:
            self._ring()
        return job

    def ended(self, job: InflightJob) -> bool:
        """The handler of ``job`` has ended, or its coroutine is abandoned: its place is free. It has its outcome,
        or its handler was never called. False if it was told before.
        """
        jobs = self.jobs
        with self._lock:
            was_there = jobs.is_running(job)
            jobs.running.discard(job)
            is_cut_off = was_there and job.settlement is None
            if is_cut_off:
                jobs.tell_seconds(job)
                jobs.put_back([job], jobs.back_at(), endings.unbegun)
            if jobs.alone is job:
                jobs.alone = None
            seconds = self._monotonic() - job.started_at
            if was_there:
                self._spent.append((job.row.type, seconds))
        if not was_there:
            self._tell()
            return False
        self._context.telemetry.ran({job.row.type: [seconds]})
        job.let_go()
        if is_cut_off:
            self._awake()
        self._leave_if_empty()
        self._tell()
        return True

    # -- the watchdog's ----------------------------------------------------------------------------------

    def wants_attention_at(self, now: float) -> float:
        """When another thread is to call :meth:`attend`, in monotonic seconds; infinity for never."""
        look_at = self._look_at if self.jobs.running else math.inf
        return min(self.jobs.wants_attention_at(now), look_at)

    def attend(self, now: float) -> None:
        """Look for those that are late, give back what waits for a busy event loop, and write what has ended.

        Raises ``StoreError``; a settle that failed is due again after a back-off.
        """
        if now >= self._look_at:
            self._look_for_late(now)
        self.jobs.attend(now)

    # -- within ------------------------------------------------------------------------------------------

    def _look_for_late(self, now: float) -> None:
        with self._lock:
            flying = list(self.jobs.running)
        late_in = [(one, _late_in(one)) for one in flying]
        late = [one for one, seconds in late_in if seconds <= 0]
        if late:
            self._late(late)
        soonest = min((seconds for _, seconds in late_in if seconds > 0), default=math.inf)
        self._look_at = now + min(LOOK_S, max(soonest, SHORTEST_LOOK_S))

    def _is_holding(self) -> bool:
        """Under the lock. Those just claimed do not count: they stand in a window of the dispatcher's thread."""
        is_starting = self._waits_for_thread() or (self._is_called and bool(self.jobs.unstarted))
        return bool(self.jobs.running) or is_starting or not self.jobs.completer.is_written()

    def _waits_for_thread(self) -> bool:
        """Whether there is one that a thread may take. Under the lock."""
        return self._threads and bool(self.jobs.unstarted) and self.jobs.unstarted[0].may_start

    def _written(self) -> None:
        self.read_clock()
        self._leave_if_empty()

    def _leave_if_empty(self) -> None:
        with self._lock:
            if self._is_holding() or self._window is None:
                return
            window, self._window = self._window, None
        window.close()

    def _tell(self) -> None:
        """Tell the dispatcher's thread, if it waits for it, that there may be places."""
        with self._lock:
            is_awaited, self._is_awaited = self._is_awaited, False
        if is_awaited:
            self._ring()


def _late_in(job: InflightJob) -> float:
    """Seconds until the event loop should have cancelled its coroutine, and let it end or abandoned it."""
    left = job.time_left()
    return left.seconds + LATE_PART * left.ending_s


def _most(jobs: Iterable[InflightJob]) -> float:
    """How many may run together, if these are."""
    return min((suspect_jobs(one.row.suspicion) for one in jobs if one.row.suspicion), default=math.inf)
