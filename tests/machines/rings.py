"""The rings of a process of the model: no thread sends them, so they come when the model says so, or never."""

from collections.abc import Callable, Sequence

from kqueue.contracts.repair import Due


class Rings:
    """In the place of :class:`kqueue.dispatch.ringing.Ringing`."""

    def __init__(self, put: Callable[[list[Due], float], object]) -> None:
        self._put = put
        #: Whether they are left until :meth:`flush`, as by a sender that gets no time.
        self.are_late = False
        self._waiting: list[tuple[list[Due], float]] = []

    def is_full(self) -> bool:
        """False."""
        return False

    def ring(self, dues: Sequence[Due], now: float) -> None:
        """At once, or later."""
        self._waiting.append((list(dues), now))
        if not self.are_late:
            self.flush()

    def flush(self) -> None:
        """Together, as the sender does."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            self._put([due for dues, _ in waiting for due in dues], max(now for _, now in waiting))

    def close(self) -> None:
        """The last of them."""
        self.flush()

    def lose(self) -> None:
        """They never come."""
        self._waiting.clear()

    def waiting(self) -> set[str]:
        """The ids that are still to be rung for."""
        return {due.id for dues, _ in self._waiting for due in dues}
