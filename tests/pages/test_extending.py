"""``docs/extending.rst``: its files pass as they stand there, and its table names all roles and suites."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from kqueue.contracts.broker import Broker
from kqueue.contracts.store import JobStore
from kqueue.stores.memory.store import MemoryStore
from tests.named import names_of_tests
from tests.pages.blocks import ROOT, blocks, page

PATIENCE_S = 300
SUITES = ROOT / "kqueue" / "testing" / "contracts"
#: In the same folder, and no suites.
HELPERS = {"__init__", "fixtures", "rows", "store", "broker"}
ROLES = [role for role in JobStore.__mro__[1:] if role.__module__.startswith("kqueue.contracts.")]
#: What each store has its own tests for: they need files, copies and restores.
UNCALLED = {"begin_anew", "exists", "backup", "restore"}
#: So that the page's own conftest need not tell what it counted.
TELL = """

def pytest_sessionfinish():
    import json, pathlib, counted
    pathlib.Path("calls.json").write_text(json.dumps(counted.calls))
"""


def methods(role: type) -> set[str]:
    return {name for name in vars(role) if not name.startswith("_")}


def suites() -> set[str]:
    return {path.stem for path in SUITES.glob("*.py")} - HELPERS


def run_pytest(folder: Path) -> "subprocess.CompletedProcess[str]":
    """Over what lies in the folder, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", folder, folder],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},  # none of them is needed there
    )


def table() -> list[list[str]]:
    """Role, suites and text of each row."""
    body = re.split(r"^=+  =+  =+$", page("extending"), flags=re.MULTILINE)[2]
    rows: list[list[str]] = []
    for line in body.strip("\n").splitlines():
        cells = [line[:25].strip(), line[27:49].strip(), line[51:].strip()]
        if cells[0]:
            rows.append(cells)
        else:
            rows[-1] = [f"{before} {more}".strip() for before, more in zip(rows[-1], cells, strict=True)]
    return rows


def test_a_store_that_counts_passes_the_suites_and_each_method_is_called(tmp_path: Path) -> None:
    for block in blocks(page("extending"), "python"):
        name = block.splitlines()[0].removeprefix("# ")
        (tmp_path / name).write_text(block + (TELL if name == "conftest.py" else ""))
    done = run_pytest(tmp_path)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    calls = json.loads((tmp_path / "calls.json").read_text())
    assert set().union(*map(methods, ROLES)) - set(calls) == UNCALLED
    assert min(calls[name] for name in ("claim", "settle", "add", "admit")) > 20


def test_a_suite_tells_what_a_broken_store_does_and_shows_the_values(tmp_path: Path) -> None:
    for block in blocks(page("extending"), "python"):
        name = block.splitlines()[0].removeprefix("# ")
        (tmp_path / name).write_text(block)
    with (tmp_path / "counted.py").open("a") as file:
        file.write("\n    def counts(self, type=None):\n        return {**self._store.counts(type), 'ready': 7}\n")
    (tmp_path / "test_contracts.py").write_text("from kqueue.testing.contracts.lookup import *\n")
    done = run_pytest(tmp_path)
    assert done.returncode == 1
    assert "FAILED test_contracts.py::test_counts_are_by_state_and_type" in done.stdout
    assert "{'ready': 7} != {'ready': 2}" in done.stdout


def test_the_table_has_each_role_and_each_suite() -> None:
    rows = table()
    assert {name.strip("`") for name, *_ in rows} == {
        f"{role.__module__.rsplit('.', 1)[1]}.{role.__name__}" for role in ROLES
    }
    assert sorted(suite for _, named, _ in rows for suite in named.split(", ")) == sorted(suites())
    for _, _, text in rows:
        named = set(re.findall(r"``(\w+)``", text)) - {"limits"}
        assert named
        assert all(hasattr(MemoryStore, name) for name in named), named


def test_files_that_the_page_names_are_there() -> None:
    named = re.findall(r"``((?:kqueue|stores)/[\w/.]+)``", page("extending"))
    assert len(named) >= 5
    assert [name for name in named if not (ROOT / name).exists()] == []
    assert Broker.__module__ == "kqueue.contracts.broker"


def test_all_roles_at_once_are_all_suites_and_no_test_hides_another() -> None:
    each = {suite: names_of_tests(SUITES / f"{suite}.py") for suite in suites()}
    assert all(each.values())
    together = names_of_tests(SUITES / "store.py")
    assert together == set().union(*each.values())
    assert len(together) == sum(map(len, each.values()))
    assert not together & names_of_tests(SUITES / "broker.py")
