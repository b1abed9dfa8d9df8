"""A store with any number of rows in every state, of which a sweep has nothing to do."""

import sqlite3
from pathlib import Path

from kqueue.model.job import Row
from kqueue.stores.sqlite.payloads import APART, NAMES
from kqueue.stores.sqlite.store import SqliteStore

NOW = 1_700_000_000.0
#: Seconds that all that waits has waited.
AGE_S = 1000.0
TYPES = [f"type-{number}" for number in range(10)]
PRIORITIES = (10, 20, 30, 40, 50)
#: The first delayed row falls due so many seconds after NOW: beyond what a sweep puts ahead of its time.
FIRST_DUE_S = 100.0
#: Delayed rows that fall due in each second from then on.
DUE_PER_SECOND = 10
#: Seconds after NOW until the first lease ends. One ends each millisecond from then on.
LEASE_S = 30.0

#: Of a hundred rows: those below the first number are delayed, and so on. What is delayed has the best priority.
_STATES = {"delayed": 50, "ready": 90, "dead": 95, "done": 99, "running": 100}
#: Each column of the row with number ``n``, in SQL.
_COLUMNS = {
    "id": "printf('%028d', n)",
    "type": f"'type-' || (n / 100 % {len(TYPES)})",
    "payload": "x'31'",
    "encoding": "'json'",
    "priority": f"CASE state WHEN 'delayed' THEN 0 ELSE 10 * (1 + n / 7 % {len(PRIORITIES)}) END",
    "state": "state",
    "delay": f"CASE state WHEN 'delayed' THEN {FIRST_DUE_S + AGE_S} + {{nth}} ELSE 0.0 END",
    "run_at": f"CASE state WHEN 'delayed' THEN {NOW + FIRST_DUE_S} + {{nth}} ELSE {NOW - AGE_S} END",
    "ttr": "60.0",
    "fence": "state IN ('dead', 'done', 'running')",
    "tries": "state IN ('dead', 'done', 'running')",
    "failures": "state = 'dead'",
    "crashes": "0",
    "suspicion": "0",
    "alone": "0",
    "lease_owner": "CASE state WHEN 'running' THEN 'holder ' || n END",
    "lease_until": f"CASE state WHEN 'running' THEN {NOW + LEASE_S} + n / 100 * 0.001 END",
    "reason": "CASE state WHEN 'dead' THEN 'enough' END",
    "gate": "NULL",
    "keep_until": f"CASE state WHEN 'done' THEN {NOW + FIRST_DUE_S} + n * 0.001 END",
    "history": "NULL",
    "unique_key": "NULL",
    "limit_key": "NULL",
    "scheduled_for": "NULL",
    "asked_at": "NULL",
    "own_options": "NULL",
    "created_at": f"{NOW - AGE_S}",
    "put_at": f"CASE WHEN state IN ('ready', 'running') THEN {NOW - AGE_S} END",
}
_INSERT = """
    WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < :rows),
    placed (n, state) AS (SELECT n, CASE {states} END FROM numbers)
    INSERT INTO kqueue_jobs ({names}) SELECT {values} FROM placed
"""


def fill(path: Path, rows: int) -> None:
    """Make a store of ``rows`` rows. Its own indexes are made again at the end, which is five times as fast."""
    store = SqliteStore(path)
    store.open()
    store.close()
    assert set(_COLUMNS) == {*Row._fields} - APART
    states = " ".join(f"WHEN n % 100 < {below} THEN '{state}'" for state, below in _STATES.items())
    columns = [NAMES.get(name, name) for name in _COLUMNS]
    # The n-th of the delayed rows, so that they fall due one after another.
    nth = f"(n / 100 * {_STATES['delayed']} + n % 100) / {DUE_PER_SECOND}.0"
    values = ", ".join(_COLUMNS.values()).format(nth=nth)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = -65536")
        indexes = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql > ''"
        ).fetchall()
        for name, _ in indexes:
            connection.execute(f"DROP INDEX {name}")
        connection.execute(_INSERT.format(states=states, names=", ".join(columns), values=values), {"rows": rows})
        for _, statement in indexes:
            connection.execute(statement)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
