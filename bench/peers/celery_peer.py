"""Celery: https://docs.celeryq.dev/. Late acks, no results, and a larger prefetch, as it advises for short tasks.

One process: the solo pool, which runs tasks in the worker itself. Bulk: a ``group``.
"""

from celery import Celery, group

from bench.peers import work as bench

APP = Celery("bench", broker=bench.url())
APP.conf.update(
    task_acks_late=True, task_ignore_result=True, worker_prefetch_multiplier=128, task_send_sent_event=False
)
CLOCK = bench.Clock()


@APP.task
def noop(payload: str) -> None:
    CLOCK.tick()


def add_in_bulk(jobs: int) -> None:
    for length in bench.lists(jobs):
        group(noop.s(bench.PAYLOAD) for _ in range(length)).apply_async()


def add_one_by_one(jobs: int) -> None:
    for _ in range(jobs):
        noop.delay(bench.PAYLOAD)


def work() -> None:
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    APP.worker_main(["worker", "--pool", "solo", "--loglevel", "ERROR", *quiet])


def left() -> int:
    with APP.connection_for_read() as connection:
        client = connection.default_channel.client
        return int(client.llen("celery")) + int(client.hlen("unacked"))
