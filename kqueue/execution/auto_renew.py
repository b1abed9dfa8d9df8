"""Which jobs of a window have leases that follow their handlers, and what their renewer has to know of them."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from kqueue.contracts.renewer import Renewal, RenewalHold, Renewer
from kqueue.execution.inflight_job import InflightJob
from kqueue.model.handlers import Handler
from kqueue.model.job import Row


class AutoRenew:
    """Has the leases of one loop's handlers renewed while these run."""

    def __init__(
        self,
        renewer: Callable[[], Renewer],
        retry_in: Callable[[Row], float | None],
        overran: Callable[[Row, Renewal], object] = lambda row, hold: None,
    ) -> None:
        """``renewer()`` returns this process's. ``retry_in(row)``: seconds until it runs again if this run fails;
        None if it is dead then. ``overran(row, hold)`` is called in another thread, once it is written that a run
        has failed since it took longer than it may.
        """
        self._renewer = renewer
        self._retry_in = retry_in
        self._overran = overran
        self._handlers: Mapping[str, Handler] = {}
        self._renewed: dict[str, Handler] = {}

    def hold(
        self,
        rows: Sequence[Row],
        handlers: Mapping[str, Handler],
        leased_since: Callable[[], float],
        keep: Callable[[RenewalHold], object] | None = None,
    ) -> RenewalHold | None:
        """Have the renewer hold those of ``rows``, which are about to start in this order, whose handler wants it;
        None if there are none. ``handlers`` is a mapping that is replaced, never changed.

        ``leased_since()`` is called once the renewer is there, which may take a part of the leases: when they
        began, in monotonic seconds. ``keep``: see :meth:`kqueue.contracts.renewer.Renewer.hold`.
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
        renewer = self._renewer()
        renewer.prepare(min(ttrs))
        by_id = {row.id: row for row in rows}
        return renewer.hold(window, leased_since(), keep, lambda hold: self._overran(by_id[hold.id], hold))

    def hold_each(self, jobs: Iterable[InflightJob], handlers: Mapping[str, Handler]) -> None:
        """As :meth:`hold`, for jobs that start and end each by itself."""
        for job in jobs:
            self.hold([job.row], handlers, job.leased_since, job.keep_renewal)

    def _hold_of(self, row: Row) -> Renewal | None:
        handler = self._renewed.get(row.type)
        if handler is None:
            return None
        if handler.max_runtime is None:
            return Renewal(row.id, row.fence, row.ttr)
        return Renewal(row.id, row.fence, row.ttr, handler.max_runtime, self._retry_in(row), handler.kill)
