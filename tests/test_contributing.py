"""CONTRIBUTING.rst says what is: its drawing, its files, its rooms; so does setup.py."""

import ast
import re
import subprocess
import sys
from pathlib import Path

from tests.floors import FLOORS

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.rst").read_text()


def drawn(script: Path) -> str:
    return subprocess.run([sys.executable, script], check=True, capture_output=True, text=True, timeout=300).stdout


def test_the_drawing_is_what_the_script_makes() -> None:
    _, _, rest = TEXT.partition(".. drawn by scripts/draw-rooms\n\n::\n\n")
    drawing = rest.partition("\n.. end of the drawing\n")[0]
    assert drawing == drawn(ROOT / "scripts" / "draw-rooms"), "run scripts/draw-rooms --write"


def test_the_script_draws_other_imports_otherwise(tmp_path: Path) -> None:
    files = {
        "scripts/draw-rooms": (ROOT / "scripts" / "draw-rooms").read_text(),
        "kqueue/roof/a.py": "def f():\n    from kqueue.cellar import b\n    import kqueue.hall.c",
        "kqueue/hall/c.py": "import kqueue.cellar.b",
        "kqueue/cellar/b.py": "import os",
        "stores/d.py": "from kqueue.hall import c",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    lines = [line.split() for line in drawn(tmp_path / "scripts" / "draw-rooms").splitlines()]
    assert lines == [
        ["2", "roof", "->", "hall"],
        ["stores", "->", "hall"],
        ["1", "hall", "->", "cellar"],
        ["0", "cellar"],
    ]


def test_the_files_that_it_names_are_there() -> None:
    named = set(re.findall(r"``((?:kqueue|stores|tests|docs|scripts)/[\w/.-]*|\w+\.(?:rst|py))(?: --\w+)?``", TEXT))
    assert len(named) > 30
    places = [ROOT, *(path for path in (ROOT / "kqueue").iterdir() if path.is_dir())]
    assert [name for name in named if not any((place / name).exists() for place in places)] == []


def test_every_room_is_on_the_map() -> None:
    section = TEXT.split("The rooms\n---")[1].split(".. drawn by")[0]
    rooms = {
        name.removeprefix("kqueue/").rstrip("/").removesuffix(".py")
        for name in re.findall(r"^``((?:kqueue|stores)/[^`]*)``", section, re.M)
    }
    assert rooms == set(FLOORS) - {"__main__", "__init__"}


def test_it_is_one_page() -> None:
    assert len(TEXT.splitlines()) <= 130


def test_setup_lists_each_folder_of_code() -> None:
    tree = ast.parse((ROOT / "setup.py").read_text())
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    (call,) = (call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "setup")
    (listed,) = (ast.literal_eval(word.value) for word in call.keywords if word.arg == "packages")
    tops = {"kqueue": ROOT / "kqueue", "kqueue.stores": ROOT / "stores"}
    found = {
        ".".join((name, *path.parent.relative_to(top).parts))
        for name, top in tops.items()
        for path in top.rglob("*.py")
        if not path.is_relative_to(ROOT / "kqueue" / "stores")
    }
    assert sorted(listed) == sorted(found)


def test_modules_that_pages_name_are_there() -> None:
    pages = [*(ROOT / "docs").glob("*.rst"), ROOT / "README.rst"]
    for page in pages:
        for name in re.findall(r"\bkqueue/[\w/]+\.py|\bstores/[\w/]+\.py", page.read_text()):
            assert (ROOT / name).exists(), (page.name, name)
        for name in re.findall(r"``(kqueue(?:\.[a-z_]+){2,})", page.read_text()):
            if name.endswith(".toml"):
                continue
            parts = name.split(".")
            places = [ROOT.joinpath(*parts[:end]) for end in (len(parts), len(parts) - 1)]
            assert any(place.is_dir() or place.with_suffix(".py").exists() for place in places), (page.name, name)
