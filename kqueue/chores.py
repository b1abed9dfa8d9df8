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
from kqueue.errors import StoreError
from kqueue.limits import Gatekeeper
from kqueue.pauses import Pauses
from kqueue.presence import Presence
from kqueue.retry import backoff

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
        self._failures = 0

    def paused(self) -> frozenset[str]:
        """As it was seen last; the same object until something changes."""
        return self._pauses.paused()

    def look_again(self) -> None:
        """See what is paused at once: this process has changed it."""
        self._pauses.forget()
        with self._changed:
            self._changed.notify_all()

    def do_due(self) -> None:
        """Do what is due, unless another thread does it now. Raises as the store does.

        Nothing in a child that a handler forked and that comes back into the loop.
        """
        if self._pid == os.getpid() and self._turn.acquire(blocking=False):
            try:
                if self._pauses.seconds_to_look() <= 0 and self._pauses.look():
                    self._wake()
                self._cron.add_due()
                if self._gatekeeper.seconds_to_look() <= 0:
                    self._gatekeeper.look(self._types())
            finally:
                self._turn.release()

    @contextmanager
    def attended(self) -> Iterator[None]:
        """While a loop waits for jobs: a thread does what is due, and tells that this process is there."""
        with self._changed:
            self._loops += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._attend, name="kqueue-chores", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
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
        if thread is not None:
            thread.join(PATIENCE_S)

    def _attend(self) -> None:
        me = threading.current_thread()
        self._presence.arrive()
        while self._thread is me:
            pause = self._try()
            with self._changed:
                if self._thread is me:
                    self._changed.wait(self._seconds_to_next() if pause is None else pause)
        self._presence.leave()

    def _try(self) -> float | None:
        """Seconds to leave a store alone that is down; None if it is not."""
        try:
            self.do_due()
            if self._presence.seconds_to_tell() <= 0:
                self._presence.tell()
        except Exception as error:
            if not self._failures:
                expected = isinstance(error, StoreError)
                self._logger.warning("no look at schedules, limits and pauses: %s", error, exc_info=not expected)
            self._failures += 1
            return backoff(self._failures)
        self._failures = 0
        return None

    def _seconds_to_next(self) -> float:
        return min(
            self._pauses.seconds_to_look(),
            self._cron.seconds_to_look(),
            self._gatekeeper.seconds_to_look(),
            self._presence.seconds_to_tell(),
        )
