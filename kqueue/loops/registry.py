"""The loops of one process, and the jobs that they hold."""

import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, Protocol

from kqueue.dispatch.slots import Slots
from kqueue.loops.isolation import Isolation
from kqueue.model.errors import StoreError
from kqueue.system.clock import Clock
from kqueue.system.forks import ForkGuard

if TYPE_CHECKING:
    from kqueue.execution.inflight import InflightJobs


class Listener(Protocol):
    """Who is stopped and woken."""

    def stop(self) -> None:
        """End after the current job. Safe in a signal handler."""

    def wake(self) -> None:
        """End a wait for jobs, to look for what is new."""


class Turning(Protocol):
    """What is under way in a thread of its own, and may hang."""

    @property
    def turns(self) -> int:
        """Grows each time that it comes round; what shows that it does not hang."""

    @property
    def thread(self) -> int:
        """Its thread, as :func:`threading.get_ident` has it."""


class EventLoop(Turning, Protocol):
    """An event loop that is under way. It comes round once a second."""

    @property
    def turned_at(self) -> float:
        """When it did last, in monotonic seconds."""


class Loop(Listener, Turning, Protocol):
    """A loop that is under way. It comes round each time that it looks for jobs."""

    @property
    def count(self) -> int:
        """Jobs that it has started."""

    def types(self) -> Collection[str]:
        """Those that it serves now. From any thread."""


class AbandonedRun(NamedTuple):
    """A run whose coroutine did not end when its time was over, and goes on without its job."""

    id: str
    type: str
    fence: int


class Registry:
    """Shared by all threads of a process; after a fork the child has a registry of its own.

    To add to a set, to take from it and to list it are each atomic, so no lock guards them: none can be found held
    in a child that a handler forked and that comes back into the loop.
    """

    def __init__(self, clock: Clock) -> None:
        self.isolation = Isolation(clock)
        #: Of the types that are bounded in this process.
        self.slots = Slots()
        #: Jobs that all loops of this process together are to start at most, and up to one more for each loop but
        #: the first; then they end. None: no limit.
        self.max_jobs: int | None = None
        #: Whether a handler that raises KeyboardInterrupt has failed: nobody presses Ctrl-C where its loop runs.
        self.blames_interrupts = False
        self._fork = ForkGuard()
        self._counting = threading.Lock()
        #: By loops that have ended.
        self._started = 0
        self._in_hand: set[InflightJobs] = set()
        #: Who is to be told of a stop.
        self._listeners: set[Listener] = set()
        self._loops: set[Loop] = set()
        #: Event loops that are under way.
        self.event_loops: set[EventLoop] = set()
        #: Threads that run a dispatcher's handlers. Each comes round when it takes a job, or looks for one.
        self.threads: set[Turning] = set()
        #: Those that have not ended yet.
        self.abandoned: set[AbandonedRun] = set()
        self._stop_next = False

    def stop(self) -> None:
        """End all loops after their current job; if there is none, the next one ends at once.

        Takes no lock, since a signal handler may call it.
        """
        self._stop_next = True  # first: a loop that begins now sees it, or is seen below
        for listener in list(self._listeners):
            self._stop_next = False
            listener.stop()

    def wake(self) -> None:
        """Let all loops look around: a handler has come or gone."""
        for listener in list(self._listeners):
            listener.wake()

    def in_hand(self) -> "list[InflightJobs]":
        """What each loop has in hand, if it has anything."""
        return [jobs for jobs in list(self._in_hand) if jobs.are_any()]

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
        """Give back all that is in hand, now, also what runs.

        Raises ``StoreError`` if the store does not take some of it; then that stays until its leases run out.
        """
        failures = []
        for jobs in self.in_hand():
            try:
                jobs.give_up()
            except StoreError as error:
                failures.append(error)
        if failures:
            raise failures[0]

    def deny_solitude(self) -> None:
        """Other loops' jobs that were claimed as alone in the process are so no more, now that another one is here.

        But a suspect that is aside is, until its time is over: no loop takes anything before.
        """
        isolation = self.isolation
        if not isolation.has_one_loop() and (not isolation.is_taken() or isolation.has_expired()):
            for jobs in self.in_hand():
                jobs.deny_solitude()

    @contextmanager
    def listening(self, listener: Listener) -> Iterator[None]:
        """While ``listener`` is to be stopped and woken: a loop, or who stands for several."""
        try:
            self._listeners.add(listener)
            if self._stop_next:
                self._stop_next = False
                listener.stop()
            yield
        finally:
            self._listeners.discard(listener)

    def _leave(self, loop: Loop) -> None:
        if self._fork.is_inherited():
            return  # a child that a handler forked: another thread may have held the lock at that moment
        with self._counting:
            self._loops.discard(loop)
            self._started += loop.count

    @contextmanager
    def running(self, loop: Loop) -> Iterator[None]:
        """While ``loop`` loops."""
        try:
            self._loops.add(loop)
            with self.listening(loop), self.isolation.loop(loop):
                yield
        finally:
            try:
                self._leave(loop)
            finally:
                self._loops.discard(loop)

    def forget(self, loop: Loop) -> None:
        """``loop`` is over: where a signal handler has raised on the way out, it may still be here."""
        self._listeners.discard(loop)
        self._loops.discard(loop)
        self.isolation.forget(loop)

    def hold(self, jobs: "InflightJobs") -> None:
        """They are in hand."""
        self._in_hand.add(jobs)

    def let_go(self, jobs: "InflightJobs") -> None:
        """They are settled."""
        self._in_hand.discard(jobs)
