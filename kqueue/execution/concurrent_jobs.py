"""The jobs of one part of a dispatcher: many run at once, in threads or as coroutines of an event loop. All its
parts together: :mod:`kqueue.execution.jobs_in_parts`.

Theory of operation. A job is *claimed* by the dispatcher's thread, *starts* when a thread or the event loop takes
it, *runs* while its handler does, and has *ended* when that has. Who runs handlers is never made to wait: what ends
there is only noted, under a lock that is never held over I/O. The next claim writes it to the store, where that can
do both in one; else the watchdog's thread, ``settle_ms`` after the first that waits, or at once if nothing else
runs. The dispatcher's own claims more as soon as there are places, and some ahead: then no place waits for a
commit, and who takes the one that leaves few rings. See :mod:`kqueue.execution.inflight`.

A coroutine that has had its time is cancelled by the event loop. Where one keeps the event loop, so that it cannot
do this, the watchdog sees it before the end of the lease: see ``late``.

Suspects (see :mod:`kqueue.contracts.budget`) run in small groups, the smaller the more deaths they have seen.
"""

import math
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Protocol

from kqueue.contracts.budget import SOLITUDE_S, is_suspect, suspect_jobs
from kqueue.execution import endings
from kqueue.execution.batch import beside
from kqueue.execution.completer import Completer
from kqueue.execution.context import LoopContext
from kqueue.execution.inflight import BOUND_S, LEAST_PART, InflightJobs, RunIn
from kqueue.execution.inflight_job import InflightJob
from kqueue.execution.local_limits import LocalLimits
from kqueue.model.job import Row

#: Seconds between two looks whether coroutines are late, at most and at least.
LOOK_S = 1.0
SHORTEST_LOOK_S = 0.02
#: The part of its TTR that a coroutine has from its start, at least, before it may be late.
LATE_AFTER = 0.4
#: The part of the time that a cancelled coroutine has to end, after which one that is still there counts as late.
#: After twice that time its lease is over.
LATE_PART = 1.6


class Whole(Protocol):
    """All parts together. See :class:`kqueue.execution.jobs_in_parts.JobsInParts`."""

    @property
    def context(self) -> LoopContext:
        """What all work with."""

    @property
    def completer(self) -> Completer:
        """What writes their ends."""

    @property
    def awake(self) -> Callable[[], None]:
        """Tells the watchdog that something is to be settled."""

    @property
    def untold(self) -> dict[str, list[float]]:
        """Seconds of those that have ended, by type, since they were told last. Under the lock."""

    def now(self) -> float:
        """The store's time. Never waits."""

    def note(self, part: "ConcurrentJobs") -> None:
        """It is about to have something in hand."""

    def ran_untold(self) -> dict[str, list[float]]:
        """Take what is untold. Under the lock."""

    def written(self) -> None:
        """A write is done."""

    def see_whether_empty(self) -> None:
        """One that was in hand is no more."""


