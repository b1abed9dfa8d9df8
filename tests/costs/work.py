"""The work whose cost is counted: one list of jobs, added and run to its end."""

from contextlib import AbstractContextManager
from unittest.mock import patch

from kqueue import JobInHand, KQueue
from kqueue.system.clock import ManualClock

PAYLOAD = b"x" * 100


def at_a_still_clock() -> AbstractContextManager[object]:
    """Handlers take no time then, so windows grow as fast as they may: 1, 8, 64, 512 jobs, and so on."""
    clock = ManualClock(1_800_000_000.0)
    return patch("kqueue.queue.SystemClock", lambda: clock)


def open_queue(*urls: str) -> KQueue:
    """With one job behind it, so that connections, tables and indexes are made."""
    queue = KQueue(*urls)
    queue.add_handler("noop", JobInHand.delete)
    run(queue, 1)
    return queue


def run(queue: KQueue, jobs: int) -> None:
    """Add ``jobs`` in one list, and run them."""
    queue.add_jobs("noop", [PAYLOAD] * jobs)
    assert queue.run_jobs().deleted == jobs
