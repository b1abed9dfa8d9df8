"""What a process does from time to time beside its jobs: see what is paused, add what cron says, admit what a limit
has held, and tell that it is there.

A loop that drains does what is due between its windows. While loops wait for jobs, a thread does it, so that a long
handler holds up no schedule, and a waiting loop is woken when a type is paused or resumed. Nothing of it can be
lost: what fails is logged once, and is due again.
"""

import logging
import threading
from collections.abc import Callable

from kqueue.dispatch.limiter import Limiter
from kqueue.model.errors import KQueueError
from kqueue.system.forks import ForkGuard
from kqueue.system.locks import is_ours, wait_until
from kqueue.system.threads import Background
from kqueue.upkeep.cron import Cron
from kqueue.upkeep.heartbeat import Heartbeat
from kqueue.upkeep.pauses import Pauses

#: Seconds that the end of the thread is waited for: it may be in the middle of a call to a slow store.
PATIENCE_S = 10.0


class Maintenance:
    """Those of one process, for all its loops."""

    def __init__(
        self,
        *,
        pauses: Pauses,
        cron: Cron,
        limiter: Limiter,
        heartbeat: Heartbeat,
        types: Callable[[], list[str]],
        wake: Callable[[], None],
        logger: logging.Logger,
    ) -> None:
        """``types()``: those with a handler here; ``wake()`` ends the waits of all loops."""
        self._pauses = pauses
        self._cron = cron
        self._limiter = limiter
        self._heartbeat = heartbeat
        self._types = types
        self._wake = wake
        self._logger = logger
        self._fork = ForkGuard()
        #: Whoever holds it does what is due; nobody waits for it.
        self._turn = threading.RLock()
        self._lock = threading.Lock()
        #: What the thread waits for. On that lock.
        self._changed = threading.Condition(self._lock)
        #: Those that wait for jobs. The thread is there as long as there is one.
        self.loops: set[object] = set()
        self._thread: Background | None = None
        #: Maintenance that fail now.
        self._failing: set[str] = set()

    def paused(self) -> frozenset[str]:
        """As it was seen last; the same object until something changes."""
        return self._pauses.paused()

    def look_again(self) -> None:
        """See what is paused at once: this process has changed it."""
        self._pauses.forget()
        self._wake_thread()

    def do_due(self) -> None:
        """Do what is due, unless another thread does it now; but what is paused is known when this returns.

        Raises ``StoreError`` if that cannot be learned. What else fails is logged, is due again later, and harms no
        job. Does nothing in a child that a handler forked and that comes back into the loop.
        """
        if self._fork.is_inherited() or is_ours(self._turn):
            return
        try:
            # Within, and let go in one step: a signal handler may raise anywhere. See kqueue.system.locks.
            if self._turn.acquire(blocking=not self._pauses.are_known()):
                self._do_due()
        finally:
            try:  # noqa: SIM105 (suppress() is Python, and a signal handler could come before the release)
                self._turn.release()
            except RuntimeError:
                pass  # it is another thread's

    def _do_due(self) -> None:
        if self._pauses.seconds_to_look() <= 0 and self._pauses.look():
            self._wake()
        if self._cron.seconds_to_look() <= 0:
            self._attempt("schedules", self._cron.add_due)
        if self._limiter.seconds_to_look() <= 0:
            self._attempt("limits", lambda: self._limiter.look(self._types()))

    def _attempt(self, what: str, chore: Callable[[], object]) -> None:
        """It is told once that one fails, until it goes well again."""
        try:
            chore()
        except Exception as error:
            if what not in self._failing:
                self._failing.add(what)
                expected = isinstance(error, KQueueError)
                self._logger.warning("%s are not looked after now: %s", what, error, exc_info=not expected)
        else:
            self._failing.discard(what)

    def attend(self, loop: object) -> None:
        """While ``loop`` waits for jobs a thread does what is due, and tells that this process is there.

        In its end, whatever it was that ended it, it is taken out of :attr:`loops` at first, and then :meth:`leave`
        is called. No context manager in Python would do: see :mod:`kqueue.system.locks`.
        """
        self.loops.add(loop)
        with self._lock:
            if self._thread is None:
                self._thread = self._start()

    def _start(self) -> Background | None:
        try:
            return Background(self._attend, "kqueue-maintenance")
        except OSError as error:  # the loops do without it, between two windows
            self._logger.warning("no thread looks after schedules, limits and pauses: %s", error)
            return None

    def leave(self) -> None:
        """End the thread, if no loop is left that waits."""
        # In a child that a handler forked there is no thread, and the lock may have been held at that moment.
        if not self._fork.is_inherited() and not self.loops:
            thread = self._thread
            self._wake_thread()
            if thread is not None:
                wait_until(lambda: bool(self.loops) or not thread.is_alive(), PATIENCE_S)

    def _wake_thread(self) -> None:
        with self._lock:
            self._changed.notify_all()

    def _attend(self) -> None:
        while self._is_wanted():
            self._heartbeat.arrive()
            while self.loops:
                self._attempt("pauses", self.do_due)
                if self._heartbeat.seconds_to_tell() <= 0:
                    self._attempt("workers", self._heartbeat.tell)
                with self._lock:
                    if self.loops:
                        self._changed.wait(self._seconds_to_next())
            self._heartbeat.leave()

    def _is_wanted(self) -> bool:
        """If not, the next loop starts another thread."""
        with self._lock:
            if not self.loops:
                self._thread = None
            return bool(self.loops)

    def _seconds_to_next(self) -> float:
        """Each chore puts its next look off before it begins this one, so one that fails is not tried at once."""
        return min(
            self._pauses.seconds_to_look(),
            self._cron.seconds_to_look(),
            self._limiter.seconds_to_look(),
            self._heartbeat.seconds_to_tell(),
        )
