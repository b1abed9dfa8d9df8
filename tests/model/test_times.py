"""Times as people have them."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from kqueue.model import times


def test_a_duration_is_a_number_of_seconds_or_a_timedelta() -> None:
    assert [times.seconds("delay", value, 0) for value in (0, 1.5, timedelta(minutes=2))] == [0, 1.5, 120]
    with pytest.raises(ValueError, match="^delay: a finite number, at least 0, got -60.0"):
        times.seconds("delay", timedelta(minutes=-1), 0)
    with pytest.raises(TypeError, match="^delay: expected a number"):
        times.seconds("delay", "5", 0)


@pytest.mark.parametrize("value", [0, timedelta()])
def test_no_time_at_all_is_refused_where_it_makes_no_sense(value: object) -> None:
    with pytest.raises(ValueError, match="^max_runtime: seconds, more than 0"):
        times.seconds_above_0("max_runtime", value)
    assert [times.seconds_above_0("max_runtime", good) for good in (0.001, timedelta(hours=1))] == [0.001, 3600]


def test_an_instant_is_seconds_since_1970_or_an_aware_datetime() -> None:
    noon = datetime(2026, 5, 1, 12, tzinfo=UTC)
    same = noon.astimezone(timezone(timedelta(hours=2)))
    assert (
        times.instant("run_at", noon) == times.instant("run_at", same) == times.instant("run_at", noon.timestamp())
    )


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (datetime(2026, 5, 1), "a datetime with a time zone, got .* give it one"),
        (datetime(1, 1, 1, tzinfo=UTC), "a finite number, at least 0"),
        (float("inf"), "a finite number"),
        ("tomorrow", "expected a number"),
    ],
)
def test_what_is_no_instant(value: object, match: str) -> None:
    with pytest.raises((ValueError, TypeError), match=f"^run_at: {match}"):
        times.instant("run_at", value)
