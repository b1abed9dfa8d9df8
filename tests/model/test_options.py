"""Options per type: set once, checked, with the nearest name for one that is not known."""

import inspect
import math
from dataclasses import fields
from typing import Any

import pytest

from kqueue import KQueue, Priority, RetryPolicy, TypeOptions
from kqueue.model.options import CHECKS, POLICY_PARTS, GivenOptions, Options
from kqueue.model.retry import growing

POLICY = RetryPolicy(max_tries=2)
DEFAULT = TypeOptions(retry=RetryPolicy(max_tries=7, delay=9))


@pytest.fixture
def options() -> Options:
    return Options(DEFAULT)


def test_a_type_that_nothing_is_set_for_has_the_defaults(options: Options) -> None:
    assert options.of("t") is DEFAULT
    assert options.set("t", {}) == DEFAULT
    assert TypeOptions() == TypeOptions(
        priority=Priority.NORMAL, delay=0, ttr=60, retry=RetryPolicy(), keep_done=0, unique_for=0
    )


def test_each_type_has_its_own(options: Options) -> None:
    given = {"priority": "high", "delay": 5, "ttr": 30, "retry": POLICY, "keep_done": 3600, "unique_for": 60}
    assert options.set("t", given) == TypeOptions(Priority.HIGH, 5.0, 30.0, POLICY, 3600.0, 60.0)
    assert options.of("t").ttr == 30
    assert options.of("u") is DEFAULT


def test_parts_of_a_policy_leave_the_queues_defaults_for_the_others(options: Options) -> None:
    assert options.set("t", {"retry_delay": [1, 2]}).retry == RetryPolicy(max_tries=7, delay=[1, 2])
    assert options.set("t", {"max_tries": None}).retry == RetryPolicy(max_tries=None, delay=[1, 2])
    assert options.set("u", {"retry": POLICY}).retry.delay == growing(30)


def test_an_option_is_set_once_and_a_call_sets_all_or_nothing(options: Options) -> None:
    options.set("t", {"ttr": 30})
    with pytest.raises(ValueError, match="^ttr: an option of a type is set once, and that of t was set before"):
        options.set("t", {"delay": 5, "ttr": 40})
    assert options.of("t") == TypeOptions(ttr=30, retry=DEFAULT.retry)
    assert options.set("t", {"delay": 5}).delay == 5


@pytest.mark.parametrize("part", POLICY_PARTS)
def test_a_policy_is_set_whole_or_by_its_parts(options: Options, part: str) -> None:
    for first, second in ((part, "retry"), ("retry", part)):
        values: dict[str, Any] = {part: 5, "retry": POLICY}
        with pytest.raises(ValueError, match="a whole policy by retry, or parts of it, not both"):
            options.set("both", values)
        options.set(first, {first: values[first]})
        with pytest.raises(ValueError, match=f"^{second}: {first} has {first}; "):
            options.set(first, {second: values[second]})


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"tttr": 5}, "options: no 'tttr'; did you mean 'ttr'\\? There are delay, delete_on"),
        ({"retries": 5}, "options: no 'retries'; did you mean 'retry'\\?"),
        ({"zzz": 5}, "options: no 'zzz'; did you mean "),
        ({"priority": "asap"}, "priority: "),
        ({"delay": -1}, "delay: a finite number, at least 0"),
        ({"ttr": 0.5}, "ttr: a finite number, at least 1"),
        ({"ttr": None}, "ttr: expected a number"),
        ({"retry": 5}, "retry: expected a RetryPolicy, got 5"),
        ({"retry_delay": []}, "retry_delay: a list of seconds"),
        ({"max_tries": 0}, "max_tries: at least 1"),
        ({"keep_done": math.inf}, "keep_done: a finite number"),
        ({"unique_for": "1 h"}, "unique_for: expected a number"),
    ],
)
def test_bad_options_are_refused(options: Options, given: dict[str, Any], match: str) -> None:
    with pytest.raises((ValueError, TypeError), match=f"^{match}"):
        options.set("t", {"delay": 1, **given})
    assert options.of("t") is DEFAULT


def test_every_option_has_a_check_and_a_type() -> None:
    names = {field.name for field in fields(TypeOptions)} | set(POLICY_PARTS)
    assert names == set(CHECKS) == set(GivenOptions.__annotations__)


def test_the_defaults_can_be_read_in_the_help() -> None:
    text = inspect.getdoc(KQueue.options) or ""
    for name, value in (("delay", 0), ("ttr", 60), ("keep_done", 0), ("unique_for", 0)):
        assert f"``{name}={value}``" in text
        assert getattr(TypeOptions(), name) == value
    assert '``priority="normal"``' in text
