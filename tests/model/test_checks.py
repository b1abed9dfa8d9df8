"""Bad input is refused, and the error names the argument and what is allowed."""

import math
from collections.abc import Callable

import pytest

from kqueue import Priority
from kqueue.model import checks, times


@pytest.mark.parametrize(
    "value",
    [
        "a", "resize", "A.b_c-d/9", "_", "x" * 190, "-a", "slideshow pdf", "test:inserts", "ä", "a;b", "a$", "$a",
        "a.b", "a(b)", "a+b", "٣", "☃" * 63, " ", "**", "%", "a,b", "\N{PILE OF POO}",
    ],
)  # fmt: skip
def test_good_types(value: str) -> None:
    assert checks.job_type(value) == value


@pytest.mark.parametrize(
    "value",
    [
        "",
        "x" * 191,
        "☃" * 64,
        "a\r\n",
        "a\n",
        "a\tb",
        "a\0b",
        "\x7f",
        "\x1b[2J",
        "\u202e",
        "\udc80",
        None,
        7,
        b"a",
        ["a"],
    ],
)
def test_bad_types(value: object) -> None:
    with pytest.raises((ValueError, TypeError), match="^type: .*got "):
        checks.job_type(value)


def test_what_stands_for_all_types_is_none() -> None:
    with pytest.raises(ValueError, match=r"^type: not '\*' alone"):
        checks.job_type("*")


@pytest.mark.parametrize(
    ("value", "number"),
    [(Priority.HIGH, 2**14), ("urgent", 512), ("Bulk", 2**20), ("NORMAL", 2**16), (0, 0), (2**32 - 1, 2**32 - 1)],
)
def test_good_priorities(value: object, number: int) -> None:
    assert checks.priority(value) == number
    assert type(checks.priority(value)) is int


@pytest.mark.parametrize("value", [-1, 2**32, 1.5, True, "asap", "", None, "5", math.nan, [1]])
def test_bad_priorities(value: object) -> None:
    with pytest.raises((ValueError, TypeError), match=r"^priority: .*got "):
        checks.priority(value)


@pytest.mark.parametrize("value", [-1, -0.001, math.nan, math.inf, -math.inf, 10**400, "5", None, True, [1]])
def test_bad_numbers(value: object) -> None:
    with pytest.raises((ValueError, TypeError), match=r"^delay: .*at least 0.*got "):
        checks.number("delay", value, 0)


@pytest.mark.parametrize("value", [0, 0.999, math.nan, False])
def test_a_ttr_below_a_second_is_refused(value: object) -> None:
    with pytest.raises((ValueError, TypeError), match="^ttr: .*at least 1"):
        checks.number("ttr", value, 1)


@pytest.mark.parametrize("value", [0, 0.0, -1, math.nan, math.inf, "5", None, True])
def test_bad_seconds(value: object) -> None:
    with pytest.raises((ValueError, TypeError), match=r"^max_runtime: .*got "):
        times.seconds_above_0("max_runtime", value)


def test_good_seconds() -> None:
    assert [times.seconds_above_0("max_runtime", value) for value in (0.001, 600)] == [0.001, 600.0]


@pytest.mark.parametrize("value", [-1, 1.0, "1", True, None])
def test_bad_whole_numbers(value: object) -> None:
    with pytest.raises((ValueError, TypeError), match="^count_limit: "):
        checks.whole("count_limit", value, 0)


@pytest.mark.parametrize("value", ["", "' OR 1=1 --", {"$ne": 1}, '{"$ne": 1}', 5, None, "x" * 28])
def test_bad_ids(value: object) -> None:
    with pytest.raises((ValueError, TypeError), match="^id: "):
        checks.job_id(value)


@pytest.mark.parametrize("value", ["one", b"one", {"a": 1}, 7, None])
def test_one_payload_where_several_are_expected(value: object) -> None:
    with pytest.raises(TypeError, match="^payloads: expected a list"):
        checks.payloads(value)


@pytest.mark.parametrize("value", ["x" * 11, "a b", "-a", 7])
def test_bad_prefixes(value: object) -> None:
    with pytest.raises((ValueError, TypeError), match="^prefix: "):
        checks.prefix(value)


@pytest.mark.parametrize("check", [checks.job_type, checks.priority, checks.job_id])
def test_a_long_value_is_shown_short(check: Callable[[object], object]) -> None:
    with pytest.raises(ValueError, match="got ") as caught:
        check("y" * 10_000)
    assert len(str(caught.value)) < 300


def test_a_number_of_things_is_one_that_both_databases_can_count() -> None:
    assert checks.whole("limit", checks.MOST, 1) == 2**53
    for huge in (2**53 + 1, 2**63, 10**5000):
        with pytest.raises(ValueError, match="limit: at most 9007199254740992, got"):
            checks.whole("limit", huge, 1)


def test_what_cannot_be_shown_is_refused_all_the_same() -> None:
    class Hidden:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    with pytest.raises(TypeError, match="id: expected a str, got what cannot be shown, of Hidden"):
        checks.text("id", Hidden())
    with pytest.raises(ValueError, match="at least 1, got what cannot be shown, of int"):
        checks.whole("limit", -(10**5000), 1)


@pytest.mark.parametrize("path", ["", "a\0b", "\ud800", b"bytes"])
def test_a_path_that_no_system_takes_is_refused(path: object) -> None:
    with pytest.raises((ValueError, TypeError), match="path: expected the name of a file"):
        checks.path("path", path)
