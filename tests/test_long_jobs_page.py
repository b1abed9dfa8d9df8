"""The page on long jobs: its examples run, and what it says of defaults is so."""

import re
from pathlib import Path

import pytest

from kqueue.keeper.client import IDLE_S
from kqueue.keeper.keeping import PART, SLACK
from kqueue.lookout import LOOK_S

PAGE = (Path(__file__).parents[1] / "docs" / "long_jobs.rst").read_text()


def test_the_examples_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    found = re.findall(r"\.\. code-block:: python\n\n((?:(?:    .*)?\n)+)", PAGE)
    assert len(found) == 2
    for block in found:
        code = "\n".join(line[4:] for line in block.splitlines())
        exec(compile(code, "long_jobs.rst", "exec"), names)
    names["queue"].close()  # type: ignore[attr-defined]
    assert capsys.readouterr().out == "nobody wants the whole web any more\n"


def test_the_times_are_those_of_the_code() -> None:
    assert (PART, SLACK, LOOK_S, IDLE_S) == (1 / 3, 1 / 12, 1.0, 60.0)
    for said in ("whenever a third of the\nTTR", "at most once a second", "after a minute without work"):
        assert said in PAGE
