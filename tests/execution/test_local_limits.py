"""What a dispatcher sees to itself, of the limits."""

from kqueue.contracts.admission import Claimer, Limit
from kqueue.execution.local_limits import LocalLimits
from kqueue.model.job import Row, State

HOLDER = Claimer("me", 2)


def row(number: int, key: str | None = None, gate: str | None = "t") -> Row:
    return Row(str(number), "t", b"", "json", 1, State.RUNNING, 0.0, 0.0, 30.0, fence=1, gate=gate, limit_key=key)


def test_no_more_of_a_type_start_than_may_run() -> None:
    limits = LocalLimits({"t": Limit("t", running=2)}.get)
    for number in range(2):
        assert limits.has_place(row(number))
        limits.started(row(number))
    assert not limits.has_place(row(2))
    limits.ended(row(0))
    assert limits.has_place(row(2))


def test_keys_are_counted_apart_and_what_has_none_by_its_type() -> None:
    limits = LocalLimits({"t": Limit("t", running=3, running_per_key=1)}.get)
    limits.started(row(0, "a"))
    assert [limits.has_place(row(1, key)) for key in ("a", "b", None)] == [False, True, True]


def test_no_more_run_than_their_holder_had_hands_when_it_claimed_them() -> None:
    """It may have more since."""
    limits = LocalLimits({"t": Limit("t", running=9)}.get)
    for number in range(2):
        limits.started(row(number, gate=HOLDER.gate_of("t")))
    assert not limits.has_place(row(2, gate=HOLDER.gate_of("t")))
    assert limits.has_place(row(2, gate=HOLDER._replace(hands=3).gate_of("t")))


def test_what_was_claimed_under_no_limit_is_not_counted() -> None:
    limits = LocalLimits({"t": Limit("t", running=1)}.get)
    limits.started(row(0, gate=None))
    assert limits.has_place(row(1, gate=None))
    assert limits.has_place(row(1))


def test_a_limit_that_comes_while_a_job_runs_takes_no_place_twice() -> None:
    known: dict[str, Limit] = {}
    limits = LocalLimits(known.get)
    limits.started(row(0))
    known["t"] = Limit("t", running=1)
    limits.ended(row(0))
    limits.started(row(1))
    assert not limits.has_place(row(2))
