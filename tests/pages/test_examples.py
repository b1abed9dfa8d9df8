"""The examples of each page run one after the other, as one program in a folder of its own."""

import io
import re
from contextlib import redirect_stdout
from typing import Any

import pytest

from tests.pages.blocks import ROOT, blocks, page

#: Pages whose examples are programs by themselves; their own tests run them.
BY_THEMSELVES = {"async", "backup", "configuration", "events", "extending", "sqlite", "worker"}
PAGES = sorted(path.stem for path in (ROOT / "docs").glob("*.rst"))
README = (ROOT / "README.rst").read_text()


@pytest.mark.parametrize("name", [name for name in PAGES if name not in BY_THEMSELVES])
def test_the_examples_run_and_print_what_is_said(name: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    examples = blocks(page(name), "python")
    assert examples
    names: dict[str, Any] = {"__name__": name}
    printed = io.StringIO()
    with redirect_stdout(printed):
        for example in examples:
            exec(compile(example, f"{name}.rst", "exec"), names)
    names["queue"].close()
    said = "".join(blocks(page(name), "text"))
    assert not said or printed.getvalue() == said


@pytest.mark.parametrize("name", PAGES)
def test_pages_that_are_linked_are_there_and_the_readme_links_each(name: str) -> None:
    for linked in re.findall(r"<(\w+\.rst)>`_", page(name)):
        assert (ROOT / "docs" / linked).is_file(), linked
    assert f"<docs/{name}.rst>`_" in README
