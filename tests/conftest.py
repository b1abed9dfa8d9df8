"""Fixtures for every test. A server that is missing skips a test here, and fails it where CI is set."""

import os
from collections.abc import Callable, Iterator

import pytest

from tests.beanstalkd import Beanstalkd, executable


def missing(server: str, what_to_do: str) -> None:
    """End the test: skipped on a developer's machine, failed where CI is set."""
    message = f"{server} is not installed: {what_to_do}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture
def start_beanstalkd() -> Iterator[Callable[..., Beanstalkd]]:
    """Call it, with the arguments of :class:`tests.beanstalkd.Beanstalkd`, for a server of the test's own."""
    if executable() is None:
        missing("beanstalkd", "apt install beanstalkd")
    running: list[Beanstalkd] = []

    def start(**options: object) -> Beanstalkd:
        running.append(Beanstalkd(**options))  # type: ignore[arg-type]
        return running[-1]

    yield start
    for server in running:
        server.stop()


@pytest.fixture
def beanstalkd(start_beanstalkd: Callable[..., Beanstalkd]) -> Beanstalkd:
    """A server without a binlog."""
    return start_beanstalkd()
