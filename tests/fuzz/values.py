"""Values as nobody should give them, and as one may: drawn for any argument."""

import math
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from kqueue import Filter, Priority, RetryPolicy, Snooze, State, Verdict
from tests.shop import NO_JOB


def of(values: list[Any]) -> st.SearchStrategy[Any]:
    """One of them, drawn by its number: Hypothesis compares and prints what it samples from."""
    return st.integers(0, len(values) - 1).map(values.__getitem__)


#: Where numbers, databases and clocks have their limits.
_EDGES = [0, 1, 2, 5, 60, 86_400, 10**6, 2**31, 2**32, 2**53, 2**63, 2**64, 10**20, 10**400]
#: Python makes no text of one with so many digits, and so Hypothesis cannot show it.
_huge = st.just(5_000).map(lambda digits: 10**digits)
_edges = of([*_EDGES, *(number - 1 for number in _EDGES), *(-number for number in _EDGES)])
whole = st.one_of(_edges, _edges, _edges, _huge)
real = of([0.0, -0.0, 0.1, 1.5, 59.99, 1e10, 1e18, 1e300, 5e-324, -1.0, -1e300, math.nan, math.inf, -math.inf])
_odd_texts = ["", "\0", "a\0b", "\ud800", "a\udcffb", "Łódź", "\U0001f600", "\x1b[2J", "a\nb", " ", "%s", "$a"]
_long_texts = ["x" * 191, "x" * 201, "x" * 5_000]
text = st.one_of(
    of([*_odd_texts, *_long_texts, "mail", "why", "-", "--", "*", "/", "..", NO_JOB]),
    st.text(st.characters(), max_size=12),
)
day = st.one_of(
    of([datetime.min, datetime.max]),
    of([datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)]),
    of(
        [
            datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=23))),
            datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-23))),
            datetime(1969, 12, 31, tzinfo=UTC),
            datetime(2026, 5, 1, tzinfo=UTC),
            datetime(2026, 5, 1),  # naive, which is refused
        ]
    ),
)
span = of([timedelta.min, timedelta.max, timedelta(0), timedelta(microseconds=1), timedelta(days=-1)])


class Text(str):
    """Of a class of the user's own."""


class Hostile:
    """What it is asked for fails."""

    def __repr__(self) -> str:
        return "Hostile()"

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("I compare with nothing")

    __hash__ = None  # type: ignore[assignment]


_others = of(
    [
        *(None, True, False, ..., object, int, len, print, math, NotImplemented),
        *(b"", b"\0\xff", bytearray(b"x"), memoryview(b"x"), (), [], {}, set(), frozenset(), range(3), 1j),
        *(Decimal(1), Decimal("nan"), Fraction(1, 3), Path("x"), Text("mail"), Text("\ud800"), Hostile()),
        *(Priority.HIGH, State.DEAD, Verdict.OK, Filter(), Snooze(1), RetryPolicy(), {"a": 1}, ["a"], [[]], {1: 2}),
        *([math.nan], {"a": 2**70}, ["\ud800"], {"\0": 1}, [object()], "dead", "high", (1, 2), lambda: None),
        *(lambda job: None, ValueError, ValueError("x"), datetime.now(UTC).date(), datetime.now(UTC).time()),
    ]
)
anything = st.one_of(whole, real, text, day, span, _others)
duration = of([0, 1, 60, 0.5, timedelta(seconds=5)])
