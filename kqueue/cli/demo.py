"""The demo: each file of Python's standard library is a job that parses it.

It is an example too: a whole program that adds jobs, runs them, lets some fail, and looks at what is left. It
uses nothing of KQueue but what any user has.
"""

from __future__ import annotations

import ast
import logging
import os
import sysconfig
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kqueue import JobInHand, KQueue, KQueueError, RunReport
from kqueue.system.clock import awake

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

JOB_TYPE = "parse"
#: Jobs in one call of ``add_jobs``.
BATCH = 1_000
#: Milliseconds of running between two looks at the progress.
SLICE_MS = 250
#: Seconds between two lines of progress where there is no terminal.
LINE_INTERVAL_S = 2.0
#: Dead jobs that are shown.
DEAD_SHOWN = 5

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@click.command("demo")
@click.option("--store", metavar="URL", help="Keep the jobs here. Without it: a SQLite file that is removed.")
@click.option("--broker", metavar="URL", help="Such as beanstalk://127.0.0.1:11300. Without it: none.")
@click.option("--limit", type=click.IntRange(min=0), metavar="N", help="Parse the first N files only.")
def demo(store: str | None, broker: str | None, limit: int | None) -> None:
    """Parse Python's standard library, one job for each file."""
    from rich.console import Console  # noqa: PLC0415 (it draws here)

    run(standard_library(limit), store, broker, Console())


@dataclass(frozen=True, slots=True)
class SyntaxCounts:
    """What a Python file holds."""

    lines: int
    functions: int
    classes: int


def standard_library(limit: int | None = None) -> list[Path]:
    """The ``.py`` files of the running interpreter's standard library, sorted: the first ``limit`` or all."""
    found: list[Path] = []
    for folder, folders, names in os.walk(sysconfig.get_path("stdlib")):
        # What is installed is not even walked through: there may be a hundred times as much of it.
        folders[:] = [name for name in folders if name not in ("site-packages", "dist-packages")]
        found += [Path(folder, name) for name in names if name.endswith(".py")]
    return sorted(path for path in found if path.is_file())[:limit]


def count_syntax(path: Path) -> SyntaxCounts:
    """Parse a file. Raises ``OSError``, or ``SyntaxError`` and ``ValueError`` if it is not Python of today."""
    source = path.read_bytes()
    nodes = list(ast.walk(ast.parse(source, path.name)))
    return SyntaxCounts(
        lines=len(source.splitlines()),
        functions=sum(isinstance(node, _FUNCTIONS) for node in nodes),
        classes=sum(isinstance(node, ast.ClassDef) for node in nodes),
    )


class _Line(logging.Formatter):
    """Of a file that cannot be parsed the reason is enough: a traceback would lead into the parser."""

    def formatException(self, ei: object) -> str:  # noqa: N802 (logging's own name)
        """Nothing."""
        return ""


def _log() -> logging.Logger:
    """Each failure on a line of standard error."""
    logger, handler = logging.Logger("kqueue.demo", logging.WARNING), logging.StreamHandler()
    handler.setFormatter(_Line())
    logger.addHandler(handler)
    return logger


class Tally:
    """The handler, and what it found. By path, since a job that runs twice must not count twice."""

    def __init__(self) -> None:
        self.by_path: dict[str, SyntaxCounts] = {}

    def parse(self, job: JobInHand) -> None:
        """The handler of a "parse" job. What it raises has the job retried, and dead in the end."""
        path = job.payload["path"]
        self.by_path[path] = count_syntax(Path(path))
        job.delete()


def run(files: Sequence[Path], store: str | None, broker: str | None, console: Console) -> None:
    """Run the demo on ``files`` and print what happened.

    Without ``store`` the jobs stand in a SQLite file that is removed at the end. Raises ``KQueueError`` if the
    store or the broker is not there.
    """
    options: dict[str, Any] = {"retry_delay": 0.2, "max_tries": 3, "logger": _log()}
    with _store_url(store) as url, KQueue(store=url, broker=broker, **options) as queue:
        # Jobs could be added without the broker, and would wait for it; here somebody is watching.
        queue.broker.depths([JOB_TYPE])
        try:
            _parse_all(queue, files, console)
        finally:
            if store is None:
                # The store goes, so no pointer to it may stay in a tube. A broker that has gone has none.
                with suppress(KQueueError):
                    queue.purge_jobs(JOB_TYPE)


