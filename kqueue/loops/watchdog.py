"""Looks after a batch while one of its handlers keeps the loop's thread."""

import logging
import math
import threading
from typing import Protocol

from kqueue.execution.inflight import BOUND_S
from kqueue.model.errors import KQueueError
from kqueue.system.clock import Clock
from kqueue.system.forks import ForkGuard
from kqueue.system.threads import Background

#: Seconds between two looks where nothing is expected: a job that is alone settles by itself, but may fail to.
LONGEST_LOOK_S = 1.0
#: Seconds that the end of the thread is waited for: it may be in the middle of a settle.
PATIENCE_S = 10.0


class Watched(Protocol):
    """A window, or the inflight of a loop."""

    def wants_attention_at(self, now: float) -> float:
        """When :meth:`attend` is to be called, in monotonic seconds; infinity for never."""

    def attend(self, now: float) -> None:
        """Do what is due. Raises if it cannot be done; then it is due again later."""

    def tell_late(self, now: float) -> None:
        """Tell of handlers that go on beyond their leases. Called about once a second while anything is watched."""


class Watchdog:
    """A thread that calls :meth:`Watched.attend` when the batch wants it.

    Windows of fast jobs come and go a hundred times a second, and waking a thread for each would cost more
    than the jobs. So while there is work it looks by itself, and it is woken only once it has nothing to
    look at; for a job that is alone it is not woken at all, since its handler would begin later.
    """

    def __init__(self, clock: Clock, logger: logging.Logger) -> None:
        self._clock = clock
        self._logger = logger
        self._lock = threading.Lock()
        #: What the thread waits for. On that lock, which alone is taken by others: see :mod:`kqueue.system.locks`.
        self._condition = threading.Condition(self._lock)
        self._batch: Watched | None = None
        #: Each failing batch is told of once, until all goes well with it.
        self._complained_of: Watched | None = None
        self._sleeps = False
        #: When to look next for what goes on beyond its lease, in monotonic seconds.
        self._late_at = -math.inf
        self._closed = False
        self._thread: Background | None = None
        self._fork = ForkGuard()

    def watch(self, batch: Watched, *, alone: bool) -> None:
        """Look after ``batch`` until :meth:`rest`. ``alone``: no job of it waits for another one."""
        with self._lock:
            self._batch = batch
            if self._sleeps and not alone:
                self._condition.notify()
        if self._thread is None:
            self._thread = Background(self._look, "kqueue-watchdog")

    def rest(self) -> None:
        """The batch is closed."""
        self._batch = None

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
                batch = self._batch
                looks = batch is not None and now >= self._late_at
                due = math.inf if batch is None else batch.wants_attention_at(now)
                if now < due and not looks:
                    # Not woken for a new batch while it waits for an older one's time, so never for long.
                    self._sleeps = due - now > BOUND_S
                    self._condition.wait(min(due - now, LONGEST_LOOK_S))
                    self._sleeps = False
                    continue
            if batch is not None and looks:
                self._late_at = now + LONGEST_LOOK_S
                batch.tell_late(now)
            if batch is not None and now >= due and not self._attend(batch, now):
                with self._lock:
                    self._condition.wait(BOUND_S)

    def _attend(self, batch: Watched, now: float) -> bool:
        """Whether all went well. What failed is due again, here or in the loop."""
        try:
            batch.attend(now)
        except Exception as error:
            if batch is not self._complained_of:
                self._complained_of = batch
                self._logger.warning("not settled yet: %s", error, exc_info=not isinstance(error, KQueueError))
            return False
        self._complained_of = None
        return True
