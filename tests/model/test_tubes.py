"""The names of tubes: those of today stay, and no two types share one."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kqueue.model import checks, tubes

BEGINNING = tubes.beginning("shop.", "0f3a91b2c4")
#: As beanstalkd takes it.
NAME = re.compile(r"[A-Za-z0-9+/;.$_()][A-Za-z0-9+/;.$_()-]{0,199}", re.ASCII)


@st.composite
def job_types(draw: st.DrawFn) -> str:
    """Any type, most of them with something to escape."""
    text = draw(st.text(st.sampled_from("ab-+$ :.☃é%20BA/") | st.characters(), min_size=1, max_size=190))
    try:
        return checks.job_type(text)
    except ValueError:
        return "a"


@given(job_types(), job_types())
def test_every_type_has_a_tube_of_its_own_that_a_server_takes(first: str, second: str) -> None:
    for beginning in ("", BEGINNING):
        names = [tubes.name(beginning, type) for type in (first, second)]
        assert all(NAME.fullmatch(name) for name in names)
        assert (names[0] == names[1]) is (first == second)
    assert tubes.unescaped(tubes.escaped(first)) == first
    assert tubes.beginning_of(tubes.name(BEGINNING, first), first) == BEGINNING


@pytest.mark.parametrize(
    ("type", "tube"),
    [
        ("resize", "resize"),
        ("A.b_c-d/9", "A.b_c-d/9"),
        ("slideshow pdf", "slideshow+20pdf"),
        ("test:inserts", "test+3Ainserts"),
        ("é", "+C3+A9"),
        ("a+20b", "a+2B20b"),
        ("-x-", "+2Dx-"),
        ("a$b", "a+24b"),
    ],
)
def test_names(type: str, tube: str) -> None:
    assert tubes.name("", type) == tube
    assert tubes.name(BEGINNING, type) == BEGINNING + tube


def test_a_name_that_would_be_too_long_ends_in_a_digest() -> None:
    for type in ("x" * 190, " " * 190, "☃" * 63):
        name = tubes.name(BEGINNING, type)
        assert len(name) == 200
        assert re.fullmatch(r".*\$[0-9a-f]{20}", name)
        assert tubes.beginning_of(name, type) == BEGINNING


@pytest.mark.parametrize("text", ["+", "a+2", "a+zz", "a+20 b", "a+61", "+C3", "+c3+a9", "a+2D"])
def test_what_no_type_is_written_as_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        tubes.unescaped(text)
