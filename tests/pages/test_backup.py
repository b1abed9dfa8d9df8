"""What ``docs/backup.rst`` shows is run as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

from kqueue import KQueue
from tests.pages.blocks import blocks, page
from tests.pages.commands import said


def test_the_dialogue_goes_as_it_is_said(tmp_path: Path) -> None:
    with KQueue(f"sqlite:///{tmp_path}/jobs.db") as queue:
        queue.add_job("resize")
    text = "".join(blocks(page("backup"), "console")).replace("/srv/shop/", "")
    parts = re.split(r"^\$ (.*)\n", text, flags=re.MULTILINE)[1:]
    assert len(parts) == 2 * text.count("$ kqueue")
    for command, expected in zip(parts[::2], parts[1::2], strict=True):
        answer = said(command, tmp_path).replace(f"{tmp_path}/", "")
        assert sized(answer) == sized(expected), command


def sized(text: str) -> str:
    """Whatever the size is, and but for a root's slash, which ``said`` takes off with the folder."""
    return re.sub(r"\d+ bytes", "N bytes", text).replace("sqlite:////", "sqlite:///").rstrip()


def run_python(code: str, folder: Path) -> str:
    """In a process of its own, as a producer that is started."""
    return subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=folder, capture_output=True, text=True
    ).stdout


def test_a_producer_that_is_started_while_the_store_is_away_makes_an_empty_one_unless_it_may_not(
    tmp_path: Path,
) -> None:
    (careful,) = blocks(page("backup"), "python")
    careless = careful.replace(", create=False", "")
    assert careless != careful
    url = f"sqlite:///{tmp_path}/jobs.db"
    with KQueue(url) as queue:
        queue.add_job("resize")
    (tmp_path / "away").mkdir()
    for path in tmp_path.glob("jobs.db*"):
        path.rename(tmp_path / "away" / path.name)
    assert run_python(careful, tmp_path) == "no store\n"
    assert list(tmp_path.glob("jobs.db*")) == []
    assert run_python(careless, tmp_path) == ""
    with KQueue(url) as queue:
        assert [job.payload for job in queue.jobs("resize", state="ready")] == [{"path": "a.png"}]
