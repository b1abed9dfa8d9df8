"""A program's folder, and its queue."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from kqueue import KQueue
from tests.shop import Shop


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


@pytest.fixture
def queue(shop: Shop) -> Iterator[KQueue]:
    with KQueue(store=shop.store) as queue:
        yield queue