class ConcurrentJobs:
    """The jobs of one part of a dispatcher, many at once: see the module's text."""

    def __init__(
        self,
        whole: Whole,
        *,
        ring: Callable[[], None],
        keeps_loop: Callable[[InflightJob], bool | None] = lambda job: None,
        late: Callable[[list[InflightJob]], None] = lambda late: None,
        run_in: RunIn = RunIn.EVENT_LOOP,
    ) -> None:
        """``ring()`` wakes the dispatcher's thread, where it waits for an end.

        ``keeps_loop(job)``: whether it is this one's code that runs now; None if it is not known whose.
        ``late(jobs)``: they should have been cancelled, and the event loop does not come to them. ``run_in``: where
        their handlers run.
        """
        self._whole = whole
        self._context = context = whole.context
        self._monotonic = context.clock.monotonic
        self._awake = awake = whole.awake
        self._ring = ring
        self._late = late
        self.jobs = InflightJobs(
            context,
            completer=whole.completer,
            # The loop's own thread may wait for the store.
            now=None if run_in is RunIn.OWN_THREAD else whole.now,
            look_s=max(SHORTEST_LOOK_S, context.settle_s),
            awake=awake,
            written=whole.written,
            keeps=keeps_loop,
            run_in=run_in,
        )
        self._run_in = run_in
        self._lock = self.jobs.lock
        self._limits = LocalLimits(context.limiter.limit_of)
        #: When to see whether some coroutines are late, in monotonic seconds.
        self._look_at = math.inf
        #: The dispatcher's thread is to be rung when no more than so many wait for a place; -1: not for that.
        self._few = -1
        #: (type, jobs, seconds) of those that have ended since :meth:`spent`.
        self._spent: list[tuple[str, int, float]] = []
        #: Whether what waited for a place was given back, and none has got free since.
        self._is_held_up = False
        #: Whether the loop's thread waits for an end.
        self._is_awaited = False

    # -- the loop's --------------------------------------------------------------------------------------

    def hold(self, rows: Sequence[Row], leased_at: float, *, alone: bool = False) -> None:
        """They are claimed: see :meth:`kqueue.execution.inflight.InflightJobs.claim`."""
        self._whole.note(self)
        self.jobs.claim(rows, leased_at, alone=alone)

    def now(self) -> float:
        """The store's time. Never waits."""
        return self._whole.now()

    def are_any(self) -> bool:
        """Whether any runs, or is to start. Under the lock."""
        return bool(self.jobs.unstarted or self.jobs.running)

    def is_idle(self) -> bool:
        """Whether nothing is in hand, and all that has ended was told by :meth:`spent`."""
        return not (self.jobs.unstarted or self.jobs.running or self._spent or self._is_held_up)

    def places(self, number: int, ahead: int = 0, free: int = 0, width: int = 1) -> int:
        """How many more jobs may be claimed, where ``number`` handlers may run and ``ahead`` jobs wait for a place.
        If none, the dispatcher's thread is rung when that may have changed: not before half of those that wait are
        taken. What has waited in vain is not claimed again for more places than are ``free``. ``width``: jobs that
        a handler may take at once.
        """
        since = self._monotonic() - SOLITUDE_S
        with self._lock:
            running, waiting = self.jobs.running, self.jobs.unstarted
            if self._is_held_up:
                number, ahead = min(number, self.jobs.calls() + free), 0
            # One that has no suspicion is alone while it is aside, or it runs beside others as they do.
            suspects = [one for one in (*running, *waiting) if one.row.suspicion and one.leased_at > since]
            most = min(number * width + ahead, _most([one.row for one in suspects]))
            places = max(0, int(most) - self.jobs.calls() * width - len(waiting))
            few = ahead // 2
            if places and len(waiting) > few:
                places, self._few, self._is_awaited = 0, few, False
            else:
                self._few, self._is_awaited = -1, not places
            return places

    def waiting(self) -> int:
        """How many are claimed and have not started."""
        return len(self.jobs.unstarted)

    def spent(self) -> list[tuple[str, int, float]]:
        """(type, jobs, seconds) of those that have ended since the last call."""
        with self._lock:
            spent, self._spent = self._spent, []
            return spent

    def most_beside(self) -> float:
        """How many may run beside those claimed: infinity if there is no suspect among them."""
        with self._lock:
            return _most([one.row for one in self.jobs.unstarted if not one.may_start])

    def fits(self, most: float) -> bool:
        """Whether at most ``most`` run with those claimed. If not, the dispatcher's thread is rung at the next
        end.
        """
        with self._lock:
            self._is_awaited = len(self.jobs.running) + len(self.jobs.unstarted) > most
            return not self._is_awaited

    def board(self) -> None:
        """Those claimed are to start. The caller sees to it that who runs them comes to :meth:`take` them."""
        with self._lock:
            for one in self.jobs.unstarted:
                one.may_start = True
            self.jobs.bound_at = self._monotonic() + BOUND_S

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
            self._is_awaited = self._has_next() or bool(self.jobs.running)
            return self._is_awaited

    # -- of the loop's own thread, if that runs the handlers ---------------------------------------------

    def take_next(self, now: float) -> InflightJob | None:
        """What starts now, in the calling thread; the one before has ended. None if there is no more, or the next
        has under half its lease left: then it and the rest are given back. ``now`` in monotonic seconds.
        """
        jobs = self.jobs
        with jobs.lock:
            jobs.running.clear()
            jobs.followers.clear()
            if not jobs.unstarted:
                return None
            job = jobs.unstarted[0]
            if now - job.leased_at <= LEAST_PART * job.row.ttr:
                jobs.running.add(job)  # first: a signal may strike between the two
                jobs.unstarted.popleft()
                job.started_at = now
                return job
        jobs.give_back()
        return None

    def settle_if_due(self, now: float) -> bool:
        """Settle if a job has waited for it long enough; whether it did. ``now`` in monotonic seconds."""
        due = now >= self.jobs.completer.due_at and self.jobs.is_here()
        if due:
            self.jobs.settle()
        return due

    def rest(self, spent: Mapping[str, Sequence[float]]) -> None:
        """Nothing runs: what has not started, or was interrupted, is to go back, and what has ended is to be
        written. ``spent``: seconds of each that has ended, by type.
        """
        jobs = self.jobs
        with jobs.lock:
            for job in jobs.running:
                if job.settlement is None and job not in jobs.unstarted:
                    if job.is_told:
                        jobs.tell_seconds(job)
                    jobs.unstarted.appendleft(job)
            jobs.running.clear()
            jobs.followers.clear()
            jobs.alone, jobs.bound_at = None, math.inf
            self._is_held_up = False
            self._spent.extend((type, len(seconds), max(0.0, sum(seconds))) for type, seconds in spent.items())
        if jobs.unstarted:
            jobs.give_back()
        if spent:
            self._context.telemetry.ran(spent)

    # -- of who runs the handlers ------------------------------------------------------------------------

    def take(self, served: Collection[str], most: int = 1) -> list[InflightJob]:
        """The next ones, ``most`` of them, which start now, in the calling thread or its event loop. None if this
        is a forked child. One of a type that is not ``served``, or with under half its lease left, is given back.
        """
        jobs, me = self.jobs, threading.get_ident()
        if not jobs.is_here():
            return []
        starting: list[InflightJob] = []
        late: list[InflightJob] = []
        now = self._monotonic()
        with self._lock:
            while len(starting) < most:
                one = self._next()
                if one is None:
                    break
                is_late = one.row.type not in served or now - one.leased_at > LEAST_PART * one.row.ttr
                if is_late:
                    late.append(one)
                else:
                    self._limits.started(one.row)
                    starting.append(one)
            if starting:
                self._note_start(starting, now, me)
            if late:
                jobs.put_back(late, jobs.back_at())
            if starting or late:
                jobs.bound_at = now + BOUND_S if self._has_next() else math.inf
            is_low = self._has_become_low()
        for one in late:
            one.let_go()
        if late:
            self._awake()
        if is_low:
            self._ring()
        return starting

    def take_with(self, first: InflightJob, most: int) -> list[InflightJob]:
        """``first``, which has just started in the calling thread or its event loop, and those that start in the
        same call: the next ones of its type, ``most`` together. A suspect has a call for itself, and none is taken
        past one of another type that is more urgent, or beyond a limit.
        """
        jobs, now = self.jobs, self._monotonic()
        batch = [first]
        with self._lock:
            limits = self._limits
            if self._run_in is RunIn.OWN_THREAD:  # where nothing else runs, so nobody counts
                limits = LocalLimits(self._context.limiter.limit_of)
                limits.started(first.row)
            behind = [] if is_suspect(first.row) else beside(first.row, jobs.unstarted, now)
            for one in behind:
                if len(batch) == most:
                    break
                if limits.has_place(one.row):
                    limits.started(one.row)
                    batch.append(one)
            for one in batch:
                one.batch = batch
            more = set(batch[1:])
            if more:
                jobs.followers |= more
                self._note_start(batch[1:], now, first.thread)
                jobs.unstarted = deque(one for one in jobs.unstarted if one not in more)
                jobs.bound_at = now + BOUND_S if self._has_next() else math.inf
            is_low = bool(more) and self._has_become_low()
        if is_low:
            self._ring()
        return batch

    def ended(self, job: InflightJob) -> bool:
        """The handler of ``job`` has ended, or its coroutine is abandoned: its place is free. It has its outcome,
        or its handler was never called. False if it was told before.
        """
        jobs = self.jobs
        is_cut_off = False
        with self._lock:
            was_there = jobs.is_running(job)
            if was_there:
                jobs.running.discard(job)
                jobs.followers.discard(job)
                is_cut_off = job.settlement is None
                self._note_end(job)
            ran = self._whole.ran_untold() if jobs.completer.is_written() else None
            is_awaited = self._is_awaited or self._has_become_low()
            self._is_awaited = False
        if was_there:
            job.let_go()
        if is_cut_off:
            self._awake()
        if ran:
            self._context.telemetry.ran(ran)
        if was_there:
            self._whole.see_whether_empty()
        if is_awaited:
            self._ring()
        return was_there

    def waits_since(self) -> float:
        """When the first that may start was claimed, in monotonic seconds; infinity if there is none."""
        with self._lock:
            return self.jobs.unstarted[0].leased_at if self._has_next() else math.inf

    def tell_of_place(self) -> None:
        """Tell the dispatcher's thread, if it waits for it, that there may be places."""
        with self._lock:
            self._is_held_up = False
            is_awaited, self._is_awaited = self._is_awaited, False
        if is_awaited:
            self._ring()

    def tell_of_thread(self) -> None:
        """As :meth:`tell_of_place`, of a thread that all parts share: it is awaited only where jobs that had waited
        for one were given back.
        """
        if self._is_held_up:
            self.tell_of_place()

    # -- the watchdog's ----------------------------------------------------------------------------------

    def wants_attention_at(self, now: float) -> float:
        """When another thread is to call :meth:`attend`, in monotonic seconds; infinity for never."""
        look_at = self._look_at if self.jobs.running else math.inf
        return min(self.jobs.wants_attention_at(now), look_at)

    def tell_late(self, now: float) -> None:
        """See :meth:`kqueue.execution.inflight.InflightJobs.tell_late`."""
        self.jobs.tell_late(now)

    def attend(self, now: float) -> None:
        """Look for those that are late, give back what waits for those that keep all places, and write what has
        ended.

        Raises ``StoreError``; a settle that failed is due again after a back-off.
        """
        if now >= self._look_at:
            self._look_for_late(now)
        with self._lock:
            self._is_held_up = self._is_held_up or (now >= self.jobs.bound_at and self._has_next())
        self.jobs.attend(now)

    # -- within ------------------------------------------------------------------------------------------

    def _has_become_low(self) -> bool:
        """Whether so few wait for a place now that the dispatcher's thread is to be rung, once. Under the lock."""
        is_low = len(self.jobs.unstarted) <= self._few
        if is_low:
            self._few = -1
        return is_low

    def _note_start(self, starting: list[InflightJob], now: float, thread: int) -> None:
        """Under the lock."""
        running = self.jobs.running
        if self._run_in is RunIn.EVENT_LOOP:
            first = LATE_AFTER * min(one.row.ttr for one in starting)
            self._look_at = min(self._look_at if running else math.inf, now + min(LOOK_S, first))
        for one in starting:
            one.started_at, one.thread = now, thread
        running.update(starting)
        self._is_held_up = False

    def _note_end(self, job: InflightJob) -> None:
        """Under the lock."""
        jobs = self.jobs
        self._is_held_up = False
        self._limits.ended(job.row)
        if job.settlement is None:
            jobs.tell_seconds(job)
            jobs.put_back([job], jobs.back_at(), endings.unbegun)
        if jobs.alone is job:
            jobs.alone = None
        seconds = (self._monotonic() - job.started_at) / (len(job.batch) or 1)
        self._spent.append((job.row.type, 1, seconds))
        self._whole.untold.setdefault(job.row.type, []).append(seconds)

    def _look_for_late(self, now: float) -> None:
        with self._lock:
            flying = list(self.jobs.running)
        late_in = [(one, _late_in(one)) for one in flying]
        late = [one for one, seconds in late_in if seconds <= 0]
        if late:
            self._late(late)
        soonest = min((seconds for _, seconds in late_in if seconds > 0), default=math.inf)
        self._look_at = now + min(LOOK_S, max(soonest, SHORTEST_LOOK_S))

    def _has_next(self) -> bool:
        """Whether there is one that may start. Under the lock."""
        return bool(self.jobs.unstarted) and self.jobs.unstarted[0].may_start

    def _next(self) -> InflightJob | None:
        """Take out the first that may start and is not kept by a limit. Under the lock."""
        unstarted = self.jobs.unstarted
        for index, one in enumerate(unstarted):
            if not one.may_start:
                break
            if self._limits.has_place(one.row):
                del unstarted[index]
                return one
        return None


def _late_in(job: InflightJob) -> float:
    """Seconds until the event loop should have cancelled its coroutine, and let it end or abandoned it."""
    left = job.time_left()
    return left.seconds + LATE_PART * left.ending_s


def _most(rows: Iterable[Row]) -> float:
    """How many may run together, if these are."""
    suspects = [row for row in rows if row.suspicion or row.crashes]  # as is_suspect: asked for each job
    return min((suspect_jobs(row.suspicion, row.crashes) for row in suspects), default=math.inf)
