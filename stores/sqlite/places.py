"""What is ready of many types, merged by (priority, key): read as far as it is asked for, and never sorted."""

import heapq
import json
import sqlite3
from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator
from itertools import islice
from typing import Any, Final, TypeAlias

from kqueue.stores.sqlite import statements as sql

#: (priority, key) of a row.
Place: TypeAlias = tuple[int, int]
#: The first places of each type, which one statement reads: so a type with a job or none costs no further one.
HEADS: Final = 2
#: Rows that are read at once, at most. Up to there as many as were read before: so few are that are not looked at.
MOST_AT_ONCE: Final = 128


def ready_records(connection: sqlite3.Connection, types: Iterable[str]) -> Generator[tuple[Any, ...]]:
    """The records of what is ready of ``types``, as ``CANDIDATES_AT`` gives them, in order. To be read to its end,
    or closed, in the transaction in which it began.
    """
    places, read = _places(connection, types), 0
    try:
        while keys := [key for _, key in islice(places, min(max(1, read), MOST_AT_ONCE))]:
            wanted = {"keys": json.dumps(keys)}
            found = {record[0]: record for record in connection.execute(sql.CANDIDATES_AT, wanted)}
            yield from (found[key] for key in keys)
            read += len(keys)
    finally:
        places.close()  # the frames of a failure may keep it for longer than there is a connection


def _places(connection: sqlite3.Connection, types: Iterable[str]) -> Generator[Place]:
    heads: defaultdict[str, list[Place]] = defaultdict(list)
    wanted = {"types": json.dumps(list(types)), "heads": HEADS}
    for type, priority, key in connection.execute(sql.HEADS_OF_TYPES, wanted):
        heads[type].append((priority, key))
    return heapq.merge(*(_of_type(connection, type, sorted(first)) for type, first in heads.items()))


def _of_type(connection: sqlite3.Connection, type: str, first: list[Place]) -> Iterator[Place]:
    yield from first
    if len(first) == HEADS:
        priority, key = first[-1]
        yield from connection.execute(sql.PLACES_AFTER, {"type": type, "priority": priority, "key": key})
