"""The examples of each page run one after the other, as one program in a folder of its own."""

import io
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from tests.pages.blocks import ROOT, blocks, page

#: Pages whose examples are programs by themselves; their own tests run them.
BY_THEMSELVES = {"async", "backup", "configuration", "events", "extending", "promise", "run", "worker"}
#: Pages that show no program.
WITHOUT = {"docker", "errors", "figures", "hosts", "index", "proof", "security", "settings", "sweep", "upgrades"}
PAGES = sorted(path.stem for path in (ROOT / "docs").glob("*.rst"))


@pytest.mark.parametrize("name", [name for name in PAGES if name not in BY_THEMSELVES | WITHOUT])
def test_the_examples_run_and_print_what_is_said(name: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    examples = blocks(page(name), "python")
    assert examples
    names: dict[str, Any] = {"__name__": name}
    printed = io.StringIO()
    with redirect_stdout(printed):
        for number, example in enumerate(examples):
            # In a file, as its reader has it: reasons name the user's own line.
            file = tmp_path / f"{name}_{number}.py"
            file.write_text(example)
            exec(compile(example, file, "exec"), names)
    names["queue"].close()
    said = "".join(blocks(page(name), "text"))
    assert not said or printed.getvalue() == said


def test_pages_that_show_no_program_show_none() -> None:
    assert [name for name in WITHOUT if ".. code-block:: python" in page(name)] == []


def test_pages_whose_examples_run_elsewhere_have_tests_that_run_them() -> None:
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    dialogues = {name for name in PAGES if ".. code-block:: console" in page(name)}
    assert [name for name in BY_THEMSELVES | dialogues if f'page("{name}")' not in tests] == []
