"""What a renewer has to know of a window."""

from collections.abc import Mapping
from typing import Any, cast

import pytest

from kqueue.contracts.renewer import Renewal, RenewalHold, Renewer
from kqueue.execution.auto_renew import AutoRenew
from kqueue.model.handlers import Handler
from kqueue.model.job import Row


class Renewers:
    """Writes down what is to be held."""

    def __init__(self) -> None:
        self.said: list[Any] = []

    def __call__(self) -> Renewer:
        return cast(Renewer, self)

    def prepare(self, ttr: float) -> None:
        self.said.append(ttr)

    def hold(
        self, window: Mapping[str, Renewal | None], leased_at: float, keep: object = None, over: object = None
    ) -> RenewalHold:
        self.said.append((list(window.items()), leased_at))
        return cast(RenewalHold, "hold")


def row(n: int, type: str, failures: int = 0, ttr: float = 60.0) -> Row:
    return Row(f"{n:028d}", type, b"", "bytes", 0, "running", 0, 0, ttr, fence=n, failures=failures)


def since() -> float:
    return 5.0


def handler(**options: Any) -> Handler:
    return Handler(lambda job: None, **options)


HANDLERS = {
    "plain": handler(),
    "kept": handler(auto_renew=True),
    "bounded": handler(auto_renew=True, max_runtime=600.0),
}


@pytest.fixture
def renewers() -> Renewers:
    return Renewers()


@pytest.fixture
def auto_renew(renewers: Renewers) -> AutoRenew:
    return AutoRenew(renewers, lambda row: 30.0 if row.failures < 2 else None)


def test_no_renewer_is_asked_where_no_job_wants_it(auto_renew: AutoRenew, renewers: Renewers) -> None:
    assert auto_renew.hold([row(1, "plain")], {"plain": HANDLERS["plain"]}, since) is None
    assert auto_renew.hold([row(1, "plain")], HANDLERS, since) is None
    assert auto_renew.hold([row(1, "without a handler")], HANDLERS, since) is None
    assert renewers.said == []


def test_a_window_is_said_in_its_order(auto_renew: AutoRenew, renewers: Renewers) -> None:
    rows = [row(1, "plain", ttr=1.0), row(2, "kept", ttr=30.0), row(3, "bounded"), row(4, "bounded", failures=2)]
    assert cast(str, auto_renew.hold(rows, HANDLERS, since)) == "hold"
    holds = [
        None,
        Renewal(rows[1].id, 2, 30.0),
        Renewal(rows[2].id, 3, 60.0, 600.0, 30.0),
        Renewal(rows[3].id, 4, 60.0, 600.0, None),  # its tries are used up
    ]
    assert renewers.said == [30.0, (list(zip((one.id for one in rows), holds, strict=True)), 5.0)]


def test_handlers_that_are_new_are_seen(auto_renew: AutoRenew, renewers: Renewers) -> None:
    assert auto_renew.hold([row(1, "plain")], HANDLERS, since) is None
    assert auto_renew.hold([row(1, "plain")], {"plain": handler(auto_renew=True)}, since) is not None
    assert auto_renew.hold([row(1, "plain")], HANDLERS, since) is None
