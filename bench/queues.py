"""KQueues of the benchmarks, by the public API only: in this process or in one of its own."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import click

from bench.bare import PAYLOAD
from bench.children import Start, together
from kqueue import JobInHand, KQueue
from tests.beanstalkd import Beanstalkd, executable

#: Jobs in one ``add_jobs``, unless said otherwise.
LIST = 1000
#: Seconds after which a run that does not end counts as broken.
PATIENCE_S = 600.0
#: The job type of no-ops.
NOOP = "noop"


class Missing(click.ClickException):
    """A server that a benchmark needs is not on this machine."""


@contextmanager
def beanstalkd(flags: tuple[str, ...] = (), binlog: bool = True, unix: bool = False) -> Iterator[Beanstalkd]:
    """A server of one's own, with ``-b`` unless said otherwise, whose data goes with it."""
    if executable() is None:
        raise Missing("beanstalkd is not installed: apt install beanstalkd")
    server = Beanstalkd(binlog=binlog, flags=flags, unix=unix)
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def folder() -> Iterator[Path]:
    """A folder for data, which goes with it."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        yield Path(name)


@contextmanager
def fresh_queue(broker: str | None, options: str = "", **settings: float) -> Iterator[KQueue]:
    """A KQueue on a new SQLite file, open. ``options`` of the store's URL, such as ``synchronous=OFF``."""
    with folder() as data, opened(sqlite_url(data, options), broker, **settings) as queue:
        yield queue


@contextmanager
def opened(store: str, broker: str | None, **settings: float) -> Iterator[KQueue]:
    """A KQueue on this store, open."""
    with KQueue(store, broker, **settings) as queue:  # type: ignore[arg-type]
        yield queue


def sqlite_url(data: Path, options: str = "") -> str:
    return f"sqlite:///{data}/jobs.db" + (f"?{options}" if options else "")


def add_all(queue: KQueue, jobs: int, in_lists_of: int = LIST) -> None:
    for at in range(0, jobs, in_lists_of):
        queue.add_jobs(NOOP, [PAYLOAD] * min(in_lists_of, jobs - at))


def run_all(queue: KQueue, jobs: int) -> None:
    """Run all ``jobs``. Raises ``AssertionError`` if there are others, or fewer."""
    queue.add_handler(NOOP, JobInHand.delete)
    # It waits for those that a window gives back when it takes too long, as windows do on a busy machine.
    report = queue.run_jobs(count_limit=jobs, time_limit_ms=PATIENCE_S * 1000, wait=True)
    left = queue.counts()
    assert (report.deleted, sum(left.values())) == (jobs, 0), (report, left)


def now() -> float:
    """Seconds by the clock that all processes share."""
    return time.monotonic()


def produce(store: str, broker: str | None, jobs: int, start: Start) -> None:
    """A child's work: add all jobs."""
    with KQueue(store, broker) as queue:
        start()
        add_all(queue, jobs)


def consume(store: str, broker: str | None, jobs: int, start: Start) -> float:
    """A child's work: run jobs until so many ran, waiting for them; returns when it ended."""
    with KQueue(store, broker) as queue:
        queue.add_handler(NOOP, JobInHand.delete)
        start()
        report = queue.run_jobs(count_limit=jobs, time_limit_ms=PATIENCE_S * 1000, wait=True)
        assert report.deleted == jobs, report
        return now()


def side_by_side(store: str, broker: str | None, jobs: int) -> float:
    """Seconds from the start of both a producer and a worker, each in its process, to the last delete."""
    started, ends = together([partial(produce, store, broker, jobs), partial(consume, store, broker, jobs)])
    return float(ends[1]) - started


def servers() -> dict[str, list[str | None]]:
    """What :func:`bench.show.begin` is to say of the servers here."""
    return {"beanstalkd": [executable(), "-v"]}
