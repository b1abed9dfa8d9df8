"""Locks, and what else one thread has at a time, where a signal handler may come in between.

Theory of operation. Python runs signal handlers in the main thread, between two steps of whatever runs there: at
the begin of a function, after a call, at a jump back. So an exception from one (``KeyboardInterrupt``, or a user's
own) may come before the first line of any ``__enter__`` or ``__exit__`` that is written in Python, and then a lock
stays held that was to be released. Tried with CPython 3.11 and real signals: a ``threading.Condition`` and a
context manager that is a generator stay held about half the time that a signal comes near; a plain ``Lock`` or
``RLock`` by ``with``, whose two methods are C, never. Hence the rules of this package:

- A lock is held by ``with lock:`` alone, and a lock is a plain one: no ``acquire()`` before ``try``, no condition,
  no generator around it.
- Who waits in a thread that may be the main one waits for no condition or ``Event``: those hold locks in Python.
  They poll (:func:`wait_until`), or wait for a plain lock. Threads of our own may wait for conditions: no signal
  handler runs there. They are woken under the condition's own plain lock.
- What is counted while something goes on is a set of tokens. ``set.add`` and ``set.discard`` are one step
  each, and the latter stands by itself in a ``finally``.

And a handler that uses the queue may have interrupted its own thread inside a lock. It would wait for ever, so it
is refused at once: :func:`entry`.
"""

import threading
import time
from collections.abc import Callable
from typing import TypeAlias

from kqueue.model.errors import KQueueError
from kqueue.system.clock import awake

#: One that knows its thread.
OwnLock: TypeAlias = "threading._RLock | threading.RLock"

#: Seconds between two looks of who waits.
POLL_S = 0.002
#: Why a call was refused, and what to do.
REENTERED = (
    "called from a signal handler, or a finalizer, that has interrupted such a call of the same thread, which would"
    " wait for itself for ever. Let the handler set a flag or start a thread, and call from there"
)


def is_main_thread() -> bool:
    """Whether signal handlers run in this thread."""
    return threading.get_ident() == threading.main_thread().ident


def is_ours(lock: OwnLock) -> bool:
    """Whether this thread holds it."""
    # As threading.Condition asks. No public name has it before Python 3.14.
    ours: bool = lock._is_owned()  # type: ignore[union-attr]
    return ours


def entry(lock: OwnLock, error: type[KQueueError], where: str) -> OwnLock:
    """``lock``, for the ``with`` that calls this. Raises ``error``, naming ``where``, if this thread holds it."""
    if lock._is_owned():  # type: ignore[union-attr] # as is_ours: asked for each job
        raise error(f"{where}: {REENTERED}")
    return lock


def wait_until(is_so: Callable[[], bool], seconds: float, monotonic: Callable[[], float] = awake) -> bool:
    """Whether it is so within so many seconds by ``monotonic``."""
    until = monotonic() + seconds
    while not is_so():
        if monotonic() >= until:
            return False
        time.sleep(POLL_S)
    return True
