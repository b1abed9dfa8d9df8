"""What the README and ``docs/figures.rst`` lead with, from the results of several benchmarks. Pure.

:mod:`bench.readme` writes it into their places.
"""

from collections.abc import Mapping
from typing import NamedTuple

from bench.figures import Findings, Row
from bench.show import grid

BOTH, ALONE = "KQueue, SQLite FULL + beanstalkd -b", "KQueue, SQLite FULL alone"
#: The handlers that wait, in KQueue's threads.
THREADS, THREADS_ALONE = "KQueue threads, SQLite FULL + beanstalkd -b", "KQueue threads, SQLite FULL"
THREADS_MONGODB = "KQueue threads, MongoDB j + beanstalkd -b"


class Line(NamedTuple):
    """One row of the README's table: how both cells are written, and whose medians they are."""

    what: str
    form: str
    result: str
    table: int
    both: str
    alone: str


README_LINES = [
    Line("10 ms handlers, 8 threads: of 800 a second", "{:.0%}", "peers_wait", 0, THREADS, THREADS_ALONE),
    Line("10 ms handlers, 32 threads: of 3,200 a second", "{:.0%}", "peers_wait", 1, THREADS, THREADS_ALONE),
    Line("added in lists of 1,000, run and deleted", "{:,.0f} a second", "throughput", 0, BOTH, ALONE),
    Line(
        "one ``add_job``, until it is durable",
        "{:.0f} µs",
        "one_by_one",
        0,
        "KQueue: add_job",
        "KQueue: add_job, SQLite alone",
    ),
    Line(
        "``add_job`` to the handler's start, in a waiting worker", "half within {:.1f} ms", "pickup", 0, BOTH, ALONE
    ),
]


def readme_lines(results: Mapping[str, Findings]) -> list[str]:
    """The README's table, and the other queues that are nearest."""
    rows = [["what", "SQLite and a beanstalkd", "SQLite alone"]]
    for line in README_LINES:
        table = results[line.result].tables[line.table]
        rows.append([line.what, *(_written(line.form, table.row(name).median) for name in (line.both, line.alone))])
    nearest = [f"{_of_ideal(row)} ({row.name})" for row in _fastest(results["peers_wait"], "durable")]
    return [
        *grid(rows),
        "",
        "On the first two the fastest other queue that is as durable reaches",
        f"{nearest[0]} and {nearest[1]}.",
    ]


def waiting_lines(results: Mapping[str, Findings]) -> list[str]:
    """The table of handlers that wait: KQueue, and the fastest of the other queues."""
    waiting = results["peers_wait"]
    ours = {
        "KQueue, SQLite and a beanstalkd": THREADS,
        "KQueue, SQLite alone": THREADS_ALONE,
        "KQueue, MongoDB and a beanstalkd": THREADS_MONGODB,
    }
    rows = [["worker", "8 at once, of 800 a second", "32 at once, of 3,200 a second"]]
    ran = {row.name for row in waiting.tables[0].rows}
    rows += [
        [name, *(_of_ideal(table.row(row)) for table in waiting.tables)] for name, row in ours.items() if row in ran
    ]
    for name, note in (
        ("the fastest other queue that is as durable", "durable"),
        ("the fastest other queue, whatever a power loss costs", ""),
    ):
        rows.append([name, *(f"{_of_ideal(row)}: {row.name}" for row in _fastest(waiting, note))])
    return grid(rows)


def _fastest(waiting: Findings, note: str) -> list[Row]:
    """Of each table: the fastest other queue among those whose note begins so."""
    return [
        max(
            (row for row in table.rows if not row.name.startswith("KQueue") and row.note.startswith(note)),
            key=lambda row: row.median,
        )
        for table in waiting.tables
    ]


def _of_ideal(row: Row) -> str:
    return _written("{:.0%}", row.median)


def _written(form: str, figure: float) -> str:
    return form.format(figure).replace("%", " %")
