"""What a dispatcher sees to itself, of the limits on how many run: of what it has in hand no more start at once.

The store counts all that a holder has claimed as no more places than the holder has hands: see
:class:`kqueue.contracts.admission.Claimer`. So jobs of one key may wait here for each other.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import TypeAlias

from kqueue.contracts.admission import Limit, hands_of
from kqueue.model.job import Row

#: A type, a key of it, or the gate of rows that count together.
_Name: TypeAlias = tuple[str | None, str | None]


class LocalLimits:
    """Of one dispatcher. Its caller has a lock around each call."""

    def __init__(self, limit_of: Callable[[str], Limit | None]) -> None:
        """``limit_of(type)``: the limits of a type, if it has any."""
        self._limit_of = limit_of
        #: How many run, by what they count with.
        self._running: Counter[_Name] = Counter()
        #: What each that runs counts with, by id and fence.
        self._counted: dict[tuple[str, int], list[_Name]] = {}

    def has_place(self, row: Row) -> bool:
        """Whether the row may start beside those that run."""
        return row.gate is None or all(self._running[name] < most for name, most in self._bounds(row))

    def started(self, row: Row) -> None:
        """It runs."""
        if row.gate is not None:  # else no limit was told when it was claimed
            names = self._counted[row.id, row.fence] = [name for name, _ in self._bounds(row)]
            self._running.update(names)

    def ended(self, row: Row) -> None:
        """It does not run any more."""
        if row.gate is not None:
            for name in self._counted.pop((row.id, row.fence), ()):
                self._running[name] -= 1
                if not self._running[name]:
                    del self._running[name]

    def _bounds(self, row: Row) -> Iterator[tuple[_Name, int]]:
        """What the row counts with, and how many of these may run."""
        limit = self._limit_of(row.type)
        if limit is not None and limit.running is not None:
            yield (row.type, None), limit.running
        if limit is not None and limit.running_per_key is not None and row.limit_key is not None:
            yield (row.type, row.limit_key), limit.running_per_key
        hands = hands_of(row.gate or "")
        if hands is not None:
            yield (row.gate, None), hands
