"""The event loop of a ``run_jobs`` that has something to await. That of ``work``: :mod:`kqueue.loops.loop_thread`.

Theory of operation. A handler may fork, and the child holds all that the loop has open. The kernel's side of an
epoll is shared with it: what the child takes out of it when its copy of the loop is closed or collected, the parent
would never hear of again. ``poll`` keeps nothing in the kernel, and is as fast for the hundreds of sockets that a
process has here. Nothing else of a loop is touched by a child: not its tasks, whose ends would speak to servers in
the parent's name.
"""

import asyncio
import inspect
import selectors
from collections.abc import Awaitable, Coroutine
from functools import partial
from typing import Any

from kqueue.execution.deadlines import Deadlines, Timed
from kqueue.model.errors import KQueueError
from kqueue.system.forks import ForkGuard

#: Seconds that the end of background tasks is waited for; and where some are known not to end.
PATIENCE_S = 10.0
SHORT_PATIENCE_S = 0.5


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
        self._fork = ForkGuard()
        self._runner = asyncio.Runner(loop_factory=new_loop)
        #: None before the first that is awaited.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._deadlines: Deadlines | None = None
        self._task: asyncio.Task[Any] | None = None
        #: Those that did not end when they were cancelled.
        self._abandoned: set[asyncio.Task[Any]] = set()

    def wait(self, awaitable: Awaitable[Any], timed: Timed | None = None) -> object:
        """Run ``awaitable`` to its end, and with it what it has started before. Returns and raises as it does.

        Where its time is over it is cancelled; if it does not end then, ``CancelledError`` is raised all the same
        and it stays behind. Ctrl-C cancels it, as it does under ``asyncio.run``.
        """
        try:
            check_outside_loop("run_jobs")
        except KQueueError:
            if inspect.iscoroutine(awaitable):
                awaitable.close()  # or Python would warn that nobody has awaited it
            raise
        self._loop = self._loop or self._runner.get_loop()
        try:
            returned, interrupt = self._run(self._guarded(awaitable, timed))
        except (KeyboardInterrupt, SystemExit):
            self._end_task()
            raise
        if interrupt is not None:
            raise interrupt
        return returned

    def abandoned(self) -> int:
        """How many that were cancelled have not ended."""
        self._abandoned = {task for task in self._abandoned if not task.done()}
        return len(self._abandoned)

    def close(self) -> None:
        """Cancel what runs in the background, and wait for its end, but not for that of what was abandoned. Does
        nothing in a forked child. Idempotent.
        """
        if self._loop is None or self._fork.is_inherited() or self._loop.is_closed():
            return
        self._loop.set_task_factory(None)  # closing needs tasks, and a handler may have set one that fails
        if self.abandoned():
            self._runner.run(_cancel_all())
            self._loop.close()
        else:
            self._runner.close()

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        while True:
            try:
                return self._runner.run(coroutine)
            except RuntimeError:
                task = self._task
                if task is None or task.done() or self._fork.is_inherited():
                    raise
                if task in self._abandoned:
                    raise asyncio.CancelledError from None
                coroutine = _rest(task)  # a handler has stopped the loop, and all of them wait for it

    async def _guarded(self, awaitable: Awaitable[Any], timed: Timed | None) -> tuple[object, BaseException | None]:
        """What it returns, or the interrupt that it raises: such a one would go through the loop like a knife."""
        task = self._task = asyncio.current_task()
        deadlines = None
        if timed is not None and task is not None:
            loop = task.get_loop()
            deadlines = self._deadlines = self._deadlines or Deadlines(loop)
            deadlines.add(task, timed, partial(self._abandon, loop, task, timed))
        try:
            return await awaitable, None
        except (KeyboardInterrupt, SystemExit) as error:
            return None, error
        finally:
            if deadlines is not None and task is not None:
                deadlines.discard(task)

    def _abandon(self, loop: asyncio.AbstractEventLoop, task: "asyncio.Task[Any]", timed: Timed) -> None:
        timed.abandon()
        self._abandoned.add(task)
        loop.stop()

    def _end_task(self) -> None:
        """An interrupt came up from a task that the handler had started, so that its own may still be there."""
        task = self._task
        if task is not None and not task.done() and not self._fork.is_inherited():
            self._runner.run(_cancelled(task))


def new_loop() -> asyncio.AbstractEventLoop:
    """An event loop of asyncio's own kind: see the module's text."""
    return asyncio.SelectorEventLoop(selectors.PollSelector())


async def _rest(task: "asyncio.Task[Any]") -> object:
    return await task


async def _cancelled(task: "asyncio.Task[Any]") -> None:
    task.cancel()
    await asyncio.wait([task], timeout=PATIENCE_S)
    if task.done() and not task.cancelled():
        task.exception()  # or asyncio would log that nobody has asked for it


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=SHORT_PATIENCE_S)
