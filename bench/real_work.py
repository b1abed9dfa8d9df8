"""How near do handlers that wait come to what their number allows?

    python -m bench.real_work [--seconds N] [--rounds N] [--json FILE]

A handler sleeps 10 ms, or 1 ms, and deletes its job, as one does that asks a server for something. So 8 threads can
run 800 a second of 10 ms at best: that is the *ideal*, on any machine, and each figure is the part of it that was
reached. The row "nothing stored" is of threads, or coroutines, that only sleep, as often: on a busy machine it
falls short too, and the ratio is to it. All jobs were added one by one before, so that with a beanstalkd each entry
carries one id; SQLite is at ``synchronous=FULL``, MongoDB at ``w: majority, j: true``.
"""

import asyncio
import statistics
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import click

from bench import bare, queues, show
from bench.children import Start, together
from bench.figures import ROUNDS, Findings, Goal, interleaved, table
from bench.mongodb import DATABASE, mongod
from kqueue import JobInHand, KQueue
from tests.mongod import Mongod, executable

QUESTION = "How near do handlers that wait come to what their number allows?"
TYPE = "wait"
BARE = "nothing stored"


class Hands(NamedTuple):
    """What runs the handlers."""

    #: In each process.
    threads: int = 1
    #: Of a coroutine function; None for a plain one.
    concurrency: int | None = None
    processes: int = 1
    #: That each handler sleeps.
    milliseconds: int = 10

    @property
    def number(self) -> int:
        return self.processes * (self.concurrency or self.threads)

    @property
    def most(self) -> float:
        """Jobs a second, at best."""
        return self.number * 1000 / self.milliseconds

    @property
    def name(self) -> str:
        if self.processes > 1:
            return f"{self.processes} processes of {self.threads} threads"
        return f"{self.threads} threads" if self.concurrency is None else f"{self.concurrency} coroutines"


#: With the part of the ideal that is aimed at.
SQLITE_GOALS = {
    Hands(8): 0.9,
    Hands(32): 0.85,
    Hands(concurrency=100): 0.75,
    Hands(16, processes=2): 0.85,
    Hands(8, milliseconds=1): 0.5,
}
MONGODB_GOALS = {Hands(8): 0.8, Hands(32): 0.6}


class OnSqlite:
    """New files. The rows are made fast: how they were committed does not matter to the run."""

    name = "SQLite FULL"

    @contextmanager
    def urls(self) -> Iterator[tuple[str, str]]:
        """That to add by, and that to run by."""
        with queues.folder() as data:
            yield queues.sqlite_url(data, "synchronous=OFF"), queues.sqlite_url(data)


class OnMongodb:
    """A new database each time, of one server."""

    name = "MongoDB"

    def __init__(self, server: Mongod) -> None:
        self._server = server

    @contextmanager
    def urls(self) -> Iterator[tuple[str, str]]:
        """As :meth:`OnSqlite.urls`."""
        with self._server.client() as client:
            client.drop_database(DATABASE)
        url = self._server.url(DATABASE)
        yield url, url


def part_of_ideal(on: OnSqlite | OnMongodb, broker: str | None, hands: Hands, seconds: float) -> float:
    """What was reached with as many jobs as would take so many seconds at best."""
    jobs = max(hands.number, int(seconds * hands.most))
    with on.urls() as (added_by, url):
        with queues.opened(added_by, broker) as queue:
            for _ in range(jobs):
                queue.add_job(TYPE, bare.PAYLOAD)
        if hands.processes == 1:
            started = time.monotonic()
            ends = [work(url, broker, hands)]
        else:
            started, ends = together([partial(work, url, broker, hands)] * hands.processes)
        with queues.opened(url, broker) as queue:
            left = queue.counts()
    assert (sum(deleted for _, deleted in ends), sum(left.values())) == (jobs, 0), (ends, left)
    return jobs / hands.most / (max(ended for ended, _ in ends) - started)


def bare_part(hands: Hands, seconds: float) -> float:
    """What is reached where nothing is stored."""
    jobs = max(1, int(seconds * hands.most / hands.number))
    sleep = _sleep_in_threads if hands.concurrency is None else _sleep_in_coroutines
    started, ends = together([partial(sleep, hands, jobs)] * hands.processes)
    return jobs * hands.number / hands.most / (max(ends) - started)


def _sleep_in_threads(hands: Hands, jobs: int, start: Start) -> float:
    def sleep() -> None:
        for _ in range(jobs):
            time.sleep(hands.milliseconds / 1000)

    threads = [threading.Thread(target=sleep) for _ in range(hands.threads)]
    start()
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    return queues.now()


def _sleep_in_coroutines(hands: Hands, jobs: int, start: Start) -> float:
    async def sleep() -> None:
        for _ in range(jobs):
            await asyncio.create_task(asyncio.sleep(hands.milliseconds / 1000))

    async def sleep_all() -> None:
        await asyncio.gather(*(sleep() for _ in range(hands.number)))

    start()
    asyncio.run(sleep_all())
    return queues.now()


def work(url: str, broker: str | None, hands: Hands, start: Start = lambda: None) -> tuple[float, int]:
    """Run all jobs: (when it ended, how many it deleted)."""
    with queues.opened(url, broker) as queue:
        _serve(queue, hands)
        start()
        report = queue.work(threads=hands.threads, wait=False)
        return queues.now(), report.deleted


def _serve(queue: KQueue, hands: Hands) -> None:
    seconds = hands.milliseconds / 1000

    def wait(job: JobInHand) -> None:
        time.sleep(seconds)
        job.delete()

    async def wait_async(job: JobInHand) -> None:
        await asyncio.sleep(seconds)
        job.delete()

    if hands.concurrency is None:
        queue.add_handler(TYPE, wait)
    else:
        queue.add_handler(TYPE, wait_async, concurrency=hands.concurrency)


def measure(
    on: OnSqlite | OnMongodb, broker: str, goals: Mapping[Hands, float], seconds: float, rounds: int
) -> Findings:
    """With and without a beanstalkd."""
    findings = Findings(QUESTION)
    brokers = {f"{on.name} + beanstalkd -b": broker, f"{on.name} alone": None}
    for hands, goal in goals.items():
        contenders = {BARE: partial(bare_part, hands, seconds)}
        contenders |= {name: partial(part_of_ideal, on, url, hands, seconds) for name, url in brokers.items()}
        parts = interleaved(contenders, rounds)
        what = f"{hands.milliseconds} ms, {hands.name}"
        found = table(f"{on.name}: handlers that sleep {what}", f"of {hands.most:,.0f} jobs/s", parts)
        findings.tables.append(found)
        findings.goals += [
            Goal(f"{what}, {name}: of the ideal", statistics.median(parts[name]), ">=", goal) for name in brokers
        ]
    return findings


@click.command()
@click.option("--seconds", default=3.0, show_default=True, help="Of work in each round, at best.")
@click.option("--rounds", default=ROUNDS, show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(seconds: float, rounds: int, json_file: Path | None) -> None:
    """Measure, and print the tables."""
    about = show.begin(QUESTION, {**queues.servers(), "mongod": [executable(), "--version"]})
    with mongod() as server, queues.beanstalkd() as beanstalkd:
        findings = measure(OnSqlite(), beanstalkd.url, SQLITE_GOALS, seconds, rounds)
        others = measure(OnMongodb(server), beanstalkd.url, MONGODB_GOALS, seconds, rounds)
    findings.tables += others.tables
    findings.goals += others.goals
    show.end(about, findings, json_file)


if __name__ == "__main__":
    main()
