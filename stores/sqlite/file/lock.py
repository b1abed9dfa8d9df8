"""A thread lock that no signal leaves held, and that knows who has it.

Python runs signal handlers between two steps of its own code, in the main thread. An exception that one raises just
after ``lock.acquire()`` has returned finds nobody who knows that the lock is held; one that it raises as an
``__exit__`` written in Python begins finds it never released. Within one call of a function written in C no handler
runs. So to take the lock and to note by whom is one such call here, and so is to free both; and before that no
other call is made:

    me = threading.get_ident()
    try:
        Taking(lock, owner).take(timeout)
        ...
    finally:
        for taking in lock.held:
            if taking.thread == me:
                taking.release()
"""

import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import compress
from operator import call


class OwnedLock:
    """Not reentrant: a thread that has it is told so by :meth:`is_mine`."""

    def __init__(self) -> None:
        self.plain = threading.Lock()
        #: By whom: one, or none. Only a :class:`Taking` changes it.
        self.held: list[Taking] = []

    def is_mine(self) -> bool:
        """Whether this thread has it."""
        me = threading.get_ident()
        return any(taking.thread == me for taking in self.held)


class Taking:
    """One thread's turn with a lock."""

    def __init__(self, lock: OwnedLock, owner: object, *first: Callable[[], object]) -> None:
        """``first`` is called before the lock is freed; functions in C that raise nothing."""
        self.thread = threading.get_ident()
        self.owner = owner
        self._lock = lock
        #: Frees the lock, in one call that no signal interrupts. Only for the holder, and once.
        self.release: Callable[[], object] = partial(
            deque, map(call, (*first, lock.held.clear, lock.plain.release)), 0
        )

    def take(self, seconds: float) -> bool:
        """Whether it was got; -1 waits for ever."""
        self._lock.held.extend(compress((self,), map(self._lock.plain.acquire, (True,), (seconds,))))
        return self.has_it()

    def has_it(self) -> bool:
        """Whether it has the lock now."""
        return any(taking is self for taking in self._lock.held)
