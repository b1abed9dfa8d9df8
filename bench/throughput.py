"""How many durable jobs a second, from add to delete, next to a bare beanstalkd client?

    python -m bench.throughput [--jobs N] [--rounds N] [--json FILE]

A producer adds all jobs in lists of 1,000, then a worker runs and deletes them; or both do it side by side, each in
a process of its own. The payload has 100 bytes and the handler only deletes. Everything is on: SQLite with
``synchronous=FULL``, fences, leases, the sweep, and a beanstalkd with a binlog. The bare loop is greenstalk's put,
then reserve and delete, one by one, on the same beanstalkd and with no store at all.
"""

import time
from functools import partial
from pathlib import Path

import click

from bench import bare, queues, show
from bench.children import Start, together
from bench.figures import ROUNDS, Findings, Goal, interleaved, ratio, table
from tests.beanstalkd import Beanstalkd

QUESTION = "How many durable jobs a second, from add to delete, next to a bare beanstalkd client?"

BARE = "bare greenstalk, nothing kept"
WITH_BEANSTALKD = "KQueue, SQLite FULL + beanstalkd -b"
EMBEDDED = "KQueue, SQLite FULL alone"
#: Ends the name of a contender whose producer and worker run side by side.
TWO = ", side by side"


def one_after_the_other(broker: str | None, jobs: int) -> float:
    """Jobs a second."""
    with queues.fresh_queue(broker) as queue:
        started = time.perf_counter()
        queues.add_all(queue, jobs)
        queues.run_all(queue, jobs)
        return jobs / (time.perf_counter() - started)


def side_by_side(broker: str | None, jobs: int) -> float:
    """Jobs a second."""
    with queues.folder() as data:
        return jobs / queues.side_by_side(queues.sqlite_url(data), broker, jobs)


def bare_side_by_side(server: Beanstalkd, jobs: int) -> float:
    """Jobs a second."""
    started, ends = together([partial(_put, server.port, jobs), partial(_take, server.port, jobs)])
    return jobs / (float(ends[1]) - started)


def _put(port: int, jobs: int, start: Start) -> None:
    with bare.client(port) as client:
        start()
        bare.put_all(client, jobs)


def _take(port: int, jobs: int, start: Start) -> float:
    with bare.client(port) as client:
        start()
        bare.take_all(client, jobs)
        return queues.now()


@click.command()
@click.option("--jobs", default=20_000, show_default=True, help="In each round.")
@click.option("--rounds", default=ROUNDS, show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(jobs: int, rounds: int, json_file: Path | None) -> None:
    """Measure, and print the tables."""
    about = show.begin(QUESTION, queues.servers())
    with queues.beanstalkd() as server:
        figures = interleaved(
            {
                BARE: lambda: jobs / bare.put_reserve_delete(server.port, jobs),
                WITH_BEANSTALKD: lambda: one_after_the_other(server.url, jobs),
                EMBEDDED: lambda: one_after_the_other(None, jobs),
                BARE + TWO: lambda: bare_side_by_side(server, jobs),
                WITH_BEANSTALKD + TWO: lambda: side_by_side(server.url, jobs),
                EMBEDDED + TWO: lambda: side_by_side(None, jobs),
            },
            rounds,
        )
    one = {name: values for name, values in figures.items() if not name.endswith(TWO)}
    two = {name.removesuffix(TWO): values for name, values in figures.items() if name.endswith(TWO)}
    tables = [
        table("add, then run and delete", "jobs/s", one),
        table("producer and worker side by side", "jobs/s", two),
    ]
    goals = [
        Goal("add, then run: to the bare loop", ratio(one[WITH_BEANSTALKD], one[BARE]), ">=", 6),
        Goal("side by side: to the bare loop side by side", ratio(two[WITH_BEANSTALKD], two[BARE]), ">=", 4),
        Goal("side by side: to the bare loop of one client", ratio(two[WITH_BEANSTALKD], one[BARE]), ">=", 4),
        Goal("SQLite alone: to that with beanstalkd", ratio(one[EMBEDDED], one[WITH_BEANSTALKD]), ">=", 0.8),
    ]
    show.end(about, Findings(QUESTION, tables, goals), json_file)


if __name__ == "__main__":
    main()
