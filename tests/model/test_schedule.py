"""Ticks of cron expressions: in every zone, over every change of the clocks, and when nobody was there."""

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kqueue.model import schedule
from kqueue.model.schedule import LATE_S, MOST_SPANS, MOST_TICKS, Schedule, is_in

BERLIN = ZoneInfo("Europe/Berlin")


def of(expression: str, tz: str = "Europe/Berlin", missed: str = "last") -> Schedule:
    return schedule.make(expression, tz, missed)


def at(*when: int, zone: ZoneInfo = BERLIN, fold: int = 0) -> float:
    return datetime(*when, tzinfo=zone, fold=fold).timestamp()  # type: ignore[misc, arg-type]


def first(count: int, expression: str, moment: float) -> list[str]:
    ticks = islice(of(expression).ticks_after(moment), count)
    return [datetime.fromtimestamp(tick, BERLIN).isoformat(timespec="minutes") for tick in ticks]


def test_a_fixed_time_that_a_day_lacks_runs_when_the_clocks_have_gone_forward() -> None:
    assert first(3, "30 2 * * *", at(2026, 3, 28, 12)) == [
        "2026-03-29T03:00+02:00",
        "2026-03-30T02:30+02:00",
        "2026-03-31T02:30+02:00",
    ]


def test_a_fixed_time_that_a_day_has_twice_runs_once() -> None:
    assert first(2, "30 2 * * *", at(2026, 10, 24, 12)) == ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"]
    # Begun between the first and the second 02:30, and in the hour that is repeated.
    assert first(1, "30 2 * * *", at(2026, 10, 25, 2, 45)) == ["2026-10-26T02:30+01:00"]
    assert first(1, "30 2 * * *", at(2026, 10, 25, 2, 15, fold=1)) == ["2026-10-26T02:30+01:00"]


def test_what_a_star_repeats_runs_at_each_step_of_real_time() -> None:
    around = list(islice(of("*/30 * * * *").ticks_after(at(2026, 10, 25, 1)), 6))
    assert [later - tick for tick, later in pairwise(around)] == [1800.0] * 5
    around = list(islice(of("*/30 * * * *").ticks_after(at(2026, 3, 29, 1)), 6))
    assert [later - tick for tick, later in pairwise(around)] == [1800.0] * 5


ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Africa/Casablanca"]
#: Each with seconds in which it has ticks, and no more than a hundred.
EXPRESSIONS = {
    "* * * * *": 3_000,
    "*/7 * * * *": 10_000,
    "30 2 * * *": 100_000,
    "0 */2 * * *": 100_000,
    "15 1-3 * * SUN": 700_000,
    "*/20 * * * * *": 1_000,
}


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(sorted(EXPRESSIONS)),
    st.sampled_from(ZONES),
    st.datetimes(datetime(2020, 1, 1), datetime(2032, 1, 1)),
    st.floats(0, 1),
)
def test_each_tick_comes_once_however_the_time_is_cut_into_looks(
    expression: str, tz: str, start: datetime, cut: float
) -> None:
    plan = of(expression, tz, "all")
    begin = start.replace(tzinfo=UTC).timestamp()
    end = begin + EXPRESSIONS[expression]
    whole = plan.due(begin, end)
    assert whole == sorted(set(whole))
    assert all(begin < tick <= end for tick in whole)
    before = plan.due(begin, begin + cut * EXPRESSIONS[expression])
    assert before + plan.due(before[-1] if before else begin, end) == whole


@pytest.mark.parametrize(
    ("missed", "minutes"),
    [("none", [60]), ("last", [60]), ("all", list(range(1, 61)))],
)
def test_what_was_missed_beside_what_is_due_now(missed: str, minutes: list[int]) -> None:
    start = at(2026, 5, 1, 12)
    assert of("* * * * *", missed=missed).due(start, start + 3600) == [start + 60.0 * one for one in minutes]


@pytest.mark.parametrize(("missed", "days"), [("none", []), ("last", [3]), ("all", [1, 2, 3])])
def test_what_was_missed_when_nothing_is_due_now(missed: str, days: list[int]) -> None:
    start = at(2026, 5, 1, 12)
    plan = of("0 12 * * *", missed=missed)
    assert plan.due(start, start + 3.5 * 86_400) == [start + 86_400.0 * one for one in days]


def test_a_tick_that_is_noticed_within_a_minute_is_not_missed() -> None:
    start = at(2026, 5, 1, 12)
    plan = of("5 12 * * *", missed="none")
    assert plan.due(start, start + 300 + LATE_S - 1) == [start + 300]
    assert plan.due(start, start + 300 + LATE_S + 1) == []
    assert of("*/20 * * * * *", missed="none").due(start, start + 50) == [start + 20, start + 40]


