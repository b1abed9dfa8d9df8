"""What does the length of a payload cost a run, and what does a run write?

    python -m bench.payloads [--jobs N] [--rounds N] [--json FILE]

Jobs with payloads of 100 bytes to 50 KB are added, and the files are closed. What is measured is to run and delete
them: jobs a second, and the bytes that reach files meanwhile, by the log, the checkpoints and all. SQLite is at
``synchronous=FULL``. The bare loop does the same by hand with the payload in its row, over windows as large as
KQueue's largest. Of a MongoDB, where there is one, the bytes are those of its journal, which a job waits for.
"""

import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import click

from bench import bare, queues, show
from bench.figures import ROUNDS, Findings, Goal, Table, interleaved, ratio, table
from bench.mongodb import mongod
from kqueue import KQueue
from kqueue.contracts.budget import MAX_JOBS
from tests.mongod import Mongod
from tests.mongod import executable as mongod_path

QUESTION = "What does the length of a payload cost a run, and what does a run write?"

#: Bytes, by name. The first is what the others are compared with.
SIZES = {"100 B": 100, "2 KB": 2_000, "10 KB": 10_000, "50 KB": 50_000}
SQLITE, BARE, MONGODB = "KQueue, SQLite FULL alone", "the statements by hand", "KQueue, MongoDB alone"
DATABASE = "bench"
#: Jobs in a list: 5 MB of the longest payloads.
LIST = 100


class Run(NamedTuple):
    """What one run came to."""

    #: Jobs a second.
    rate: float
    #: Kilobytes for each job.
    written: float


def on_sqlite(size: int, jobs: int) -> Run:
    with queues.folder() as data:
        url = queues.sqlite_url(data)
        with queues.opened(url, None) as queue:
            _add(queue, size, jobs)
        before = _written_here()
        with queues.opened(url, None) as queue:
            seconds = _run(queue, jobs)
        return Run(jobs / seconds, (_written_here() - before) / jobs / 1000)


def by_hand(size: int, jobs: int) -> Run:
    with queues.folder() as data:
        with _rows(data) as rows:
            for lot in _lots(jobs):
                rows.add([secrets.token_hex(14) for _ in lot], secrets.token_bytes(size))
        before = _written_here()
        with _rows(data) as rows:
            started = time.perf_counter()
            while keys := rows.claim_next(MAX_JOBS):
                rows.delete_keys(keys)
            seconds = time.perf_counter() - started
        return Run(jobs / seconds, (_written_here() - before) / jobs / 1000)


def on_mongodb(server: Mongod, size: int, jobs: int) -> Run:
    with server.client() as client:
        client.drop_database(DATABASE)
        with queues.opened(server.url(DATABASE), None) as queue:
            _add(queue, size, jobs)
            before = _journal(server)
            seconds = _run(queue, jobs)
            return Run(jobs / seconds, (_journal(server) - before) / jobs / 1000)


@contextmanager
def _rows(data: Path) -> Iterator[bare.Rows]:
    rows = bare.Rows(data / "bare.db")
    try:
        yield rows
    finally:
        rows.close()


def _lots(jobs: int) -> Iterator[Sequence[int]]:
    return (range(at, min(at + LIST, jobs)) for at in range(0, jobs, LIST))


def _add(queue: KQueue, size: int, jobs: int) -> None:
    for lot in _lots(jobs):
        queue.add_jobs(queues.NOOP, [secrets.token_bytes(size) for _ in lot])


def _run(queue: KQueue, jobs: int) -> float:
    """Seconds."""
    started = time.perf_counter()
    queues.run_all(queue, jobs)
    return time.perf_counter() - started


def _written_here() -> int:
    """Bytes that this process has given to the system to be written."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("wchar:"))


def _journal(server: Mongod) -> int:
    with server.client() as client:
        return int(client.admin.command("serverStatus")["wiredTiger"]["log"]["log bytes written"])


@click.command()
@click.option("--jobs", default=2000, show_default=True, help="In each round.")
@click.option("--rounds", default=ROUNDS, show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(jobs: int, rounds: int, json_file: Path | None) -> None:
    """Measure, and print the tables."""
    about = show.begin(QUESTION, {"mongod": [mongod_path(), "--version"]})
    findings = Findings(QUESTION, notes=[_zeros()])
    with ExitStack() as servers:
        places: dict[str, Callable[[int, int], Run]] = {SQLITE: on_sqlite, BARE: by_hand}
        if mongod_path() is not None:
            places[MONGODB] = partial(on_mongodb, servers.enter_context(mongod()))
        contenders = {
            f"{place}: {name}": partial(run, size, jobs)
            for place, run in places.items()
            for name, size in SIZES.items()
        }
        runs = interleaved(contenders, rounds)
    for place in places:
        findings.tables += tables_of(place, {name: runs[f"{place}: {name}"] for name in SIZES})
    kept, hand = ([one.rate for one in runs[f"{place}: 10 KB"]] for place in (SQLITE, BARE))
    writes = {name: table.row("10 KB").median for name, table in zip(places, findings.tables[1::2], strict=True)}
    findings.goals = [
        Goal("10 KB, SQLite: KB written for a run", writes[SQLITE], "<=", 12),
        Goal("10 KB, SQLite: to the statements by hand", ratio(kept, hand), ">=", 1),
    ]
    show.end(about, findings, json_file)


def tables_of(place: str, runs: dict[str, list[Run]]) -> list[Table]:
    """Of the rates, and of what was written."""
    return [
        table(
            f"run and delete, {place}", "jobs/s", {name: [one.rate for one in ones] for name, ones in runs.items()}
        ),
        table(f"written, {place}", "KB/job", {name: [one.written for one in ones] for name, ones in runs.items()}),
    ]


def _zeros() -> str:
    """What the build of SQLite does with what is deleted, which KQueue sets for itself."""
    (on,) = sqlite3.connect(":memory:").execute("PRAGMA secure_delete").fetchone()
    does = "writes" if on else "does not write"
    return f"This build of SQLite {does} zeros over all that is deleted, where nobody sets secure_delete."


if __name__ == "__main__":
    main()
