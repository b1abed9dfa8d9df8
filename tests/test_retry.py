"""When to try again."""

import pytest

from kqueue.retry import RetryPolicy, backoff


def test_the_delay_is_fixed_and_tries_may_have_no_end() -> None:
    policy = RetryPolicy(30.0, None)
    assert [policy.delay_after(failures) for failures in (1, 2, 1000)] == [30.0] * 3


def test_a_job_is_dead_after_max_tries_failed_runs() -> None:
    policy = RetryPolicy(0.5, 3)
    assert [policy.delay_after(failures) for failures in (1, 2, 3, 4)] == [0.5, 0.5, None, None]


@pytest.mark.parametrize(("failures", "seconds"), [(0, 1), (1, 1), (2, 2), (3, 4), (5, 16), (6, 30), (5000, 30)])
def test_a_server_is_left_alone_for_1_s_doubling_to_30(failures: int, seconds: float) -> None:
    assert backoff(failures) == seconds