@pytest.mark.parametrize(
    ("expression", "now", "last"),
    [
        ("* * 1 * *", (2026, 5, 2, 18), (2026, 5, 1, 23, 59)),
        ("* * * 1 * *", (2026, 5, 2, 3), (2026, 5, 1, 23, 59, 59)),
    ],
)
def test_of_many_that_were_missed_in_a_burst_the_last_is_the_last(
    expression: str, now: tuple[int, ...], last: tuple[int, ...]
) -> None:
    plan = of(expression)
    [tick] = plan.due(at(2026, 4, 1), at(*now))
    assert tick == at(*last)
    assert plan.due(tick, at(*now)) == []


def test_years_of_missed_ticks_cost_no_walk_through_them(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[float] = []
    ticks_after = Schedule.ticks_after

    def counted(self: Schedule, moment: float):  # type: ignore[no-untyped-def]
        for tick in ticks_after(self, moment):
            made.append(tick)
            yield tick

    monkeypatch.setattr(Schedule, "ticks_after", counted)
    now = at(2026, 5, 1, 12, 0, 30)
    assert of("0 * * * *").due(now - 10 * 365 * 86_400, now + 1200) == [now - 30]
    assert len(made) < 100


def test_of_all_that_was_missed_a_bounded_number_comes_at_once() -> None:
    start = at(2026, 5, 1, 12)
    plan = of("* * * * *", missed="all")
    lot = plan.due(start, start + 86_400)
    assert lot == [start + 60.0 * one for one in range(1, MOST_TICKS + 1)]
    assert plan.due(lot[-1], start + 86_400)[0] == lot[-1] + 60


def test_a_clock_that_went_back_has_nothing_due_until_it_has_caught_up() -> None:
    last = at(2026, 5, 1, 12)
    for missed in ("none", "last", "all"):
        assert of("* * * * *", missed=missed).due(last, last - 3600) == []


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(1, 30)), max_size=30))
def test_spans_hold_the_ticks_that_were_remembered_and_no_others(runs: list[tuple[int, int]]) -> None:
    plan, start = of("* * * * *"), at(2026, 5, 1)
    spans: tuple[tuple[float, float], ...] = ()
    added: set[float] = set()
    for first, count in runs:
        ticks = [start + 60.0 * (first + number) for number in range(count)]
        spans = plan.remember(spans, ticks)
        added |= set(ticks)
    every = {start + 60.0 * number for number in range(300)}
    assert {tick for tick in every if is_in(spans, tick)} == added
    assert list(spans) == sorted(spans)
    assert all(plan.next_after(last) != first for (_, last), (first, _) in pairwise(spans))


def test_of_too_many_spans_those_furthest_ahead_are_kept() -> None:
    plan, start = of("* * * * *"), at(2026, 5, 1)
    spans: tuple[tuple[float, float], ...] = ()
    for number in range(MOST_SPANS + 9):
        spans = plan.remember(spans, [start + 120.0 * number])
    assert len(spans) == MOST_SPANS
    assert spans[-1] == (start + 120.0 * (MOST_SPANS + 8),) * 2


def test_next_after_is_the_first_tick_or_none() -> None:
    assert of("0 12 * * *").next_after(at(2026, 5, 1, 12)) == at(2026, 5, 2, 12)
    assert timedelta(seconds=of("0 0 29 2 *").next_after(at(2026, 5, 1)) or 0) > timedelta()


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("", "expression: expected 'minute hour day month weekday'.*got ''.*Wrong number of fields"),
        ("* * * *", "Wrong number of fields"),
        ("60 * * * *", "Bad minute"),
        ("*/0 * * * *", "Bad minute"),
        ("* * 30 2 *", "Bad day-of-month"),
        ("every day", "Wrong number of fields"),
    ],
)
def test_a_wrong_expression_is_refused_by_name(expression: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        of(expression)


@pytest.mark.parametrize(
    ("tz", "said"),
    [
        ("Europe/Berln", "tz: no time zone 'Europe/Berln'; did you mean Europe/Berlin"),
        ("", "tz: no time zone ''"),
        ("../etc/passwd", "tz: no time zone"),
        ("Europe", "tz: no time zone 'Europe'"),
        ("a\0b", "tz: no time zone"),
    ],
)
def test_an_unknown_zone_is_refused_with_the_nearest_known_one(tz: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        of("* * * * *", tz)


def test_other_arguments_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="missed: one of none, last, all, got 'some'"):
        of("* * * * *", missed="some")
    with pytest.raises(TypeError, match="expression: expected a str, got 5"):
        schedule.make(5, "UTC", "last")
    with pytest.raises(TypeError, match="tz: expected a str, got None"):
        schedule.make("* * * * *", None, "last")
