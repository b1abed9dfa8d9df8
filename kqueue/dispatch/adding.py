"""Adding: from what a user gives to rows in the store, and pointers to them in the tubes.

What can be checked is checked first, with nothing read or written: :meth:`Adding.check`. Then the rows are made and
stored in one write, and their doorbell is rung.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple

from kqueue.contracts.repair import Due
from kqueue.contracts.store import JobStore
from kqueue.dispatch.doorbell import Doorbell
from kqueue.dispatch.group_commit import GroupCommit
from kqueue.model import checks, payload, times
from kqueue.model.errors import AddFailed
from kqueue.model.job import Priority, Row, State
from kqueue.model.options import Options, TypeOptions
from kqueue.model.times import Duration, Instant
from kqueue.system.mint import IdMint
from kqueue.telemetry.telemetry import Telemetry


class NewJobs(NamedTuple):
    """Jobs to be added, checked: all of one type, with the options that hold for them."""

    type: str
    #: As :mod:`kqueue.model.payload` encodes: (bytes, encoding).
    payloads: list[tuple[bytes, str]]
    priority: int
    #: Seconds.
    delay: float
    #: When it may run at first, in seconds since 1970; None: after its delay.
    run_at: float | None
    #: Seconds.
    ttr: float
    limit_key: str | None
    #: The key that no other job of the type is to have; then there is one payload.
    unique: str | None
    #: Seconds that the key is taken at least.
    unique_for: float


class Adding:
    """Adds jobs to one store. Shared by threads."""

    def __init__(
        self,
        *,
        open: Callable[[], None],
        follow: Callable[[], object],
        store: JobStore,
        doorbell: Doorbell,
        options: Options,
        max_payload: int,
        mint: IdMint,
        telemetry: Telemetry,
        monotonic: Callable[[], float],
    ) -> None:
        """``open()`` opens what is not open; ``follow()`` sees whose tubes there are now. ``max_payload``: bytes
        once encoded. ``monotonic()``: seconds.
        """
        self._open = open
        self._follow = follow
        self._store = store
        self._group_commit = GroupCommit(store, monotonic)
        self._doorbell = doorbell
        self._options = options
        self._max_payload = max_payload
        self._mint = mint
        self._telemetry = telemetry

    def check(
        self,
        type: object,
        payloads: Iterable[object],
        *,
        priority: Priority | str | int | None,
        delay: Duration | None,
        ttr: Duration | None,
        run_at: Instant | None = None,
        limit_key: str | None = None,
        unique: str | None = None,
        unique_for: Duration | None = None,
    ) -> NewJobs:
        """What is None is as the type's options say. Raises ``ValueError`` or ``TypeError``."""
        job_type = checks.job_type(type)
        options = self._options.of(job_type)
        if unique is None and unique_for is not None:
            raise ValueError(f"unique_for: only together with unique, got {unique_for!r} alone")
        return NewJobs(
            job_type,
            [payload.encode(one, self._max_payload) for one in checks.payloads(payloads)],
            options.priority if priority is None else checks.priority(priority),
            _delay(options, delay, run_at),
            None if run_at is None else times.instant("run_at", run_at),
            options.ttr if ttr is None else times.seconds("ttr", ttr, 1),
            None if limit_key is None else checks.key("limit_key", limit_key),
            None if unique is None else checks.key("unique", unique),
            options.unique_for if unique_for is None else times.seconds("unique_for", unique_for, 0),
        )

    def rows(self, order: NewJobs, now: float) -> list[Row]:
        """New rows, one for each payload. ``now`` by the store's clock."""
        delay = order.delay if order.run_at is None else max(0.0, order.run_at - now)
        run_at = now + delay
        put_at = self._doorbell.put_at(run_at, now)
        state = State.DELAYED if run_at > now else State.READY
        return [
            Row(
                id,
                order.type,
                data,
                encoding,
                order.priority,
                state,
                delay,
                run_at,
                order.ttr,
                created_at=now,
                put_at=put_at,
                unique_key=order.unique,
                limit_key=order.limit_key,
                scheduled_for=order.run_at,
            )
            for id, (data, encoding) in zip(self._mint.make(len(order.payloads)), order.payloads, strict=True)
        ]

    def add(self, order: NewJobs) -> list[str]:
        """Their ids, in the order of the payloads, once they are durable. Where the unique key is taken nothing is
        added, and the id is that of the job that has it. Raises :class:`~kqueue.AddFailed`.

        What interrupts it, as ``KeyboardInterrupt`` does, has the ids as ``job_ids``: they may be durable by then.
        """
        if not order.payloads:
            return []
        self._open()
        now = self._store.now()
        rows = self.rows(order, now)
        try:
            return self._write(order, rows, now)
        except Exception:
            raise
        except BaseException as interrupt:
            _name_jobs(interrupt, rows)
            raise

    def _write(self, order: NewJobs, rows: list[Row], now: float) -> list[str]:
        ids = [row.id for row in rows]
        try:
            if order.unique is None:
                self._group_commit.add(rows)
            else:
                ids = [self._store.add_unique(rows[0], now + order.unique_for, now)]
        except AddFailed as error:
            there = {*error.taken, *error.unknown}
            self._ring([row for row in rows if row.id in there], now)
            self._telemetry.added(order.type, error.taken, now)
            raise
        if ids[0] == rows[0].id:
            self.announce(rows, now)
        else:  # the key is another job's, and nothing was added
            self._telemetry.added(order.type, ids, now, is_new=False)
        return ids

    def announce(self, rows: Sequence[Row], now: float) -> None:
        """Rows of one type are in the store, so whatever becomes of the doorbell is no error of theirs."""
        self._ring(rows, now)
        self._telemetry.added(rows[0].type, [row.id for row in rows], now)

    def _ring(self, rows: Iterable[Row], now: float) -> None:
        with suppress(Exception):  # they are added; a pointer in the tube of another store does no harm
            self._follow()
        self._doorbell.ring([Due.of(row) for row in rows], now)


def _delay(options: TypeOptions, delay: Duration | None, run_at: Instant | None) -> float:
    """Seconds; what a ``run_at`` says wins over the type's own."""
    if delay is None:
        return options.delay if run_at is None else 0.0
    if run_at is not None:
        raise ValueError("run_at: either it or delay, not both")
    return times.seconds("delay", delay, 0)


def _name_jobs(interrupt: BaseException, rows: Sequence[Row]) -> None:
    """So that whoever catches it can ask what became of them."""
    first, last = rows[0].id, rows[-1].id
    named = first if len(rows) == 1 else f"{len(rows)} jobs from {first} to {last}"
    with suppress(AttributeError):  # a class of the user's with slots
        interrupt.job_ids = tuple(row.id for row in rows)  # type: ignore[attr-defined]
    interrupt.add_note(f"KQueue was adding {named}, which may be in the store: ask with get_job(id)")
