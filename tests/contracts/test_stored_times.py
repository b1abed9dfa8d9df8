"""How far ahead a stored time may lie: pure."""

from hypothesis import given
from hypothesis import strategies as st

from kqueue.contracts.stored_times import (
    TOLERANCE_S,
    Misdated,
    StoredTimes,
    furthest,
    is_misdated,
    latest,
    set_right,
    times_of,
)
from kqueue.model.job import Row, State

NOW = 1_700_000_000.0

#: Close to now, within and beyond what clocks may differ, and years away.
MOMENTS = st.sampled_from([-1e9, -60.0, 0.0, TOLERANCE_S, TOLERANCE_S + 0.001, 40.0, 1e9]).map(
    lambda one: NOW + one
)
SPANS = st.sampled_from([0.0, 0.5, 30.0, 86_400.0, 1e9, 1e17])
STATES = st.sampled_from([state.value for state in State])
GATES = st.sampled_from([None, "t"])


@st.composite
def any_times(draw: st.DrawFn) -> StoredTimes:
    """Whatever a store may hold: what was written by any clocks in turn, or by an older KQueue."""
    state, created_at = draw(STATES), draw(MOMENTS)
    asked_at = draw(st.none() | MOMENTS)
    since = created_at if asked_at is None else asked_at
    return StoredTimes(
        state=state,
        ttr=draw(st.sampled_from([1.0, 30.0, 1e9])),
        fence=draw(st.integers(0, 1)),
        gate=draw(GATES),
        run_at=since + draw(SPANS),
        created_at=created_at,
        put_at=draw(st.none() | MOMENTS),
        asked_at=asked_at,
        lease_until=draw(MOMENTS) if state == State.RUNNING else None,
        keep_until=since + draw(SPANS) if state == State.DONE else None,
    )


@given(any_times())
def test_nothing_lies_too_far_ahead_afterwards(times: StoredTimes) -> None:
    right = set_right(times, NOW)
    assert right.created_at <= latest(NOW)
    assert (right.put_at or 0.0) <= latest(NOW)
    assert (right.asked_at or 0.0) <= latest(NOW)
    assert (right.lease_until or 0.0) <= latest(NOW) + times.ttr
    if right.state in {State.READY, State.HELD}:
        assert right.run_at <= latest(NOW)


@given(any_times())
def test_to_set_right_what_is_right_changes_nothing(times: StoredTimes) -> None:
    right = set_right(times, NOW)
    assert set_right(right, NOW) == right
    assert set_right(right, NOW + 3600) == right  # nor does it matter how late


@given(any_times())
def test_no_time_is_set_later_than_it_was_and_no_job_waits_longer_than_it_asked(times: StoredTimes) -> None:
    right = set_right(times, NOW)
    for name in ("run_at", "created_at", "put_at", "asked_at", "lease_until", "keep_until"):
        before, after = getattr(times, name), getattr(right, name)
        assert before is None or after is None or after <= before
    since = times.created_at if times.asked_at is None else times.asked_at
    if times.state == State.DELAYED:
        asked = times.run_at - since
        assert right.run_at <= latest(NOW) + asked
        assert right.run_at >= min(times.run_at, NOW + asked - 1e-3) - asked * 1e-15


@given(any_times())
def test_what_lies_where_it_may_is_left_alone(times: StoredTimes) -> None:
    """With clocks that were never further ahead than they may differ."""
    past = [one for one in (times.created_at, times.put_at, times.asked_at) if one is not None]
    since = times.created_at if times.asked_at is None else times.asked_at
    fine = all(one <= latest(NOW) for one in past) and (times.lease_until or 0.0) <= latest(NOW) + times.ttr
    if fine and (times.state not in {State.READY, State.HELD} or times.run_at <= latest(NOW)):
        assert set_right(times, NOW) == times
        assert furthest(times, NOW) == NOW
        assert since <= latest(NOW)


def test_a_lease_that_is_set_right_is_a_whole_ttr() -> None:
    row = Row("a" * 28, "t", b"", "bytes", 1, "running", 0.0, NOW, 30.0, lease_until=NOW + 999)
    assert set_right(times_of(row), NOW).lease_until == NOW + 30
    assert is_misdated(row, NOW)
    assert not is_misdated(row, NOW + 999)
    assert furthest(times_of(row), NOW) == NOW + 999


def test_it_is_told_in_plain_words() -> None:
    misdated = Misdated("worker", "w", None, NOW + 40)
    assert misdated.told(NOW) == "a time of the worker w lies 40 s ahead"
