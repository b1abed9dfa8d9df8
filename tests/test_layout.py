"""The plan of the house: what stands where, and that imports point downward only. It reads the folders."""

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

from tests.floors import FLOORS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "kqueue"
STORES = ROOT / "stores"

#: Lines in a file at most, but for the front, most of which is docstrings.
MOST_LINES = 500
#: In the front.
MOST_FRONT_LINES = 600
#: Longer than that until they are divided: nothing comes onto this list.
TOO_LONG: set[str] = set()
#: Where an import stands in a function, since only some pay for what it brings: and what that is. Nowhere else.
LAZY = {
    "kqueue/__init__.py": "the public names, when they are asked for (PEP 562)",
    "kqueue/admin/ends.py": "asyncio, for coroutines",
    "kqueue/assembly.py": "the loops, and what an operator asks for",
    "kqueue/brokers/__init__.py": "the broker of the URL",
    "kqueue/cli/demo.py": "rich, where it draws",
    "kqueue/cli/main.py": "the command that runs",
    "kqueue/config/keys.py": "difflib, for who mistyped",
    "kqueue/config/layers.py": "tomllib, where there is a file",
    "kqueue/loops/lazy_asyncio.py": "asyncio, for coroutines",
    "kqueue/model/checks.py": "difflib, for who mistyped",
    "kqueue/model/schedule.py": "cronsim and time zones, for schedules",
    "kqueue/queue.py": "the configuration",
    "kqueue/renewal/__init__.py": "the client of the process that renews, for handlers that run",
    "stores/__init__.py": "the store of the URL",
    "stores/sqlite/file/connect.py": "how a file is read that may not be written",
}
#: Where the system's time is asked for. All others have a clock, or `steady` and `awake` of the first of these.
CLOCKS = {
    "kqueue/system/clock.py": "the clock",
    "kqueue/system/mint.py": "the order of ids, which decides nothing; and nanoseconds",
    "kqueue/worker/supervisor.py": "what the health file says to who reads it on this host",
    "stores/mongo/identity.py": "fences begin above any that were given, whatever a clock of a test's says",
    "stores/sqlite/identity.py": "the same",
}
#: Words that were given up for the field's own, or that meant two things. A part of a name counts as a word.
GIVEN_UP = {
    "crew",
    "desk",
    "lookout",
    "flights",
    "keeper",
    "telling",
    "chores",
    "reins",
    "graveyard",
    "throttle",
    "gatekeeper",
    "quarantine",
    "lanes",
    "grip",
    "mouth",
    "aloft",
    "boarding",
    "landing",
    "landed",
}
FILES = sorted(
    path for folder in (PACKAGE, STORES) for path in folder.rglob("*.py") if "/kqueue/stores/" not in f"{path}"
)


def name_of(path: Path) -> str:
    """As it is said in messages."""
    return str(path.relative_to(ROOT))


