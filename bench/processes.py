"""What do four processes on one SQLite file reach, and do they lose anything?

    python -m bench.processes [--jobs N] [--processes N] [--rounds N] [--json FILE]

All jobs are added; then one worker, or four at once, run and delete them, with no beanstalkd. SQLite has one writer
at a time, so four cannot be faster at no-ops: the question is what they lose by getting in each other's way. The
bare loop does the same two commits for a window of jobs on a plain table: claim, then delete. Every job's number
is written down by the process that ran it, and at the end each must be there exactly once.
"""

from collections import Counter
from functools import partial
from pathlib import Path

import click

from bench import bare, queues, show
from bench.children import Start, together
from bench.figures import ROUNDS, Findings, Goal, interleaved, ratio, table
from kqueue import JobInHand, KQueue

QUESTION = "What do four processes on one SQLite file reach, and do they lose anything?"

#: Jobs in a window of the bare loop.
WINDOW = 500


def run_kqueue(jobs: int, workers: int) -> float:
    """Jobs a second, from the start of all workers to the end of the last. Raises if a job was lost or repeated."""
    with queues.folder() as data:
        store = queues.sqlite_url(data)
        with KQueue(store) as queue:
            for at in range(0, jobs, queues.LIST):
                queue.add_jobs(queues.NOOP, range(at, min(at + queues.LIST, jobs)))
            started, results = together([partial(_work, store)] * workers)
            check_account(jobs, [numbers for _, numbers in results], sum(queue.counts().values()))
    return jobs / (float(max(ended for ended, _ in results)) - started)


def run_bare(jobs: int, workers: int) -> float:
    """Jobs a second."""
    with queues.folder() as data:
        path = data / "bare.db"
        rows = bare.Rows(path)
        for at in range(0, jobs, queues.LIST):
            rows.add([str(number) for number in range(at, min(at + queues.LIST, jobs))])
        started, results = together([partial(_work_bare, path)] * workers)
        rows.close()
    check_account(jobs, [keys for _, keys in results], 0)
    return jobs / (float(max(ended for ended, _ in results)) - started)


def check_account(jobs: int, ran: list[list[int]], left: int) -> None:
    """Raises ``AssertionError`` unless each job ran once and none is left."""
    runs = Counter(number for numbers in ran for number in numbers)
    repeated = sum(1 for count in runs.values() if count > 1)
    assert (len(runs), repeated, left) == (jobs, 0, 0), f"{jobs - len(runs)} lost, {repeated} repeated, {left} left"


def _work(store: str, start: Start) -> tuple[float, list[int]]:
    numbers: list[int] = []

    def note(job: JobInHand) -> None:
        numbers.append(job.payload)
        job.delete()

    with KQueue(store) as queue:
        queue.add_handler(queues.NOOP, note)
        start()
        queue.run_jobs()
        return queues.now(), numbers


def _work_bare(path: Path, start: Start) -> tuple[float, list[int]]:
    rows = bare.Rows(path)
    ran: list[int] = []
    start()
    while keys := rows.claim_next(WINDOW):
        rows.delete_keys(keys)
        ran += keys
    ended = queues.now()
    rows.close()
    return ended, ran


@click.command()
@click.option("--jobs", default=40_000, show_default=True, help="In each round.")
@click.option("--processes", default=4, show_default=True)
@click.option("--rounds", default=ROUNDS, show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(jobs: int, processes: int, rounds: int, json_file: Path | None) -> None:
    """Measure, and print the tables."""
    about = show.begin(QUESTION, {})
    many = f"{processes} processes"
    figures = interleaved(
        {
            "KQueue, one process": lambda: run_kqueue(jobs, 1),
            f"KQueue, {many}": lambda: run_kqueue(jobs, processes),
            "bare claim and delete, one process": lambda: run_bare(jobs, 1),
            f"bare claim and delete, {many}": lambda: run_bare(jobs, processes),
        },
        rounds,
    )
    one, four, bare_one, bare_four = figures.values()
    findings = Findings(
        QUESTION,
        [table("run and delete, SQLite FULL alone", "jobs/s", figures)],
        [Goal(f"{many}: to one", ratio(four, one), ">=", 0.8)],
        [
            f"In each of the {rounds} rounds every one of {jobs:,} jobs ran once, and none was left.",
            f"The bare loop with windows of {WINDOW}: {many} reached {ratio(bare_four, bare_one):.2f} of one.",
        ],
    )
    show.end(about, findings, json_file)


if __name__ == "__main__":
    main()
