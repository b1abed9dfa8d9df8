"""What becomes of a tube's entries after a claim: pure."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from kqueue.contracts.broker import Entry, EntryFate
from kqueue.contracts.runs import Claim
from kqueue.dispatch.pointers import MAX_TUBE_DELAY_S

#: Seconds that an entry is given back for at least, if its rows are not due: by the store's clock, which may be
#: another than that of ``now``.
SHORTEST_S = 0.001


def judge(
    entries: Sequence[Entry],
    claim: Claim,
    now: float,
    pointed: Mapping[str, int] = MappingProxyType({}),
    ids: Sequence[str] | None = None,
) -> list[EntryFate]:
    """What becomes of each entry once ``claim`` (of all their ``ids``, by default in their order) has committed.
    ``pointed``: at which priorities it has looked for them.

    * The window was full before the entry's last id was looked at, or one of its ids was looked for at another
      priority, which another entry names, and not claimed: it keeps its place.
    * Some of its rows are not due yet: it is given back for the rest of the shortest delay.
    * Nothing is left to claim (claimed now, gone, leased, dead): it is deleted.
    """
    claimed = {row.id for row in claim.rows}
    unseen = _unseen_ids(_ids_of(entries) if ids is None else ids, claimed) if claim.cut else frozenset()
    is_doubtful = 0 < len(pointed) < sum(len(pointer.ids) for _, pointer in entries)
    return [
        EntryFate(entry, 0.0)
        if is_doubtful and _is_elsewhere(entry, pointed, claimed)
        else EntryFate(entry, _release_in(entry, claim, unseen, now))
        for entry in entries
    ]


def stale(verdicts: Sequence[EntryFate], claim: Claim) -> int:
    """How many of the deleted entries had no row to claim at all."""
    claimed = {row.id for row in claim.rows}
    return sum(verdict.release_in is None and claimed.isdisjoint(verdict.entry.pointer.ids) for verdict in verdicts)


def _release_in(entry: Entry, claim: Claim, unseen: frozenset[str], now: float) -> float | None:
    if not unseen.isdisjoint(entry.pointer.ids):
        return 0.0
    if claim.later:
        waits = [claim.later[id] for id in entry.pointer.ids if id in claim.later]
        if waits:
            return min(max(SHORTEST_S, min(waits) - now), MAX_TUBE_DELAY_S)
    return None


def _is_elsewhere(entry: Entry, pointed: Mapping[str, int], claimed: set[str]) -> bool:
    """Whether one of its ids was looked for at another priority, and not claimed."""
    return any(
        pointed.get(id, entry.pointer.priority) != entry.pointer.priority and id not in claimed
        for id in entry.pointer.ids
    )


def _ids_of(entries: Sequence[Entry]) -> list[str]:
    return [id for entry in entries for id in entry.pointer.ids]


def _unseen_ids(all: Sequence[str], claimed: set[str]) -> frozenset[str]:
    """The ids after the last claimed one: a claim looks at candidates in order and stops where it is full.

    An id stands where it comes first: after a crash the same job may be in two entries.
    """
    ids = list(dict.fromkeys(all))
    while ids and ids[-1] not in claimed:
        ids.pop()
    seen = frozenset(ids)
    return frozenset(all) - seen
