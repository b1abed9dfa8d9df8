"""Tells when a job runs alone in its process, so that a death may be blamed on it and on nothing else.

In a process with one loop every window of one job is alone. Where several loops (threads) share the process,
jobs run side by side and none is alone; a *suspect*, whose last holder died, is then taken aside: the other
loops end their windows and wait until it has ended, and only then is it alone. Where one of them is busy for
long, the suspect goes back into the store, for longer each time, and nobody waits for it.
"""

import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kqueue.retry import backoff

#: How often a loop that waits asks whether it is to end, in seconds.
LOOK_S = 0.05
#: Seconds that other loops wait for a suspect. One that takes longer runs on, but is not called alone any more.
SOLITUDE_S = 30.0


class Quarantine:
    """Shared by the loops of one process."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._loops = 0
        self._windows = 0
        self._refusals = 0
        #: The thread whose suspect is aside, or about to be.
        self._taken_by: int | None = None
        #: When its solitude ends, in monotonic seconds.
        self._until = math.inf

    @contextmanager
    def loop(self) -> Iterator[None]:
        """While a loop lives."""
        counted = False
        try:
            with self._changed:
                self._loops += 1
                counted = True
            yield
        finally:
            self._leave(loops=counted)

    def has_one_loop(self) -> bool:
        """Whether only one loop lives in this process."""
        return self._loops == 1

    def loops(self) -> int:
        """How many live in this process."""
        return self._loops

    def is_taken(self) -> bool:
        """Whether a suspect of another thread is aside. A handler of that suspect may run a loop of its own."""
        return self._taken_by not in {None, threading.get_ident()} and time.monotonic() < self._until

    def has_expired(self) -> bool:
        """Whether a suspect is still running whose solitude is over: it must not be called alone any more."""
        return self._taken_by is not None and time.monotonic() >= self._until

    def wait_until_free(self, is_over: Callable[[], bool]) -> None:
        """Wait while a suspect is aside, but no longer than until ``is_over()``."""
        with self._changed:
            while self.is_taken() and not is_over():
                self._changed.wait(LOOK_S)

    @contextmanager
    def window(self) -> Iterator[bool]:
        """While a window is in hand. Yields False, at once, if a suspect is aside: then nothing may be claimed."""
        entered = False
        try:
            with self._changed:
                if not self.is_taken():
                    self._windows += 1
                    entered = True
            yield entered
        finally:
            self._leave(windows=entered)

    @contextmanager
    def aside(self, timeout: float) -> Iterator[bool]:
        """Within a window: while its one job runs alone. Yields False if the other loops' windows did not end
        within ``timeout`` seconds, or another suspect is aside.
        """
        me, mine = threading.get_ident(), False
        try:
            with self._changed:
                if self._taken_by is None:
                    self._taken_by, mine = me, True
                    self._until = math.inf
                    self._changed.wait_for(lambda: self._windows == 1, timeout)
                    self._until = time.monotonic() + SOLITUDE_S
                alone = mine and self._windows == 1
                self._refusals = 0 if alone else self._refusals + 1
            yield alone
        finally:
            if mine:
                self._leave(suspect=True)

    def _leave(self, *, loops: int = 0, windows: int = 0, suspect: bool = False) -> None:
        if self._pid != os.getpid():
            return  # a child that a handler forked: another thread may have held the lock at that moment
        with self._changed:
            self._loops -= loops
            self._windows -= windows
            if suspect:
                self._taken_by = None
            self._changed.notify_all()

    def again_in(self) -> float:
        """Seconds until a suspect that was refused is to be tried again: more after each refusal."""
        return backoff(self._refusals)
