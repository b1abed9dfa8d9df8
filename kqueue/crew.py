"""The loops of one process, and the batches that they hold."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from kqueue.batch import Batch
from kqueue.quarantine import Quarantine


class Loop(Protocol):
    """A ``run_jobs`` that is under way."""

    def stop(self) -> None:
        """End after the current job. Safe in a signal handler."""

    def wake(self) -> None:
        """End a wait for jobs, to look for what is new."""


class Crew:
    """Shared by all threads of a process; after a fork the child has a crew of its own.

    To add to a set, to take from it and to list it are each atomic, so there is no lock: none can be found held in
    a child that a handler forked and that comes back into the loop.
    """

    def __init__(self) -> None:
        self.quarantine = Quarantine()
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
            self._loops.discard(loop)

    def hold(self, batch: Batch) -> None:
        """``batch`` is in hand."""
        self._batches.add(batch)

    def let_go(self, batch: Batch) -> None:
        """``batch`` is settled."""
        self._batches.discard(batch)
