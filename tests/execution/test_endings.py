"""What ends the run of a row."""

from collections.abc import Callable

import pytest

from kqueue import AlreadySettled
from kqueue.contracts.settlements import Delete, Finish, Outcome, Retry, Unget, unfinished, unstarted
from kqueue.execution import endings
from kqueue.execution.execute import Decision
from kqueue.model.job import Priority, Row

ROW = Row("a", "t", b"", "bytes", 5, "running", 0, 0, 10, fence=3, failures=1)
DELETE = Delete("a", 3)
FINISH = Finish("a", 3, 0)
RETRY = Retry("a", 3, 0, "why", None)


def test_what_a_handler_wishes() -> None:
    assert endings.again("why", None) == Decision(Outcome.RETRIED, "why")
    assert endings.again("why", 5) == Decision(Outcome.RETRIED, "why", 5.0)
    assert endings.back(None, 0) == Decision(Outcome.UNGOT, "given back by its handler", 0.0)
    assert endings.back("low", 61) == Decision(
        Outcome.UNGOT, "given back by its handler", 61.0, priority=Priority.LOW
    )
    assert unstarted(ROW, 1001, None) == Unget("a", 3, 1001, None, None, False)
    stopped = "its worker was stopped meanwhile"
    assert unfinished(ROW, 1001, None) == Unget("a", 3, 1001, None, None, True, stopped)


@pytest.mark.parametrize(
    ("decision", "bad"),
    [
        (lambda: endings.again(5, 0), "reason"),
        (lambda: endings.again("why", -1), "delay"),
        (lambda: endings.again("why", "soon"), "delay"),
        (lambda: endings.back(-1, 0), "priority"),
        (lambda: endings.back(None, None), "delay"),
    ],
)
def test_bad_wishes_are_refused(decision: Callable[[], Decision], bad: str) -> None:
    with pytest.raises((ValueError, TypeError), match=f"^{bad}: "):
        decision()


def test_only_a_second_delete_is_no_error() -> None:
    endings.check_repeated(ROW, True, DELETE, DELETE)
    endings.check_repeated(ROW, True, FINISH, FINISH)
    for running, before, wanted in [(True, RETRY, DELETE), (True, DELETE, RETRY), (False, DELETE, DELETE)]:
        with pytest.raises(AlreadySettled):
            endings.check_repeated(ROW, running, before, wanted)


def test_a_refusal_says_what_came_before() -> None:
    assert "it was retried before" in str(endings.refusal(ROW, RETRY))
    assert "its run is over" in str(endings.refusal(ROW, None))
    assert "in hand in process 1, and this is its child 2" in str(endings.in_parents_hand(1, 2))
