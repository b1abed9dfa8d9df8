"""What SQLite does for a call of the store: its statements, their plans, and the steps of its virtual machine."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from kqueue.stores.sqlite.store import SqliteStore


class Cost(NamedTuple):
    """What SQLite did."""

    steps: int
    #: With their values in them.
    statements: list[str]


@contextmanager
def watched(store: SqliteStore) -> Iterator[Callable[[], Cost]]:
    """Call what it gives for the cost of all that ``store`` did since then."""
    steps, statements = [0], []

    def step() -> None:
        steps[0] += 1

    with store._file.read() as connection:
        connection.set_progress_handler(step, 1)
        connection.set_trace_callback(statements.append)
    yield lambda: Cost(steps[0], list(statements))
    with store._file.read() as connection:
        connection.set_progress_handler(None, 1)
        connection.set_trace_callback(None)


def plans(store: SqliteStore, statements: Sequence[str]) -> dict[str, list[str]]:
    """SQLite's plan for each statement that reads or writes something."""
    found = {}
    for statement in statements:
        if statement not in {"BEGIN IMMEDIATE", "COMMIT", "ROLLBACK"}:
            with store._file.read() as connection:
                found[statement] = [step for *_, step in connection.execute(f"EXPLAIN QUERY PLAN {statement}")]
    return found


#: What may be read as a whole.
SMALL = ("SCAN found", "SCAN wanted", "SCAN json_each", "SCAN head", "SCAN kqueue_workers", "SCAN kqueue_paused")


def wrong_steps(plan: Sequence[str]) -> list[str]:
    """Those that read jobs by anything but a range of an index, or sort. Workers are few."""
    return [
        step
        for step in plan
        if "TEMP B-TREE" in step
        or "AUTOMATIC" in step
        or "BLOOM FILTER" in step  # it is made by a scan
        or (step.startswith("SCAN") and not step.startswith(SMALL))
        or (step.startswith("SEARCH") and "INDEX" not in step and "PRIMARY KEY" not in step)
    ]


def describe(plans: dict[str, list[str]]) -> str:
    return "\n".join(
        f"{' '.join(statement.split())}\n    " + "\n    ".join(plan) for statement, plan in plans.items()
    )
