"""The loops of one process, and the batches that they hold."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from kqueue.batch import Batch
from kqueue.errors import StoreError
from kqueue.quarantine import Quarantine


class Loop(Protocol):
    """A ``run_jobs`` that is under way."""

    #: Grows each time that it looks for jobs; what shows that it does not hang.
    turns: int
    #: Its thread, as :func:`threading.get_ident` has it.
    thread: int

    @property
    def count(self) -> int:
        """Jobs that it has started."""

    def stop(self) -> None:
        """End after the current job. Safe in a signal handler."""

    def wake(self) -> None:
        """End a wait for jobs, to look for what is new."""


class Crew:
    """Shared by all threads of a process; after a fork the child has a crew of its own.

    To add to a set, to take from it and to list it are each atomic, so no lock guards them: none can be found held
    in a child that a handler forked and that comes back into the loop.
    """

    def __init__(self) -> None:
        self.quarantine = Quarantine()
        #: Jobs that all loops of this process together are to start at most, and up to one more for each loop but
        #: the first; then they end. None: no limit.
        self.max_jobs: int | None = None
        self._pid = os.getpid()
        self._counting = threading.Lock()
        #: By loops that have ended.
        self._started = 0
        self._batches: set[Batch] = set()
        self._loops: set[Loop] = set()
        self._stop_next = False

    def stop(self) -> None:
        """End all loops after their current job; if there is none, the next one ends at once.

        Takes no lock, since a signal handler may call it.
        """
        self._stop_next = True  # first: a loop that begins now sees it, or is seen below
        for loop in list(self._loops):
            self._stop_next = False
            loop.stop()

    def wake(self) -> None:
        """Let all loops look around: a handler has come or gone."""
        for loop in list(self._loops):
            loop.wake()

    def batches(self) -> list[Batch]:
        """All batches in hand."""
        return list(self._batches)

    def loops(self) -> list[Loop]:
        """All loops that are under way."""
        return list(self._loops)

    def jobs_started(self) -> int:
        """By all loops of this process, since it began."""
        with self._counting:
            return self._started + sum(loop.count for loop in self.loops())

    def is_spent(self) -> bool:
        """Whether ``max_jobs`` have started."""
        return self.max_jobs is not None and self.jobs_started() >= self.max_jobs

    def share(self) -> int | None:
        """What ``max_jobs`` leaves to each loop, so that none claims what it will not start; None for no limit."""
        if self.max_jobs is None:
            return None
        left = max(0, self.max_jobs - self.jobs_started())
        return -(-left // max(1, len(self._loops)))

    def give_up(self) -> None:
        """Give back all that is in hand, now, also what runs: see :meth:`Batch.give_up`.

        Raises ``StoreError`` if the store does not take some of it; then that stays until its leases run out.
        """
        failures = []
        for batch in self.batches():
            try:
                batch.give_up()
            except StoreError as error:
                failures.append(error)
        if failures:
            raise failures[0]

    @contextmanager
    def running(self, loop: Loop) -> Iterator[None]:
        """While ``loop`` loops."""
        try:
            self._loops.add(loop)
            if self._stop_next:
                self._stop_next = False
                loop.stop()
            with self.quarantine.loop():
                yield
        finally:
            self._leave(loop)

    def _leave(self, loop: Loop) -> None:
        if self._pid != os.getpid():
            return  # a child that a handler forked: another thread may have held the lock at that moment
        with self._counting:
            self._loops.discard(loop)
            self._started += loop.count

    def hold(self, batch: Batch) -> None:
        """``batch`` is in hand."""
        self._batches.add(batch)

    def let_go(self, batch: Batch) -> None:
        """``batch`` is settled."""
        self._batches.discard(batch)
