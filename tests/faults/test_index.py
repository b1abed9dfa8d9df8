"""The index of faults in this package's text names tests that there are."""

import ast
from itertools import pairwise
from pathlib import Path

import pytest

import tests.faults as faults

TESTS = Path(__file__).parents[1]
#: The lines of the index: a fault, and below it, indented, the tests that prove it.
INDEX = (faults.__doc__ or "").split("\n\n", 2)[2].splitlines()
ROWS = [line.split() for line in INDEX if line.startswith(" ")]


def names_in(path: str) -> set[str]:
    """The names of all tests of a file."""
    nodes = ast.parse((TESTS / path).read_text()).body
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


@pytest.mark.parametrize("row", ROWS, ids=" ".join)
def test_each_row_names_a_test(row: list[str]) -> None:
    path, *names = row
    assert names_in(path)
    assert set(names) <= names_in(path)


def test_each_fault_has_a_row() -> None:
    without = [line for line, below in pairwise([*INDEX, ""]) if line[:1] != " " and below[:1] != " "]
    assert without == []


def test_each_file_of_this_package_is_in_the_index() -> None:
    files = {f"faults/{path.name}" for path in Path(__file__).parent.glob("test_*.py")}
    assert files - {row[0] for row in ROWS} == {f"faults/{Path(__file__).name}"}
