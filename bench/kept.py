"""What does it cost to keep the end of a job, and its result?

    python -m bench.kept [--jobs N] [--rounds N] [--json FILE]

No-ops are added and run: deleted at their end; kept for an hour; kept with a result of some bytes; and deleted
after one line for the log, which nobody can read then. Added in lists and run in large windows, where an end has
least beside it; and added one by one, each durable by itself. On SQLite at ``synchronous=FULL``.
"""

import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import click

from bench import bare, queues, show
from bench.figures import ROUNDS, Findings, Goal, interleaved, ratio, table
from kqueue import JobInHand, KQueue

QUESTION = "What does it cost to keep the end of a job, and its result?"

DELETED = "deleted"
RESULT = {"path": "thumbnails/a.png", "bytes": 12345}
#: Seconds.
HOUR = 3600


class Case(NamedTuple):
    """How jobs end."""

    keep_done: float | None = None
    result: object = None
    logs: bool = False

    def end(self, job: JobInHand) -> None:
        """As the handler does."""
        if self.logs:
            job.log("one line")
        job.delete(self.result)


CASES = {
    DELETED: Case(),
    "kept": Case(HOUR),
    "kept with a result": Case(HOUR, RESULT),
    "deleted after a line for its log": Case(logs=True),
}


def rate(case: Case, jobs: int, in_lists_of: int) -> float:
    """Jobs a second, from their adds to their ends."""
    with queues.fresh_queue(None) as queue:
        if case.keep_done is not None:
            queue.options(queues.NOOP, keep_done=case.keep_done)
        queue.add_handler(queues.NOOP, case.end)
        began = time.perf_counter()
        _add(queue, jobs, in_lists_of)
        report = queue.run_jobs()
        took = time.perf_counter() - began
        left = sum(queue.counts().values())
    assert (report.deleted, left) == (jobs, 0 if case.keep_done is None else jobs), (report, left)
    return jobs / took


def _add(queue: KQueue, jobs: int, in_lists_of: int) -> None:
    if in_lists_of > 1:
        queues.add_all(queue, jobs, in_lists_of)
        return
    for _ in range(jobs):
        queue.add_job(queues.NOOP, bare.PAYLOAD)


@click.command()
@click.option("--jobs", default=10_000, show_default=True, help="In lists; a fifth as many one by one.")
@click.option("--rounds", default=ROUNDS, show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(jobs: int, rounds: int, json_file: Path | None) -> None:
    """Measure, and print the tables."""
    about = show.begin(QUESTION, {})
    findings = Findings(QUESTION)
    for place, number, size in (
        ("in lists", jobs, queues.LIST),
        ("one by one", max(1, jobs // 5), 1),
    ):
        rates = interleaved({name: partial(rate, case, number, size) for name, case in CASES.items()}, rounds)
        findings.tables.append(table(f"add, run and end, {place}", "jobs/s", rates))
        findings.goals += [
            Goal(f"{place}, {name}: the time of deleted", ratio(rates[DELETED], rates[name]), "<=", 1.3)
            for name in CASES
            if name != DELETED
        ]
    show.end(about, findings, json_file)


if __name__ == "__main__":
    main()
