"""Dramatiq: https://dramatiq.io/. Its own worker program, one process with its usual 8 threads.

Bulk: a ``group``.
"""

import os
import sys

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from bench.peers import work as bench

BROKER = RedisBroker(url=bench.url())
dramatiq.set_broker(BROKER)
CLOCK = bench.Clock()


@dramatiq.actor(queue_name="bench")
def noop(payload: str) -> None:
    CLOCK.tick()


def add_in_bulk(jobs: int) -> None:
    for length in bench.lists(jobs):
        dramatiq.group(noop.message(bench.PAYLOAD) for _ in range(length)).run()


def add_one_by_one(jobs: int) -> None:
    for _ in range(jobs):
        noop.send(bench.PAYLOAD)


def work() -> None:
    program = [sys.executable, "-m", "dramatiq", "--processes", "1", "--threads", "8", "--skip-logging"]
    os.execv(sys.executable, [*program, "bench.peers.dramatiq_peer"])


def left() -> int:
    # A message that is fetched stays among the queue's messages until it is acknowledged.
    return int(BROKER.client.hlen("dramatiq:bench.msgs"))
