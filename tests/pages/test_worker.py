"""What docs/worker.rst shows is run as it stands there."""

import configparser
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from kqueue import KQueue
from kqueue.cli.main import cli
from kqueue.config.keys import WORKER
from kqueue.worker import liveness
from kqueue.worker.children import GIVE_UP_S
from kqueue.worker.restarts import STEADY_S
from kqueue.worker.supervisor import FINISH_S
from tests.pages.blocks import blocks, page
from tests.tubes import await_true

TEXT = page("worker")
PATIENCE_S = 240


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(blocks(TEXT, "python")[0])
    with KQueue(f"sqlite:///{tmp_path}/jobs.db") as queue:
        queue.add_jobs("resize", [{"path": "a.png"}, {"path": "b.png"}])
    return tmp_path


def runs_the_jobs(command: str, folder: Path) -> None:
    """Run it in the folder with the environment's commands on the path; end it when it has run them."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with subprocess.Popen(
        shlex.split(command), cwd=folder, env={**os.environ, "PATH": path}, stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdout is not None
        text = "".join(worker.stdout.readline() for _ in range(2))  # two threads may print at once
        health = folder / "health.json"
        if "--health-file" in command:
            await_true(health.exists)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(PATIENCE_S) == 0
    assert sorted("".join(text.split())) == sorted("resizinga.pngresizingb.png"), text


def test_the_command(shop: Path) -> None:
    runs_the_jobs(blocks(TEXT, "sh")[0], shop)


def test_the_service(shop: Path) -> None:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(blocks(TEXT, "ini")[0])
    service = unit["Service"]
    command = service["ExecStart"]
    assert command.startswith("/srv/shop/.venv/bin/kqueue ")
    assert f"/run/{service['RuntimeDirectory']}/" in command
    runs_the_jobs(command.replace("/srv/shop/.venv/bin/", "").replace("/run/shop", str(shop)), shop)
    grace = float(command.split("--grace ")[1].split()[0])
    assert float(service["TimeoutStopSec"]) > grace + GIVE_UP_S + FINISH_S
    assert f"by {20} seconds" in TEXT
    assert GIVE_UP_S + FINISH_S < 20


def test_the_check_of_the_health_file(tmp_path: Path) -> None:
    check = blocks(TEXT, "sh")[1].replace("/run/shop", str(tmp_path))
    file = tmp_path / "health.json"

    def status() -> int:
        return subprocess.run(check, check=False, shell=True, stderr=subprocess.DEVNULL).returncode

    assert status() == 1
    file.write_text(blocks(TEXT, "json")[0])
    assert status() == 0
    os.utime(file, (file.stat().st_atime, file.stat().st_mtime - 120))
    assert status() == 1


def test_the_health_file_has_these_fields() -> None:
    shown = json.loads(blocks(TEXT, "json")[0])
    assert set(shown) == {"time", "pid", "jobs", "children"}
    assert shown["jobs"] == sum(child["jobs"] for child in shown["children"])


def test_every_option_stands_in_the_table() -> None:
    help = CliRunner().invoke(cli, ["worker", "--help"]).output
    assert set(re.findall(r"^``(--[a-z-]+)[ `]", TEXT, re.M)) == set(re.findall(r"^ +(--[a-z-]+) ", help, re.M)) - {
        "--help"
    }


def test_the_numbers_are_the_products() -> None:
    for key in WORKER:
        default = "" if key.default is None or key.is_flag else rf" .*\({re.escape(f'{key.default}')}\)"
        option = key.option if key.is_flag else f"{key.option} {key.metavar}"
        assert re.search(rf"^``{option}``{default}", TEXT.replace("``info``", "info"), re.M), key.name
    assert f"is killed {GIVE_UP_S:g} seconds later" in TEXT
    assert (STEADY_S, liveness.QUIET_S) == (60, 60)  # "a minute"


def test_a_pause_of_one_process() -> None:
    exec(blocks(TEXT, "python")[1], {})
