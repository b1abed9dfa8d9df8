"""Child processes that get ready, start together, and each report one value.

A child's work is called with ``start``; it calls that when it is ready, and goes on once all are. Children are
fresh interpreters, not forks: so none inherits its parent's memory or connections. Times are those of
``time.monotonic()``, which all processes of a machine share.
"""

import multiprocessing
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

Start: TypeAlias = Callable[[], None]
#: At the top level of its module, or a ``functools.partial`` of such a function: it is pickled.
Work: TypeAlias = Callable[[Start], Any]

#: Seconds after which a child that is to end counts as hung.
PATIENCE_S = 60.0


class Child:
    """One process. Ended with ``with`` whatever it does."""

    def __init__(self, work: Work) -> None:
        """Starts it; it gets ready meanwhile."""
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process: BaseProcess = context.Process(target=_run, args=(work, theirs))
        self._process.start()
        theirs.close()

    def await_ready(self) -> None:
        self._receive("ready")

    def start(self) -> None:
        self._pipe.send("start")

    def result(self) -> Any:
        """What its work returned. Raises ``RuntimeError`` if it failed."""
        value = self._receive("done")
        self._process.join(PATIENCE_S)
        return value

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pipe.close()
        if self._process.is_alive():
            self._process.kill()
        self._process.join()

    def _receive(self, expected: str) -> Any:
        try:
            word, value = self._pipe.recv()
        except EOFError:
            self._process.join(PATIENCE_S)
            raise RuntimeError(f"a child ended with status {self._process.exitcode}; see above") from None
        if word != expected:
            raise RuntimeError(f"a child failed: {value}")
        return value


def together(works: Sequence[Work]) -> tuple[float, list[Any]]:
    """Run each in a process of its own, all at once: (when they were started, their results)."""
    children: list[Child] = []
    try:
        for work in works:
            children.append(Child(work))
        for child in children:
            child.await_ready()
        started = time.monotonic()
        for child in children:
            child.start()
        return started, [child.result() for child in children]
    finally:
        for child in children:
            child.__exit__(None, None, None)


def alone(work: Work) -> Any:
    """Run it in a process of its own; its result."""
    return together([work])[1][0]


def peak_megabytes() -> float:
    """The most memory that this process ever had resident. Linux only: elsewhere not a number."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return float("nan")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def _run(work: Work, pipe: "Connection[Any, Any]") -> None:
    def start() -> None:
        pipe.send(("ready", None))
        pipe.recv()

    try:
        pipe.send(("done", work(start)))
    except EOFError:
        pass  # the parent is gone
    except Exception as error:
        pipe.send(("failed", repr(error)))
        raise
