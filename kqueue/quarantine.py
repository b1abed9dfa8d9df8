"""Tells when a job runs alone in its process, so that a death may be blamed on it and on nothing else.

In a process with one loop every window of one job is alone. Where several loops (threads) share the process,
jobs run side by side and none is alone; a *suspect*, whose last holder died, is then taken aside: it waits
until the other loops have ended their windows, they wait until it has ended, and only then is it alone.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: How often a loop that waits asks whether it is to end, in seconds.
LOOK_S = 0.05


class Quarantine:
    """Shared by the loops of one process."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._loops = 0
        self._windows = 0
        self._taken = False

    @contextmanager
    def loop(self) -> Iterator[None]:
        """While a loop lives."""
        self._add(loops=1)
        try:
            yield
        finally:
            self._add(loops=-1)

    def has_one_loop(self) -> bool:
        """Whether only one loop lives in this process."""
        return self._loops == 1

    def is_taken(self) -> bool:
        """Whether a suspect is aside."""
        return self._taken

    @contextmanager
    def window(self, is_over: Callable[[], bool]) -> Iterator[bool]:
        """While a window is in hand. Waits while a suspect is aside; yields False if ``is_over()`` says so
        first, and then the window must not be claimed.
        """
        with self._changed:
            while self._taken and not is_over():
                self._changed.wait(LOOK_S)
            entered = not self._taken
            self._windows += entered
        try:
            yield entered
        finally:
            if entered:
                self._add(windows=-1)

    @contextmanager
    def aside(self, timeout: float) -> Iterator[bool]:
        """Within a window: while its one job runs alone. Yields False if the other loops' windows did not end
        within ``timeout`` seconds, or another suspect is aside.
        """
        with self._changed:
            free = not self._taken
            if free:
                self._taken = True
                self._changed.wait_for(lambda: self._windows == 1, timeout)
            alone = free and self._windows == 1
            if free and not alone:
                self._release()
        try:
            yield alone
        finally:
            if alone:
                with self._changed:
                    self._release()

    def _release(self) -> None:
        self._taken = False
        self._changed.notify_all()

    def _add(self, loops: int = 0, windows: int = 0) -> None:
        with self._changed:
            self._loops += loops
            self._windows += windows
            self._changed.notify_all()
