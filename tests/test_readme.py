"""What the README shows is run as it stands there, and it stays short."""

import re
import sys
from pathlib import Path

import pytest

import kqueue
from kqueue import KQueue
from tests.pages.blocks import ROOT, blocks
from tests.pages.commands import run

TEXT = (ROOT / "README.rst").read_text()


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A folder with the README's first queue in it, where the README has it."""
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "shop.py").write_text(blocks(TEXT, "python")[0])
    return folder


def test_it_is_short_and_its_first_screen_has_what_decides() -> None:
    lines = TEXT.splitlines()
    assert len(lines) < 200
    first_screen = "\n".join(lines[:40])
    for wanted in (
        "A job queue for",
        "At least once.",
        "For you",
        "Not for you",
        "make demo",
        "make test",
        "A first queue",
    ):
        assert wanted in first_screen, wanted


def test_the_promise_stands_in_a_box() -> None:
    (box,) = re.findall(r"^(\+-+\+\n(?:\|.*\|\n)+\+-+\+)$", TEXT, re.MULTILINE)
    assert len({len(line) for line in box.splitlines()}) == 1
    assert "never lost" in box


def test_the_first_queue_has_at_most_15_lines_and_prints_what_is_said(shop: Path) -> None:
    code = blocks(TEXT, "python")[0]
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    assert run("python shop.py", shop) == blocks(TEXT, "text")[0]


def test_fail_retry_look(tmp_path: Path) -> None:
    (tmp_path / "mails.py").write_text(blocks(TEXT, "python")[1])
    assert run("python mails.py", tmp_path) == ""


def test_the_queue_with_a_broker_can_be_made() -> None:
    names: dict[str, object] = {"KQueue": KQueue}
    exec(compile(blocks(TEXT, "python")[2], "README.rst", "exec"), names)
    assert isinstance(names["queue"], KQueue)


def test_all_examples_are_run() -> None:
    assert len(blocks(TEXT, "python")) == 3
    assert len(blocks(TEXT, "text")) == 1
    assert blocks(TEXT, "console") == []


def test_the_crontab_line_runs_what_the_first_queue_has_left(shop: Path) -> None:
    (shop / ".venv").mkdir()
    (shop / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    run('kqueue add resize \'{"path": "d.png"}\'', shop)
    (line,) = re.findall(r"^    \* \* \* \* \*  (cd .*)$", TEXT, flags=re.MULTILINE)
    said = run(f"export PATH=/usr/bin:/bin HOME='{shop.parent}'; cd /; {line}", shop)
    assert said == "resizing d.png\n"  # what the handler prints; all went well, so --quiet adds nothing


def test_every_public_name_is_documented() -> None:
    assert all(getattr(kqueue, name).__doc__ for name in kqueue.__all__)


def test_its_commands_and_those_of_ci_are_those_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^(\w+):", makefile, re.MULTILINE))
    said = set(re.findall(r"(?:^    |``)make (\w+)", TEXT, re.MULTILINE))
    assert {"demo", "test"} <= said <= targets
    called = re.findall(r"\bmake (\w+)", (ROOT / ".ci" / "run").read_text())
    assert "test" in called
    assert set(called) <= said


def test_files_that_the_readme_names_are_there() -> None:
    named = re.findall(r"``((?:bench|docs|stores|tests|kqueue)/[\w/.]+)``", TEXT)
    assert [name for name in named if not (ROOT / name).exists()] == []
