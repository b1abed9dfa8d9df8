"""When the rows of entries fall due that came too early: what one loop knows of the next seconds."""

import math
from collections.abc import Sequence
from heapq import heappop, heappush
from itertools import count

from kqueue.contracts.broker import Entry, EntryFate, Room
from kqueue.system.clock import Clock

#: Entries that one loop remembers. Those beyond come again by themselves, up to a second late.
MAX_NOTED = 1000
#: Entries that come again later than in so many seconds are not remembered: they come in time.
SOON_S = 2.0
#: Seconds after its time that a row is asked for: by the store's clock, which may differ a little.
MARGIN_S = 0.002


class FallingDue:
    """Of one loop, for its thread."""

    def __init__(self, clock: Clock) -> None:
        self._monotonic = clock.monotonic
        #: (When it falls due in monotonic seconds, its number, the entry), a heap.
        self._noted: list[tuple[float, int, Entry]] = []
        self._numbers = count()
        #: Those that have fallen due while none of their types were wanted.
        self._kept: list[Entry] = []
        #: Tokens of those that were handed out, until it is known what becomes of them.
        self._taken: set[int] = set()

    def note(self, verdicts: Sequence[EntryFate]) -> None:
        """Remember those that are given back for a moment; and of :meth:`take` also those that keep their place,
        since it is not in a tube.
        """
        for entry, release_in in verdicts:
            if release_in and release_in <= SOON_S:
                self._add(entry, release_in + MARGIN_S)
            elif release_in == 0.0 and entry.token in self._taken:
                self._add(entry, 0.0)
        self._taken.clear()

    def _add(self, entry: Entry, seconds: float) -> None:
        if len(self._noted) + len(self._kept) < MAX_NOTED:
            heappush(self._noted, (self._monotonic() + seconds, next(self._numbers), entry))

    def has_kept(self) -> bool:
        """Whether any have fallen due while their types were not wanted. From any thread."""
        return bool(self._kept)

    def seconds_left(self, room: Room | None = None) -> float:
        """Until the first falls due; infinity without any. ``room``: see :meth:`take`."""
        if self._kept and (room is None or any(room(entry.pointer.type) for entry in self._kept)):
            return 0.0
        return max(0.0, self._noted[0][0] - self._monotonic()) if self._noted else math.inf

    def take(self, jobs: int, room: Room | None = None) -> list[Entry]:
        """Entries that have fallen due, the first ones first: about as many as hold ``jobs`` jobs. Those of types
        of which ``room`` wants none are kept.
        """
        due: list[Entry] = []
        if self._noted or self._kept:
            now = self._monotonic()
            fallen, self._kept = self._kept, []
            while self._noted and self._noted[0][0] <= now:
                fallen.append(heappop(self._noted)[2])
            for entry in fallen:
                if jobs > 0 and (room is None or room(entry.pointer.type)):
                    self._taken.add(entry.token)
                    jobs -= len(entry.pointer.ids)
                    due.append(entry)
                else:
                    self._kept.append(entry)
        return due
