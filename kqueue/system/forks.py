"""What makes a KQueue safe to use after ``fork``: one handle for each process, and a guard for what came along.

A connection that came along through ``fork`` is shared with the parent: to write to it mixes two conversations,
and to close it can speak to the server in the parent's name. So the child makes its own handle, and keeps the
parent's as it is: referenced, so that no destructor runs, and never used. (SQLite cannot bear an inherited
connection even so, and closes its own before each fork: see :mod:`kqueue.stores.sqlite.file.file`.)
"""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, NoReturn, TypeVar

T = TypeVar("T")


class ForkGuard:
    """Tells whoever holds it whether this is still the process that has made it.

    It asks the system each time: a fork that runs no ``os.register_at_fork`` hooks is a fork all the same.
    """

    __slots__ = ("pid",)

    def __init__(self) -> None:
        #: Of the process that has made it.
        self.pid = os.getpid()

    def is_inherited(self) -> bool:
        """Whether this is a child that was forked since: threads, locks and connections that were there are not
        to be touched.
        """
        return os.getpid() != self.pid


class PerProcess(Generic[T]):
    """Holds one ``T`` for the current process, made on first use by ``make``.

    No lock guards it, since a lock may be held by another thread of the parent at the moment of the fork
    and would then stay locked in the child for ever. ``dict.setdefault`` is atomic: when two threads come
    first at once, one handle is kept and the other thrown away, so ``make`` must not have side effects.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._by_pid: dict[int, T] = {}

    def get(self) -> T:
        """The handle of this process."""
        pid = os.getpid()
        handle = self._by_pid.get(pid)
        return self._by_pid.setdefault(pid, self._make()) if handle is None else handle

    def existing(self) -> T | None:
        """The handle of this process if it has one; nothing is made."""
        return self._by_pid.get(os.getpid())


def end_child(interrupt: BaseException | None = None) -> NoReturn:
    """End a child that a handler forked in a thread of its own, with the status that it asked for by ``sys.exit``.

    Not by the end of that thread: others may have begun in the child, such as a database driver's.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    code = interrupt.code if isinstance(interrupt, SystemExit) else 0
    os._exit(code if isinstance(code, int) else int(code is not None))
