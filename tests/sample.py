"""What ``make test`` leaves out of the tests that run at several places, and ``make proof`` goes through whole.

A test on a genuine MongoDB takes as much time as at all other places together. So of those that run elsewhere too
a part is drawn, anew each day.
"""

import os
import random
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

#: Draws what was drawn another day.
SEED = "TEST_SEED"
#: Of those on a MongoDB.
PART = 1 / 4


def seed() -> int:
    """The one that was given, or the day's."""
    return int(os.environ.get(SEED) or datetime.now(UTC).toordinal())


def on_mongodb(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """Those that run on a MongoDB and, by other parameters of the same function, elsewhere too."""
    elsewhere = {_function(item) for item in items if not _is_on_mongodb(item)}
    return [item for item in items if _is_on_mongodb(item) and _function(item) in elsewhere]


def left_out(items: Sequence[pytest.Item], seed: int) -> list[pytest.Item]:
    """Of those, the ones that are not drawn."""
    return [item for item in on_mongodb(items) if random.Random(f"{seed} {item.nodeid}").random() >= PART]


def _function(item: pytest.Item) -> str:
    return item.nodeid.partition("[")[0]


def _is_on_mongodb(item: pytest.Item) -> bool:
    return "mongod" in item.nodeid.partition("[")[2]
