"""An event loop in a thread of its own, for the coroutines that ``work`` runs side by side.

Theory of operation. Each coroutine that is spawned *ends* exactly once, in whatever way it ends: a task that is
cancelled before its first step never enters its coroutine, so no ``finally`` in there will do, and the task's
done-callback does. A loop that a handler stops goes on. Where the loop itself fails, all that were spawned end
with its error.

The loop counts its turns, once a second, so that others see whether a coroutine keeps it.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Protocol

from kqueue.execution.deadlines import Deadlines, Timed
from kqueue.loops.event_loop import PATIENCE_S, SHORT_PATIENCE_S, new_loop
from kqueue.loops.stopping import LoopFailed
from kqueue.system.clock import Clock
from kqueue.system.threads import Background

#: Seconds between two turns that are counted.
TURN_S = 1.0


class Spawned(Timed, Protocol):
    """Whose coroutine runs here. Called in the loop's thread; raises nothing."""

    def ended(self, error: BaseException | None) -> None:
        """It has ended, or will never run on. ``error``: what it raised, or what kept it from running; None if it
        returned or was cancelled. Called exactly once.
        """


class LoopThread:
    """A thread with an event loop in which coroutines run: see the module's text."""

    def __init__(self, clock: Clock, logger: logging.Logger) -> None:
        self._clock = clock
        self._logger = logger
        self._runner = asyncio.Runner(loop_factory=new_loop)
        self._loop = self._runner.get_loop()
        #: The loop itself refers to its tasks weakly.
        self._tasks: dict[asyncio.Task[Any], Spawned] = {}
        self._deadlines = Deadlines(self._loop)
        self._closing = False
        self._error: BaseException | None = None
        #: Grows once a second while the loop gets on.
        self.turns = 0
        #: When it last did, in monotonic seconds.
        self.turned_at = self._clock.monotonic()
        self._thread: Background | None = None

    def start(self) -> None:
        """Let the coroutine run."""
        self.turned_at = self._clock.monotonic()
        self._loop.call_soon(self._turn)
        self._thread = Background(self._run, "kqueue-event-loop")

    @property
    def thread(self) -> int:
        """Its own, as :func:`threading.get_ident` has it; -1 before it is started."""
        return -1 if self._thread is None else self._thread.ident

    def is_here(self) -> bool:
        """Whether the caller is in its thread."""
        return threading.get_ident() == self.thread

    def has_failed(self) -> bool:
        """Whether nothing in it will ever be called again."""
        return self._error is not None

    def check(self) -> None:
        """Raises ``LoopFailed`` if it has."""
        if self._error is not None:
            error = self._error
            raise LoopFailed(f"the event loop has failed: {type(error).__name__}: {error}") from error

    def call(self, function: Callable[[], object]) -> None:
        """Have it call ``function`` soon. From any thread. Raises ``LoopFailed`` if the loop has."""
        self.check()
        self._loop.call_soon_threadsafe(function)

    def call_last(self, function: Callable[[], object]) -> None:
        """Have it call ``function`` once it has done what is ready now; at once, if the loop has failed. In its own
        thread only.
        """
        if self._error is None:
            self._loop.call_soon(function)
        else:
            function()

    def spawn(self, coroutine: Coroutine[Any, Any, None], spawned: Spawned) -> None:
        """Let ``coroutine`` run beside the others, until its time is over. In its own thread only."""
        try:
            task = self._loop.create_task(coroutine)
        except BaseException as error:  # of a task factory of the user's
            coroutine.close()
            spawned.ended(error)
            return
        self._tasks[task] = spawned
        self._deadlines.add(task, spawned, spawned.abandon)
        task.add_done_callback(self._end)

    def renewer(self) -> Spawned | None:
        """Whose own code keeps the loop now, as far as that is known. From any thread."""
        task = asyncio.current_task(self._loop)
        return None if task is None else self._tasks.get(task)

    def close(self, *, is_kept: bool = False) -> None:
        """Cancel what handlers have left running in the background, and end the thread.

        ``is_kept``: something is known to keep it, so it is not waited for as long as otherwise.
        """
        self._closing = True
        if self._thread is None:
            self._runner.close()
            return
        with suppress(RuntimeError):  # it has failed and is closed
            self._loop.call_soon_threadsafe(self._loop.stop)
        if not self._thread.join(SHORT_PATIENCE_S if is_kept else PATIENCE_S):
            self._logger.warning(
                "the event loop is left behind: a background task or a cancelled coroutine does not end"
            )

    # -- its thread --------------------------------------------------------------------------------------

    def _turn(self) -> None:
        self.turns, self.turned_at = self.turns + 1, self._clock.monotonic()
        self._loop.call_later(TURN_S, self._turn)

    def _end(self, task: "asyncio.Task[Any]") -> None:
        self._deadlines.discard(task)
        spawned = self._tasks.pop(task, None)
        if spawned is not None:
            spawned.ended(None if task.cancelled() else task.exception())

    def _run(self) -> None:
        try:
            self._loop_on()
        except BaseException as error:  # of the loop itself: nothing in it will ever be called again
            self._error = error
            self._logger.error("the event loop has failed: %s: %s", type(error).__name__, error)
            self._end_all()
            with suppress(Exception):
                self._loop.close()
            return
        self._loop.set_task_factory(None)  # closing needs tasks, and a handler may have set one that fails
        self._runner.close()

    def _loop_on(self) -> None:
        while not self._closing:
            try:
                self._loop.run_forever()  # also when a handler has stopped it
            except (KeyboardInterrupt, SystemExit) as error:
                # Of a task that a handler has started. If the handler awaits it, it gets it too.
                self._logger.error("a background task of a handler raised %s", type(error).__name__)

    def _end_all(self) -> None:
        try:
            self.check()
        except LoopFailed as error:
            while self._tasks:
                self._tasks.popitem()[1].ended(error)
