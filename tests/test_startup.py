"""What starting up costs: counted in modules, since seconds are the machine's. Cron pays for them each minute."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import kqueue

#: What only those pay for who use it: none of it is there before that.
HEAVY = {
    "asyncio",
    "bson",
    "concurrent.futures",
    "cronsim",
    "ctypes",
    "difflib",
    "email",
    "greenstalk",
    "importlib.metadata",
    "kqueue.admin.doctor",
    "kqueue.admin.inspection",
    "kqueue.admin.why",
    "kqueue.brokers.beanstalk",
    "kqueue.config",
    "kqueue.execution",
    "kqueue.loops.start",
    "kqueue.loops.dispatcher",
    "kqueue.renewal.client",
    "kqueue.stores.memory",
    "kqueue.stores.mongo",
    "kqueue.stores.sqlite",
    "kqueue.worker",
    "logging.handlers",
    "mmap",
    "pymongo",
    "rich",
    "secrets",
    "socket",
    "sqlite3",
    "subprocess",
    "tempfile",
    "tomllib",
    "zoneinfo",
}
RUN = """
from kqueue import KQueue
queue = KQueue("sqlite:///jobs.db")
queue.add_job("resize")
queue.add_handler("resize", lambda job: job.delete())
assert queue.run_jobs().deleted == 1
"""


def imported(code: str, folder: Path) -> set[str]:
    """The modules that ``code`` brings into a new interpreter, into which no .pth of an environment brings any."""
    begin = f"import sys\nsys.path[:] = {sys.path}\nbefore = set(sys.modules)"
    script = f"{begin}\n{code}\nprint(*sorted(set(sys.modules) - before))"
    done = subprocess.run(
        [sys.executable, "-S", "-c", script], check=True, capture_output=True, text=True, timeout=300, cwd=folder
    )
    return set(done.stdout.split())


#: What is started, the modules that may come at most (a few more than do), and the heavy ones that it does use.
STARTS = {
    "import kqueue": ("import kqueue", 40, set()),
    "an error": ("from kqueue import KQueueError, State", 58, set()),
    "the queue": ("from kqueue import KQueue", 170, set()),
    "the command line": ("from kqueue.cli.main import cli", 84, set()),
    "a command": (
        "from kqueue.cli.main import cli; cli.get_command(None, 'run')",
        210,
        {"ctypes", "kqueue.config", "kqueue.worker"},
    ),
    "a run on SQLite": (
        RUN,
        245,
        {
            "ctypes",
            "kqueue.execution",
            "kqueue.loops.start",
            "kqueue.loops.dispatcher",
            "kqueue.stores.sqlite",
            "secrets",
            "sqlite3",
        },
    ),
}


@pytest.mark.parametrize("what", STARTS)
def test_what_is_not_used_is_not_imported(what: str, tmp_path: Path) -> None:
    code, most, used = STARTS[what]
    found = imported(code, tmp_path)
    assert "kqueue" in found
    assert found & HEAVY == used, "import it where it is used, and name the place in tests/test_layout.py"
    assert len(found) <= most, sorted(found)


def test_heavy_modules_are_named_as_they_are(tmp_path: Path) -> None:
    optional = {"bson", "pymongo"}
    code = "; ".join(f"import {name}" for name in sorted(HEAVY - optional))
    assert imported(code, tmp_path) >= HEAVY - optional - {"email", "importlib.metadata"}


# -- the public names, which come when they are asked for ----------------------------------------------------


def test_checkers_and_python_find_the_public_names_in_the_same_modules() -> None:
    (block,) = (
        node for node in ast.parse(Path(kqueue.__file__).read_text()).body if isinstance(node, ast.If)
    )  # if TYPE_CHECKING
    seen = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        assert node.module is not None
        seen |= {alias.name: node.module.removeprefix("kqueue.") for alias in node.names}
    assert seen == kqueue._HOME_OF
    assert sorted(seen) == sorted(kqueue.__all__)


def test_all_public_names_are_there_by_each_way_of_asking(tmp_path: Path) -> None:
    names: dict[str, object] = {}
    exec("from kqueue import *", names)
    assert set(kqueue.__all__) <= set(names)
    assert set(kqueue.__all__) <= set(dir(kqueue))
    assert kqueue.Verdict is names["Verdict"]
    imported("import kqueue; assert set(kqueue.__all__) <= set(dir(kqueue))", tmp_path)


def test_a_name_that_is_not_there_is_said_as_python_says_it() -> None:
    with pytest.raises(AttributeError, match="module 'kqueue' has no attribute 'Reslut'"):
        kqueue.Reslut  # noqa: B018
