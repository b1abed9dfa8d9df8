"""Looks after what a loop has in hand while a handler keeps the loop's thread."""

import logging
import math
import threading
from typing import Protocol

from kqueue.execution.inflight import BOUND_S
from kqueue.model.errors import KQueueError
from kqueue.system.clock import Clock
from kqueue.system.forks import ForkGuard
from kqueue.system.threads import Background

#: Seconds between two looks where nothing is expected.
LONGEST_LOOK_S = 1.0
#: Seconds that the end of the thread is waited for: it may be in the middle of a settle.
PATIENCE_S = 10.0


class Watched(Protocol):
    """What a loop has in hand."""

    def wants_attention_at(self, now: float) -> float:
        """When :meth:`attend` is to be called, in monotonic seconds; infinity for never."""

    def attend(self, now: float) -> None:
        """Do what is due. Raises if it cannot be done; then it is due again later."""

    def tell_late(self, now: float) -> None:
        """Tell of handlers that go on beyond their leases. Called about once a second while anything is watched."""


class Watchdog:
    """A thread that calls :meth:`Watched.attend` when what is in hand wants it.

    Windows of fast jobs come and go a hundred times a second, and waking a thread for each would cost more
    than the jobs. So while there is work it looks by itself, and it is woken only once it has nothing to
    look at; for a job that is alone it is not woken at all, since its handler would begin later.
    """

    def __init__(self, watched: Watched, clock: Clock, logger: logging.Logger) -> None:
        """It begins with the first :meth:`wake`."""
        self._watched = watched
        self._clock = clock
        self._logger = logger
        self._lock = threading.Lock()
        #: What the thread waits for. On that lock, which alone is taken by others: see :mod:`kqueue.system.locks`.
        self._condition = threading.Condition(self._lock)
        #: What fails is told of once, until all goes well.
        self._has_complained = False
        self._sleeps = False
        #: When to look next for what goes on beyond its lease, in monotonic seconds.
        self._late_at = -math.inf
        self._closed = False
        self._thread: Background | None = None
        self._fork = ForkGuard()

    def wake(self, *, alone: bool = False) -> None:
        """Something has come into hand, or has ended there. ``alone``: no job waits for another one."""
        with self._lock:
            if self._sleeps and not alone:
                self._condition.notify()
        if self._thread is None:
            self._thread = Background(self._look, "kqueue-watchdog")

    def close(self) -> None:
        """End the thread. Idempotent. In a forked child there is none."""
        self._closed = True
        thread = self._thread
        if thread is None or self._fork.is_inherited():
            return
        with self._lock:
            self._condition.notify()
        thread.join(PATIENCE_S)

    def _look(self) -> None:
        while True:
            with self._lock:
                if self._closed:
                    return
                now = self._clock.monotonic()
                looks, due = now >= self._late_at, self._watched.wants_attention_at(now)
                if now < due and not looks:
                    # Not woken for what is new while it waits for the time of what is old, so never for long.
                    self._sleeps = due - now > BOUND_S
                    self._condition.wait(min(due - now, LONGEST_LOOK_S))
                    self._sleeps = False
                    continue
            if looks:
                self._late_at = now + LONGEST_LOOK_S
                self._watched.tell_late(now)
            if now >= due and not self._attend(now):
                with self._lock:
                    self._condition.wait(BOUND_S)

    def _attend(self, now: float) -> bool:
        """Whether all went well. What failed is due again, here or in the loop."""
        try:
            self._watched.attend(now)
        except Exception as error:
            if not self._has_complained:
                self._has_complained = True
                self._logger.warning("not settled yet: %s", error, exc_info=not isinstance(error, KQueueError))
            return False
        self._has_complained = False
        return True
