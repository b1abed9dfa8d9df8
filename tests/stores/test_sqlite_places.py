"""What is ready of many types comes in the order of its places, however much each has."""

import random
import sqlite3
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from kqueue import Priority
from kqueue.stores.sqlite.places import HEADS, ready_records
from kqueue.stores.sqlite.store import SqliteStore
from kqueue.testing.contracts.rows import row
from tests.sample import seed

TYPES = 12


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Of a store in which each type has from none to many, added in any order."""
    dice = random.Random(seed())
    store = SqliteStore(tmp_path / "jobs.db", synchronous="OFF")
    store.open()
    types = [f"t{dice.choice([number, dice.randrange(TYPES)])}" for number in [*range(TYPES)] * 30]
    store.add([row(type=type, priority=dice.choice([*Priority])) for type in types])
    store.add([row(type="alone"), row(type="other"), row(type="other", state="delayed", run_at=2e9)])
    store.close()
    opened = sqlite3.connect(tmp_path / "jobs.db")
    yield opened
    opened.close()


@pytest.mark.parametrize("wanted", [0, 1, HEADS, HEADS + 1, 9, 10_000])
def test_they_come_in_order(connection: sqlite3.Connection, wanted: int) -> None:
    types = ["alone", "none", "other", *(f"t{number}" for number in range(0, TYPES, 2))]
    marks = ", ".join("?" * len(types))
    there = connection.execute(
        f"SELECT key FROM kqueue_jobs WHERE state = 'ready' AND type IN ({marks}) ORDER BY priority, key",
        types,
    ).fetchall()
    found = [(record[0],) for record in islice(ready_records(connection, types), wanted)]
    assert found == there[:wanted]
