"""What a call with a list of jobs has said of each of them."""

import pytest

from kqueue import Snooze, Verdict
from kqueue.contracts.budget import MAX_JOBS
from kqueue.contracts.settlements import Outcome
from kqueue.execution.batch import answers
from kqueue.execution.execute import Decision
from kqueue.model.handlers import MOST_BATCH

SNOOZE, ERROR = Snooze(5), KeyError("a")
OF_LETTER = {"d": Outcome.DELETED, "x": Outcome.DEAD, "r": Outcome.RETRIED}


def outcomes(returned: object, jobs: int) -> str:
    """A letter each: deleted, dead (x), retried."""
    letters = {outcome: letter for letter, outcome in OF_LETTER.items()}
    found = answers(returned, jobs)
    assert len(found) == jobs
    decisions = [one for one in found if isinstance(one, Decision)]
    assert len(decisions) == jobs
    return "".join(letters[one.outcome] for one in decisions)


@pytest.mark.parametrize("returned", [None, True, Verdict.OK, SNOOZE, {"a": 1}, 7, 200, b"200"])
def test_what_is_no_list_and_no_text_is_said_of_each(returned: object) -> None:
    assert answers(returned, 3) == [returned] * 3


def test_in_a_list_each_has_its_own() -> None:
    said = [Verdict.OK, None, SNOOZE, ERROR, {"a": 1}, True]
    assert answers(said, 6) == said
    assert answers(tuple(said), 6) == said
    assert answers([], 0) == []


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        ("200\n404 no such file\n100\n500 later\n", "dxrr"),
        ("200 OK\r\n299\n  400\n199\n599", "ddxrr"),
        ([200, 404, "100", 503, "204 none"], "dxrrd"),
        ("# a comment\n200\n#J: mail|x\n404\n", "dx"),
        ("200\n", "drr"),  # fewer
        ("", "rr"),
        ([], "rr"),
        ("200\nerror\n200\n200", "drrr"),  # one without a number, and all after it
        ("200\n\n200", "drr"),
        ([200, 302, 200], "drr"),
        ([200, -200, 200], "drr"),
        (["2000", 200], "rr"),
        ("200\n200\n200", "rr"),  # more: nobody knows whose they are
        ([Verdict.OK] * 3, "rr"),
    ],
)
def test_statuses(returned: object, expected: str) -> None:
    assert outcomes(returned, len(expected)) == expected


def test_the_reason_says_what_was_wrong() -> None:
    def reasons(returned: object, jobs: int) -> list[object]:
        return [one.reason for one in answers(returned, jobs) if isinstance(one, Decision)]

    assert reasons("200\n404 no such file\n500", 4) == [
        None,
        "the handler answered 404 no such file",
        "the handler answered 500",
        "NO_RESPONSE: its handler gave 3 answers for 4 jobs",
    ]
    assert reasons("oops\n200", 2) == [
        "INVALID_RESPONSE: its handler's answer is no status: 'oops'",
        "INVALID_RESPONSE: an answer before that of its own is no status",
    ]
    assert reasons([1, 2, 3], 1) == ["INVALID_RESPONSE: its handler gave 3 answers for 1 jobs"]


def test_a_batch_is_no_more_than_one_claim_takes() -> None:
    assert MOST_BATCH == MAX_JOBS
