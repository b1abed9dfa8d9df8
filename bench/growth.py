"""Does a worker slow down, or grow, with the number of jobs that wait?

    python -m bench.growth [--largest N] [--jobs N] [--rounds N] [--json FILE]

Backlogs of 1,000, 10,000 and so on up to the largest are made, each with a beanstalkd of its own, and one more of
10,000 beside as many delayed rows as the largest has, all of a better priority. Then a new process runs the next
jobs of each in turn; what it ran is added again, so that a backlog keeps its size. Its clock begins once its
windows have grown. The memory is the most that the worker's process ever had resident, interpreter and all.

The backlogs are made with ``synchronous=OFF``, which is fast and leaves the same file; they are run with FULL.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import click

from bench import bare, queues, show
from bench.children import Start, alone, peak_megabytes
from bench.figures import ROUNDS, Findings, Goal, interleaved, ratio, table
from kqueue import JobInHand, KQueue, Priority

QUESTION = "Does a worker slow down, or grow, with the number of jobs that wait?"

#: Jobs before the clock begins: by then the windows of a worker have their full size.
WARM_UP = 1000
#: What the others are compared with.
USUAL = 10_000
#: Seconds of delay: longer than a tube's own, so that these rows wait in the store.
LATER_S = 7200
#: Jobs in one ``add_jobs``.
LIST = 10_000


class Backlog:
    """Jobs that wait, and what a worker does with them. See :meth:`run`."""

    def __init__(self, data: Path, broker: str, waiting: int, delayed: int) -> None:
        self._data = data
        self._broker = broker
        self._waiting = waiting
        self.megabytes: list[float] = []
        self._add(waiting + WARM_UP)
        with queues.opened(self._fast(), broker) as queue:
            for at in range(0, delayed, LIST):
                payloads = [bare.PAYLOAD] * min(LIST, delayed - at)
                queue.add_jobs(queues.NOOP, payloads, priority=Priority.URGENT, delay=LATER_S)

    def run(self, jobs: int) -> float:
        """Jobs a second of the next so many, or of all if fewer wait."""
        jobs = min(jobs, self._waiting)
        seconds, megabytes = alone(partial(_work, queues.sqlite_url(self._data), self._broker, jobs))
        self.megabytes.append(megabytes)
        self._add(WARM_UP + jobs)
        return jobs / float(seconds)

    def _add(self, jobs: int) -> None:
        with queues.opened(self._fast(), self._broker) as queue:
            queues.add_all(queue, jobs, in_lists_of=LIST)

    def _fast(self) -> str:
        return queues.sqlite_url(self._data, "synchronous=OFF")


@contextmanager
def backlog(waiting: int, delayed: int = 0) -> Iterator[Backlog]:
    """With a beanstalkd of its own, since the others' entries must not be in its way."""
    with queues.folder() as data, queues.beanstalkd() as server:
        yield Backlog(data, server.url, waiting, delayed)


def _work(store: str, broker: str, jobs: int, start: Start) -> tuple[float, float]:
    """(seconds for ``jobs`` jobs after the warm-up, megabytes)."""
    ran = 0
    began = 0.0

    def note(job: JobInHand) -> None:
        nonlocal ran, began
        if ran == WARM_UP:
            began = queues.now()
        ran += 1
        job.delete()

    with KQueue(store, broker) as queue:
        queue.add_handler(queues.NOOP, note)
        start()
        report = queue.run_jobs(count_limit=WARM_UP + jobs, time_limit_ms=queues.PATIENCE_S * 1000, wait=True)
        ended = queues.now()
    assert report.deleted == WARM_UP + jobs, report
    return ended - began, peak_megabytes()


def sizes(largest: int) -> list[int]:
    """1,000 and ten times as many, up to ``largest``."""
    found = [1000]
    while found[-1] * 10 <= largest:
        found.append(found[-1] * 10)
    return found


@click.command()
@click.option("--largest", default=1_000_000, show_default=True, help="The largest backlog, from 1,000.")
@click.option("--jobs", default=10_000, show_default=True, help="Run in each round, of each backlog.")
@click.option("--rounds", default=ROUNDS, show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(largest: int, jobs: int, rounds: int, json_file: Path | None) -> None:
    """Measure, and print the tables."""
    about = show.begin(QUESTION, queues.servers())
    usual = min(USUAL, sizes(largest)[-1])
    with ExitStack() as stack:
        # Of the usual size first, since the first row is what the others are compared with.
        wanted = sorted(sizes(largest), key=lambda size: (size != usual, size))
        backlogs = {f"{size:,} waiting": stack.enter_context(backlog(size)) for size in wanted}
        beside = f"{usual:,} waiting beside {largest:,} delayed"
        backlogs[beside] = stack.enter_context(backlog(usual, largest))
        rates = interleaved({name: partial(one.run, jobs) for name, one in backlogs.items()}, rounds)
    memory = {name: one.megabytes for name, one in backlogs.items()}
    base, most = f"{usual:,} waiting", f"{sizes(largest)[-1]:,} waiting"
    findings = Findings(
        QUESTION,
        [table("run and delete", "jobs/s", rates), table("memory of the worker at most", "MB", memory)],
        [
            Goal(f"{most}: to {base}", ratio(rates[most], rates[base]), ">=", 0.9),
            Goal(f"{beside}: to {base}", ratio(rates[beside], rates[base]), ">=", 0.9),
            Goal("memory of a worker at any backlog", max(max(one) for one in memory.values()), "<=", 60, "MB"),
        ],
    )
    show.end(about, findings, json_file)


if __name__ == "__main__":
    main()
