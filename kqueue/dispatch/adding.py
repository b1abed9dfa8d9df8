"""Adding: from what a user gives to rows in the store, and pointers to them in the tubes.

What can be checked is checked first, with nothing read or written: :meth:`Adding.check`. Then the rows are made and
stored in one write, and their doorbell is rung.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

from kqueue.contracts.repair import Due
from kqueue.contracts.store import JobStore
from kqueue.dispatch.doorbell import Doorbell
from kqueue.dispatch.group_commit import GroupCommit
from kqueue.model import checks, payload, times
from kqueue.model.errors import AddFailed
from kqueue.model.job import Priority, Row, State
from kqueue.model.options import New, Options, TypeOptions, own_checked
from kqueue.model.times import Duration, Instant
from kqueue.system.mint import IdMint
from kqueue.telemetry.telemetry import Telemetry

#: From here on the new rows of one list have all alike.
_REST: Final = Row._fields.index("encoding") + 1


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
    #: What is said over the options of their type, as a row keeps it.
    own_options: str | None


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
        priority: Priority | str | int | None = None,
        delay: Duration | None = None,
        ttr: Duration | None = None,
        run_at: Instant | None = None,
        limit_key: str | None = None,
        unique: str | None = None,
        unique_for: Duration | None = None,
        max_tries: int | None = None,
        retry_delay: object = None,
        keep_done: Duration | None = None,
        tombstone: Duration | None = None,
    ) -> NewJobs:
        """What is None is as the type's options say. Raises ``ValueError`` or ``TypeError``."""
        job_type = checks.job_type(type)
        options = self._options.of(job_type)
        if unique is None and unique_for is not None:
            raise ValueError(f"unique_for: only together with unique, got {unique_for!r} alone")
        return NewJobs(
            job_type,
            [payload.encode(one, self._max_payload) for one in checks.payloads(payloads)],
            int(options.priority) if priority is None else checks.priority(priority),
            _delay(options, delay, run_at),
            None if run_at is None else times.instant("run_at", run_at),
            options.ttr if ttr is None else times.seconds("ttr", ttr, 1),
            None if limit_key is None else checks.key("limit_key", limit_key),
            None if unique is None else checks.key("unique", unique),
            options.unique_for if unique_for is None else times.seconds("unique_for", unique_for, 0),
            own_checked(max_tries, retry_delay, keep_done=keep_done, tombstone=tombstone),
        )

    def orders(self, type: object, jobs: Iterable[object], given: Mapping[str, Any]) -> list[NewJobs]:
        """``jobs`` are payloads, or :class:`~kqueue.New`, whose own options win over those that are ``given``.
        Raises as :meth:`check`, and says which of several is wrong.
        """
        listed = checks.payloads(jobs)
        if not any(isinstance(one, New) for one in listed):
            return [self.check(type, listed, **given)]
        job_type = checks.job_type(type)
        orders = []
        for place, one in enumerate(listed):
            new = one if isinstance(one, New) else New(one)
            try:
                orders.append(self.check(job_type, [new.payload], **new.options(given)))
            except (ValueError, TypeError) as error:
                raise _of_one(error, place) from None
        return orders

    def rows(self, order: NewJobs, now: float) -> list[Row]:
        """New rows, one for each payload. ``now`` by the store's clock."""
        delay = order.delay if order.run_at is None else max(0.0, order.run_at - now)
        run_at = now + delay
        put_at = self._doorbell.put_at(run_at, now)
        state = State.DELAYED if run_at > now else State.READY
        alike = Row(
            "",
            order.type,
            b"",
            "",
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
            own_options=order.own_options,
        )
        rest: tuple[Any, ...] = alike[_REST:]
        type, make = order.type, tuple.__new__  # by position: this is done for each job
        ids = self._mint.make(len(order.payloads))
        return [
            make(Row, (id, type, data, encoding, *rest))
            for id, (data, encoding) in zip(ids, order.payloads, strict=True)
        ]

    def add(self, orders: Sequence[NewJobs]) -> list[str]:
        """The ids of their jobs, of one type, in the order of the payloads, once they are durable. Where a unique
        key is taken nothing is added, and the id is that of the job that has it. Raises
        :class:`~kqueue.AddFailed`.

        What interrupts it, as ``KeyboardInterrupt`` does, has the ids as ``job_ids``: they may be durable by then.
        """
        if not any(order.payloads for order in orders):
            return []
        self._open()
        now = self._store.now()
        rows = [row for order in orders for row in self.rows(order, now)]
        until = {
            row.id: now + order.unique_for
            for order, row in zip(orders, rows, strict=False)  # where one is unique, each is one job
            if order.unique is not None
        }
        try:
            return self._write_unique(rows, until, now) if until else self._write(rows, {}, now)
        except Exception:
            raise
        except BaseException as interrupt:
            _name_jobs(interrupt, rows)
            raise

    def _write_unique(self, rows: list[Row], until: Mapping[str, float], now: float) -> list[str]:
        """Of those with the same key the first is written, and the others get what that gets."""
        first_of: dict[str | None, Row] = {}
        firsts = [row if row.unique_key is None else first_of.setdefault(row.unique_key, row) for row in rows]
        written = [row for row, first in zip(rows, firsts, strict=True) if row is first]
        holders = dict(zip((row.id for row in written), self._write(written, until, now), strict=True))
        return [holders[first.id] for first in firsts]

    def _write(self, rows: list[Row], until: Mapping[str, float], now: float) -> list[str]:
        """``until``: when the keys of those that have one are free at the earliest, by their ids."""
        type, ids = rows[0].type, [row.id for row in rows]
        try:
            if until:
                ids = self._store.add_unique(rows, until, now)
            else:
                self._group_commit.add(rows)
        except AddFailed as error:
            there = {*error.taken, *error.unknown}
            self._ring([row for row in rows if row.id in there], now)
            self._telemetry.added(type, error.taken, now)
            raise
        new = [row for row, id in zip(rows, ids, strict=True) if row.id == id] if until else rows
        if new:
            self.announce(new, now)
        if len(new) < len(rows):  # of the others the key is another job's
            found = [id for row, id in zip(rows, ids, strict=True) if row.id != id]
            self._telemetry.added(type, found, now, is_new=False)
        return ids

    def announce(self, rows: Sequence[Row], now: float) -> None:
        """Rows of one type are in the store, so whatever becomes of the doorbell is no error of theirs."""
        self._ring(rows, now)
        self._telemetry.added(rows[0].type, [row.id for row in rows], now)

    def _ring(self, rows: Iterable[Row], now: float) -> None:
        with suppress(Exception):  # they are added; a pointer in the tube of another store does no harm
            self._follow()
        self._doorbell.ring(map(Due.of, rows), now)


def _delay(options: TypeOptions, delay: Duration | None, run_at: Instant | None) -> float:
    """Seconds; what a ``run_at`` says wins over the type's own."""
    if delay is None:
        return options.delay if run_at is None else 0.0
    if run_at is not None:
        raise ValueError("run_at: either it or delay, not both")
    return times.seconds("delay", delay, 0)


def _of_one(error: ValueError | TypeError, place: int) -> ValueError | TypeError:
    """The same, saying which of several jobs it is about."""
    kind = TypeError if isinstance(error, TypeError) else ValueError
    return kind(f"payloads[{place}]: {error}")


def _name_jobs(interrupt: BaseException, rows: Sequence[Row]) -> None:
    """So that whoever catches it can ask what became of them."""
    first, last = rows[0].id, rows[-1].id
    named = first if len(rows) == 1 else f"{len(rows)} jobs from {first} to {last}"
    with suppress(AttributeError):  # a class of the user's with slots
        interrupt.job_ids = tuple(row.id for row in rows)  # type: ignore[attr-defined]
    interrupt.add_note(f"KQueue was adding {named}, which may be in the store: ask with get_job(id)")
