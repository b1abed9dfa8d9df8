"""The tests of a file by name, without running it: what names tests elsewhere asks whether they are there."""

import ast
from importlib.util import find_spec
from pathlib import Path


def names_of_tests(path: Path) -> set[str]:
    """Names of the tests that pytest finds in the file, those of the suites that it star-imports too."""
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            names.add(node.name)
        elif isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
            suite = find_spec(node.module or "")
            assert suite is not None
            assert suite.origin is not None
            names |= names_of_tests(Path(suite.origin))
    return names
