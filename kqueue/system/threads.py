"""Threads whose start and end no signal can spoil.

``Thread.start`` waits for the new thread by an ``Event``. Where an exception from a signal handler ends that wait,
the event's lock may stay held, and then the new thread stands still at its first step, for ever. So here another
thread starts it, where no signal handler runs, and nobody waits. And a ``Thread.join`` that is interrupted takes
its thread for ended (CPython 3.11), so the end is a plain lock that the thread lets go.
"""

import _thread
import errno
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


def are_greenlets() -> bool:
    """Whether what this process takes for threads are greenlets, which take turns in one thread."""
    return type(threading.Lock()).__module__ != "_thread"


class Sleep:
    """Of one thread, until another wakes it, or for a while. No signal spoils it: of an ``Event`` the own lock may
    stay held where one interrupts a wait, and then its ``set`` hangs.
    """

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        #: Held, but from when its thread is woken until that has seen it.
        self._lock = threading.Lock()
        self._lock.acquire()

    def wait(self, seconds: float = -1) -> bool:
        """Until :meth:`wake`, also one that came before; False after so many seconds. -1: without end."""
        return self._lock.acquire(timeout=seconds)

    def wake(self) -> None:
        """From any thread; also where it does not wait, or was woken before."""
        with suppress(RuntimeError):
            self._lock.release()


class Background:
    """A daemon thread. It is started by its making."""

    def __init__(self, function: Callable[[], object], name: str) -> None:
        """Raises ``OSError`` if the system has no more of them."""
        self._function = function
        self._running = threading.Lock()
        self._running.acquire()
        self._has_ended = False
        #: As :func:`threading.get_ident` has it; -1 until it runs.
        self.ident = -1
        thread = threading.Thread(target=self._run, name=name, daemon=True)
        try:
            _thread.start_new_thread(self._start, (thread,))
        except RuntimeError as error:
            raise OSError(errno.EAGAIN, f"{error}: this process, or its user, has too many") from error

    def is_here(self) -> bool:
        """Whether the caller is this thread."""
        return threading.get_ident() == self.ident

    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return not self._has_ended

    def join(self, seconds: float = -1) -> bool:
        """Wait for its end, for so many seconds at most; whether it has ended."""
        # Asked first: whoever is interrupted between these two leaves the lock held.
        if not self._has_ended and self._running.acquire(timeout=seconds):
            self._running.release()
        return self._has_ended

    def _start(self, thread: threading.Thread) -> None:
        try:
            thread.start()
        except BaseException:
            self._end()
            raise

    def _run(self) -> None:
        self.ident = threading.get_ident()
        try:
            self._function()
        finally:
            self._end()

    def _end(self) -> None:
        self._has_ended = True
        self._running.release()


def run_aside(function: Callable[[], T], name: str) -> T:
    """What ``function`` returns or raises, in a thread of its own: what it does to its thread stays there, and a
    signal handler's exception comes to the caller alone.
    """
    returned: list[T] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            returned.append(function())
        except BaseException as error:
            raised.append(error)

    Background(run, name).join()
    if raised:
        raise raised[0]
    return returned[0]
