"""KQueue itself. Its address is ``STORE`` or ``STORE|BROKER``.

Its clock runs longer than the others': from the call of ``run_jobs`` until that returned, with all deletes durable.
"""

import os
import time

from bench.peers import work as bench
from kqueue import JobInHand, KQueue

STORE, _, BROKER = bench.url().partition("|")
QUEUE = KQueue(STORE, BROKER or None)


def add_in_bulk(jobs: int) -> None:
    for length in bench.lists(jobs):
        QUEUE.add_jobs("noop", [bench.PAYLOAD] * length)


def add_one_by_one(jobs: int) -> None:
    for _ in range(jobs):
        QUEUE.add_job("noop", bench.PAYLOAD)


def work() -> None:
    jobs = int(os.environ[bench.JOBS])
    QUEUE.add_handler("noop", JobInHand.delete)
    QUEUE.open()
    started = time.monotonic()
    assert QUEUE.run_jobs(count_limit=jobs, wait=True).deleted == jobs
    bench.write_report(started, time.monotonic())


def left() -> int:
    return sum(QUEUE.counts().values())
