"""Which jobs of a window have leases that follow their handlers, and what their keeper has to know of them."""

from collections.abc import Callable, Mapping, Sequence

from kqueue.handlers import Handler
from kqueue.job import Row
from kqueue.lease import Grip, Hold, Keeper
from kqueue.retry import RetryPolicy


class Following:
    """Of one loop."""

    def __init__(self, keeper: Callable[[], Keeper], policy: RetryPolicy) -> None:
        """``keeper()`` returns this process's."""
        self._keeper = keeper
        self._policy = policy
        self._handlers: Mapping[str, Handler] = {}
        self._renewed: dict[str, Handler] = {}

    def hold(
        self, rows: Sequence[Row], handlers: Mapping[str, Handler], leased_since: Callable[[], float]
    ) -> Grip | None:
        """Have the keeper hold those of ``rows``, which are about to start in this order, whose handler wants it;
        None if there are none. ``handlers`` is a mapping that is replaced, never changed.

        ``leased_since()`` is called once the keeper is there, which may take a part of the leases: when they began,
        in monotonic seconds.
        """
        if handlers is not self._handlers:
            self._handlers = handlers
            self._renewed = {type: handler for type, handler in handlers.items() if handler.auto_renew}
        if not self._renewed:
            return None
        window = {row.id: self._hold_of(row) for row in rows}
        ttrs = [hold.ttr for hold in window.values() if hold is not None]
        if not ttrs:
            return None
        keeper = self._keeper()
        keeper.prepare(min(ttrs))
        return keeper.hold(window, leased_since())

    def _hold_of(self, row: Row) -> Hold | None:
        handler = self._renewed.get(row.type)
        if handler is None:
            return None
        if handler.max_runtime is None:
            return Hold(row.id, row.fence, row.ttr)
        retry_in = self._policy.delay_after(row.failures + 1)
        return Hold(row.id, row.fence, row.ttr, handler.max_runtime, retry_in)
