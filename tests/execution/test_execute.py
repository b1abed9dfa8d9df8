"""One job through its handler, with a hand that answers as told."""

from typing import Any

import pytest

from kqueue import AlreadySettled, JobInHand, LeaseLost, RetryPolicy, Snooze, StoreUnavailable, Verdict
from kqueue.contracts.settlements import Delete, Die, Outcome, Retry, Unget, outcome
from kqueue.execution.execute import Decision, execute
from kqueue.model.handlers import Handler
from kqueue.model.job import Row

ROW = Row("0" * 28, "t", b"", "bytes", 5, "running", 0, 0, 10)


class Hand:
    """Writes down what it is asked for, and raises ``error`` at it."""

    def __init__(self, error: Exception | None = None, policy: RetryPolicy | None = None) -> None:
        self.asked: list[Any] = []
        self.errors: list[BaseException] = []
        self.error = error
        self._policy = policy or RetryPolicy()
        self.cut: Decision | None = None

    def is_settled(self) -> bool:
        return bool(self.asked)

    def policy(self, row: Row) -> RetryPolicy:
        assert row is ROW
        return self._policy

    def deletes_on_success(self, row: Row) -> bool:
        return False

    def left_unsettled(self, handler: Handler) -> None:
        self.unsettled = handler

    def end(self, row: Row, decision: Decision) -> None:
        assert row is ROW
        self._ask(decision)

    def cut_short(self) -> Decision | None:
        return self.cut

    def raised(self, error: BaseException) -> None:
        self.errors.append(error)

    def _ask(self, what: Any) -> None:
        self.asked.append(what)
        if self.error is not None:
            raise self.error

    def delete(self, row: Row, result: object = None) -> None:
        self._ask("delete")

    def renew(self, row: Row) -> None:
        raise AssertionError

    def unget(self, row: Row, priority: Any, delay: float) -> None:
        raise AssertionError

    def retry(self, row: Row, reason: str, delay: float | None) -> None:
        raise AssertionError


def run(function: Any, hand: Hand, **options: Any) -> BaseException | None:
    return execute(Handler(function, **options), JobInHand(ROW, hand), hand, lambda hand, awaitable: None)


def raising(error: BaseException) -> Any:
    def function(job: JobInHand) -> None:
        raise error

    return function


def returning(value: Any) -> Any:
    return lambda job: value


class Unsaid(Snooze):
    """A snooze that forgot to say for how long."""

    def __init__(self) -> None:
        pass


POLICY = RetryPolicy(final=LookupError, give_back=ConnectionError)
#: What a handler does, and how its run is to end: the outcome, the reason's begin, the seconds.
ENDS: list[tuple[Any, Outcome, str | None, float | None]] = [
    (returning(None), Outcome.RETRIED, "not deleted", None),
    (returning("OK"), Outcome.RETRIED, "not deleted", None),
    (returning(Verdict), Outcome.RETRIED, "not deleted", None),
    (returning(Verdict.OK), Outcome.DELETED, None, None),
    (returning(Verdict.FAILED), Outcome.DEAD, "the handler returned FAILED", None),
    (returning(Verdict.RETRY), Outcome.RETRIED, "the handler returned RETRY", None),
    (returning(Verdict.ERROR), Outcome.RETRIED, "the handler returned ERROR", None),
    (returning(Snooze(5)), Outcome.UNGOT, "snoozed for 5 s", 5),
    (raising(Snooze(1_209_600)), Outcome.UNGOT, "snoozed for 14 days", 1_209_600),
    (raising(Snooze(0.5)), Outcome.UNGOT, "snoozed for 0.5 s", 0.5),
    (returning(Unsaid()), Outcome.RETRIED, "TypeError: seconds: expected a number", None),
    (raising(Unsaid()), Outcome.RETRIED, "TypeError: seconds: expected a number", None),
    (lambda job: Snooze(-1), Outcome.RETRIED, "ValueError: seconds: a finite number, at least 0", None),
    (raising(ValueError("no")), Outcome.RETRIED, "ValueError: no (test_execute.py:", None),
    (raising(ValueError()), Outcome.RETRIED, "ValueError (test_execute.py:", None),
    (raising(KeyError("k")), Outcome.DEAD, "KeyError: 'k' (test_execute.py:", None),
    (raising(ConnectionResetError("gone")), Outcome.UNGOT, "ConnectionResetError: gone (", None),
    (raising(GeneratorExit()), Outcome.RETRIED, "GeneratorExit (", None),
    (raising(KeyboardInterrupt()), Outcome.UNGOT, "its run was interrupted", 0),
    (raising(SystemExit(3)), Outcome.RETRIED, "SystemExit: 3 (", None),
]


@pytest.mark.parametrize(("function", "ended", "reason", "seconds"), ENDS)
def test_each_end_of_a_handler_has_one_outcome(
    function: Any, ended: Outcome, reason: str | None, seconds: float | None
) -> None:
    hand = Hand(policy=POLICY)
    run(function, hand)
    (decision,) = hand.asked
    assert (decision.outcome, decision.seconds) == (ended, seconds)
    assert decision.reason is None if reason is None else decision.reason.startswith(reason)


def test_delete_on_success_is_for_a_handler_that_says_nothing_else() -> None:
    for function, ended, reason, _ in ENDS:
        hand = Hand(policy=POLICY)
        run(function, hand, delete_on_success=True)
        (decision,) = hand.asked
        assert decision.outcome is (Outcome.DELETED if reason == "not deleted" else ended)


@pytest.mark.parametrize("ending", [returning(Verdict.FAILED), raising(Snooze(5)), raising(KeyError())])
def test_what_a_handler_settled_itself_wins(ending: Any) -> None:
    def function(job: JobInHand) -> Any:
        job.delete()
        return ending(job)

    hand = Hand(policy=POLICY)
    assert run(function, hand) is None
    assert hand.asked == ["delete"]


def test_the_policy_gets_what_was_raised() -> None:
    error = ValueError("no")
    hand = Hand()
    run(raising(error), hand)
    assert hand.asked[0].error is error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)])
def test_interrupts_are_handed_on_even_if_the_store_is_down_or_a_policy_names_them(error: BaseException) -> None:
    greedy = RetryPolicy(final=BaseException)
    assert run(raising(error), Hand(policy=greedy)) is error
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


class Cancelled(BaseException):
    """Stands for asyncio's, which is no ``Exception`` either."""


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (returning(None), "too long"),
        (raising(Cancelled()), "too long"),
        (returning(Verdict.FAILED), "the handler returned FAILED"),
        (raising(ValueError("no")), "ValueError: no"),
        (returning(Snooze(5)), "snoozed for 5 s"),
    ],
)
def test_a_run_that_was_cut_short_says_so_unless_its_handler_says_more(function: Any, reason: str) -> None:
    hand = Hand()
    hand.cut = Decision(Outcome.RETRIED, "too long")
    run(function, hand, delete_on_success=True)
    [decision] = hand.asked
    assert (decision.reason or "").startswith(reason)
