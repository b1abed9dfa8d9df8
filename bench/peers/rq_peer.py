"""RQ: https://python-rq.org/docs/. Bulk: ``enqueue_many``.

Its SimpleWorker does not fork for each job, as the usual one does: much faster for short jobs. A worker runs one
job at a time; several at once are a ``WorkerPool``, of processes.
"""

from redis import Redis
from rq import Queue, SimpleWorker
from rq.worker_pool import WorkerPool

from bench.peers import work as bench

CONNECTION = Redis.from_url(bench.url())
QUEUE = Queue("bench", connection=CONNECTION)
CLOCK = bench.SharedClock()


def task(payload: str) -> None:
    bench.run(CLOCK)


def add_in_bulk(jobs: int) -> None:
    for length in bench.lists(jobs):
        QUEUE.enqueue_many([Queue.prepare_data(task, (bench.PAYLOAD,), result_ttl=0) for _ in range(length)])


def add_one_by_one(jobs: int) -> None:
    for _ in range(jobs):
        QUEUE.enqueue(task, bench.PAYLOAD, result_ttl=0)


def work() -> None:
    if (workers := bench.hands(1)) == 1:
        SimpleWorker([QUEUE], connection=CONNECTION).work(logging_level="WARNING")
    else:
        pool = WorkerPool([QUEUE], CONNECTION, num_workers=workers, worker_class=SimpleWorker)
        pool.start(logging_level="WARNING")


def left() -> int:
    return QUEUE.count + QUEUE.started_job_registry.count
