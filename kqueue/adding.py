"""Adding: from what a user gives to rows in the store, and pointers to them in the tubes.

What can be checked is checked first, with nothing read or written: :meth:`Adding.check`. Then the rows are made and
stored in one write, and their doorbell is rung.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from kqueue import arguments, payload
from kqueue.doorbell import Doorbell
from kqueue.errors import AddFailed
from kqueue.ids import IdMint
from kqueue.job import Priority, Row, State
from kqueue.options import Options
from kqueue.store import Due, JobStore


class Order(NamedTuple):
    """Jobs to be added, checked: all of one type, with the options that hold for them."""

    type: str
    #: As :mod:`kqueue.payload` encodes: (bytes, encoding).
    payloads: list[tuple[bytes, str]]
    priority: int
    #: Seconds.
    delay: float
    #: Seconds.
    ttr: float


class Adding:
    """Adds jobs to one store. Shared by threads."""

    def __init__(
        self,
        *,
        open: Callable[[], None],
        store: JobStore,
        doorbell: Doorbell,
        options: Options,
        max_payload: int,
        mint: IdMint,
    ) -> None:
        """``open()`` opens what is not open. ``max_payload``: bytes once encoded."""
        self._open = open
        self._store = store
        self._doorbell = doorbell
        self._options = options
        self._max_payload = max_payload
        self._mint = mint

    def check(
        self,
        type: object,
        payloads: Iterable[object],
        priority: Priority | str | int | None,
        delay: float | None,
        ttr: float | None,
    ) -> Order:
        """What is None is as the type's options say. Raises ``ValueError`` or ``TypeError``."""
        job_type = arguments.job_type(type)
        options = self._options.of(job_type)
        return Order(
            job_type,
            [payload.encode(one, self._max_payload) for one in arguments.payloads(payloads)],
            options.priority if priority is None else arguments.priority(priority),
            options.delay if delay is None else arguments.number("delay", delay, 0),
            options.ttr if ttr is None else arguments.number("ttr", ttr, 1),
        )

    def rows(self, order: Order, now: float) -> list[Row]:
        """New rows, one for each payload. ``now`` by the store's clock."""
        run_at = now + order.delay
        put_at = self._doorbell.put_at(run_at, now)
        state = State.DELAYED if order.delay > 0 else State.READY
        return [
            Row(
                id,
                order.type,
                data,
                encoding,
                order.priority,
                state,
                order.delay,
                run_at,
                order.ttr,
                created_at=now,
                put_at=put_at,
            )
            for id, (data, encoding) in zip(self._mint.make(len(order.payloads)), order.payloads, strict=True)
        ]

    def add(self, order: Order) -> list[str]:
        """Their ids, in the order of the payloads, once they are durable. Raises :class:`~kqueue.AddFailed`."""
        if not order.payloads:
            return []
        self._open()
        now = self._store.now()
        rows = self.rows(order, now)
        try:
            self._store.add(rows)
        except AddFailed as error:
            there = {*error.taken, *error.unknown}
            self.ring([row for row in rows if row.id in there], now)
            raise
        self.ring(rows, now)
        return [row.id for row in rows]

    def ring(self, rows: Iterable[Row], now: float) -> None:
        """Put the pointers of new rows that are in the store. Never raises for a broker that is down."""
        self._doorbell.ring([Due(row.id, row.type, row.priority, row.run_at, row.put_at) for row in rows], now)
