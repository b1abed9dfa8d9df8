"""The index of faults in this package's text names tests that there are."""

from itertools import pairwise
from pathlib import Path

import pytest

import tests.faults as faults
from tests.named import names_of_tests

TESTS = Path(__file__).parents[1]
#: The lines of the index: a fault, and below it, indented, the tests that prove it.
INDEX = (faults.__doc__ or "").split("\n\n", 2)[2].splitlines()
ROWS = [line.split() for line in INDEX if line.startswith(" ")]


@pytest.mark.parametrize("row", ROWS, ids=" ".join)
def test_each_row_names_a_test(row: list[str]) -> None:
    path, *names = row
    assert names_of_tests(TESTS / path)
    assert set(names) <= names_of_tests(TESTS / path)


def test_each_fault_has_a_row() -> None:
    without = [line for line, below in pairwise([*INDEX, ""]) if line[:1] != " " and below[:1] != " "]
    assert without == []


def test_each_file_of_this_package_is_in_the_index() -> None:
    files = {f"faults/{path.name}" for path in Path(__file__).parent.glob("test_*.py")}
    assert files - {row[0] for row in ROWS} == {f"faults/{Path(__file__).name}"}
