"""Whatever a signal handler raises, and wherever it comes: afterwards the queue works, closes, and has lost no job.

Real signals by a real timer, at times that sweep over an add, over windows, over the start and the end of loops.
The process is killed, and its test fails, if it hangs.
"""

import random
from pathlib import Path

import pytest

from tests.signals.children import seen_by

#: Rounds of a sample, and of the proof.
FEW, MANY = 100, 12_000
#: On a MongoDB each interrupt costs a new client.
FEW_CLIENTS, MANY_CLIENTS = 20, 1_500


def store_and_broker(request: pytest.FixtureRequest, tmp_path: Path, where: str) -> tuple[str, str]:
    store = "memory:"
    if "sqlite" in where:
        store = f"sqlite:///{tmp_path}/jobs.db?busy_timeout=20"
    elif "mongod" in where:
        server, database = request.getfixturevalue("mongod"), request.getfixturevalue("mongo_database")
        store = server.url(database)
    broker = request.getfixturevalue("beanstalkd").url if "beanstalkd" in where else ""
    return store, broker


WHERE = ["memory", "memory+beanstalkd", "sqlite", "sqlite+beanstalkd", "mongod", "mongod+beanstalkd"]


def check(request: pytest.FixtureRequest, tmp_path: Path, where: str, rounds: int) -> None:
    seed = random.randrange(10**9)
    print(f"seed {seed}, {rounds} rounds, {where}")
    seen = seen_by("tests.signals.interrupted", *store_and_broker(request, tmp_path, where), str(rounds), str(seed))
    print(seen)
    assert seen["errors"] == {}
    assert seen["not run"] == 0
    assert seen["left"] == {}
    assert sum(seen["caught"].values()) > rounds / 5  # else the signals came when all was done


@pytest.mark.parametrize("where", WHERE)
def test_a_sample_of_interrupts(request: pytest.FixtureRequest, tmp_path: Path, where: str) -> None:
    check(request, tmp_path, where, FEW_CLIENTS if "mongod" in where else FEW)


@pytest.mark.proof
@pytest.mark.parametrize("where", WHERE)
def test_thousands_of_interrupts(request: pytest.FixtureRequest, tmp_path: Path, where: str) -> None:
    check(request, tmp_path, where, MANY_CLIENTS if "mongod" in where else MANY)


@pytest.mark.parametrize("where", WHERE)
def test_a_signal_handler_that_adds_jobs_is_served_or_refused_at_once(
    request: pytest.FixtureRequest, tmp_path: Path, where: str
) -> None:
    """Wherever it interrupts its own thread, even within an add. It never waits for itself."""
    # A call of a MongoDB takes longer: by more signals it would hardly come to its end.
    rounds, each_s = (6, 0.005) if "mongod" in where else (20, 0.0007)
    seen = seen_by("tests.signals.reentered", *store_and_broker(request, tmp_path, where), str(rounds), str(each_s))
    print(seen)
    assert seen["by signals"] > (0 if "mongod" in where else 100)
    assert all("called from a signal handler" in text for text in seen["refused"])
    assert [seen[what] for what in ("same ids", "not run", "run twice", "miscounted")] == [0, 0, 0, 0]
