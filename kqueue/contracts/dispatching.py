"""What a store tells a loop that has no beanstalkd."""

from collections.abc import Sequence
from typing import Protocol


class Dispatch(Protocol):
    """What a store tells a loop that has no beanstalkd. See :mod:`kqueue.contracts.store` for what holds for every
    method.
    """

    def has_ready(self, types: Sequence[str]) -> bool:
        """Whether any row of these types is ready. Index probes only."""

    def next_run_at(self) -> float | None:
        """The earliest ``run_at`` of a delayed row, or None. One index probe."""

    def pulse(self) -> object:
        """A cheap token that differs once any process has changed the store since the last call; None if the
        store has no such thing. May differ without a change.
        """
