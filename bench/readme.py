"""Write the figures into the pages: ``python -m bench.readme``, or ``make bench-report``.

Between ``.. figures NAME`` and ``.. end`` of ``bench/README.rst`` stands what ``bench/results/NAME.json`` holds; in
``README.rst`` and ``docs/figures.rst`` what :mod:`bench.headline` makes of several. All else in these files is
written by hand. A NAME without figures says so.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from bench import headline
from bench.figures import Findings, from_json
from bench.show import cells, goal_cells, grid

BENCH = Path(__file__).parent
README = BENCH / "README.rst"
RESULTS = BENCH / "results"
HEADLINES = [BENCH.parent / "README.rst", BENCH.parent / "docs" / "figures.rst"]

_PLACE = re.compile(r"(?<=^\.\. figures )(\w+)\n.*?(?=^\.\. end$)", re.MULTILINE | re.DOTALL)


def filled(text: str, results: Mapping[str, Mapping[str, Any]]) -> str:
    """``text`` with its places filled: results by the names of their files."""
    return _placed(text, {name: as_rst(result) for name, result in results.items()})


def pages(results: Mapping[str, Mapping[str, Any]]) -> dict[Path, str]:
    """Each page that shows figures, as it is to be."""
    findings = {name: from_json(result) for name, result in results.items()}
    headlines = {"readme": headline.readme_lines(findings), "waiting": headline.waiting_lines(findings)}
    return {README: filled(README.read_text(), results)} | {
        page: _placed(page.read_text(), headlines) for page in HEADLINES
    }


def _placed(text: str, lines: Mapping[str, Sequence[str]]) -> str:
    def fill(place: re.Match[str]) -> str:
        return "\n".join([place[1], "", *lines.get(place[1], ["*Not measured yet.*"]), "", ""])

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
        lines += ["", *grid([heads, *cells(table)])]
    if findings.goals:
        lines += ["", *grid([["goal", "reached", "wanted", "is"], *map(goal_cells, findings.goals)])]
    for note in findings.notes:
        lines += ["", note]
    return lines


@click.command()
def main() -> None:
    """Fill the pages from bench/results/*.json."""
    results = {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}
    for page, text in pages(results).items():
        page.write_text(text)
    print(f"figures of {', '.join(results) or 'nothing'}")


if __name__ == "__main__":
    main()
