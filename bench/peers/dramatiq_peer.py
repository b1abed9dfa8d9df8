"""Dramatiq: https://dramatiq.io/. Its own worker program, one process with its usual 8 threads, or as many as are
told.

Bulk: a ``group``.
"""

import os
import sys

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from bench.peers import work as bench

BROKER = RedisBroker(url=bench.url())
dramatiq.set_broker(BROKER)
CLOCK = bench.ProcessClock()


@dramatiq.actor(queue_name="bench")
def task(payload: str) -> None:
    bench.run(CLOCK)


def add_in_bulk(jobs: int) -> None:
    for length in bench.lists(jobs):
        dramatiq.group(task.message(bench.PAYLOAD) for _ in range(length)).run()


def add_one_by_one(jobs: int) -> None:
    for _ in range(jobs):
        task.send(bench.PAYLOAD)


def work() -> None:
    threads = ["--processes", "1", "--threads", str(bench.hands(8))]
    program = [sys.executable, "-m", "dramatiq", *threads, "--skip-logging"]
    os.execv(sys.executable, [*program, "bench.peers.dramatiq_peer"])


def left() -> int:
    # A message that is fetched stays among the queue's messages until it is acknowledged.
    return int(BROKER.client.hlen("dramatiq:bench.msgs"))
