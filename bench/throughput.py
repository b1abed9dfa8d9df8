"""How many durable jobs a second, from add to delete, next to a bare beanstalkd client.

    python -m bench.throughput [--jobs N] [--rounds N] [--json FILE]

One producer adds all jobs in lists of 1,000, then one worker runs and deletes them. The payload has 100 bytes
and the handler only deletes. Everything is on: SQLite with synchronous=FULL, fences, leases, the sweep, and a
beanstalkd with a binlog. The bare loop is greenstalk's put, then reserve and delete, one by one, on the same
beanstalkd and with no store at all. Rounds alternate, and the figure is the ratio of the medians.
"""

import json
import platform
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click

from kqueue import JobInHand, KQueue
from tests.beanstalkd import Beanstalkd

PAYLOAD = b"x" * 100
LIST = 1000


def bare(server: Beanstalkd, jobs: int) -> float:
    """Seconds for a client that keeps nothing."""
    with server.client("bare") as client:
        started = time.perf_counter()
        for _ in range(jobs):
            client.put(PAYLOAD)
        for _ in range(jobs):
            client.delete(client.reserve())
        return time.perf_counter() - started


def durable(broker: str | None, jobs: int) -> float:
    """Seconds for a KQueue."""
    with tempfile.TemporaryDirectory() as folder, KQueue(f"sqlite:///{folder}/jobs.db", broker) as queue:
        queue.add_handler("noop", JobInHand.delete)
        started = time.perf_counter()
        for _ in range(jobs // LIST):
            queue.add_jobs("noop", [PAYLOAD] * LIST)
        report = queue.run_jobs()
        seconds = time.perf_counter() - started
        assert report.deleted == jobs // LIST * LIST
        return seconds


@click.command()
@click.option("--jobs", default=20_000, help="In each round, a multiple of 1,000.")
@click.option("--rounds", default=5)
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(jobs: int, rounds: int, json_file: Path | None) -> None:
    """Run and print a table."""
    server = Beanstalkd(binlog=True)
    try:
        contenders: dict[str, Callable[[], float]] = {
            "bare greenstalk, nothing kept": lambda: bare(server, jobs),
            "KQueue, SQLite + beanstalkd -b": lambda: durable(server.url, jobs),
            "KQueue, SQLite alone": lambda: durable(None, jobs),
        }
        rates: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(rounds):
            for name, run in contenders.items():
                rates[name].append(jobs / run())
    finally:
        server.stop()
    medians = {name: statistics.median(values) for name, values in rates.items()}
    base = next(iter(medians.values()))
    print(f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {rounds} rounds of {jobs} jobs")
    print(f"{'add + run + delete, jobs/s':<34}{'median':>9}{'lowest':>9}{'highest':>9}{'ratio':>7}")
    for name, values in rates.items():
        row = f"{name:<34}{medians[name]:>9.0f}{min(values):>9.0f}{max(values):>9.0f}"
        print(f"{row}{medians[name] / base:>7.2f}")
    if json_file is not None:
        json_file.write_text(json.dumps({"jobs": jobs, "jobs_per_second": rates}, indent=1))


if __name__ == "__main__":
    main()
