"""What is let through the gates of a type, on SQLite. See :mod:`kqueue.stores.gates`."""
# ruff: noqa: S608 (only constants are joined into the text)

import json
import sqlite3
from collections.abc import Collection
from contextlib import ExitStack
from typing import Final, NamedTuple

from kqueue.contracts.admission import Admission, Claimer, Limit
from kqueue.contracts.repair import Due
from kqueue.stores.gates import after_gates, free, free_at, gate_of, key_of
from kqueue.stores.sqlite.file.file import SqliteFile
from kqueue.stores.sqlite.gate_counts import HELD_HERE, SqliteCounts
from kqueue.stores.sqlite.statements import gates_of

FIND_HELD: Final = f"""
    SELECT job.key, job.id, job.type, job.priority, job.run_at {HELD_HERE} AND job.gate = :gate
    ORDER BY job.priority, job.key LIMIT :most
"""
ADMIT: Final = """
    UPDATE kqueue_jobs SET state = 'ready', put_at = ?, run_at = min(run_at, ?)
    WHERE key IN (SELECT value FROM json_each(?))
"""

HOLDS: Final = f"SELECT 1 {HELD_HERE} AND job.gate = ? LIMIT 1"
#: From each gate that is found, one probe leads to the next: those held at it are never walked.
_NEXT_HELD_GATE: Final = f"""
    WITH RECURSIVE found (gate) AS (
        SELECT min(job.gate) {HELD_HERE} AND job.gate >= :first
        UNION ALL
        SELECT (SELECT min(job.gate) {HELD_HERE} AND {{}}) FROM found WHERE found.gate < :last
    )
"""
HELD_GATES: Final = f"""
    {_NEXT_HELD_GATE.format("job.gate > found.gate")} SELECT gate FROM found WHERE gate < :last
"""
#: The gates of a type stand together, and begin with its own.
HELD_TYPES: Final = f"""
    SELECT wanted.value FROM json_each(?) AS wanted WHERE EXISTS (
        SELECT 1 {HELD_HERE} AND {gates_of("wanted.value", "job.gate")}
    )
"""


class _Opening(NamedTuple):
    """What a look at one gate found."""

    places: int
    #: When there may be one more, if all that are free are taken.
    next_at: float | None


def admit(
    file: SqliteFile,
    limit: Limit,
    keys: Collection[str] | None,
    now: float,
    *,
    put_at: float | None,
    most: int,
    holder: Claimer | None,
) -> Admission:
    """Gates that are full, as most are, are looked at without the write lock."""
    dues: list[Due] = []
    times: list[float | None] = []
    with file.read() as connection, ExitStack() as cursors:
        counts = SqliteCounts(connection, now, cursors)
        found = {key_of(gate): gate for gate in _held_gates(connection, limit.type, keys)}
        openings = {key: _look(limit, key, counts, holder) for key in found}
    times += [opening.next_at for opening in openings.values() if not opening.places]
    to_open = [key for key, opening in openings.items() if opening.places]
    if to_open and most > 0:
        with file.write() as connection, ExitStack() as cursors:
            counts = SqliteCounts(connection, now, cursors)
            for key in to_open:
                places = min(most - len(dues), _look(limit, key, counts, holder).places)
                dues += _let_through(connection, found[key], put_at, now, places)
                if _holds(connection, found[key]):
                    times.append(free_at(limit, key, counts))
    return Admission(dues, min((time for time in times if time is not None), default=None))


def _held_gates(connection: sqlite3.Connection, type: str, keys: Collection[str] | None) -> list[str]:
    """The gates at which a row is held: that of the type first, then those of the keys, in order."""
    if keys is None:
        found = connection.execute(HELD_GATES, {"first": gate_of(type, None), "last": after_gates(type)}).fetchall()
        return [gate for (gate,) in found]
    if not connection.execute(HELD_TYPES, (json.dumps([type]),)).fetchall():
        return []  # where a limit does not bind, however many keys there are
    gates = [gate_of(type, key) for key in (None, *sorted(set(keys)))]
    return [gate for gate in gates if _holds(connection, gate)]


def _holds(connection: sqlite3.Connection, gate: str) -> bool:
    return bool(connection.execute(HOLDS, (gate,)).fetchall())


def _look(limit: Limit, key: str | None, counts: SqliteCounts, holder: Claimer | None) -> _Opening:
    places = free(limit, key, counts, holder) - counts.admitted(gate_of(limit.type, key))
    if places >= 1:
        return _Opening(int(min(places, _ANY)), None)
    return _Opening(0, free_at(limit, key, counts))


#: More rows than anyone asks for at once.
_ANY: Final = 2**31


def _let_through(
    connection: sqlite3.Connection, gate: str, put_at: float | None, now: float, places: int
) -> list[Due]:
    found = connection.execute(FIND_HELD, {"gate": gate, "most": places}).fetchall() if places > 0 else []
    if found:
        # They were due before, whatever a clock said that was ahead.
        connection.execute(ADMIT, (put_at, now, json.dumps([key for key, *_ in found])))
    return [Due(id, type, priority, min(run_at, now), put_at) for _, id, type, priority, run_at in found]
