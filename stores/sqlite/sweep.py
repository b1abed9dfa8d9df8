"""What the sweep of a SQLite store looks for, beside what one statement finds."""

import heapq
import math
import sqlite3
from contextlib import ExitStack, closing
from itertools import islice
from typing import Final

from kqueue.contracts.repair import Abandoned, Head, Recovered
from kqueue.contracts.rules import recovery
from kqueue.model.job import State
from kqueue.stores.sqlite import statements as sql
from kqueue.stores.sqlite.settle import run_of

#: Larger than any priority.
_AFTER_ALL: Final = 2**63 - 1


def find_abandoned(connection: sqlite3.Connection, now: float, most: int) -> list[Abandoned]:
    """The longest abandoned first: the ranges of their TTRs, merged as far as they are read."""
    with ExitStack() as cursors:
        ranges = [
            cursors.enter_context(closing(connection.execute(sql.FIND_ABANDONED, (ttr, now))))
            for (ttr,) in connection.execute(sql.TTRS_ABANDONED, (now,)).fetchall()
        ]
        merged = cursors.enter_context(closing(heapq.merge(*ranges)))
        return [
            Abandoned(id, type, bool(alone), crashes, owner, until)
            for until, id, type, alone, crashes, owner in islice(merged, most)
        ]


def recover(connection: sqlite3.Connection, now: float, max_crashes: int, most: int) -> Recovered:
    """Take them from their holder, inside a transaction of the caller's."""
    found = find_abandoned(connection, now, most)
    verdicts = [(*recovery(row.alone, row.crashes, max_crashes), row.id) for row in found]
    values = [(state, reason, run_of(now, reason), now, now, id) for state, reason, id in verdicts]
    connection.executemany(sql.RECOVER, values)
    died = [row for row, (state, _, _) in zip(found, verdicts, strict=True) if state == State.DEAD]
    if died:
        connection.executemany(sql.NOTE_DEATH, [(row.id,) for row in died])
    return Recovered(len(found) - len(died), tuple(died))


def lost_rule(head: Head | None, until: float, grace: float) -> tuple[int, float]:
    """(the head's priority, the latest ``put_at`` of a row of that priority whose pointer is lost)."""
    if head is None:
        return _AFTER_ALL, until
    # Strictly before, as the greatest number that is.
    return head.priority, min(until, math.nextafter(head.put_at - grace, -math.inf))
