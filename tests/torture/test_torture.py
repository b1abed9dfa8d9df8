"""A short torture, with real processes. ``make torture`` runs a long one."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.beanstalkd import executable
from tests.conftest import missing
from tests.mongod import executable as mongod_path
from tests.torture.child import PATIENCE_S
from tests.torture.referee import torture
from tests.tubes import await_true

#: Of faults: long enough for one of each kind. The drain comes after.
SECONDS = 4
SEED = 1
#: Those that strike while everything is tested: each takes no long time.
QUICK = (
    "kill worker",
    "kill producer",
    "freeze worker",
    "restart broker",
    "strike worker",
    "strike producer",
    "step clock",
)
#: Of all acts.
LONGER_S = 30


@pytest.fixture(autouse=True)
def beanstalkd_is_there() -> None:
    if executable() is None:
        missing("beanstalkd", "apt install beanstalkd")


def test_what_was_acknowledged_survives_kills_freezes_and_restarts() -> None:
    account = torture(SECONDS, SEED, "sqlite", binlog=False, faults=QUICK)
    assert account.broken() == [], account
    # And it was no sham.
    assert account.acknowledged > 50
    assert min(account.seen.kills, account.seen.freezes, account.seen.restarts) > 0
    assert account.seen.at_risk


@pytest.mark.proof
@pytest.mark.parametrize("store", ["sqlite", "mongodb", "mongodb-set"])
def test_what_was_acknowledged_survives_every_act(store: str) -> None:
    if store != "sqlite" and mongod_path() is None:
        missing("mongod", "run make test, which unpacks one into .venv")
    account = torture(LONGER_S, SEED, store, binlog=True)
    assert account.broken() == [], account
    assert account.acknowledged > 50
    assert min(account.seen.kills, account.seen.freezes, account.seen.restarts, account.seen.strikes) > 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_torture_leaves_no_process_and_no_folder(tmp_path: Path, number: signal.Signals) -> None:
    referee = subprocess.Popen(
        [sys.executable, "-m", "tests.torture", "--seconds", "600", "--seed", str(SEED)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        await_true(lambda: any(tmp_path.glob("torture-*/ledgers/worker-*")))
        children = Path(f"/proc/{referee.pid}/task/{referee.pid}/children").read_text().split()
        referee.send_signal(number)
        status = referee.wait(PATIENCE_S)
    finally:
        referee.kill()
        referee.wait()
    assert status != 0
    assert children
    assert [pid for pid in children if Path("/proc", pid).exists()] == []
    assert list(tmp_path.iterdir()) == []
