"""Pointers and rows, joined by pure functions: what to put for rows, what becomes of an entry after a claim."""

import math
from collections.abc import Iterable

from kqueue.contracts.broker import Pointer
from kqueue.contracts.repair import Due

#: Delays up to this ride in the tube; a row with a longer one has no pointer until the sweep puts it.
MAX_TUBE_DELAY_S = 3600.0
#: Seconds that a pointer may come late, to come once: one that comes early is given back for the rest.
LATE_S = 0.03


def group(dues: Iterable[Due], now: float) -> list[tuple[Pointer, float]]:
    """One pointer for all rows of the same type, priority and time, with its delay in whole seconds, rounded down:
    whoever gets it before its rows are due knows their time (:mod:`kqueue.dispatch.falling_due`).

    Rows that were added one after the other share it, so its ``put_at`` is that of the first: as the head of its
    tube it shows no row to be lost that was added with them.
    """
    ids: dict[tuple[str, int, float], list[str]] = {}
    put_at: dict[tuple[str, int, float], float] = {}
    for due in dues:
        key = (due.type, due.priority, float(max(0, math.floor(due.run_at - now + LATE_S))))
        at = now if due.put_at is None else due.put_at
        ids.setdefault(key, []).append(due.id)
        put_at[key] = min(at, put_at.get(key, at))
    return [(Pointer(key[0], key[1], put_at[key], tuple(of_key)), key[2]) for key, of_key in ids.items()]
