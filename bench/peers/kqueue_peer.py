"""KQueue itself. Its address is ``STORE`` or ``STORE|BROKER``.

Its clock runs longer than the others': from the call that runs jobs until that returned, with all deletes durable.
"""

import os
import time
from concurrent.futures import ThreadPoolExecutor

from bench.peers import work as bench
from kqueue import JobInHand, KQueue

STORE, _, BROKER = bench.url().partition("|")
QUEUE = KQueue(STORE, BROKER or None)
#: That add jobs singly where that is not measured: they share commits.
ADDERS = 32


def add_in_bulk(jobs: int) -> None:
    """In lists. Jobs that wait are added singly, so that each has an entry of its own in the tube."""
    if bench.SECONDS:
        with ThreadPoolExecutor(ADDERS) as threads:
            list(threads.map(lambda _: QUEUE.add_job("task", bench.PAYLOAD), range(jobs)))
    else:
        for length in bench.lists(jobs):
            QUEUE.add_jobs("task", [bench.PAYLOAD] * length)


def add_one_by_one(jobs: int) -> None:
    for _ in range(jobs):
        QUEUE.add_job("task", bench.PAYLOAD)


def work() -> None:
    jobs = int(os.environ[bench.JOBS])
    QUEUE.add_handler("task", _sleep if bench.SECONDS else JobInHand.delete)
    QUEUE.open()
    started = time.monotonic()
    if bench.SECONDS:
        report = QUEUE.work(threads=bench.hands(1), wait=False)
    else:
        report = QUEUE.run_jobs(count_limit=jobs, wait=True)
    assert report.deleted == jobs, report
    bench.write_report(started, time.monotonic())


def left() -> int:
    return sum(QUEUE.counts().values())


def _sleep(job: JobInHand) -> None:
    time.sleep(bench.SECONDS)
    job.delete()
