"""How many jobs a second do threads add that add at once, each its own?

    python -m bench.adds [--jobs N] [--rounds N] [--json FILE]

A web service has a thread for each request, and each calls ``add_job``: threads of one process that share a KQueue.
The jobs of a round are dealt out to 1, 8 or 32 threads; what is measured is the time until the last of them is
durable. On SQLite (FULL), with a beanstalkd and without; and on MongoDB, where there is one.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import click

from bench import bare, queues, show
from bench.figures import ROUNDS, Findings, Goal, Table, interleaved, ratio, table
from bench.mongodb import mongod
from kqueue import KQueue
from tests.mongod import Mongod
from tests.mongod import executable as mongod_path

QUESTION = "How many jobs a second do threads add that add at once, each its own?"

THREADS = (1, 8, 32)
DATABASE = "bench"


def add_at_once(queue: KQueue, threads: int, jobs: int) -> float:
    """Jobs a second. The first connects, and is not counted."""
    queue.add_job(queues.NOOP)
    each = max(1, jobs // threads)
    start = threading.Barrier(threads + 1)

    def work() -> None:
        start.wait()
        for _ in range(each):
            queue.add_job(queues.NOOP, bare.PAYLOAD)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    start.wait()
    started = time.perf_counter()
    for worker in workers:
        worker.join()
    took = time.perf_counter() - started
    assert queue.counts()["ready"] == threads * each + 1, "not all were added"
    queue.purge_jobs(queues.NOOP)
    return threads * each / took


@contextmanager
def on_sqlite(broker: str | None) -> Iterator[KQueue]:
    """A KQueue on a new file."""
    with queues.fresh_queue(broker) as queue:
        yield queue


@contextmanager
def on_mongodb(server: Mongod) -> Iterator[KQueue]:
    """A KQueue on a new database."""
    with server.client() as client:
        client.drop_database(DATABASE)
    with queues.opened(server.url(DATABASE), None) as queue:
        yield queue


def said(threads: int) -> str:
    """The name of a row."""
    return "1 thread" if threads == 1 else f"{threads} threads"


@click.command()
@click.option("--jobs", default=1600, show_default=True, help="In each round.")
@click.option("--rounds", default=ROUNDS, show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(jobs: int, rounds: int, json_file: Path | None) -> None:
    """Measure, and print the tables."""
    about = show.begin(QUESTION, {**queues.servers(), "mongod": [mongod_path(), "--version"]})
    with ExitStack() as servers:
        server = servers.enter_context(queues.beanstalkd())
        places = {
            "SQLite FULL alone": partial(on_sqlite, None),
            "SQLite FULL + beanstalkd -b": partial(on_sqlite, server.url),
        }
        if mongod_path() is not None:
            places["MongoDB alone"] = partial(on_mongodb, servers.enter_context(mongod()))

        def round_of(place: str, threads: int) -> float:
            with places[place]() as queue:
                return add_at_once(queue, threads, jobs)

        contenders: dict[str, Callable[[], float]] = {
            f"{place}: {said(threads)}": partial(round_of, place, threads)
            for place in places
            for threads in THREADS
        }
        rates = interleaved(contenders, rounds)
    show.end(about, findings_of(rates, list(places)), json_file)


def findings_of(rates: dict[str, list[float]], places: list[str]) -> Findings:
    """A table for each place, and the goals."""
    alone, rung, *_ = places
    tables: list[Table] = [
        table(
            f"add_job, {place}", "jobs/s", {said(number): rates[f"{place}: {said(number)}"] for number in THREADS}
        )
        for place in places
    ]
    goals = [
        Goal(
            f"add_job, {place}: 32 threads to one",
            ratio(rates[f"{place}: {said(32)}"], rates[f"{place}: {said(1)}"]),
            ">=",
            3,
        )
        for place in places
    ]
    # Of the time of an add, so the other way round.
    cost = ratio(rates[f"{alone}: {said(1)}"], rates[f"{rung}: {said(1)}"])
    goals.append(Goal("add_job, one thread: its cost with a beanstalkd to that without", cost, "<=", 1.15))
    return Findings(QUESTION, tables, goals)


if __name__ == "__main__":
    main()
