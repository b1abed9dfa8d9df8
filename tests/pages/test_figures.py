"""The figures of ``docs/figures.rst`` are those that were measured, in ``bench/results``.

Those that ``make bench-report`` writes are looked at in ``tests/test_bench.py``.
"""

import json
import statistics
from typing import Any

import pytest

from tests.pages.blocks import ROOT, page

BOTH, ALONE = "KQueue, SQLite FULL + beanstalkd -b", "KQueue, SQLite FULL alone"
#: Of each figure of the page: the file in ``bench/results``, the table in it, the row, and how it is written.
MEDIANS = [
    ("throughput", 0, BOTH, "{:,.0f}:"),
    ("throughput", 0, ALONE, " {:,.0f} "),
    ("one_by_one", 1, "KQueue: run and delete", "{:,.0f}:"),
    ("one_by_one", 0, "KQueue: add_job", "{:.0f} µs:"),
    ("one_by_one", 0, "KQueue: add_job, SQLite alone", " {:.0f} µs "),
    ("peers_more", 0, "Huey, SQLite fsync=True", "{:,.0f}:"),
    ("pickup", 0, BOTH, "half within {:.1f} ms"),
    ("pickup", 0, ALONE, "half within {:.1f} ms"),
]
#: And of each ratio: the file, the goal in it, and how it is written.
RATIOS = [
    ("throughput", 0, "{:.1f} times a bare"),
    ("one_by_one", 0, "{:.1f} times a commit"),
    ("one_by_one", 1, "{:.1f} times bare"),
    ("peers_more", 1, "KQueue is {:.0f} times"),
    ("peers_more", 2, "KQueue is {:.2f} times"),
]


def measured(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "bench" / "results" / f"{name}.json").read_text())
    return found


def median(name: str, number: int, wanted: str) -> float:
    (row,) = [row for row in measured(name)["tables"][number]["rows"] if row["name"] == wanted]
    return statistics.median(row["values"])


@pytest.mark.parametrize(("name", "number", "wanted", "form"), MEDIANS)
def test_a_figure_is_the_measured_one(name: str, number: int, wanted: str, form: str) -> None:
    assert form.format(median(name, number, wanted)) in page("figures")


@pytest.mark.parametrize(("name", "number", "form"), RATIOS)
def test_a_ratio_is_the_measured_one(name: str, number: int, form: str) -> None:
    assert form.format(measured(name)["goals"][number]["figure"]) in page("figures")


def test_no_row_of_the_page_is_left_out() -> None:
    commands = page("figures").split("what      ")[1].count("``bench.")
    assert commands == len(MEDIANS) + 1  # a ratio alone
