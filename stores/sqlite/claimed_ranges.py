"""The claims of one process that are whole ranges of keys: so what has ended of one is deleted as it was claimed.

A delete by id looks each id up. Where all jobs of a claim end together by their deletes, as windows of fast ones
do, they are what has this owner, in that range. An owner is that of one claim, so nothing else is deleted whatever
became of its rows meanwhile; who finds fewer settles by id. What is remembered is only a hint: lost, or of a claim
that was taken back, it changes nothing.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from kqueue.model.job import Row

#: Claims that are remembered at most: those in hand are fewer, unless many loops share the store.
MOST: Final = 32


class ClaimedRange(NamedTuple):
    """The rows of one claim."""

    #: In order.
    ids: list[str]
    first: int
    last: int
    owner: str


class ClaimedRanges:
    """Shared by threads: each step on the dictionary is atomic."""

    def __init__(self) -> None:
        #: By the id of the first, the oldest first.
        self._ranges: dict[str, ClaimedRange] = {}

    def remember(self, rows: Sequence[Row], keys: Sequence[int], owner: str) -> None:
        """``rows`` were claimed, and have all keys between the least and the greatest of ``keys``."""
        ids = [row.id for row in rows]
        self._ranges[ids[0]] = ClaimedRange(ids, min(keys), max(keys), owner)
        for oldest in list(self._ranges)[:-MOST]:
            self._ranges.pop(oldest, None)

    def take(self, ids: list[str]) -> ClaimedRange | None:
        """The claim whose rows these are, all of them and in its order; it is not given again."""
        found = self._ranges.pop(ids[0], None)
        return found if found is not None and found.ids == ids else None
