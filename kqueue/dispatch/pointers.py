"""Pointers and rows, joined by pure functions: what to put for rows, what becomes of an entry after a claim."""

import math
from collections.abc import Iterable

from kqueue.contracts.broker import Pointer
from kqueue.contracts.repair import Due

#: Delays up to this ride in the tube; a row with a longer one has no pointer until the sweep puts it.
MAX_TUBE_DELAY_S = 3600.0


def group(dues: Iterable[Due], now: float) -> list[tuple[Pointer, float]]:
    """One pointer for all rows of the same type, priority, ``put_at`` and time, with its delay in whole seconds."""
    groups: dict[tuple[str, int, float, int], list[str]] = {}
    for id, type, priority, run_at, put_at in dues:
        delay = max(0, math.ceil(run_at - now))
        groups.setdefault((type, priority, now if put_at is None else put_at, delay), []).append(id)
    return [
        (Pointer(type, priority, put_at, tuple(ids)), float(delay))
        for (type, priority, put_at, delay), ids in groups.items()
    ]
