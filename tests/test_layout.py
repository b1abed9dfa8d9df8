"""Imports point one way. The engine, above all, knows no broker and no store by name."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

#: Each room, from the bottom up: its modules (a package stands for all in it), and the rooms it may use.
ROOMS = {
    "values": (
        "arguments bell clock errors events forks handlers history ids job locks moments observers options payload"
        " prctl reasons reports resources results retry schedule stored_times streams threads tubes urls window",
        "",
    ),
    "contracts": ("broker lease store", "values"),
    "rules": ("pointers rules", "values contracts"),
    "brokers": ("brokers", "values contracts"),
    "stores": ("stores", "values contracts rules"),
    "keeper": ("keeper", "values contracts stores"),
    "engine": (
        "adding async_turns awaiting batch chores claims coroutine_runs counters crew cron dead doctor doorbell"
        " ending endings event_loop execution findings flight flights following hanging inspection limits"
        " lookout loop_thread loops naming outages overtime pauses presence quarantine ringing runner settling"
        " sweep telling turns waiting watchdog why work",
        "values contracts rules",
    ),
    "configuration": ("config keys layers", "values brokers stores"),
    "queue": ("queue", "values contracts rules brokers stores keeper engine configuration"),
    "public": ("__init__", "values engine queue"),
    "programs": ("app demo", "public"),
    "worker": ("worker", "values contracts stores keeper engine public programs"),
    "commands": ("cli commands", "values public programs configuration worker"),
    "entry": ("__main__", "commands"),
}
ROOM_OF = {module: room for room, (modules, _) in ROOMS.items() for module in modules.split()}
FILES = [*sorted((ROOT / "kqueue").glob("*.py")), *sorted((ROOT / "kqueue").glob("*/*.py"))]


def module_of(path: Path) -> str:
    """The part of the path that has a place: ``kqueue/stores/sqlite.py`` is in ``stores``."""
    return path.relative_to(ROOT / "kqueue").with_suffix("").parts[0]


def imported(source: str) -> set[str]:
    """The modules of kqueue that ``source`` imports. A public name comes from ``__init__``."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    seconds = {f"{name}.".split(".")[1] for name in names if name.split(".")[0] == "kqueue"}
    return {name if is_module(name) else "__init__" for name in seconds}


def is_module(name: str) -> bool:
    """Whether ``kqueue.name`` is a module or a package, and not a public name."""
    return (ROOT / "kqueue" / f"{name}.py").is_file() or (ROOT / "kqueue" / name / "__init__.py").is_file()


def test_stores_are_seen_through_their_link():
    assert ROOT / "kqueue" / "stores" / "__init__.py" in FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_module_has_a_place_and_uses_only_what_stands_below_it(path: Path):
    assert module_of(path) in ROOM_OF, f"{path.name} is new: give it a place in ROOMS"
    room = ROOM_OF[module_of(path)]
    allowed = {room, *ROOMS[room][1].split()}
    used = {name: ROOM_OF.get(name, "no room") for name in imported(path.read_text())}
    assert {name: place for name, place in used.items() if place not in allowed} == {}


def test_a_wrong_import_would_be_seen():
    source = (
        "from kqueue.stores.sqlite import SqliteStore\nfrom kqueue import KQueue, ids\nimport kqueue.brokers.wire"
    )
    assert imported(source) == {"stores", "brokers", "__init__", "ids"}
