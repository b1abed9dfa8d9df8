"""Write the figures into the README: ``python -m bench.readme``, or ``make bench-report``.

Between ``.. figures NAME`` and ``.. end`` of ``bench/README.rst`` stands what ``bench/results/NAME.json`` holds;
all else in that file is written by hand. A NAME without a file says so.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from bench.figures import Findings, from_json
from bench.show import cells, goal_cells

BENCH = Path(__file__).parent
README = BENCH / "README.rst"
RESULTS = BENCH / "results"

_PLACE = re.compile(r"(?<=^\.\. figures )(\w+)\n.*?(?=^\.\. end$)", re.MULTILINE | re.DOTALL)


def filled(text: str, results: Mapping[str, Mapping[str, Any]]) -> str:
    """``text`` with its places filled: results by the names of their files."""

    def fill(place: re.Match[str]) -> str:
        result = results.get(place[1])
        lines = as_rst(result) if result else ["*Not measured yet.*"]
        return "\n".join([place[1], "", *lines, "", ""])

    return _PLACE.sub(fill, text)


def as_rst(result: Mapping[str, Any]) -> list[str]:
    """One benchmark's JSON as lines of reStructuredText."""
    findings: Findings = from_json(result)
    machine = ", ".join(
        value if name in {"processor", "system"} else f"{name} {value}" for name, value in result["machine"].items()
    )
    lines = [f"``{result['command']}`` on {result['date']}: {machine}."]
    for table in findings.tables:
        rounds = len(table.rows[0].values)
        heads = [
            f"{table.title} (rounds: {rounds})",
            f"median, {table.unit}",
            "lowest",
            "highest",
            "ratio",
        ]
        lines += ["", *_grid([heads, *cells(table)])]
    if findings.goals:
        lines += ["", *_grid([["goal", "reached", "wanted", "is"], *map(goal_cells, findings.goals)])]
    for note in findings.notes:
        lines += ["", note]
    return lines


def _grid(rows: list[list[str]]) -> list[str]:
    """A simple table: the first row is its head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    rule = "  ".join("=" * width for width in widths)
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [rule, lines[0], rule, *lines[1:], rule]


@click.command()
def main() -> None:
    """Fill bench/README.rst from bench/results/*.json."""
    results = {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}
    README.write_text(filled(README.read_text(), results))
    print(f"{README.name}: figures of {', '.join(results) or 'nothing'}")


if __name__ == "__main__":
    main()