def room_of(path: Path) -> str:
    """The folder directly below ``kqueue``, or the file's own name where it lies there."""
    if path.is_relative_to(STORES):
        return "stores"
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def used_rooms(source: str) -> set[str]:
    """The rooms that ``source`` imports from. A public name comes from ``__init__``."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    seconds = {f"{name}.".split(".")[1] for name in names if name.split(".")[0] == "kqueue"}
    return {name if name in FLOORS else "__init__" for name in seconds}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_downward(path: Path) -> None:
    assert room_of(path) in FLOORS, f"{name_of(path)} is in a room of its own: give it a floor in FLOORS"
    floor = FLOORS.index(room_of(path))
    above = {room for room in used_rooms(path.read_text()) if FLOORS.index(room) < floor}
    assert above == set()


def test_an_upward_import_would_be_seen() -> None:
    source = (
        "from kqueue.stores.sqlite.store import SqliteStore\nfrom kqueue import KQueue\nimport kqueue.model.ids\n"
    )
    assert used_rooms(source) == {"stores", "__init__", "model"}


def test_testing_rests_on_what_others_may_use() -> None:
    """Public names, the contracts and the model: what is tested with it may be in the place of all else."""
    used = set().union(*(used_rooms(path.read_text()) for path in FILES if room_of(path) == "testing"))
    assert used == {"testing", "__init__", "contracts", "model"}


def test_pytest_is_imported_by_testing_alone() -> None:
    users = {room_of(path) for path in FILES if re.search(r"^\s*(import|from) pytest\b", path.read_text(), re.M)}
    assert users == {"testing"}


def imports_late(source: str) -> bool:
    """Whether an import stands in a function of ``source``, or one is made of a name."""
    tree = ast.parse(source)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return any(
        isinstance(node, ast.Import | ast.ImportFrom)
        or (isinstance(node, ast.Call) and ast.unparse(node.func) == "import_module")
        for function in functions
        for node in ast.walk(function)
    )


def test_imports_stand_at_the_top_but_in_the_places_that_are_named() -> None:
    assert imports_late("def f():\n    import os")
    assert not imports_late("import os\nif True:\n    import sys")
    assert {name_of(path) for path in FILES if imports_late(path.read_text())} == set(LAZY)


def asks_the_system(source: str) -> bool:
    """Whether ``source`` asks for the time past every clock that it may have been given."""
    code = re.sub(r'""".*?"""|#[^\n]*', "", source, flags=re.DOTALL)
    asks = r"^from time import|\btime\.(time|monotonic)(_ns)?\b|\b(datetime|date)\.(now|utcnow|today)\("
    return re.search(asks, code, re.MULTILINE) is not None


def test_the_systems_time_is_asked_for_in_the_places_that_are_named() -> None:
    assert asks_the_system("began = time.monotonic()")
    assert asks_the_system("from time import monotonic")
    assert not asks_the_system("began = self._clock.monotonic()")
    # What tests others is told no clock.
    asking = {name_of(path) for path in FILES if asks_the_system(path.read_text()) and room_of(path) != "testing"}
    assert asking == set(CLOCKS)


def words_of(text: str) -> set[str]:
    """The words of names and of prose, in lower case: ``FakeKeeper`` has two."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", text)}


def test_a_word_that_was_given_up_does_not_come_back() -> None:
    assert words_of("FakeKeeper(_the_desk)") == {"fake", "keeper", "the", "desk"}
    others = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "docs").glob("*.rst"), *(ROOT / "bench").rglob("*.py")]
    found = {
        name_of(path): known
        for path in (*FILES, *others, ROOT / "README.rst", ROOT / "CONTRIBUTING.rst")
        if path != Path(__file__) and (known := words_of(path.read_text()) & GIVEN_UP)
    }
    assert found == {}


def test_no_room_is_crowded() -> None:
    files = defaultdict(list)
    for path in FILES:
        files[path.parent].append(path.name)
    assert len(files[PACKAGE]) <= 8
    assert len(files[STORES]) <= 5
    assert {name_of(folder): len(names) for folder, names in files.items() if len(names) > 20} == {}


def test_no_file_is_long() -> None:
    lines = {name_of(path): len(path.read_text().splitlines()) for path in FILES}
    assert lines.pop("kqueue/queue.py") < MOST_FRONT_LINES
    assert {name for name, count in lines.items() if count > MOST_LINES} <= TOO_LONG


def test_each_class_has_a_name_of_its_own() -> None:
    homes = defaultdict(list)
    for path in FILES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(name_of(path))
    assert {name: found for name, found in homes.items() if len(found) > 1} == {}


def test_no_contract_asks_for_more_than_a_dozen_methods() -> None:
    large = {}
    for path in sorted((PACKAGE / "contracts").glob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                methods = [one for one in node.body if isinstance(one, ast.FunctionDef)]
                if len(methods) > 12:
                    large[node.name] = len(methods)
    assert large == {}


def test_no_helper_is_imported_from_a_test_file() -> None:
    """Also not by a program that a test has in a text: helpers lie in conftest.py, or in a module of their own."""
    taken = {
        name_of(path): found
        for path in sorted((ROOT / "tests").rglob("*.py"))
        if (found := re.findall(r"^ *(?:from|import) tests(?:\.\w+)*\.test_\w+", path.read_text(), re.MULTILINE))
    }
    assert taken == {}
