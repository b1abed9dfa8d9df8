"""The unique keys of a memory store: which job has which, and until when."""

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple, TypeAlias

from kqueue.model.job import Row
from kqueue.stores.memory.rows import MemoryRows
from kqueue.stores.transitions import UNFINISHED

#: (type, unique key)
Place: TypeAlias = tuple[str, str]


class Taken(NamedTuple):
    """A unique key: the job that has it, until when it is taken without that, and since when."""

    id: str
    until: float
    since: float


#: Of rows that have none.
NO_KEYS: Final[Mapping[Place, Taken]] = MappingProxyType({})


class UniqueKeys:
    """Not safe for threads: the store's lock is held around every call."""

    def __init__(self, rows: MemoryRows) -> None:
        self._rows = rows
        self.by_place: dict[Place, Taken] = {}

    def holder_for(self, row: Row, now: float) -> str:
        """The id of the job that has its key then; its own if the key is free, or it has none."""
        found = None if row.unique_key is None else self.holder((row.type, row.unique_key), now)
        return row.id if found is None else found

    def holder(self, place: Place, now: float) -> str | None:
        """The id of the job that has it then, or None."""
        if place not in self.by_place:
            return None
        id, until, _ = self.by_place[place]
        row = self._rows.by_id.get(id)
        return id if until > now or (row is not None and row.state in UNFINISHED) else None

    def free(self, ids: Collection[str]) -> None:
        """Those that these jobs have."""
        for place in [place for place, taken in self.by_place.items() if taken.id in ids]:
            del self.by_place[place]

    def free_gone(self, type: str) -> None:
        """Those of the type whose job is not there any more."""
        self.free({taken.id for (of, _), taken in self.by_place.items() if of == type} - self._rows.by_id.keys())

    def forget(self, now: float) -> None:
        """Those that are over and whose job is gone. A dead job that is brought back has its key again."""
        for place, (id, until, _) in list(self.by_place.items()):
            if until <= now and id not in self._rows.by_id:
                del self.by_place[place]
