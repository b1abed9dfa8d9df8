"""What does a job cost that is added alone?

    python -m bench.one_by_one [--jobs N] [--rounds N] [--json FILE]

``add_job`` commits one row and puts one entry: next to the same done by hand, a commit of such a row by sqlite3
(FULL) and then a put by greenstalk. Then jobs that were added one by one, so that each entry carries one id, are
run and deleted: next to greenstalk's reserve and delete of as many entries, with no store at all.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from bench import bare, queues, show
from bench.figures import ROUNDS, Findings, Goal, interleaved, ratio, table
from tests.beanstalkd import Beanstalkd

QUESTION = "What does a job cost that is added alone?"

COMMIT = "SQLite: one commit of such a row"
PUT = "greenstalk: one put"
BOTH = "a commit, then a put"
ADD = "KQueue: add_job"
ADD_EMBEDDED = "KQueue: add_job, SQLite alone"
TAKE = "greenstalk: reserve and delete"
RUN = "KQueue: run and delete"


class Bench:
    """One beanstalkd; each method is one round of a contender, on a new file."""

    def __init__(self, server: Beanstalkd, jobs: int) -> None:
        self._server = server
        self._jobs = jobs
        self._ids = [f"{number:028d}" for number in range(jobs)]

    def commits(self) -> float:
        """Microseconds a job."""
        with _rows() as rows:
            started = time.perf_counter()
            for id in self._ids:
                rows.add([id])
            return self._microseconds(started)

    def puts(self) -> float:
        """Microseconds a job."""
        with bare.client(self._server.port) as client:
            started = time.perf_counter()
            bare.put_all(client, self._jobs)
            took = self._microseconds(started)
            bare.take_all(client, self._jobs)
            return took

    def commits_and_puts(self) -> float:
        """Microseconds a job."""
        with _rows() as rows, bare.client(self._server.port) as client:
            started = time.perf_counter()
            for id in self._ids:
                rows.add([id])
                client.put(bare.PAYLOAD)
            took = self._microseconds(started)
            bare.take_all(client, self._jobs)
            return took

    def adds(self, broker: str | None) -> float:
        """Microseconds a job."""
        with queues.fresh_queue(broker) as queue:
            queue.add_job(queues.NOOP)  # connects
            started = time.perf_counter()
            queues.add_all(queue, self._jobs, in_lists_of=1)
            took = self._microseconds(started)
            queue.purge_jobs(queues.NOOP)
            return took

    def takes(self) -> float:
        """Jobs a second."""
        with bare.client(self._server.port) as client:
            bare.put_all(client, self._jobs)
            started = time.perf_counter()
            bare.take_all(client, self._jobs)
            return self._jobs / (time.perf_counter() - started)

    def runs(self) -> float:
        """Jobs a second."""
        # The rows are made fast: how they were committed does not matter to the run.
        with queues.folder() as data:
            with queues.opened(queues.sqlite_url(data, "synchronous=OFF"), self._server.url) as queue:
                queues.add_all(queue, self._jobs, in_lists_of=1)
            with queues.opened(queues.sqlite_url(data), self._server.url) as queue:
                started = time.perf_counter()
                queues.run_all(queue, self._jobs)
                return self._jobs / (time.perf_counter() - started)

    def _microseconds(self, started: float) -> float:
        return (time.perf_counter() - started) / self._jobs * 1e6


@contextmanager
def _rows() -> Iterator[bare.Rows]:
    with queues.folder() as data:
        rows = bare.Rows(data / "bare.db")
        try:
            yield rows
        finally:
            rows.close()


@click.command()
@click.option("--jobs", default=3000, show_default=True, help="In each round.")
@click.option("--rounds", default=ROUNDS, show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(jobs: int, rounds: int, json_file: Path | None) -> None:
    """Measure, and print the tables."""
    about = show.begin(QUESTION, queues.servers())
    with queues.beanstalkd() as server:
        bench = Bench(server, jobs)
        adding = {
            BOTH: bench.commits_and_puts,
            COMMIT: bench.commits,
            PUT: bench.puts,
            ADD: lambda: bench.adds(server.url),
            ADD_EMBEDDED: lambda: bench.adds(None),
        }
        costs = interleaved(adding, rounds)
        rates = interleaved({TAKE: bench.takes, RUN: bench.runs}, rounds)
    sums = [commit + put for commit, put in zip(costs[COMMIT], costs[PUT], strict=True)]
    findings = Findings(
        QUESTION,
        [
            table("add one job, durable (less is better)", "µs", costs),
            table("run and delete, one job an entry", "jobs/s", rates),
        ],
        [
            Goal("add_job: to the sum of a commit and a put", ratio(costs[ADD], sums), "<=", 1.3),
            Goal("run and delete: to greenstalk's reserve and delete", ratio(rates[RUN], rates[TAKE]), ">=", 1.8),
        ],
    )
    show.end(about, findings, json_file)


if __name__ == "__main__":
    main()
