"""A folder with an app for workers, and queues on each pair of store and broker."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.flows.conftest import make_queue, queue
from tests.worker.works import Works

__all__ = ["make_queue", "queue"]


@pytest.fixture
def make_works(tmp_path: Path) -> Iterator[Callable[..., Works]]:
    """Makes it, with the URL of a broker or without."""
    made: list[Works] = []

    def make(broker: str | None = None) -> Works:
        made.append(Works(tmp_path, broker))
        return made[-1]

    yield make
    for works in made:
        works.queue.close()


@pytest.fixture
def works(make_works: Callable[..., Works]) -> Works:
    return make_works()
