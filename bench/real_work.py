"""How near do handlers that wait come to what their number allows?

    python -m bench.real_work [--seconds N] [--rounds N] [--json FILE]

A handler sleeps 10 ms and deletes its job, as one does that asks a server for something. So a process with 8
threads can run 800 a second at best: that is the *ideal*, on any machine, and each figure is the part of it that
was reached. All jobs were added one by one before, so that with a beanstalkd each entry carries one id; SQLite
is at ``synchronous=FULL``.
"""

import asyncio
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import click

from bench import queues, show
from bench.figures import ROUNDS, Findings, Goal, interleaved, table
from kqueue import JobInHand, KQueue

QUESTION = "How near do handlers that wait come to what their number allows?"

#: Seconds that each handler sleeps.
SLEEP_S = 0.010
TYPE = "wait"

WITH_BEANSTALKD = "SQLite FULL + beanstalkd -b"
ALONE = "SQLite FULL alone"


class Hands(NamedTuple):
    """What runs the handlers of one process."""

    threads: int = 1
    #: Of a coroutine function; None for a plain one.
    concurrency: int | None = None

    @property
    def number(self) -> int:
        return self.concurrency or self.threads

    @property
    def name(self) -> str:
        return f"{self.threads} threads" if self.concurrency is None else f"{self.concurrency} coroutines"


#: With the part of the ideal that is aimed at.
GOALS = {Hands(8): 0.9, Hands(32): 0.85, Hands(concurrency=100): 0.75}


def part_of_ideal(broker: str | None, hands: Hands, seconds: float) -> float:
    """What was reached with as many jobs as would take so many seconds at best."""
    jobs = int(seconds * hands.number / SLEEP_S)
    with queues.folder() as data:
        # The rows are made fast: how they were committed does not matter to the run.
        with queues.opened(queues.sqlite_url(data, "synchronous=OFF"), broker) as queue:
            for _ in range(jobs):
                queue.add_job(TYPE, queues.PAYLOAD)
        with queues.opened(queues.sqlite_url(data), broker) as queue:
            _serve(queue, hands)
            started = time.monotonic()
            report = queue.work(threads=hands.threads, wait=False)
            took = time.monotonic() - started
            left = queue.counts()
    assert (report.deleted, sum(left.values())) == (jobs, 0), (report, left)
    return seconds / took


def _serve(queue: KQueue, hands: Hands) -> None:
    if hands.concurrency is None:
        queue.add_handler(TYPE, _wait)
    else:
        queue.add_handler(TYPE, _wait_async, concurrency=hands.concurrency)


def _wait(job: JobInHand) -> None:
    time.sleep(SLEEP_S)
    job.delete()


async def _wait_async(job: JobInHand) -> None:
    await asyncio.sleep(SLEEP_S)
    job.delete()


@click.command()
@click.option("--seconds", default=3.0, show_default=True, help="Of work in each round, at best.")
@click.option("--rounds", default=ROUNDS, show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(seconds: float, rounds: int, json_file: Path | None) -> None:
    """Measure, and print the tables."""
    about = show.begin(QUESTION, queues.servers())
    findings = Findings(QUESTION)
    with queues.beanstalkd() as server:
        brokers = {WITH_BEANSTALKD: server.url, ALONE: None}
        for hands, goal in GOALS.items():
            parts = interleaved(
                {name: partial(part_of_ideal, url, hands, seconds) for name, url in brokers.items()}, rounds
            )
            ideal = f"{hands.number / SLEEP_S:,.0f} jobs/s"
            found = table(f"handlers that sleep 10 ms, {hands.name}", f"of {ideal}", parts)
            findings.tables.append(found)
            findings.goals += [
                Goal(f"{hands.name}, {row.name}: of the ideal", row.median, ">=", goal) for row in found.rows
            ]
    show.end(about, findings, json_file)


if __name__ == "__main__":
    main()
