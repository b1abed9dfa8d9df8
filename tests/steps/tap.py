"""The tap: sees each I/O call of a store or a broker, counts it, and makes one of them fail or kill the process.

It is not part of the product. :mod:`tests.steps.edges` passes every call of a database or a socket through
:meth:`Tap.step`; whether a fault befalls it is told by a *plan*, which names calls by their :class:`Key`.

To kill a process between two calls is to kill it after the first of them, so there is one way to be killed.
"""

import socket
import sqlite3
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from functools import cache
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import NamedTuple, TypeVar

from tests.flows.processes import die

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
#: The folders that have I/O.
ROOMS = ("stores", "brokers")


class Fate(Enum):
    """What befalls a call."""

    BEFORE = "fails before its effect"
    AFTER = "fails after its effect"
    KILLED = "the process is killed after it"


class Call(NamedTuple):
    """Where in the product a call stands: what the compiler says of it."""

    file: str
    line: int
    end_line: int
    end_column: int


class Key(NamedTuple):
    """One I/O call of an operation: the same in each run of it."""

    nature: str
    #: ``file:line``
    site: str
    #: How many of this nature and site came before it.
    earlier: int

    def __str__(self) -> str:
        return f"{self.nature} at {self.site}" + (f", number {self.earlier + 1}" if self.earlier else "")


class Point(NamedTuple):
    """A call that was seen."""

    key: Key
    #: All calls of stores and brokers that led to it, the innermost first.
    calls: tuple[Call, ...]


Plan = Mapping[Key, Fate]


class Tap:
    """Listens to one thread at a time, and only when told to."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        self._plan: dict[Key, Fate] = {}
        self._seen: Counter[tuple[str, str]] = Counter()
        self._thread: int | None = None
        self._at_strike: Callable[[], object] = lambda: None
        self._meanwhile: dict[str, Callable[[], object]] = {}

    @contextmanager
    def listening(self, plan: Plan, at_strike: Callable[[], object]) -> Iterator[None]:
        """Count this thread's calls, and let ``plan`` befall them; ``at_strike`` is called as a fault strikes."""
        self.points = []
        self._plan, self._at_strike = dict(plan), at_strike
        self._seen.clear()
        self._meanwhile.clear()
        self._thread = threading.get_ident()
        try:
            yield
        finally:
            self._thread = None

    @contextmanager
    def unheard(self) -> Iterator[None]:
        """What others do meanwhile is not counted."""
        thread, self._thread = self._thread, None
        try:
            yield
        finally:
            self._thread = thread

    def meanwhile(self, nature: str, do: Callable[[], object]) -> None:
        """``do`` once, right after the next call whose nature begins so has had its effect."""
        self._meanwhile[nature] = do

    def unstruck(self) -> list[Key]:
        """Those of the plan that were not reached."""
        return list(self._plan)

    def hears(self) -> bool:
        """Whether calls of this thread are counted."""
        return self._thread == threading.get_ident()

    def step(self, nature: str, effect: Callable[[], T], fail: Callable[[], BaseException]) -> T:
        """One I/O call. ``fail()`` makes the natural error of this edge."""
        calls = _product_calls(sys._getframe(1)) if self.hears() else ()
        if not calls:
            return effect()
        fate = self._note(nature, calls)
        if fate is Fate.BEFORE:
            raise self._strike(fail)
        result: T | None = None
        try:
            result = effect()
            return result
        finally:
            self._do_meanwhile(nature)
            if fate is Fate.KILLED:
                die()
            if fate is Fate.AFTER:
                if isinstance(result, socket.socket | sqlite3.Connection):
                    result.close()  # nobody has it
                raise self._strike(fail)

    def _note(self, nature: str, calls: tuple[Call, ...]) -> Fate | None:
        site = f"{calls[0].file}:{calls[0].line}"
        key = Key(nature, site, self._seen[nature, site])
        self._seen[nature, site] += 1
        self.points.append(Point(key, calls))
        return self._plan.pop(key, None)

    def _strike(self, fail: Callable[[], BaseException]) -> BaseException:
        with self.unheard():
            self._at_strike()
            return fail()

    def _do_meanwhile(self, nature: str) -> None:
        for start in list(self._meanwhile):
            if nature.startswith(start):
                with self.unheard():
                    self._meanwhile.pop(start)()


def _product_calls(frame: FrameType | None) -> tuple[Call, ...]:
    calls = []
    while frame is not None:
        file = _named(frame.f_code.co_filename)
        if file is not None:
            line, end_line, _, end_column = _position(frame)
            calls.append(Call(file, line, end_line, end_column))
        frame = frame.f_back
    return tuple(calls)


@cache
def _named(filename: str) -> str | None:
    """``stores/sqlite/store.py`` for a file of ours, by whichever path it was imported."""
    path = Path(filename)
    for folder in (ROOT / "kqueue", ROOT):
        if path.is_relative_to(folder) and path.relative_to(folder).parts[0] in ROOMS:
            return str(path.relative_to(folder))
    return None


def _position(frame: FrameType) -> tuple[int, int, int, int]:
    # Two bytes an instruction; see https://docs.python.org/3/reference/datamodel.html#codeobject.co_positions
    at = frame.f_lasti // 2
    line, end_line, column, end_column = next(islice(frame.f_code.co_positions(), at, None))
    return line or 0, end_line or 0, column or 0, end_column or 0
