"""Loads what awaits, where something is to be awaited: asyncio costs a process 2.4 MB and 16 ms."""

import logging
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

from kqueue.execution.overtime import MOST_ABANDONED
from kqueue.loops.stopping import LoopFailed
from kqueue.system.clock import Clock

if TYPE_CHECKING:
    from kqueue.execution.deadlines import Timed
    from kqueue.loops.event_loop import RunLoop
    from kqueue.loops.loop_thread import LoopThread


class Awaiter:
    """Awaits what one loop's handlers return, on an event loop that it makes at the first and keeps until
    :meth:`close`.
    """

    def __init__(self) -> None:
        self._loop: RunLoop | None = None

    def open(self) -> "RunLoop":
        """Make it, if it is not there. Raises ``OSError``: to be called before a handler is."""
        if self._loop is None:
            self._loop = _open_run_loop()
        return self._loop

    def wait(self, timed: "Timed", awaitable: Awaitable[Any]) -> object:
        """Run ``awaitable`` to its end, or until its time is over: see
        :meth:`kqueue.loops.event_loop.RunLoop.wait`.
        """
        return self.open().wait(awaitable, timed)

    def check(self) -> None:
        """Raises ``LoopFailed`` if too many were cancelled, since their time was over, and have not ended."""
        if self._loop is not None and self._loop.abandoned() >= MOST_ABANDONED:
            raise LoopFailed(
                f"{MOST_ABANDONED} coroutines that were cancelled at the end of their leases have not ended:"
                " they swallow CancelledError; this process has to be started anew"
            )

    def close(self) -> None:
        """Cancel what handlers have left running in the background, and close the event loop. Idempotent."""
        if self._loop is not None:
            self._loop.close()


def check_outside_loop(name: str) -> None:
    """Raises ``KQueueError`` if an event loop runs in this thread, which would stand still in the call ``name``."""
    from kqueue.loops import event_loop  # noqa: PLC0415 (see the module's text)

    event_loop.check_outside_loop(name)


def open_loop_thread(clock: Clock, logger: logging.Logger) -> "LoopThread":
    """An event loop with a thread of its own, which is not started yet."""
    from kqueue.loops.loop_thread import LoopThread  # noqa: PLC0415 (see the module's text)

    return LoopThread(clock, logger)


def _open_run_loop() -> "RunLoop":
    from kqueue.loops.event_loop import RunLoop  # noqa: PLC0415 (see the module's text)

    return RunLoop()
