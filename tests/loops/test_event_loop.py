"""Event loops by themselves."""

import asyncio
import gc
import logging
import subprocess
import sys
import threading
from typing import Any

import pytest

from kqueue import KQueueError
from kqueue.contracts.settlements import Outcome
from kqueue.execution.execute import Decision
from kqueue.execution.overtime import TimeLeft
from kqueue.loops.event_loop import RunLoop
from kqueue.loops.lazy_asyncio import Awaiter
from kqueue.loops.loop_thread import LoopThread
from kqueue.system.clock import SystemClock
from tests.tubes import await_true

LOGGER = logging.getLogger("kqueue")


class Whoever:
    """A run that has all time, and that notes how it ended."""

    def __init__(self) -> None:
        self.ends: list[BaseException | None] = []

    def time_left(self) -> TimeLeft:
        return TimeLeft(600, 600, Decision(Outcome.RETRIED))

    def cut(self, decision: Decision) -> None:
        raise AssertionError

    def abandon(self) -> None:
        raise AssertionError

    def ended(self, error: BaseException | None) -> None:
        self.ends.append(error)


async def value(number: int) -> int:
    await asyncio.sleep(0)
    return number


def test_it_returns_and_raises_as_what_is_awaited() -> None:
    loop = RunLoop()
    assert loop.wait(value(3)) == 3
    with pytest.raises(ZeroDivisionError):
        loop.wait(divide())
    assert loop.wait(value(4)) == 4
    loop.close()
    loop.close()


async def divide() -> float:
    return 1 / await value(0)


def test_an_interrupt_of_a_task_first_ends_the_handler_that_started_it() -> None:
    seen: list[str] = []

    async def exits() -> None:
        raise SystemExit(3)

    async def handler() -> None:
        task = asyncio.create_task(exits())
        try:
            await asyncio.sleep(60)
        finally:
            await value(0)
            seen.append("cleaned up")
            with pytest.raises(SystemExit):
                await task

    loop = RunLoop()
    with pytest.raises(SystemExit):
        loop.wait(handler())
    assert seen == ["cleaned up"]
    loop.close()


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_inside_a_running_loop_nothing_is_awaited() -> None:
    loop = RunLoop()

    async def main() -> None:
        with pytest.raises(KQueueError, match="called inside a running event loop"):
            loop.wait(value(1))

    asyncio.run(main())
    gc.collect()
    loop.close()


def test_an_awaiter_that_was_never_asked_loads_no_asyncio() -> None:
    """It would cost each process 2.4 MB, and each command 16 ms."""
    code = """
import sys
from kqueue import KQueue
queue = KQueue("memory:")
queue.add_handler("t", lambda job: job.delete())
queue.add_job("t")
assert queue.run_jobs().deleted == queue.work(wait=False).deleted + 1 == 1
assert "asyncio" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    Awaiter().close()


def test_a_thread_goes_on_after_an_interrupt_of_a_background_task(caplog: pytest.LogCaptureFixture) -> None:
    loop = LoopThread(SystemClock(), LOGGER)
    done = threading.Event()
    kept: list[Any] = []

    async def exits() -> None:
        raise SystemExit(3)

    async def handler() -> None:
        kept.append(asyncio.create_task(exits()))
        await value(0)
        with pytest.raises(SystemExit):
            await kept[0]
        done.set()

    loop.start()
    loop.call(lambda: loop.spawn(handler(), Whoever()))
    assert done.wait(30)
    loop.close()
    assert "a background task of a handler raised SystemExit" in caplog.text


def test_a_thread_cancels_what_is_left_in_the_background() -> None:
    loop = LoopThread(SystemClock(), LOGGER)
    seen: list[str] = []

    async def background() -> None:
        seen.append("begun")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    loop.start()
    assert not loop.is_here()
    loop.call(lambda: loop.spawn(background(), Whoever()))
    await_true(lambda: bool(seen))
    loop.close()
    assert seen == ["begun", "cancelled"]


def test_a_thread_that_was_never_started_can_be_closed() -> None:
    LoopThread(SystemClock(), LOGGER).close()
