"""One job through its handler, with a hand that answers as told."""

from typing import Any

import pytest

from kqueue import AlreadySettled, JobInHand, LeaseLost, StoreUnavailable
from kqueue.execution import Outcome, execute, outcome, reason_text
from kqueue.handlers import Handler
from kqueue.job import Row
from kqueue.store import Delete, Die, Retry, Unget

ROW = Row("0" * 28, "t", b"", "bytes", 5, "running", 0, 0, 10)


class Hand:
    """Writes down what it is asked for, and raises ``error`` at it."""

    def __init__(self, error: Exception | None = None) -> None:
        self.asked: list[Any] = []
        self.error = error

    def is_settled(self) -> bool:
        return bool(self.asked)

    def _ask(self, *what: Any) -> None:
        self.asked.append(what)
        if self.error is not None:
            raise self.error

    def delete(self, row: Row) -> None:
        self._ask("delete")

    def renew(self, row: Row) -> None:
        raise AssertionError

    def unget(self, row: Row, priority: Any, delay: float) -> None:
        self._ask("unget", delay)

    def retry(self, row: Row, reason: str, delay: float | None) -> None:
        self._ask("retry", reason, delay)


def run(function: Any, hand: Hand, **options: Any) -> BaseException | None:
    return execute(Handler(function, **options), JobInHand(ROW, hand), hand, lambda awaitable: None)


def raising(error: BaseException) -> Any:
    def function(job: JobInHand) -> None:
        raise error

    return function


@pytest.mark.parametrize(
    ("function", "options", "asked"),
    [
        (lambda job: None, {}, ("retry", "not deleted", None)),
        (lambda job: "OK", {}, ("retry", "not deleted", None)),
        (lambda job: None, {"delete_on_success": True}, ("delete",)),
        (raising(ValueError("no")), {"delete_on_success": True}, ("retry", "ValueError: no", None)),
        (raising(ValueError()), {}, ("retry", "ValueError", None)),
        (raising(KeyboardInterrupt()), {}, ("unget", 0)),
        (raising(SystemExit(3)), {}, ("retry", "SystemExit: 3", None)),
        (lambda job: job.delete(), {}, ("delete",)),
    ],
)
def test_each_end_of_a_handler_has_one_outcome(function: Any, options: Any, asked: Any) -> None:
    hand = Hand()
    run(function, hand, **options)
    assert hand.asked == [asked]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)])
def test_interrupts_are_handed_on_even_if_the_store_is_down(error: BaseException) -> None:
    assert run(raising(error), Hand()) is error
    assert run(raising(error), Hand(StoreUnavailable("down"))) is error


def test_another_thread_may_settle_first_and_a_lease_may_be_lost() -> None:
    for error in (AlreadySettled("first"), LeaseLost(ROW.id, 1)):
        assert run(lambda job: None, Hand(error)) is None


def test_a_store_that_is_down_is_raised() -> None:
    with pytest.raises(StoreUnavailable):
        run(lambda job: None, Hand(StoreUnavailable("down")))


def test_every_settlement_has_its_outcome() -> None:
    settlements = [
        Delete("a", 1),
        Retry("a", 1, 0, "why", None),
        Unget("a", 1, 0, None, None, True),
        Die("a", 1, "why"),
    ]
    assert [outcome(one) for one in settlements] == [Outcome.DELETED, Outcome.RETRIED, Outcome.UNGOT, Outcome.DEAD]


def test_a_reason_is_cut_and_cleaned() -> None:
    assert reason_text("x" * 5000) == "x" * 1000
    assert reason_text("a\ud800b") == "a?b"
