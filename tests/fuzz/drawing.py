"""Draws so many examples, anew each day, for ``make test``; more of them for ``make proof``."""

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests import sample

#: Examples of each call, of each command, ...
FEW = 4
#: ... and for a proof.
MANY = 200


def fuzz(examples: int, strategy: st.SearchStrategy[Any], check: Callable[[Any], None]) -> None:
    """``check`` so many examples, those of the day's seed."""

    @seed(sample.seed())
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def run(value: Any) -> None:
        check(value)

    run()
