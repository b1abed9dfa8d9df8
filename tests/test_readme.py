"""What the README shows is run as it stands there."""

import json
import os
import re
import signal
import sqlite3
import statistics
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import kqueue
from kqueue import KQueue
from kqueue.brokers.beanstalk.wire import MAX_IDS
from kqueue.contracts.budget import Budget
from kqueue.contracts.rules import GRACE_S
from kqueue.contracts.runs import Selection
from kqueue.model.ids import ID_FORM
from kqueue.model.job import Row, State
from kqueue.model.options import DEFAULT_TTR
from kqueue.stores.sqlite.store import SqliteStore
from kqueue.system.mint import IdMint
from kqueue.upkeep.sweep import BATCH
from tests.pages.blocks import blocks
from tests.tubes import await_true

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.rst").read_text()


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A folder with the README's first queue in it."""
    (tmp_path / "shop.py").write_text(blocks(TEXT, "python")[0])
    return tmp_path


def run(command: str, folder: Path, failing: bool = False) -> str:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "KQUEUE_STORE": "sqlite:///jobs.db",
    }
    done = subprocess.run(
        command, check=False, shell=True, cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == int(failing), done.stderr
    return done.stdout


def test_the_first_queue_has_at_most_15_lines_and_prints_what_is_said(shop: Path) -> None:
    code = blocks(TEXT, "python")[0]
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    assert run("python shop.py", shop) == blocks(TEXT, "text")[0]


def test_fail_retry_look() -> None:
    exec(compile(blocks(TEXT, "python")[1], "README.rst", "exec"), {})


#: Runs the jobs of ``books.py`` and is killed when the work is done and the delete is about to be written.
DIES_BEFORE_THE_SETTLE = """
import os, signal
from books import queue

queue.store.settle = lambda settlements, now: os.kill(os.getpid(), signal.SIGKILL)
queue.run_jobs()
"""


def test_the_handler_that_is_safe_to_run_twice_makes_one_payment_when_its_worker_dies(tmp_path: Path) -> None:
    (tmp_path / "books.py").write_text(blocks(TEXT, "python")[2])
    with KQueue(store=f"sqlite:///{tmp_path}/jobs.db") as queue:
        job_id = queue.add_job("charge", {"customer": "Ada", "cents": 250}, ttr=1)
        killed = subprocess.run([sys.executable, "-c", DIES_BEFORE_THE_SETTLE], check=False, cwd=tmp_path)
        assert killed.returncode == -signal.SIGKILL
        assert payments(tmp_path) == [(job_id, "Ada", 250)]
        await_true(lambda: queue.sweep().recovered == 1)
        assert "deleted 1" in run("kqueue run --app books:queue", tmp_path)
        assert queue.get_job(job_id) is None
    assert payments(tmp_path) == [(job_id, "Ada", 250)]


def payments(folder: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(folder / "books.db")) as books:
        return books.execute("SELECT * FROM payments").fetchall()


def test_the_queue_with_a_broker_can_be_made() -> None:
    names: dict[str, object] = {"KQueue": KQueue}
    exec(compile(blocks(TEXT, "python")[3], "README.rst", "exec"), names)
    assert isinstance(names["queue"], KQueue)


def follow(dialogue: str, folder: Path) -> None:
    """Run each command of a console block, and compare what it prints. Ids and seconds are new each time."""
    ids: dict[str, str] = {}
    parts = re.split(r"^\$ (.*)\n", dialogue, flags=re.MULTILINE)[1:]
    for command, said in zip(parts[::2], parts[1::2], strict=True):
        if command.startswith("export "):
            continue
        got = run(renamed(command, ids), folder, failing="dead 1," in said)
        ids |= zip(ID_FORM.findall(said), ID_FORM.findall(got), strict=True)
        numbers = re.compile(r"(?<=in )\d+\.\d\d(?= s)|(?<=process )\d+|(?<=out )\d+(?= s ago)")
        expected = numbers.sub("…", renamed(said, ids))
        assert numbers.sub("…", got).replace(str(folder) + "/", "") == expected


def renamed(text: str, ids: dict[str, str]) -> str:
    return ID_FORM.sub(lambda found: ids[found[0]], text)


def test_the_commands_print_what_is_said(shop: Path) -> None:
    run("python shop.py", shop)
    follow(blocks(TEXT, "console")[0], shop)


def test_a_dry_run_prints_what_is_said(tmp_path: Path) -> None:
    now, (due, held, owner) = time.time(), IdMint().make(3)
    waits = Row(due, "resize", b"1", "json", 1, State.DELAYED, 60.0, now - 180, 60.0, put_at=now)
    runs = Row(held, "resize", b"2", "json", 1, State.READY, 0.0, now - 42, 30.0, put_at=now)
    with closing(SqliteStore(tmp_path / "jobs.db")) as store:
        store.add([waits, runs])
        store.claim(Selection(("resize",)), Budget(1, job_s={"resize": 0.0}), owner, now - 42, True)
    follow(blocks(TEXT, "console")[2], tmp_path)


def test_the_commands_for_a_dead_job_print_what_is_said(shop: Path) -> None:
    (once,) = re.findall(r"``(KQueue\(.*max_tries=1\))``", TEXT)
    code = (shop / "shop.py").read_text()
    assert 'KQueue(store="sqlite:///jobs.db")' in code
    (shop / "shop.py").write_text(code.replace('KQueue(store="sqlite:///jobs.db")', once))
    follow(blocks(TEXT, "console")[1], shop)


def test_the_crontab_line_runs(shop: Path) -> None:
    run("python shop.py", shop)
    (line,) = re.findall(r"^    \* \* \* \* \*  cd /srv/shop && (.*)$", TEXT, flags=re.MULTILINE)
    command = line.replace("/srv/shop/.venv/bin", str(Path(sys.executable).parent))
    assert command != line
    assert "count 0" in run(f"PATH=/usr/bin:/bin; {command}", shop)


def test_the_options_and_their_defaults_are_those_of_the_code() -> None:
    table = dict(
        re.findall(
            r"^``(\w+)``  +(\S+(?: MiB)?)  ", TEXT.split("Options\n-------")[1].split("``add_job(")[0], re.MULTILINE
        )
    )
    code = KQueue.__init__.__kwdefaults__ | {"store": "(none)", "broker": None}
    said = {"max_payload": "15 MiB", "logger": "``kqueue``", "store": "(none)"}
    assert table == {
        name: said.get(name, f"``{value}``" if value is None else str(value)) for name, value in code.items()
    }


def test_the_defaults_that_the_promise_names_are_those_of_the_code() -> None:
    promise = " ".join(TEXT.split("The promise\n---")[1].split("What each setting gives up\n---")[0].split())
    options = KQueue.__init__.__kwdefaults__
    assert f"``settle_ms`` ({options['settle_ms']})" in promise
    assert f"``max_crashes`` ({options['max_crashes']})" in promise
    assert f"``ttr`` is {DEFAULT_TTR:.0f} seconds" in promise
    settings = " ".join(TEXT.split("What each setting gives up\n---")[1].split("The proof\n---")[0].split())
    assert f"``sweep_interval`` ({options['sweep_interval']}) seconds" in settings
    assert f"{GRACE_S:.0f} seconds after it was put" in settings
    assert f"up to {MAX_IDS} waiting jobs" in settings
    assert f"in batches of {BATCH:,} jobs" in settings


def test_the_proofs_that_the_readme_names_are_there() -> None:
    section = TEXT.split("The proof\n---")[1].split("Errors\n---")[0]
    named = re.findall(r"^``(tests/\S+)``", section, re.MULTILINE)
    assert len(named) == 8
    for name in named:
        path = ROOT / name
        assert path.is_file() or list(path.glob("test_*.py")), name


def test_every_public_name_is_documented() -> None:
    assert all(getattr(kqueue, name).__doc__ for name in kqueue.__all__)


#: Of each figure of the table: the file in ``bench/results``, the table in it, the row, and how it is written.
MEDIANS = [
    ("throughput", 0, "KQueue, SQLite FULL + beanstalkd -b", "{:,.0f}:"),
    ("throughput", 0, "KQueue, SQLite FULL alone", " {:,.0f} "),
    ("one_by_one", 1, "KQueue: run and delete", "{:,.0f}:"),
    ("peers_more", 0, "Huey, SQLite fsync=True", "{:,.0f}:"),
    ("pickup", 0, "KQueue, SQLite FULL + beanstalkd -b", "half within {:.1f} ms"),
]
#: And of each ratio: the file, the goal in it, and how it is written.
RATIOS = [
    ("throughput", 0, "{:.1f} times a bare"),
    ("one_by_one", 1, "{:.1f} times bare"),
    ("peers_more", 1, "KQueue is {:.0f} times"),
]


def test_the_speed_that_the_readme_tells_is_the_measured_one() -> None:
    section = TEXT.split("How fast\n---")[1].split("Errors\n---")[0]
    for name, number, wanted, form in MEDIANS:
        (row,) = [row for row in measured(name)["tables"][number]["rows"] if row["name"] == wanted]
        assert form.format(statistics.median(row["values"])) in section, wanted
    for name, number, form in RATIOS:
        assert form.format(measured(name)["goals"][number]["figure"]) in section, (name, number)


def measured(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "bench" / "results" / f"{name}.json").read_text())
    return found


def test_the_two_commands_are_those_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^    make (\w+) ", TEXT, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_files_that_the_readme_names_are_there() -> None:
    named = {
        *re.findall(r"<([\w/]+\.rst)>`_", TEXT),
        *re.findall(r"``((?:bench|docs|stores|tests)/[\w/.]+)``", TEXT),
    }
    assert len(named) > 20
    assert [name for name in named if not (ROOT / name).exists()] == []
