"""What does each lever bring: ids in an entry, the window, the settle, SQLite's sync, the binlog, the socket?

    python -m bench.levers [--jobs N] [--rounds N] [--json FILE]

All by options that users have. One lever at a time is moved away from its default, and each row says how the rate
of add, run and delete compares with that of the defaults in the same round.

An entry carries the ids of one ``add_jobs``, 100 at most, so its list's length sets the ids in an entry; but a
list is one commit too. So the ids show in the second table alone, where only the runs are timed. The window has no
option: there the store is one of our own, which hands out less than it was asked for.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click

from bench import queues, show
from bench.figures import ROUNDS, Findings, interleaved, table
from kqueue import KQueue
from kqueue.contracts.budget import Budget
from kqueue.contracts.runs import Claim, Selection
from kqueue.contracts.store import JobStore
from kqueue.stores import open_store

QUESTION = "What does each lever bring?"

DEFAULTS = "defaults"
LISTS = (1, 10, 50, 100, 1000)
WINDOWS = (1, 8, 64, 256)

MakeQueue = Callable[[Path], KQueue]


class NarrowWindows:
    """A store whose windows hold ``most`` jobs at most. All else is the other store's."""

    def __init__(self, store: JobStore, most: int) -> None:
        self._store = store
        self._most = most

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def claim(self, selection: Selection, limits: Budget, owner: str, now: float, alone: bool) -> Claim:
        jobs = min(limits.jobs, self._most)
        less = Budget(jobs, limits.payload_bytes, limits.work_s, limits.job_s)
        return self._store.claim(selection, less, owner, now, alone)


def rate(make: MakeQueue, jobs: int) -> float:
    """Jobs a second from add to delete."""
    with _opened(make) as queue:
        started = time.perf_counter()
        queues.add_all(queue, jobs)
        queues.run_all(queue, jobs)
        return jobs / (time.perf_counter() - started)


def run_rate(make: MakeQueue, jobs: int, in_lists_of: int) -> float:
    """Jobs a second that are run and deleted."""
    with _opened(make) as queue:
        queues.add_all(queue, jobs, in_lists_of=in_lists_of)
        started = time.perf_counter()
        queues.run_all(queue, jobs)
        return jobs / (time.perf_counter() - started)


def add_rate(make: MakeQueue, jobs: int, in_lists_of: int) -> float:
    """Jobs a second that are added. Of lists of one, fewer are added: they are slow."""
    jobs = min(jobs, in_lists_of * 1000)
    with _opened(make) as queue:
        started = time.perf_counter()
        queues.add_all(queue, jobs, in_lists_of=in_lists_of)
        took = time.perf_counter() - started
        queue.purge_jobs(queues.NOOP)
        return jobs / took


def on_sqlite(broker: str | None, options: str = "", **settings: float) -> MakeQueue:
    def make(data: Path) -> KQueue:
        return KQueue(queues.sqlite_url(data, options), broker, **settings)  # type: ignore[arg-type]

    return make


def narrow(broker: str | None, most: int) -> MakeQueue:
    def make(data: Path) -> KQueue:
        return KQueue(NarrowWindows(open_store(queues.sqlite_url(data)), most), broker)

    return make


@contextmanager
def _opened(make: MakeQueue) -> Iterator[KQueue]:
    with queues.folder() as data, make(data) as queue:
        yield queue


@click.command()
@click.option("--jobs", default=10_000, show_default=True, help="In each round.")
@click.option("--rounds", default=ROUNDS, show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(jobs: int, rounds: int, json_file: Path | None) -> None:
    """Measure, and print the tables."""
    about = show.begin(QUESTION, queues.servers())
    with ExitStack() as stack:
        usual, no_binlog, each_synced, unix = (
            stack.enter_context(server).url
            for server in (
                queues.beanstalkd(),
                queues.beanstalkd(binlog=False),
                queues.beanstalkd(flags=("-f0",)),
                queues.beanstalkd(unix=True),
            )
        )
        levers = {
            DEFAULTS: on_sqlite(usual),
            "synchronous=NORMAL": on_sqlite(usual, "synchronous=NORMAL"),
            "synchronous=OFF": on_sqlite(usual, "synchronous=OFF"),
            "beanstalkd without a binlog": on_sqlite(no_binlog),
            "beanstalkd -b -f0, a sync for each command": on_sqlite(each_synced),
            "beanstalkd on a Unix socket": on_sqlite(unix),
            "no beanstalkd": on_sqlite(None),
            "settle_ms=0": on_sqlite(usual, settle_ms=0),
            "settle_ms=100": on_sqlite(usual, settle_ms=100),
        }
        whole = interleaved({name: partial(rate, make, jobs) for name, make in levers.items()}, rounds)
        lists = {f"{length} in a list": length for length in reversed(LISTS)}
        adds = interleaved(
            {name: partial(add_rate, on_sqlite(usual), jobs, length) for name, length in lists.items()}, rounds
        )
        fast = on_sqlite(usual, "synchronous=OFF")  # so that lists of one are added fast too
        runs = interleaved({name: partial(run_rate, fast, jobs, length) for name, length in lists.items()}, rounds)
        windows: dict[str, MakeQueue] = {"any": on_sqlite(None)}
        windows |= {f"at most {most}": narrow(None, most) for most in reversed(WINDOWS)}
        narrowed = interleaved(
            {name: partial(run_rate, make, min(jobs, 2000), queues.LIST) for name, make in windows.items()}, rounds
        )
    findings = Findings(
        QUESTION,
        [
            table("one lever moved: add, run and delete", "jobs/s", whole),
            table("jobs in an add_jobs: add", "jobs/s", adds),
            table("jobs in an add_jobs, 100 in an entry at most: run", "jobs/s", runs),
            table("jobs in a window: run, SQLite alone", "jobs/s", narrowed),
        ],
        notes=["The runs of the third table have synchronous=OFF, so that only the entries matter."],
    )
    show.end(about, findings, json_file)


if __name__ == "__main__":
    main()
