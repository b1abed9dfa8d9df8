"""What a user has done when a process begins to run jobs, and when it has ended: pools, and their close.

Before the first loop of a process claims anything the start hooks are called, in the order given; once the last one
has ended, those for the stop, the last first. One that raises at the start ends the run with its error; one that
raises at the stop is logged, and the others are called.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias, TypeVar

from kqueue.model import checks
from kqueue.system.forks import PerProcess

#: What ``queue.on_start`` and ``queue.on_stop`` take.
HookFunction: TypeAlias = Callable[[], Any]
#: What a decorator takes and returns as it is.
Hook = TypeVar("Hook", bound=HookFunction)


class HookList:
    """In the order given."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._hooks: list[HookFunction] = []

    def add(self, hook: Hook) -> Hook:
        """Returns it. Raises ``TypeError`` for what cannot be called without arguments."""
        checks.takes(self._name, hook, "nothing", ())
        self._hooks.append(hook)
        return hook

    def __iter__(self) -> Iterator[HookFunction]:
        return iter(self._hooks)

    def __reversed__(self) -> Iterator[HookFunction]:
        return reversed(self._hooks)


class Hooks:
    """Of one queue. A forked child calls them anew: what its parent has started is not the child's."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self.at_start = HookList("on_start")
        self.at_stop = HookList("on_stop")
        self._state = PerProcess(_State)

    def enter(self, run: object) -> None:
        """Before ``run`` does anything, of which :meth:`leave` is told in any case. Raises what a hook raises."""
        state = self._state.get()
        state.runs.add(run)
        with state.lock:
            if state.is_started:
                return
            state.is_started = True
            for hook in self.at_start:
                hook()

    def leave(self, run: object) -> None:
        """It has ended."""
        state = self._state.get()
        state.runs.discard(run)
        with state.lock:
            if state.runs or not state.is_started:
                return
            state.is_started = False
            for hook in reversed(self.at_stop):
                try:
                    hook()
                except Exception:
                    self._logger.exception("on_stop: %r failed", hook)


class _State:
    """Of one process."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.runs: set[object] = set()
        self.is_started = False
