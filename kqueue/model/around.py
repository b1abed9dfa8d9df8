"""What a user has done around each run of a handler: connections, contexts, timings, reports of errors.

    @queue.around
    def with_database(job):
        with connect():
            yield            # the handler runs here, and what it raises is raised here

A generator function goes around every handler, an async generator function around those that are an ``async def``.
The one that was given first is the outermost. What one of them raises is as if the handler had raised it; one that
catches what the handler raised has it counted as a run that returned nothing. Around a handler with ``batch`` it
goes once around each call, and is given the list.
"""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from functools import wraps
from typing import Any, TypeAlias, TypeVar

from kqueue.model.job import JobInHand
from kqueue.model.wording import shown

#: What ``queue.around`` takes.
AroundFunction: TypeAlias = Callable[[Any], Iterator[None] | AsyncIterator[None]]
#: What the decorator takes and returns as it is.
Around = TypeVar("Around", bound=AroundFunction)


def checked(value: object) -> AroundFunction:
    """A generator function, or an async one, of the job. Raises ``TypeError``."""
    if not (inspect.isgeneratorfunction(value) or inspect.isasyncgenfunction(value)):
        raise TypeError(f"around: expected a function of the job that yields once, got {shown(value)}")
    function: AroundFunction = value
    return function


def surrounded(
    function: Callable[[Any], Any], is_async: bool, around: Sequence[AroundFunction]
) -> Callable[[Any], Any]:
    """A handler's ``function``, a coroutine function if ``is_async``, with each of ``around`` around it."""
    fitting = [one for one in around if is_async or inspect.isgeneratorfunction(one)]
    if not fitting:
        return function
    return _surround_async(function, fitting) if is_async else _surround(function, fitting)


def _surround(function: Callable[[Any], Any], around: Sequence[Any]) -> Callable[[Any], Any]:
    contexts = [contextmanager(one) for one in around]

    @wraps(function, updated=())
    def run(job: JobInHand | list[JobInHand]) -> Any:
        with ExitStack() as stack:
            for context in contexts:
                stack.enter_context(context(job))
            returned = function(job)
            # It runs when it is awaited, and they are around that too.
            return _awaited(returned, stack.pop_all()) if inspect.isawaitable(returned) else returned

    return run


async def _awaited(returned: Awaitable[Any], stack: ExitStack) -> Any:
    with stack:
        return await returned


def _surround_async(function: Callable[[Any], Any], around: Sequence[Any]) -> Callable[[Any], Any]:
    contexts = [
        contextmanager(one) if inspect.isgeneratorfunction(one) else asynccontextmanager(one) for one in around
    ]

    @wraps(function, updated=())
    async def run(job: JobInHand | list[JobInHand]) -> Any:
        async with AsyncExitStack() as stack:
            for context in contexts:
                entered: Any = context(job)
                if isinstance(entered, AbstractAsyncContextManager):
                    await stack.enter_async_context(entered)
                else:
                    stack.enter_context(entered)
            return await function(job)

    return run
