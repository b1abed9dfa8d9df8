"""What ``docs/retries.rst``, ``options.rst`` and ``unique.rst`` show is run as it stands there."""

import re
from pathlib import Path
from typing import Any

import pytest

from kqueue import Priority, Result, RetryPolicy, TypeOptions
from kqueue.options import CHECKS
from kqueue.sweep import BATCH

DOCS = Path(__file__).parents[1] / "docs"
PAGES = ["retries", "options", "unique"]


def text(page: str) -> str:
    return (DOCS / f"{page}.rst").read_text()


def table(page: str, heading: str) -> dict[str, str]:
    """The first two columns of the rows below the heading, where both say something."""
    rows = text(page).split(heading, 1)[1].split("\n\n", 1)[0]
    return dict(re.findall(r"^``(\w+)``  +(\S+(?: \S+)*)  ", rows, re.MULTILINE))


@pytest.mark.parametrize("page", PAGES)
def test_the_examples_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"\.\. code-block:: python\n\n((?:(?:    .*)?\n)+)", text(page))
    assert blocks
    names: dict[str, Any] = {"__name__": page}
    for block in blocks:
        exec(compile("\n".join(line[4:] for line in block.splitlines()), f"{page}.rst", "exec"), names)
    names["queue"].close()


def test_the_defaults_of_a_policy_are_those_of_the_code() -> None:
    policy = RetryPolicy()
    assert table("retries", "of a policy ") == {
        name: f"``{getattr(policy, name)}``" for name in ("max_tries", "delay", "final", "give_back")
    }


def test_the_options_and_their_defaults_are_those_of_the_code() -> None:
    code = TypeOptions()
    said = {"priority": f"``{Priority(code.priority).name.lower()}``"}
    said |= dict.fromkeys(("retry", "retry_delay", "max_tries"), "the queue's")
    said |= {name: f"{getattr(code, name):g}" for name in ("delay", "ttr", "keep_done", "unique_for")}
    assert table("options", "option  ") == said
    assert set(said) == set(CHECKS)
    assert f"in batches of {BATCH:,}" in text("options")


def test_the_page_names_each_word() -> None:
    for word in Result:
        assert f"``Result.{word.name}``" in text("retries")


@pytest.mark.parametrize("page", PAGES)
def test_pages_that_are_linked_are_there(page: str) -> None:
    for name in re.findall(r"<(\w+\.rst)>`_", text(page)):
        assert (DOCS / name).is_file()
