"""When to try again."""

import math
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kqueue import RetryPolicy, exponential, fixed
from kqueue.model.retry import Rule, backoff, growing, jittered

SECONDS = st.floats(0, 1e6)
MANY_FAILURES = st.integers(1, 10**6)


def delays(delay: Any, failures: range = range(1, 6)) -> list[float]:
    policy = RetryPolicy(delay=delay)
    return [policy.bare_delay(number, None) for number in failures]


def test_without_anything_a_job_is_tried_for_18_days_and_then_dead() -> None:
    policy = RetryPolicy()
    assert policy == RetryPolicy(max_tries=30, delay=growing(30), final=(), give_back=())
    assert [policy.is_used_up(failures) for failures in (29, 30)] == [False, True]
    days = sum(policy.bare_delay(failures) for failures in range(1, 30)) / 86400
    assert 17 < days < 19
    assert not RetryPolicy(max_tries=None).is_used_up(10**9)


def test_a_bare_number_grows_to_a_day_with_its_jitter() -> None:
    policy = RetryPolicy(delay=growing(30))
    assert [policy.bare_delay(failures) for failures in (1, 2, 3)] == [30, 60, 120]
    assert policy.jitter > 0
    assert policy.bare_delay(10**9) * (1 + policy.jitter) == pytest.approx(86400)
    assert RetryPolicy(delay=growing(10**6)).bare_delay(5) == 10**6
    assert [RetryPolicy(delay=growing(0)).bare_delay(failures) for failures in (1, 1000)] == [0, 0]


def test_a_job_is_dead_after_max_tries_failed_runs() -> None:
    policy = RetryPolicy(max_tries=3)
    assert [policy.is_used_up(failures) for failures in (1, 2, 3, 4)] == [False, False, True, True]


def test_each_form_of_a_delay() -> None:
    assert delays(7) == delays(fixed(7)) == [7] * 5
    assert delays(exponential(1)) == [1, 2, 4, 8, 16]
    assert delays(exponential(5, 3, most=50)) == [5, 15, 45, 50, 50]
    assert delays(exponential(0), range(5000, 5001)) == [0]
    assert delays([1, 10, 60]) == delays((1, 10, 60)) == [1, 10, 60, 60, 60]
    assert delays(lambda failures, error: failures * 100) == [100, 200, 300, 400, 500]


def test_a_function_is_told_the_error() -> None:
    told: list[Any] = []
    error = OSError("busy")
    RetryPolicy(delay=lambda *arguments: told.append(arguments) or 5.0).bare_delay(2, error)
    assert told == [(2, error)]


@given(SECONDS, st.floats(1, 100), SECONDS, MANY_FAILURES)
def test_an_exponential_delay_never_falls_and_never_passes_its_most(
    first: float, factor: float, more: float, failures: int
) -> None:
    delay = exponential(first, factor, most=first + more)
    one, next_one = delay.bare(failures), delay.bare(failures + 1)
    assert first <= one <= next_one <= first + more


@given(st.lists(SECONDS, min_size=1, max_size=5), MANY_FAILURES)
def test_the_last_of_a_list_repeats(seconds: list[float], failures: int) -> None:
    bare = RetryPolicy(delay=seconds).bare_delay(failures)
    assert bare == (seconds[failures - 1] if failures <= len(seconds) else seconds[-1])


@given(SECONDS, st.floats(0, 1), st.randoms(use_true_random=False))
def test_jitter_stays_within_its_part_of_the_delay(seconds: float, jitter: float, random: Random) -> None:
    real = jittered(seconds, jitter, random)
    assert seconds * (1 - jitter) - 1e-6 <= real <= seconds * (1 + jitter) + 1e-6
    assert real >= 0


