"""``docs/index.rst`` lists each page once; each link between pages leads to a page or heading that is there."""

import re
from pathlib import Path

import pytest

from tests.pages.blocks import ROOT, page

PAGES = sorted((ROOT / "docs").glob("*.rst"))
#: What links to pages, and is linked.
ALL = [*PAGES, *(ROOT / name for name in ("README.rst", "CONTRIBUTING.rst", "CHANGELOG.rst", "bench/README.rst"))]
LINK = re.compile(r"`[^`<]*<([^>`]+)>`_")
HEADING = re.compile(r"^(\S.*)\n(=+|-+)$", re.MULTILINE)


def links(path: Path) -> list[str]:
    """Where it leads to within the project, as it stands there but for line breaks."""
    found = [re.sub(r"\s+", "", target) for target in LINK.findall(path.read_text())]
    return [target for target in found if not re.match(r"[a-z]+:", target)]


def anchors(path: Path) -> set[str]:
    """Of its headings, as they are made where the pages are shown."""
    headings = [title for title, line in HEADING.findall(path.read_text()) if len(title) == len(line)]
    assert headings
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in headings}


def names(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", ALL, ids=names)
def test_each_link_leads_to_what_is_there(path: Path) -> None:
    for link in links(path):
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("path", ALL, ids=names)
def test_each_page_that_is_named_is_there(path: Path) -> None:
    for name in re.findall(r"``(docs/[\w/]+\.rst)``", path.read_text()):
        assert (ROOT / name).exists(), name


def test_a_link_that_leads_nowhere_is_seen(tmp_path: Path) -> None:
    (tmp_path / "one.rst").write_text("One\n===\n\nTo `two <two.rst>`_, and `there\n<one.rst#the-end-of-it>`_.\n")
    assert links(tmp_path / "one.rst") == ["two.rst", "one.rst#the-end-of-it"]
    assert anchors(tmp_path / "one.rst") == {"one"}


def test_the_index_lists_each_page_once() -> None:
    listed = [link for link in links(ROOT / "docs" / "index.rst") if "/" not in link]
    assert sorted(listed) == [path.name for path in PAGES if path.name != "index.rst"]


def test_the_readme_leads_to_the_index_and_to_what_is_asked_first() -> None:
    linked = {link.partition("#")[0] for link in links(ROOT / "README.rst")}
    wanted = "index promise settings proof figures jobs run worker beanstalkd extending operating backup"
    assert {f"docs/{name}.rst" for name in wanted.split()} <= linked
    assert "kqueue.testing.contracts" in (ROOT / "README.rst").read_text()
    assert "<extending.rst>`_" in page("proof")


def test_each_page_has_a_title_and_is_reached_by_its_text() -> None:
    for path in PAGES:
        title, line = path.read_text().splitlines()[:2]
        assert line == "=" * len(title), path.name
