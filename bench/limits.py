"""What does a limit cost that does not bind?

    python -m bench.limits [--jobs N] [--rounds N] [--json FILE]

One process runs no-ops in 4 threads: without a limit; with at most 4 at a time, which 4 threads never exceed; and
with at most one at a time for each of 20 keys, whose jobs were added in turn, ten by ten, or all of one key after
the other. On SQLite (FULL), and on a MongoDB where there is one.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

import click

from bench import bare, queues, show
from bench.figures import ROUNDS, Findings, Goal, interleaved, ratio, table
from bench.mongodb import mongod
from kqueue import JobInHand, KQueue
from tests.mongod import Mongod
from tests.mongod import executable as mongod_path

QUESTION = "What does a limit cost that does not bind?"

THREADS = 4
KEYS = 20
DATABASE = "bench"
NONE = "no limit"
#: Jobs that are added in a list, in turn.
TEN = 10


class Case(NamedTuple):
    """One limit."""

    #: What ``queue.limit`` is given.
    limit: dict[str, int]
    #: Jobs of one key that are added in a row; None for all of them.
    in_a_row: int | None = TEN


CASES = {
    NONE: Case({}),
    f"{THREADS} at a time": Case({"running": THREADS}),
    f"one for each of {KEYS} keys, in turn": Case({"running_per_key": 1}),
    f"one for each of {KEYS} keys, one after the other": Case({"running_per_key": 1}, in_a_row=None),
}


def rate(queue: KQueue, case: Case, jobs: int) -> float:
    """Jobs a second."""
    if case.limit:
        queue.limit(queues.NOOP, **case.limit)
    queue.add_handler(queues.NOOP, JobInHand.delete)
    in_a_row = case.in_a_row or max(1, jobs // KEYS)
    for number, at in enumerate(range(0, jobs, in_a_row)):
        payloads = [bare.PAYLOAD] * min(in_a_row, jobs - at)
        queue.add_jobs(queues.NOOP, payloads, limit_key=f"key {number % KEYS}")
    started = time.perf_counter()
    report = queue.work(threads=THREADS, wait=False)
    took = time.perf_counter() - started
    left = queue.counts()
    assert (report.deleted, sum(left.values())) == (jobs, 0), (report, left)
    return jobs / took


def on_sqlite(case: Case, jobs: int) -> float:
    with queues.fresh_queue(None) as queue:
        return rate(queue, case, jobs)


def on_mongodb(server: Mongod, case: Case, jobs: int) -> float:
    with server.client() as client:
        client.drop_database(DATABASE)
    with queues.opened(server.url(DATABASE), None) as queue:
        return rate(queue, case, jobs)


@click.command()
@click.option("--jobs", default=2000, show_default=True, help="In each round.")
@click.option("--rounds", default=ROUNDS, show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(jobs: int, rounds: int, json_file: Path | None) -> None:
    """Measure, and print the tables."""
    about = show.begin(QUESTION, {"mongod": [mongod_path(), "--version"]})
    findings = Findings(QUESTION)
    with ExitStack() as servers:
        places: dict[str, Callable[[Case, int], float]] = {"SQLite FULL alone": on_sqlite}
        if mongod_path() is not None:
            places["MongoDB alone"] = partial(on_mongodb, servers.enter_context(mongod()))
        for place, run in places.items():
            rates = interleaved({name: partial(run, case, jobs) for name, case in CASES.items()}, rounds)
            findings.tables.append(table(f"no-ops in {THREADS} threads, {place}", "jobs/s", rates))
            findings.goals += [
                Goal(f"{place}, {name}: of no limit", ratio(rates[name], rates[NONE]), ">=", 0.5)
                for name in CASES
                if name != NONE
            ]
    show.end(about, findings, json_file)


if __name__ == "__main__":
    main()
