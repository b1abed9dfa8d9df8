"""What docs/events.rst shows is run as it stands there, and prints what is said."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

import kqueue
from kqueue.model import events
from kqueue.model.events import Event
from kqueue.model.reports import TypeStats
from tests.pages.blocks import blocks, page

PAGE = page("events")


def section(heading: str) -> str:
    """The text of a section."""
    return re.split(r"\n.*\n---", PAGE.split(f"\n{heading}\n---")[1])[0]


@pytest.mark.parametrize("number", range(len(blocks(PAGE, "python"))))
def test_each_example_prints_what_is_said(number: int, tmp_path: Path) -> None:
    (tmp_path / "watch.py").write_text(blocks(PAGE, "python")[number])
    example = [sys.executable, "watch.py"]
    done = subprocess.run(example, check=True, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == blocks(PAGE, "text")[number]


def test_each_event_and_each_of_its_fields_is_named() -> None:
    kinds = {name: kind for name, kind in vars(events).items() if getattr(kind, "__base__", None) is Event}
    rows = dict(re.findall(r"^``(\w+)``  +(.*(?:\n {18}.*)*)", section("Events"), re.MULTILINE))
    assert rows.keys() == kinds.keys()
    named = {"job_id", "type", "tries", "fence", "seconds", "at"}
    for name, kind in kinds.items():
        assert kind.__doc__
        fields = {field.name for field in dataclasses.fields(kind)}
        assert fields - named <= set(re.findall(r"\w+", rows[name])), name


def test_each_count_is_named() -> None:
    rows = re.findall(r"^``([\w ]+)``  ", section("Counts"), re.MULTILINE)
    assert " ".join(rows).split() == [field.name for field in dataclasses.fields(TypeStats)]


def test_what_the_page_says_of_the_options_is_so() -> None:
    options = kqueue.KQueue.__init__.__kwdefaults__
    assert options["log_payloads"] is False
    assert "the first 1,000 bytes" in PAGE.replace("\n", " ")
    assert kqueue.telemetry.telemetry.SHOWN_BYTES == 1000  # type: ignore[attr-defined]
