"""What ``docs/backup.rst`` shows at the shell is run as it stands there."""

import re
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
