"""Print what a benchmark found, and keep it as JSON."""

import datetime
import json
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.figures import Findings, Goal, Table
from bench.machine import as_lines, machine

#: A list of numbers, as ``json`` indents it.
_NUMBERS = re.compile(r"\[([-+.,eE\d\s]+)\]")


def tell(what: str) -> None:
    """Say what is going on, to those who wait, and not into the figures."""
    print(what, file=sys.stderr, flush=True)


def begin(question: str, servers: Mapping[str, Sequence[str | None]]) -> dict[str, Any]:
    """Print the question, the command and the machine; returns them, for :func:`end`. ``servers`` as for
    :func:`bench.machine.machine`.
    """
    spec = sys.modules["__main__"].__spec__
    module = spec.name.removesuffix(".__main__") if spec else "bench"
    about: dict[str, Any] = {
        "command": f"python -m {shlex.join([module, *_without_json(sys.argv[1:])])}",
        "date": datetime.date.today().isoformat(),
        "machine": machine(servers),
    }
    print(question)
    print("\n".join(as_lines({"command": about["command"], "date": about["date"], **about["machine"]})), flush=True)
    return about


def end(about: dict[str, Any], findings: Findings, json_file: Path | None) -> None:
    """Print the tables, and write all to ``json_file`` if there is one."""
    for table in findings.tables:
        print("\n" + "\n".join(table_lines(table)))
    if findings.goals:
        print("\n" + "\n".join(goal_lines(findings.goals)))
    for note in findings.notes:
        print(f"\nNote: {note}")
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(as_text({**about, **findings.as_json()}))


def as_text(values: dict[str, Any]) -> str:
    """JSON to be kept: a line for each thing that a reader may look for, all rounds of a contender in one."""
    indented = json.dumps(values, indent=1, ensure_ascii=False)
    return _NUMBERS.sub(lambda found: "[" + ", ".join(found[1].replace(",", " ").split()) + "]", indented) + "\n"


def table_lines(table: Table) -> list[str]:
    """A table for a terminal."""
    return aligned([[table.title, f"median, {table.unit}", "lowest", "highest", "ratio"], *cells(table)])


def cells(table: Table) -> list[list[str]]:
    """Name, median, lowest, highest, and the ratio to the first: of each contender."""
    base = table.rows[0].name
    return [
        [
            f"{row.name} ({row.note})" if row.note else row.name,
            number(row.median),
            number(min(row.values)),
            number(max(row.values)),
            f"{table.ratio(row.name, base):.2f}",
        ]
        for row in table.rows
    ]


def goal_lines(goals: list[Goal]) -> list[str]:
    """Goals for a terminal."""
    return aligned([["goal", "reached", "wanted", ""], *([*goal_cells(goal)] for goal in goals)])


def goal_cells(goal: Goal) -> list[str]:
    """What, the figure, what was wanted, and whether that is met."""
    unit = f" {goal.unit}" if goal.unit else ""
    met = "met" if goal.is_met else "not met"
    return [goal.what, f"{goal.figure:.2f}{unit}", f"{goal.relation} {goal.bound:g}{unit}", met]


def aligned(rows: list[list[str]]) -> list[str]:
    """Lines of columns: the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            [row[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        ).rstrip()
        for row in rows
    ]


def grid(rows: list[list[str]]) -> list[str]:
    """A simple table of reStructuredText: the first row is its head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    rule = "  ".join("=" * width for width in widths)
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [rule, lines[0], rule, *lines[1:], rule]


def number(value: float) -> str:
    """With as many digits as mean something."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _without_json(arguments: list[str]) -> list[str]:
    """Where the JSON goes is of no interest to a reader, and may be a path of this machine."""
    kept: list[str] = []
    skip = False
    for argument in arguments:
        if not (skip or argument == "--json" or argument.startswith("--json=")):
            kept.append(argument)
        skip = argument == "--json"
    return kept
