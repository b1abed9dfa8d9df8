"""Pointers and rows, joined by pure functions: what to put for rows, what becomes of an entry after a claim."""

import math
from collections.abc import Iterable, Sequence

from kqueue.broker import Entry, Pointer, Verdict
from kqueue.store import Claim, Due

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


def judge(entries: Sequence[Entry], claim: Claim, now: float) -> list[Verdict]:
    """What becomes of each entry once ``claim`` (of all their ids, in their order) has committed.

    * The window was full before the entry's last id was looked at: it keeps its place.
    * Some of its rows are not due yet: it is given back for the rest of the shortest delay.
    * Nothing is left to claim (claimed now, gone, leased, dead): it is deleted.
    """
    claimed = {row.id for row in claim.rows}
    unseen = _unseen_ids(entries, claimed) if claim.cut else frozenset()
    return [Verdict(entry, _release_in(entry, claim, unseen, now)) for entry in entries]


def stale(verdicts: Sequence[Verdict], claim: Claim) -> int:
    """How many of the deleted entries had no row to claim at all."""
    claimed = {row.id for row in claim.rows}
    return sum(verdict.release_in is None and claimed.isdisjoint(verdict.entry.pointer.ids) for verdict in verdicts)


def _release_in(entry: Entry, claim: Claim, unseen: frozenset[str], now: float) -> float | None:
    if not unseen.isdisjoint(entry.pointer.ids):
        return 0.0
    if claim.later:
        waits = [claim.later[id] for id in entry.pointer.ids if id in claim.later]
        if waits:
            return min(max(1.0, min(waits) - now), MAX_TUBE_DELAY_S)
    return None


def _unseen_ids(entries: Sequence[Entry], claimed: set[str]) -> frozenset[str]:
    """The ids after the last claimed one: a claim looks at candidates in order and stops where it is full.

    An id stands where it comes first: after a crash the same job may be in two entries.
    """
    ids = list(dict.fromkeys(id for entry in entries for id in entry.pointer.ids))
    while ids and ids[-1] not in claimed:
        ids.pop()
    seen = frozenset(ids)
    return frozenset(id for entry in entries for id in entry.pointer.ids if id not in seen)
