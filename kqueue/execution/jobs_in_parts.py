"""All jobs of one dispatcher, in parts: one for each group of types that share their places.

Each part has its own places, and knows what waits for them: :mod:`kqueue.execution.concurrent_jobs`. They share a
lock that is never held over I/O, and what writes their ends, so that what has ended in any of them goes into one
write.
"""

import os
from collections.abc import Callable

from kqueue.execution import endings
from kqueue.execution.completer import Completer, SettleBy
from kqueue.execution.concurrent_jobs import ConcurrentJobs
from kqueue.execution.context import LoopContext
from kqueue.system.forks import ForkGuard


class JobsInParts:
    """See the module's text; and :class:`kqueue.loops.watchdog.Watched`."""

    def __init__(
        self, context: LoopContext, *, awake: Callable[[], None], emptied: Callable[[], object] = lambda: None
    ) -> None:
        """``awake()`` tells the watchdog that something is to be settled. ``emptied()`` is called when nothing is
        in hand any more, and all is written.
        """
        self.context = context
        self.completer = Completer(context)
        self.awake = awake
        #: Seconds of those that have ended, by type, since they were told last.
        self.untold: dict[str, list[float]] = {}
        self._store_now = context.store.now
        self._monotonic = context.clock.monotonic
        self._emptied = emptied
        self._fork = ForkGuard()
        self._lock = self.completer.lock
        #: Those that have something in hand, or had until just now.
        self._busy: dict[ConcurrentJobs, None] = {}
        #: Whether the dispatcher's thread claims, and what it gets is not known yet.
        self._is_claiming = False
        #: The store's time, and the monotonic time when it was read.
        self._time = (0.0, 0.0)

    # -- the dispatcher's --------------------------------------------------------------------------------

    def read_clock(self) -> None:
        """Ask for the store's time, which may ask a server, so that :meth:`now` need not."""
        self._time = (self._store_now(), self._monotonic())

    def now(self) -> float:
        """The store's time by the last :meth:`read_clock`. Never waits."""
        at, read_at = self._time
        return at + self._monotonic() - read_at

    def busy(self) -> list[ConcurrentJobs]:
        """The parts that have something in hand, and perhaps some that have just ended it. From any thread."""
        return list(self._busy)

    def waiting(self) -> int:
        """How many are claimed and have not started."""
        return sum([part.waiting() for part in self.busy()])

    def give_back(self, delay: float = 0.0) -> None:
        """See :meth:`kqueue.execution.concurrent_jobs.ConcurrentJobs.give_back`."""
        for part in self.busy():
            part.give_back(delay)

    def running(self) -> int:
        """How many handlers run. If any, the dispatcher's thread is rung at the next end."""
        return sum([part.running() for part in self.busy()])

    def are_under_way(self) -> bool:
        """Whether any runs or is about to. If so, the dispatcher's thread is rung at the next end."""
        return sum([part.are_under_way() for part in self.busy()]) > 0

    def settle(self, by: SettleBy | None = None) -> None:
        """See :meth:`kqueue.execution.inflight.InflightJobs.settle`."""
        if self._fork.is_inherited():
            raise endings.in_parents_hand(self._fork.pid, os.getpid())
        self.completer.write(by)
        self.written()

    def has_only(self, part: ConcurrentJobs) -> bool:
        """Whether no other part has anything in hand, and all that has ended is written."""
        with self._lock:
            beside = any(one is not part and one.are_any() for one in self.busy())
            return not beside and self.completer.is_written()

    def begin_claim(self) -> None:
        """More is about to be in hand."""
        with self._lock:  # nobody finds it empty from here on, or has done so and told
            self._is_claiming = True

    def end_claim(self) -> None:
        """What was claimed has started, or was given back."""
        self._is_claiming = False
        self.see_whether_empty()

    # -- of its parts ------------------------------------------------------------------------------------

    def note(self, part: ConcurrentJobs) -> None:
        """It is about to have something in hand."""
        with self._lock:
            self._busy[part] = None

    def ran_untold(self) -> dict[str, list[float]]:
        """Take what is untold. Under the lock."""
        ran, self.untold = self.untold, {}
        return ran

    def written(self) -> None:
        """A write is done."""
        self.read_clock()
        self.see_whether_empty()
        with self._lock:
            ran = self.ran_untold()
        if ran:
            self.context.telemetry.ran(ran)

    def see_whether_empty(self) -> None:
        """One that was in hand is no more."""
        with self._lock:
            if self._is_claiming:
                return
            for part in self.busy():
                if part.are_any():
                    return
                del self._busy[part]
            if self.completer.is_written():
                self._emptied()

    # -- the watchdog's ----------------------------------------------------------------------------------

    def wants_attention_at(self, now: float) -> float:
        """When another thread is to call :meth:`attend`, in monotonic seconds; infinity for never."""
        return min([part.wants_attention_at(now) for part in self.busy()], default=self.completer.due_at)

    def tell_late(self, now: float) -> None:
        """See :meth:`kqueue.execution.inflight.InflightJobs.tell_late`."""
        for part in self.busy():
            part.tell_late(now)

    def attend(self, now: float) -> None:
        """What is due: see :meth:`kqueue.execution.concurrent_jobs.ConcurrentJobs.attend`."""
        for part in self.busy():
            if now >= part.wants_attention_at(now):
                part.attend(now)
        if now >= self.completer.due_at and not self._fork.is_inherited():
            self.settle()
