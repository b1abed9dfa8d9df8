"""What ``docs/operating.rst`` shows at the shell is run as it stands there."""

import re
from pathlib import Path

from tests.pages.blocks import blocks, page
from tests.pages.commands import said

TEXT = page("operating")
SHOWN_ID = "1k87r7oaq0000t67n00qh5utqt3n"


def without_times(text: str) -> str:
    """As what was said, whenever and on whatever machine."""
    text = re.sub(r"(for|in) [\d.]+ s\b", r"\1 1 s", text)
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d", "2026-05-01 03:00:12+00:00", text)


def test_the_dialogue_goes_as_it_is_said(tmp_path: Path) -> None:
    [app] = [code for code in blocks(TEXT, "python") if "@queue.handler" in code]
    (tmp_path / "app.py").write_text(app)
    parts = re.split(r"^\$ (.*)\n", "".join(blocks(TEXT, "console")), flags=re.MULTILINE)[1:]
    assert len(parts) > 20
    job_id = SHOWN_ID
    for command, expected in zip(parts[::2], parts[1::2], strict=True):
        answer = said(command.replace(SHOWN_ID, job_id), tmp_path)
        if command.startswith("kqueue add"):
            job_id = answer.strip()
        shown = answer.replace(job_id, SHOWN_ID)
        assert without_times(shown).rstrip() == without_times(expected).rstrip(), command
