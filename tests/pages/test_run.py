"""What ``docs/run.rst`` and ``docs/sweep.rst`` show at the shell is run as it stands there."""

import re
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from kqueue.contracts.budget import Budget
from kqueue.contracts.runs import Selection
from kqueue.model.ids import ID_FORM
from kqueue.model.job import Row, State
from kqueue.stores.sqlite.store import SqliteStore
from kqueue.system.mint import IdMint
from tests.pages.blocks import blocks, page
from tests.pages.commands import run

TEXT = page("run")
STORE = 'KQueue(store="sqlite:///jobs.db")'


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(blocks(TEXT, "python")[0])
    return tmp_path


def follow(dialogue: str, folder: Path) -> None:
    """Run each command of a console block, and compare what it prints. Ids and seconds are new each time."""
    ids: dict[str, str] = {}
    parts = re.split(r"^\$ (.*)\n", dialogue, flags=re.MULTILINE)[1:]
    assert parts
    for command, said in zip(parts[::2], parts[1::2], strict=True):
        if command.startswith("export "):
            continue
        got = run(renamed(command, ids), folder, status=int("dead 1," in said))
        ids |= zip(ID_FORM.findall(said), ID_FORM.findall(got), strict=True)
        moment = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d"
        numbers = re.compile(rf"(?<=in )\d+\.\d\d(?= s)|(?<=process )\d+|(?<=out )\d+(?= s ago)|{moment}")
        expected = numbers.sub("…", renamed(said, ids))
        assert numbers.sub("…", got).replace(str(folder) + "/", "") == expected


def renamed(text: str, ids: dict[str, str]) -> str:
    return ID_FORM.sub(lambda found: ids[found[0]], text)


def test_the_commands_print_what_is_said(shop: Path) -> None:
    follow(blocks(TEXT, "console")[0], shop)


def test_the_commands_for_a_dead_job_print_what_is_said(shop: Path) -> None:
    (once,) = re.findall(r"``(KQueue\(.*max_tries=1\))``", TEXT)
    code = (shop / "shop.py").read_text()
    assert STORE in code
    (shop / "shop.py").write_text(code.replace(STORE, once))
    follow(blocks(TEXT, "console")[1], shop)


def test_the_crontab_line_runs(shop: Path) -> None:
    run('kqueue add resize \'{"path": "a.png"}\'', shop)
    (line,) = re.findall(r"^    \* \* \* \* \*  cd /srv/shop && (.*)$", TEXT, flags=re.MULTILINE)
    command = line.replace("/srv/shop/.venv/bin", str(Path(sys.executable).parent))
    assert command != line
    assert "count 1" in run(f"PATH=/usr/bin:/bin; {command.replace(' --quiet', '')}", shop)
    run('kqueue add resize \'{"path": "b.png"}\'', shop)
    assert run(f"PATH=/usr/bin:/bin; {command}", shop) == "resizing b.png\n"


def test_no_dialogue_is_left_out() -> None:
    assert len(blocks(TEXT, "console")) == 2
    assert len(blocks(page("sweep"), "console")) == 1


def test_a_dry_run_prints_what_is_said(tmp_path: Path) -> None:
    now, (due, held, owner) = time.time(), IdMint().make(3)
    waits = Row(due, "resize", b"1", "json", 1, State.DELAYED, 60.0, now - 180, 60.0, put_at=now)
    runs = Row(held, "resize", b"2", "json", 1, State.READY, 0.0, now - 42, 30.0, put_at=now)
    with closing(SqliteStore(tmp_path / "jobs.db")) as store:
        store.add([waits, runs])
        store.claim(Selection(("resize",)), Budget(1, job_s={"resize": 0.0}), owner, now - 42, True)
    follow(blocks(page("sweep"), "console")[0], tmp_path)
