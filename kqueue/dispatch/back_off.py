"""Leaves a server that fails alone for a while, longer each time."""

from collections.abc import Callable

from kqueue.model.retry import backoff


class BackOff:
    """Of one server, as one part of a process sees it. Shared by threads: what they write at once is the same."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        """``monotonic()``: seconds."""
        self._monotonic = monotonic
        #: In a row.
        self.failures = 0
        self._until = -1.0

    def is_on(self) -> bool:
        """Whether the server is not to be asked now."""
        return self.failures > 0 and self.seconds_left() > 0

    def seconds_left(self) -> float:
        """Until it may be asked again."""
        return max(0.0, self._until - self._monotonic())

    def failed(self) -> None:
        """It did not answer."""
        self.failures += 1
        self._until = self._monotonic() + backoff(self.failures)

    def is_over(self) -> None:
        """It has answered."""
        self.failures, self._until = 0, -1.0
