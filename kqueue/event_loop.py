"""Event loops: one for a ``run_jobs`` that has something to await, one in a thread of its own for ``work``.

Theory of operation. A handler may fork, and the child holds all that the loop has open. The kernel's side of an
epoll is shared with it: what the child takes out of it when its copy of the loop is closed or collected, the parent
would never hear of again. ``poll`` keeps nothing in the kernel, and is as fast for the hundreds of sockets that a
process has here. Nothing else of a loop is touched by a child: not its tasks, whose ends would speak to servers in
the parent's name.
"""

import asyncio
import inspect
import logging
import os
import selectors
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from kqueue.errors import KQueueError

#: Seconds that the end of background tasks is waited for.
PATIENCE_S = 10.0


def check_outside_loop(name: str) -> None:
    """Raises ``KQueueError`` if an event loop runs in this thread, which would stand still in the call ``name``."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise KQueueError(
        f"{name}: called inside a running event loop, which would stand still meanwhile, and no coroutine could be"
        f" run; say await asyncio.to_thread(queue.{name})"
    )


class RunLoop:
    """Runs one awaitable after another, in the thread that calls."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._runner = asyncio.Runner(loop_factory=_new_loop)
        self._task: asyncio.Task[Any] | None = None

    def wait(self, awaitable: Awaitable[Any]) -> object:
        """Run ``awaitable`` to its end, and with it what it has started before. Returns and raises as it does.

        Ctrl-C cancels it, as it does under ``asyncio.run``.
        """
        try:
            check_outside_loop("run_jobs")
        except KQueueError:
            if inspect.iscoroutine(awaitable):
                awaitable.close()  # or Python would warn that nobody has awaited it
            raise
        try:
            returned, interrupt = self._runner.run(self._guarded(awaitable))
        except (KeyboardInterrupt, SystemExit):
            self._end_task()
            raise
        if interrupt is not None:
            raise interrupt
        return returned

    def close(self) -> None:
        """Cancel what runs in the background, and wait for its end. Does nothing in a forked child. Idempotent."""
        if os.getpid() == self._pid:
            self._runner.close()

    async def _guarded(self, awaitable: Awaitable[Any]) -> tuple[object, BaseException | None]:
        """What it returns, or the interrupt that it raises: such a one would go through the loop like a knife."""
        self._task = asyncio.current_task()
        try:
            return await awaitable, None
        except (KeyboardInterrupt, SystemExit) as error:
            return None, error

    def _end_task(self) -> None:
        """An interrupt came up from a task that the handler had started, so that its own may still be there."""
        task = self._task
        if task is not None and not task.done() and os.getpid() == self._pid:
            self._runner.run(_cancelled(task))


class LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._runner = asyncio.Runner(loop_factory=_new_loop)
        self._loop = self._runner.get_loop()
        #: The loop itself refers to its tasks weakly.
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="kqueue-event-loop", daemon=True)

    def start(self) -> None:
        """Let it run."""
        self._thread.start()

    def is_here(self) -> bool:
        """Whether the caller is in its thread."""
        return threading.get_ident() == self._thread.ident

    def call(self, function: Callable[[], object]) -> None:
        """Have it call ``function`` soon. From any thread."""
        self._loop.call_soon_threadsafe(function)

    def call_last(self, function: Callable[[], object]) -> None:
        """Have it call ``function`` once it has done what is ready now. In its own thread only."""
        self._loop.call_soon(function)

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Let ``coroutine``, which raises nothing, run beside the others. In its own thread only."""
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """Cancel what handlers have left running in the background, and end the thread."""
        self._closing = True
        if self._thread.ident is None:
            self._runner.close()
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)
        if self._thread.is_alive():
            self._logger.warning("the event loop is left behind: a background task did not end when cancelled")

    def _run(self) -> None:
        while not self._closing:
            try:
                self._loop.run_forever()
            except (KeyboardInterrupt, SystemExit) as error:
                # Of a task that a handler has started. If the handler awaits it, it gets it too.
                self._logger.error("a background task of a handler raised %s", type(error).__name__)
        self._runner.close()


def _new_loop() -> asyncio.AbstractEventLoop:
    return asyncio.SelectorEventLoop(selectors.PollSelector())


async def _cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()  # or asyncio would log that nobody has asked for it
