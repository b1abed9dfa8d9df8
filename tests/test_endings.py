"""What ends the run of a row."""

from typing import Any

import pytest

from kqueue import AlreadySettled, endings
from kqueue.job import Priority, Row
from kqueue.retry import RetryPolicy
from kqueue.store import Delete, Die, Retry, Settlement, Unget

ROW = Row("a", "t", b"", "bytes", 5, "running", 0, 0, 10, fence=3, failures=1)
DELETE = Delete("a", 3)
RETRY = Retry("a", 3, 0, "why", None)


def now() -> float:
    return 1000.0


def put_at(run_at: float, now: float) -> float | None:
    return None if run_at > now + 60 else now


@pytest.mark.parametrize(
    ("delay", "max_tries", "settlement"),
    [
        (None, None, Retry("a", 3, 1030, "why", 1000)),
        (None, 3, Retry("a", 3, 1030, "why", 1000)),
        (None, 2, Die("a", 3, "why")),
        (0, 2, Die("a", 3, "why")),
        (0, None, Retry("a", 3, 1000, "why", 1000)),
        (61, None, Retry("a", 3, 1061, "why", None)),
    ],
)
def test_a_retry(delay: float | None, max_tries: int | None, settlement: Settlement) -> None:
    policy = RetryPolicy(30, max_tries)
    assert endings.retried(ROW, "why", delay, policy=policy, now=now, put_at=put_at) == settlement


def test_what_is_given_back() -> None:
    assert endings.given_back(ROW, None, 0, now=now, put_at=put_at) == Unget("a", 3, 1000, None, 1000, True)
    back = endings.given_back(ROW, "low", 61, now=now, put_at=put_at)
    assert back == Unget("a", 3, 1061, Priority.LOW, None, True)
    assert endings.unstarted(ROW, 1001, None) == Unget("a", 3, 1001, None, None, False)


@pytest.mark.parametrize("bad", [{"reason": 5}, {"delay": -1}, {"delay": "soon"}])
def test_bad_retries_are_refused(bad: dict[str, Any]) -> None:
    good: dict[str, Any] = {"reason": "why", "delay": 0}
    with pytest.raises((ValueError, TypeError), match=f"^{next(iter(bad))}: "):
        endings.retried(ROW, **{**good, **bad}, policy=RetryPolicy(30, None), now=now, put_at=put_at)


def test_only_a_second_delete_is_no_error() -> None:
    endings.check_repeated(ROW, True, DELETE, DELETE)
    for running, before, wanted in [(True, RETRY, DELETE), (True, DELETE, RETRY), (False, DELETE, DELETE)]:
        with pytest.raises(AlreadySettled):
            endings.check_repeated(ROW, running, before, wanted)


def test_a_refusal_says_what_came_before() -> None:
    assert "it was retried before" in str(endings.refusal(ROW, RETRY))
    assert "its run is over" in str(endings.refusal(ROW, None))
    assert "in hand in process 1, and this is its child 2" in str(endings.in_parents_hand(1, 2))
