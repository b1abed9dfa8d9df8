"""What a process does from time to time beside its jobs: see what is paused, add what cron says, admit what a limit
has held, and tell that it is there.

A loop that drains does what is due between its windows. While loops wait for jobs, a thread does it, so that a long
handler holds up no schedule, and a waiting loop is woken when a type is paused or resumed. Nothing of it can be
lost: what fails is logged once, and is due again.
"""

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kqueue.cron import Cron
from kqueue.errors import KQueueError
from kqueue.limits import Gatekeeper
from kqueue.pauses import Pauses
from kqueue.presence import Presence

#: Seconds that the end of the thread is waited for: it may be in the middle of a call to a slow store.
PATIENCE_S = 10.0


class Chores:
    """Those of one process, for all its loops."""

    def __init__(
        self,
        *,
        pauses: Pauses,
        cron: Cron,
        gatekeeper: Gatekeeper,
        presence: Presence,
        types: Callable[[], list[str]],
        wake: Callable[[], None],
        logger: logging.Logger,
    ) -> None:
        """``types()``: those with a handler here; ``wake()`` ends the waits of all loops."""
        self._pauses = pauses
        self._cron = cron
        self._gatekeeper = gatekeeper
        self._presence = presence
        self._types = types
        self._wake = wake
        self._logger = logger
        self._pid = os.getpid()
        #: Whoever holds it does what is due; nobody waits for it.
        self._turn = threading.Lock()
        self._changed = threading.Condition()
        #: Loops that wait for jobs.
        self._loops = 0
        self._thread: threading.Thread | None = None
        #: Chores that fail now.
        self._failing: set[str] = set()

    def paused(self) -> frozenset[str]:
        """As it was seen last; the same object until something changes."""
        return self._pauses.paused()

    def look_again(self) -> None:
        """See what is paused at once: this process has changed it."""
        self._pauses.forget()
        with self._changed:
            self._changed.notify_all()

    def do_due(self) -> None:
        """Do what is due, unless another thread does it now; but what is paused is known when this returns.

        Raises ``StoreError`` if that cannot be learned. What else fails is logged, is due again later, and harms no
        job. Does nothing in a child that a handler forked and that comes back into the loop.
        """
        if self._pid == os.getpid() and self._turn.acquire(blocking=not self._pauses.are_known()):
            try:
                if self._pauses.seconds_to_look() <= 0 and self._pauses.look():
                    self._wake()
                if self._cron.seconds_to_look() <= 0:
                    self._attempt("schedules", self._cron.add_due)
                if self._gatekeeper.seconds_to_look() <= 0:
                    self._attempt("limits", lambda: self._gatekeeper.look(self._types()))
            finally:
                self._turn.release()

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

    @contextmanager
    def attended(self) -> Iterator[None]:
        """While a loop waits for jobs: a thread does what is due, and tells that this process is there."""
        is_counted = False
        try:
            with self._changed:
                self._loops += 1
                is_counted = True
                if self._thread is None:
                    thread = threading.Thread(target=self._attend, name="kqueue-chores", daemon=True)
                    self._thread = thread
                    thread.start()
            yield
        finally:
            if is_counted:
                self._leave()

    def _leave(self) -> None:
        if self._pid != os.getpid():
            return  # a child that a handler forked: the thread may have held the lock at that moment
        with self._changed:
            self._loops -= 1
            thread = self._thread if not self._loops else None
            if thread is not None:
                self._thread = None
                self._changed.notify_all()
        if thread is not None and thread.is_alive():
            thread.join(PATIENCE_S)

    def _attend(self) -> None:
        me = threading.current_thread()
        self._presence.arrive()
        while self._thread is me:
            self._attempt("pauses", self.do_due)
            if self._presence.seconds_to_tell() <= 0:
                self._attempt("workers", self._presence.tell)
            with self._changed:
                if self._thread is me:
                    self._changed.wait(self._seconds_to_next())
        self._presence.leave()

    def _seconds_to_next(self) -> float:
        """Each chore puts its next look off before it begins this one, so one that fails is not tried at once."""
        return min(
            self._pauses.seconds_to_look(),
            self._cron.seconds_to_look(),
            self._gatekeeper.seconds_to_look(),
            self._presence.seconds_to_tell(),
        )
