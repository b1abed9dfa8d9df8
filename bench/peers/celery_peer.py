"""Celery: https://docs.celeryq.dev/. Late acks, no results, and a larger prefetch, as it advises for short tasks.

One process. No-ops: the solo pool, which runs tasks in the worker itself. Jobs that wait: its pool of threads, or
of gevent's greenlets, which its documentation has for work that waits. Bulk: a ``group``.
"""

import os
import sys

from celery import Celery, group

from bench.peers import work as bench

APP = Celery("bench", broker=bench.url())
APP.conf.update(
    task_acks_late=True, task_ignore_result=True, worker_prefetch_multiplier=128, task_send_sent_event=False
)
CLOCK = bench.ProcessClock()
POOLS = {"": "solo", "threads": "threads", "greenlets": "gevent"}


@APP.task
def task(payload: str) -> None:
    bench.run(CLOCK)


def add_in_bulk(jobs: int) -> None:
    for length in bench.lists(jobs):
        group(task.s(bench.PAYLOAD) for _ in range(length)).apply_async()


def add_one_by_one(jobs: int) -> None:
    for _ in range(jobs):
        task.delay(bench.PAYLOAD)


def work() -> None:
    # Its own program: gevent has to patch what is imported before anything else is.
    pool = ["--pool", POOLS[bench.kind()], "--concurrency", str(bench.hands(1))]
    quiet = ["--loglevel", "ERROR", "--without-gossip", "--without-mingle", "--without-heartbeat"]
    program = [sys.executable, "-m", "celery", "--app", "bench.peers.celery_peer", "worker"]
    os.execv(sys.executable, [*program, *pool, *quiet])


def left() -> int:
    with APP.connection_for_read() as connection:
        client = connection.default_channel.client
        return int(client.llen("celery")) + int(client.hlen("unacked"))