def test_jitter_is_apart_from_the_delay_and_can_be_seeded() -> None:
    policy = RetryPolicy(delay=exponential(10, jitter=0.5))
    assert (policy.bare_delay(1), policy.jitter) == (10, 0.5)
    assert RetryPolicy(delay=[10]).jitter == 0
    draws = [jittered(10, 0.5, Random(7)) for _ in range(2)]
    assert draws[0] == draws[1] != jittered(10, 0.5, Random(8))


class Moved(ConnectionError):
    pass


@pytest.mark.parametrize(
    ("error", "rule"),
    [
        (ValueError(), Rule.FINAL),
        (UnicodeDecodeError("utf-8", b"", 0, 1, "bad"), Rule.FINAL),
        (OSError(), Rule.FINAL),
        (ConnectionResetError(), Rule.GIVE_BACK),
        (Moved(), Rule.FINAL),
        (KeyError(), Rule.RETRY),
        (BaseException(), Rule.RETRY),
    ],
)
def test_the_class_nearest_to_the_errors_own_counts(error: BaseException, rule: Rule) -> None:
    policy = RetryPolicy(final=[ValueError, OSError, Moved], give_back=ConnectionError)
    assert policy.rule_for(error) is rule


def test_a_policy_is_a_value() -> None:
    one, other = (
        RetryPolicy(max_tries=2, delay=kind([1, 2]), final=ValueError, give_back=(OSError,))
        for kind in (list, tuple)
    )
    assert one == other
    assert hash(one) == hash(other)
    with pytest.raises(AttributeError):
        one.max_tries = 3  # type: ignore[misc]


async def coroutine(failures: int, error: BaseException | None) -> float:
    return 1.0


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: RetryPolicy(max_tries=0), "max_tries: at least 1, got 0"),
        (lambda: RetryPolicy(max_tries=1.5), "max_tries: expected an integer"),
        (lambda: RetryPolicy(delay=-1), "delay: a finite number, at least 0"),
        (lambda: RetryPolicy(delay="soon"), "delay: expected a number"),
        (lambda: RetryPolicy(delay=None), "delay: expected a number"),
        (lambda: RetryPolicy(delay=[]), "delay: a list of seconds has at least one"),
        (lambda: RetryPolicy(delay=[1, math.nan]), "delay: a finite number"),
        (
            lambda: RetryPolicy(delay=lambda failures: 1),
            "delay: the function is called with the number of failed runs",
        ),
        (lambda: RetryPolicy(delay=coroutine), "delay: an async def does nothing"),
        (
            lambda: RetryPolicy(final=[ValueError, "OSError"]),
            "final: expected classes of exceptions, got 'OSError'",
        ),
        (lambda: RetryPolicy(give_back=ValueError()), "give_back: expected classes of exceptions"),
        (lambda: RetryPolicy(give_back=int), "give_back: expected classes"),
        (lambda: RetryPolicy(final=OSError, give_back=[KeyError, OSError]), "give_back: OSError is final already"),
        (lambda: fixed(-1), "seconds: "),
        (lambda: fixed(1, jitter=1.1), "jitter: from 0 to 1, got 1.1"),
        (lambda: exponential(1, 0.5), "factor: a finite number, at least 1"),
        (lambda: exponential(10, most=5), "most: a finite number, at least 10"),
        (lambda: exponential(1, jitter=-0.1), "jitter: "),
    ],
)
def test_bad_policies_are_refused(make: Any, match: str) -> None:
    with pytest.raises((ValueError, TypeError), match=f"^{match}"):
        make()


@pytest.mark.parametrize("nonsense", [None, "5", math.nan, math.inf, -1, True, [5]])
def test_what_a_function_should_not_return_is_raised(nonsense: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=r"^delay: "):
        RetryPolicy(delay=lambda failures, error: nonsense).bare_delay(1)


@pytest.mark.parametrize(("failures", "seconds"), [(0, 1), (1, 1), (2, 2), (3, 4), (5, 16), (6, 30), (5000, 30)])
def test_a_server_is_left_alone_for_1_s_doubling_to_30(failures: int, seconds: float) -> None:
    assert backoff(failures) == seconds
