"""What the commands share: the options that name a queue, exit statuses, and lines on the terminal."""

import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from urllib.parse import unquote

import click

from kqueue import KQueue, RunReport, SweepReport

#: Exit statuses: done; done but for some jobs; not done at all; Ctrl-C.
OK, SOME_FAILED, COULD_NOT, INTERRUPTED = 0, 1, 2, 130

_SQLITE = "sqlite:///"

Command = TypeVar("Command", bound=Callable[..., Any])


def queue_options(command: Command) -> Command:
    """``--store`` and ``--broker``, for :func:`open_queue`."""
    store = click.option("--store", envvar="KQUEUE_STORE", metavar="URL", help="Or set KQUEUE_STORE.")
    broker = click.option("--broker", envvar="KQUEUE_BROKER", metavar="URL", help="Or set KQUEUE_BROKER.")
    return store(broker(command))


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def make_queue(store: str | None, broker: str | None) -> KQueue:
    """The queue of the options; its store may be new. Raises ``ValueError`` for a store that no command can use."""
    if not store:
        raise ValueError("no store: give --store or set KQUEUE_STORE, to sqlite:///jobs.db for one")
    if store == "memory:":
        raise ValueError("store: memory: ends with this command; give one that stays, such as sqlite:///jobs.db")
    return KQueue(store=store, broker=broker or None)


def find_queue(store: str | None, broker: str | None) -> KQueue:
    """The queue of the options, for commands that only make sense where jobs are.

    Opening a SQLite file makes it, so a mistyped path would look like a queue with no jobs. Raises
    ``ValueError`` if the file is not there.
    """
    queue = make_queue(store, broker)
    if store and store.startswith(_SQLITE):
        path = os.path.abspath(unquote(store.removeprefix(_SQLITE).partition("?")[0]))
        try:
            os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            raise ValueError(
                f"store: there is no file {path}; correct --store or KQUEUE_STORE (kqueue add makes a new one)"
            ) from None
    return queue


def print_json(value: object) -> None:
    """On one line."""
    click.echo(json.dumps(value))


def print_report(report: RunReport | SweepReport, as_json: bool) -> None:
    """What a run or a sweep did, on one line."""
    values = dataclasses.asdict(report)
    if as_json:
        print_json(values)
        return
    seconds = values.pop("seconds")
    numbers = ", ".join(f"{name.replace('_', ' ')} {number}" for name, number in values.items())
    click.echo(f"{numbers} in {seconds:.2f} s")


def print_columns(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Rows under their heads: numbers to the right, all else to the left."""
    cells = [[one_line(str(value)) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    numeric = [isinstance(value, int) for value in rows[0]]
    for line in [heads, *cells]:
        columns = zip(line, widths, numeric, strict=True)
        aligned = [f"{cell:>{width}}" if right else f"{cell:{width}}" for cell, width, right in columns]
        click.echo("  ".join(aligned).rstrip())


def one_line(text: str) -> str:
    """``text`` without line ends, and without control characters that would steer the terminal."""
    return "".join(char if char.isprintable() else "?" for char in " ".join(text.split()))


def complain(message: str) -> None:
    """One line on standard error."""
    click.echo(f"kqueue: {' '.join(message.splitlines())}", err=True)
