"""The loops of one process, and the jobs that they hold."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from kqueue.quarantine import Quarantine


class Loop(Protocol):
    """A ``run_jobs`` that is under way."""

    def stop(self) -> None:
        """End after the current job. Safe in a signal handler."""

    def wake(self) -> None:
        """End a wait for jobs, to look for what is new."""


class Jobs(Protocol):
    """The jobs that a loop has in hand: of one window (:class:`kqueue.batch.Batch`), or in flight
    (:class:`kqueue.flights.Flights`).
    """

    def settle(self) -> None:
        """Write what has ended, now. Raises ``StoreError``."""

    def delete_by_id(self, job_id: str) -> bool:
        """Delete the job if it runs here and its lease holds, or has ended by its delete; True if so."""

    def drop(self, job_id: str) -> None:
        """The job is deleted: do not start it."""

    def deny_solitude(self) -> None:
        """Store that no job of these runs alone in the process any more, if one was said to."""


class Crew:
    """Shared by all threads of a process; after a fork the child has a crew of its own.

    To add to a set, to take from it and to list it are each atomic, so there is no lock: none can be found held in
    a child that a handler forked and that comes back into the loop.
    """

    def __init__(self) -> None:
        self.quarantine = Quarantine()
        self._batches: set[Jobs] = set()
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

    def batches(self) -> list[Jobs]:
        """All that is in hand."""
        return list(self._batches)

    def deny_solitude(self) -> None:
        """Other loops' jobs that were claimed as alone in the process are so no more, now that another one is here.

        But a suspect that is aside is, until its time is over: no loop takes anything before.
        """
        quarantine = self.quarantine
        if not quarantine.has_one_loop() and (not quarantine.is_taken() or quarantine.has_expired()):
            for batch in self.batches():
                batch.deny_solitude()

    @contextmanager
    def listening(self, loop: Loop) -> Iterator[None]:
        """While ``loop`` is to be stopped and woken with the others; also one that stands for several."""
        try:
            self._loops.add(loop)
            if self._stop_next:
                self._stop_next = False
                loop.stop()
            yield
        finally:
            self._loops.discard(loop)

    @contextmanager
    def running(self, loop: Loop) -> Iterator[None]:
        """While ``loop`` loops."""
        with self.listening(loop), self.quarantine.loop():
            yield

    def hold(self, batch: Jobs) -> None:
        """``batch`` is in hand."""
        self._batches.add(batch)

    def let_go(self, batch: Jobs) -> None:
        """``batch`` is settled."""
        self._batches.discard(batch)
