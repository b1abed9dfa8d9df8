"""What does a limit cost that does not bind?

    python -m bench.limits [--jobs N] [--rounds N] [--json FILE]

One process runs no-ops in 4 threads: without a limit; with at most 4 at a time, which 4 threads never exceed; and
with at most one at a time for each of 20 keys. All jobs were added before. On SQLite (FULL), and on a MongoDB where
there is one.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import click

from bench import queues, show
from bench.figures import ROUNDS, Findings, Goal, interleaved, ratio, table
from kqueue import JobInHand, KQueue
from tests.mongod import Mongod
from tests.mongod import executable as mongod_path

QUESTION = "What does a limit cost that does not bind?"

THREADS = 4
KEYS = 20
DATABASE = "bench"
NONE = "no limit"
#: What ``queue.limit`` is given, by name.
LIMITS: dict[str, dict[str, int]] = {
    NONE: {},
    f"{THREADS} at a time": {"running": THREADS},
    f"one for each of {KEYS} keys": {"running_per_key": 1},
}


def rate(queue: KQueue, limit: dict[str, int], jobs: int) -> float:
    """Jobs a second."""
    if limit:
        queue.limit(queues.NOOP, **limit)
    queue.add_handler(queues.NOOP, JobInHand.delete)
    for number in range(KEYS):
        mine = range(number, jobs, KEYS)
        queue.add_jobs(queues.NOOP, [queues.PAYLOAD for _ in mine], limit_key=f"key {number}")
    started = time.perf_counter()
    report = queue.work(threads=THREADS, wait=False)
    took = time.perf_counter() - started
    left = queue.counts()
    assert (report.deleted, sum(left.values())) == (jobs, 0), (report, left)
    return jobs / took


def on_sqlite(limit: dict[str, int], jobs: int) -> float:
    with queues.fresh_queue(None) as queue:
        return rate(queue, limit, jobs)


def on_mongodb(server: Mongod, limit: dict[str, int], jobs: int) -> float:
    with server.client() as client:
        client.drop_database(DATABASE)
    with queues.opened(server.url(DATABASE), None) as queue:
        return rate(queue, limit, jobs)


@click.command()
@click.option("--jobs", default=2000, show_default=True, help="In each round.")
@click.option("--rounds", default=ROUNDS, show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(jobs: int, rounds: int, json_file: Path | None) -> None:
    """Measure, and print the tables."""
    about = show.begin(QUESTION, {"mongod": [mongod_path(), "--version"]})
    findings = Findings(QUESTION)
    with ExitStack() as servers:
        places: dict[str, Callable[[dict[str, int], int], float]] = {"SQLite FULL alone": on_sqlite}
        if mongod_path() is not None:
            server = Mongod()
            servers.callback(server.stop)
            places["MongoDB alone"] = partial(on_mongodb, server)
        for place, run in places.items():
            rates = interleaved({name: partial(run, limit, jobs) for name, limit in LIMITS.items()}, rounds)
            findings.tables.append(table(f"no-ops in {THREADS} threads, {place}", "jobs/s", rates))
            findings.goals += [
                Goal(f"{place}, {name}: of no limit", ratio(rates[name], rates[NONE]), ">=", 0.5)
                for name in LIMITS
                if name != NONE
            ]
    show.end(about, findings, json_file)


if __name__ == "__main__":
    main()
