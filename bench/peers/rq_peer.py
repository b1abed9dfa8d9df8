"""RQ: https://python-rq.org/docs/. Bulk: ``enqueue_many``.

Its SimpleWorker does not fork for each job, as the usual one does: much faster for no-ops.
"""

from redis import Redis
from rq import Queue, SimpleWorker

from bench.peers import work as bench

CONNECTION = Redis.from_url(bench.url())
QUEUE = Queue("bench", connection=CONNECTION)
CLOCK = bench.Clock()


def noop(payload: str) -> None:
    CLOCK.tick()


def add_in_bulk(jobs: int) -> None:
    for length in bench.lists(jobs):
        QUEUE.enqueue_many([Queue.prepare_data(noop, (bench.PAYLOAD,), result_ttl=0) for _ in range(length)])


def add_one_by_one(jobs: int) -> None:
    for _ in range(jobs):
        QUEUE.enqueue(noop, bench.PAYLOAD, result_ttl=0)


def work() -> None:
    SimpleWorker([QUEUE], connection=CONNECTION).work(logging_level="WARNING")


def left() -> int:
    return QUEUE.count + QUEUE.started_job_registry.count
