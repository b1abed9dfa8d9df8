"""What ``make proof`` goes through, and that it ends in time."""

import math
import os
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import pytest

from tests.beanstalkd import free_port
from tests.proof.__main__ import summary
from tests.proof.lots import Lot, collected, of_tests, of_tortures, ordered
from tests.proof.run import Account, Run
from tests.tubes import PATIENCE_S, await_true

DAY = date(2026, 11, 30)


def lot(name: str, program: str) -> Lot:
    return Lot(name, (sys.executable, "-c", program))


def run(lots: list[Lot], seconds: float, grace: float = math.inf, workers: int = 2) -> Account:
    return Run(lots, seconds, grace, lambda done: None).run(workers)


def test_a_lot_has_tests_of_one_function_and_each_test_is_in_one() -> None:
    ids = [f"tests/a.py::one[{n}]" for n in range(5)] + ["tests/a.py::two", "tests/b.py::one[0]"]
    lots = of_tests(ids, most=3)
    assert [lot.command[7:] for lot in lots] == [tuple(ids[:3]), tuple(ids[3:5]), (ids[5],), (ids[6],)]
    assert [lot.name for lot in lots] == [
        "tests/a.py::one, 1 to 3 of 5",
        "tests/a.py::one, 4 to 5 of 5",
        "tests/a.py::two",
        "tests/b.py::one[0]",
    ]


def test_each_store_is_tortured_with_a_binlog_and_without() -> None:
    assert [lot.command[-2:] for lot in of_tortures(7)] == [
        (store, binlog) for store in ("sqlite", "mongodb", "mongodb-set") for binlog in ("--binlog", "--no-binlog")
    ]


def test_days_begin_at_other_places_and_a_third_of_the_lots_a_day_leaves_none_out_for_long() -> None:
    lots = [Lot(str(number), ()) for number in range(100)]
    begun, seen = set(), set()
    for days in range(7):
        first, order = ordered(lots, DAY + timedelta(days))
        assert sorted(order) == sorted(lots)
        begun.add(first)
        seen |= set(order[:33])
    assert len(begun) == 7
    assert seen == set(lots)


def test_tests_at_more_places_are_in_lots_of_their_file() -> None:
    ids = ["tests/a.py::one[x]", "tests/a.py::two[x]", "tests/a.py::two[y]", "tests/b.py::one[x]"]
    lots = of_tests(ids, 9, "::")
    assert [(lot.name, lot.command[7:]) for lot in lots] == [
        ("tests/a.py, 1 to 3 of 3", tuple(ids[:3])),
        ("tests/b.py::one[x]", (ids[3],)),
    ]


@pytest.mark.proof
def test_what_runs_on_a_mongodb_too_is_found() -> None:
    ids = collected("places")
    assert sum(id.startswith("tests/flows/") for id in ids) > 100
    assert all("mongod" in id for id in ids)


@pytest.mark.proof
def test_what_is_to_be_proved_is_found() -> None:
    """What ``--proof`` adds, and what it makes whole."""
    ids = collected("proof")
    assert any(id.startswith("tests/signals/") for id in ids)
    assert sum(id.startswith("tests/steps/test_steps.py::test_no_step") for id in ids) > 50
    assert sum(id.startswith("tests/machines/test_model.py") for id in ids) == 4
    assert not any(id.startswith("tests/flows/") for id in ids)


def test_all_run_and_what_fails_is_told() -> None:
    account = run([lot("well", "print('so')"), lot("ill", "import sys; print('no'); sys.exit(3)")], math.inf)
    assert sorted((done.lot.name, done.status, done.output) for done in account.done) == [
        ("ill", 3, "no\n"),
        ("well", 0, "so\n"),
    ]
    assert [done.lot.name for done in account.failed()] == ["ill"]
    assert summary(account)[-2:] == [
        "FAILED: ill",
        "proof: 1 lots proved, 1 failed, 0 cut off and 0 left out, for the time was up",
    ]


def test_when_the_time_is_up_the_rest_is_left_out_and_that_is_no_failure() -> None:
    account = run([lot("late", "")], seconds=0)
    assert ([one.name for one in account.left_out], account.done, account.failed()) == (["late"], [], [])
    assert summary(account)[-1].endswith("0 cut off and 1 left out, for the time was up")


def test_what_does_not_end_is_cut_off_with_all_that_it_has_started(tmp_path: Path) -> None:
    port = free_port()
    server = f"import socket, time; s = socket.create_server(('127.0.0.1', {port})); time.sleep(600)"
    hangs = lot("hangs", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {server!r}])")
    account = run([hangs, lot("after", "")], seconds=3, grace=1, workers=1)
    assert [one.name for one in account.cut_off] == ["hangs"]
    assert [one.name for one in account.left_out] == ["after"]
    assert account.failed() == []
    await_true(lambda: not listens(port))


def listens(port: int) -> bool:
    found = subprocess.run(
        [sys.executable, "-c", f"import socket; socket.create_connection(('127.0.0.1', {port}))"],
        capture_output=True,
        check=False,
    )
    return found.returncode == 0


@pytest.mark.parametrize("option", ["--minutes", "--workers"])
def test_the_command_has_it(option: str) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "tests.proof", "--help"], stdout=subprocess.PIPE, text=True, check=True
    )
    assert option in told.stdout


def test_a_burn_burns_and_writes_until_it_is_stopped(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.burn", "--folder", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as burning:
        try:
            assert burning.stdout is not None
            assert burning.stdout.readline().startswith("burn: ")
            children = Path(f"/proc/{burning.pid}/task/{burning.pid}/children").read_text().split()
            assert len(children) == os.cpu_count()
            await_true(lambda: all(ticks(pid) > 1 for pid in children))
            await_true(
                lambda: int(Path(f"/proc/{burning.pid}/io").read_text().split("wchar: ")[1].split()[0]) > 2**21
            )
        finally:
            burning.terminate()
        assert burning.wait(PATIENCE_S) == 0
    assert [pid for pid in children if Path(f"/proc/{pid}").exists()] == []


def ticks(pid: str) -> int:
    """Of the processor that it has used."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])
