"""SAQ: https://saq-py.readthedocs.io/. One process with its usual 10 coroutines, or as many as are told;
what is done is not kept.

It has no bulk add: jobs are enqueued at once with ``gather``, as asyncio does it.
"""

import asyncio
from typing import Any

from saq import Queue, Worker

from bench.peers import work as bench

#: Enqueues that are under way at once.
AT_ONCE = 100
#: Keep nothing of a job that is done.
NO_TTL = -1
CLOCK = bench.ProcessClock()


async def task(context: dict[str, Any], *, payload: str) -> None:
    await bench.run_async(CLOCK)


async def _add(jobs: int, at_once: int) -> None:
    queue = Queue.from_url(bench.url(), name="bench")
    await queue.connect()
    for at in range(0, jobs, at_once):
        few = range(min(at_once, jobs - at))
        await asyncio.gather(*(queue.enqueue("task", payload=bench.PAYLOAD, ttl=NO_TTL) for _ in few))
    await queue.disconnect()


async def _work() -> None:
    queue = Queue.from_url(bench.url(), name="bench")
    await queue.connect()
    await Worker(queue, functions=[task], concurrency=bench.hands(10)).start()


async def _left() -> int:
    queue = Queue.from_url(bench.url(), name="bench")
    await queue.connect()
    count = await queue.count("incomplete")
    await queue.disconnect()
    return count


def add_in_bulk(jobs: int) -> None:
    asyncio.run(_add(jobs, AT_ONCE))


def add_one_by_one(jobs: int) -> None:
    asyncio.run(_add(jobs, 1))


def work() -> None:
    asyncio.run(_work())


def left() -> int:
    return asyncio.run(_left())
