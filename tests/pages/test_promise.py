"""What ``docs/promise.rst`` and ``docs/settings.rst`` say: a handler safe to run twice, and the defaults."""

import re
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from kqueue import KQueue
from kqueue.brokers.beanstalk.wire import MAX_IDS
from kqueue.contracts.rules import GRACE_S
from kqueue.model.options import DEFAULT_TTR
from kqueue.upkeep.sweep import BATCH
from tests.pages.blocks import blocks, page
from tests.pages.commands import run
from tests.tubes import await_true

OPTIONS = KQueue.__init__.__kwdefaults__
#: Runs the jobs of ``books.py`` and is killed when the work is done and the delete is about to be written.
DIES_BEFORE_THE_SETTLE = """
import os, signal
from books import queue

queue.store.settle = lambda settlements, now: os.kill(os.getpid(), signal.SIGKILL)
queue.run_jobs()
"""


def test_the_handler_that_is_safe_to_run_twice_makes_one_payment_when_its_worker_dies(tmp_path: Path) -> None:
    (code,) = blocks(page("promise"), "python")
    (tmp_path / "books.py").write_text(code)
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


def on_one_line(name: str) -> str:
    return " ".join(page(name).split())


def test_the_defaults_that_the_promise_names_are_those_of_the_code() -> None:
    promise = on_one_line("promise")
    assert promise.count(f"``settle_ms`` ({OPTIONS['settle_ms']})") == promise.count("``settle_ms`` (") == 2
    assert f"``max_crashes`` ({OPTIONS['max_crashes']})" in promise
    assert f"``ttr`` is {DEFAULT_TTR:.0f} seconds" in promise


def test_the_numbers_that_the_settings_name_are_those_of_the_code() -> None:
    settings = on_one_line("settings")
    assert f"``sweep_interval`` ({OPTIONS['sweep_interval']}) seconds" in settings
    assert f"{GRACE_S:.0f} seconds after it was put" in settings
    assert f"up to {MAX_IDS} waiting jobs" in settings
    assert f"in batches of {BATCH:,} jobs" in settings


def test_each_cause_of_a_duplicate_is_in_the_table() -> None:
    section = page("promise").split("All that can cause a duplicate\n---")[1].split("At most one holder")[0]
    causes = re.findall(r"^(\w[\w' ]+\w)  +\S", section.split("====\nwhat fails")[1], re.MULTILINE)
    assert causes == [
        "a worker dies",
        "a process is killed",
        "a worker is frozen",
        "a signal raises in a worker",
        "a handler outlives its TTR",
        "the store takes no write",
        "the store is moved",
        "the store's clock jumps",
        "the store itself forgets",
    ]