def _parse_all(queue: KQueue, files: Sequence[Path], console: Console) -> None:
    _print(console, f"store   {queue.store.address}")
    _print(console, f"broker  {queue.broker.address if queue.broker.carries_pointers else 'none is needed'}")
    tally = Tally()
    queue.add_handler(JOB_TYPE, tally.parse)

    started = awake()
    paths = {job_id: str(path) for job_id, path in _add(queue, files)}
    _print(console, f"added {len(paths)} jobs in {awake() - started:.2f} s")

    started = awake()
    with _progress(console, len(paths)) as show, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old files have odd escapes in their strings
        reports = list(_run(queue, show))
    seconds = awake() - started

    console.print(_table(len(paths), reports, seconds, boxed=console.is_terminal))
    _print(console, _found(tally))
    unparsed = {job_id: path for job_id, path in paths.items() if path not in tally.by_path}
    for line in _dead_lines(queue, unparsed):
        _print(console, line)


def _add(queue: KQueue, files: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    for start in range(0, len(files), BATCH):
        batch = files[start : start + BATCH]
        yield from zip(queue.add_jobs(JOB_TYPE, [{"path": str(path)} for path in batch]), batch, strict=True)


def _run(queue: KQueue, show: Callable[[int], None]) -> Iterator[RunReport]:
    """Run in slices until nothing is left but what is dead."""
    ended = 0
    while _live(queue):
        report = queue.run_jobs(time_limit_ms=SLICE_MS, wait=True)
        ended += report.deleted + report.dead
        show(ended)
        yield report


def _live(queue: KQueue) -> int:
    counts = queue.counts(JOB_TYPE)
    return sum(counts[state] for state in ("delayed", "ready", "held", "running"))


@contextmanager
def _store_url(given: str | None) -> Iterator[str]:
    if given is not None:
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="kqueue-demo-") as folder:
        yield f"sqlite:///{folder}/demo.db"


# -- what is shown -------------------------------------------------------------------------------------------


def _print(console: Console, line: str) -> None:
    """As it is: paths and reasons are no markup, and a long line is left whole."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _progress(console: Console, total: int) -> Iterator[Callable[[int], None]]:
    """A function that shows how many jobs have ended: as a bar on a terminal, else as a line now and then."""
    if not console.is_terminal:
        yield _Lines(console, total).show
        return
    from rich.progress import (  # noqa: PLC0415 (it draws here)
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    columns = TextColumn("parsing"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=total)
        yield lambda ended: bar.update(task, completed=ended)


class _Lines:
    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._total = total
        self._next = awake() + LINE_INTERVAL_S

    def show(self, ended: int) -> None:
        if awake() >= self._next:
            self._next = awake() + LINE_INTERVAL_S
            _print(self._console, f"{ended} of {self._total} jobs ended")


def _table(added: int, reports: Sequence[RunReport], seconds: float, boxed: bool) -> Table:
    run = sum(report.count for report in reports)
    cells = {
        "jobs added": added,
        "run": run,
        "deleted": sum(report.deleted for report in reports),
        "retried": sum(report.retried for report in reports),
        "dead": sum(report.dead for report in reports),
        "jobs/s": round(run / seconds) if seconds else 0,
    }
    from rich.box import SIMPLE  # noqa: PLC0415 (it draws here)
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=SIMPLE if boxed else None)
    for name in cells:
        table.add_column(name, justify="right")
    table.add_row(*(str(value) for value in cells.values()))
    return table


def _found(tally: Tally) -> str:
    found = tally.by_path.values()
    return (
        f"{len(found)} files parsed: {sum(one.lines for one in found)} lines,"
        f" {sum(one.functions for one in found)} functions, {sum(one.classes for one in found)} classes"
    )


def _dead_lines(queue: KQueue, unparsed: Mapping[str, str]) -> Iterator[str]:
    """The dead among the jobs that parsed nothing, each with its path and its last reason."""
    jobs = [(queue.get_job(job_id), path) for job_id, path in unparsed.items()]
    dead = [(job, path) for job, path in jobs if job is not None and job.state == "dead"]
    if dead:
        yield "dead, as they cannot be parsed:"
    for job, path in dead[:DEAD_SHOWN]:
        yield f"  {path}: {job.reason} (tried {job.tries} times)"
    if len(dead) > DEAD_SHOWN:
        yield f"  and {len(dead) - DEAD_SHOWN} more"
