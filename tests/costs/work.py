"""The work whose cost is counted: one list of jobs, added and run to its end."""

from kqueue import JobInHand, KQueue
from kqueue.assembly import assemble
from kqueue.system.clock import ManualClock

PAYLOAD = b"x" * 100


def at_a_still_clock(*urls: str, clock: ManualClock | None = None) -> KQueue:
    """Handlers take no time there, so windows grow as fast as they may: 1, 8, 64, 512 jobs, and so on. Unless they
    turn ``clock``.
    """
    return KQueue.from_parts(assemble(*urls, clock=clock or ManualClock(1_800_000_000.0)))


def open_queue(*urls: str) -> KQueue:
    """At a still clock, with one job behind it, so that connections, tables and indexes are made."""
    queue = at_a_still_clock(*urls)
    queue.add_handler("noop", JobInHand.delete)
    run(queue, 1)
    return queue


def run(queue: KQueue, jobs: int) -> None:
    """Add ``jobs`` in one list, and run them."""
    queue.add_jobs("noop", [PAYLOAD] * jobs)
    assert queue.run_jobs().deleted == jobs
