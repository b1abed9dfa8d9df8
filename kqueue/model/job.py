"""Jobs as values: the row that a store keeps, and the views of it that users get."""

import json
from enum import IntEnum, StrEnum
from typing import Any, NamedTuple, Protocol

from kqueue.model import history, payload
from kqueue.model.history import Progress, Run


class Priority(IntEnum):
    """How soon a job runs among those of its tube: the lower number first.

    The numbers are far apart, so that any integer from 0 to 2**32-1 may stand between them. NORMAL is
    what beanstalkd's clients use by default; beanstalkd calls everything below 1024 urgent.
    """

    URGENT = 512
    HIGH = 2**14
    NORMAL = 2**16
    LOW = 2**18
    BULK = 2**20


class State(StrEnum):
    """Where a job stands. Each compares equal to its name."""

    #: Not before ``run_at``.
    DELAYED = "delayed"
    #: May be claimed now; compared with no clock.
    READY = "ready"
    #: Ready but for a limit of its type: it waits at its ``gate``, without a pointer, until it is admitted.
    HELD = "held"
    #: Claimed under a lease. With its lease past it is abandoned, until the sweep makes it ready again.
    RUNNING = "running"
    #: Ended without success; kept until deleted or brought back.
    DEAD = "dead"
    #: Finished, and kept only while a retention keeps it.
    DONE = "done"


class Row(NamedTuple):
    """The whole state of a job, as every store keeps it. Times are seconds since 1970 by the store's clock."""

    id: str
    type: str
    #: As :mod:`kqueue.model.payload` encoded it.
    payload: bytes
    #: ``"json"`` or ``"bytes"``.
    encoding: str
    priority: int
    #: A :class:`State` or its name.
    state: str
    #: Seconds, as given when it was added.
    delay: float
    #: Not before this time.
    run_at: float
    #: Time to run in seconds: the length of a lease.
    ttr: float
    #: Grows by one with each claim; 0 before the first.
    fence: int = 0
    #: Claims that were not given back.
    tries: int = 0
    #: Runs that ended in a retry since it was added or brought back: what ``max_tries`` counts.
    failures: int = 0
    #: Deaths of a process that ran this job and nothing else.
    crashes: int = 0
    #: Deaths of a process that held this job among others. Any settle of a run clears both.
    suspicion: int = 0
    #: Whether its holder runs nothing else, so that a death may be blamed on it.
    alone: bool = False
    #: Unique for each claim. Kept until its run is settled or another claim comes, also past the lease.
    lease_owner: str | None = None
    #: None when not running.
    lease_until: float | None = None
    #: Why it was last retried, given back, given up or recovered.
    reason: str | None = None
    #: What it waits for while it is held; once it is ready, what it was admitted by; while it runs, the type if
    #: that has limits. None otherwise.
    gate: str | None = None
    #: Until when it is kept, once it is done.
    keep_until: float | None = None
    #: How its runs ended before, as :mod:`kqueue.model.history` writes it. Not read by a claim.
    history: str | None = None
    created_at: float = 0.0
    #: When a pointer to it was last put, or None if it is known to have none.
    put_at: float | None = None
    #: No second job of this type and key is added while this one waits or runs, or for the time it asked for.
    unique_key: str | None = None
    #: Jobs of one type and limit key count together.
    limit_key: str | None = None
    #: The time that it is for, if that was given: the tick of a schedule. Never changed.
    scheduled_for: float | None = None
    #: When ``run_at``, or ``keep_until`` of one that is done, was asked for last, by the clock that it was reckoned
    #: with. None: when it was added.
    asked_at: float | None = None
    #: What its own add said over the options of its type, as :func:`kqueue.model.options.own_checked` writes it.
    own_options: str | None = None
    #: Of one that is done, as :func:`kqueue.model.payload.encode_result` made it. Only :meth:`get` of a store reads
    #: it; never added.
    result: bytes | None = None
    #: As :func:`kqueue.model.history.read_progress` reads it. The same holds for it.
    progress: str | None = None


class Job:
    """A job as it stood when it was read. Read-only."""

    __slots__ = ("_row",)

    def __init__(self, row: Row) -> None:
        self._row = row

    @property
    def id(self) -> str:
        """28 characters, see :mod:`kqueue.model.ids`."""
        return self._row.id

    @property
    def type(self) -> str:
        """The job type, which chose the handler."""
        return self._row.type

    @property
    def payload(self) -> Any:
        """What was added: a JSON value or ``bytes``. Decoded anew at each access."""
        return payload.decode(self._row.payload, self._row.encoding)

    @property
    def priority(self) -> int:
        """0..2**32-1, lower runs first."""
        return self._row.priority

    @property
    def delay(self) -> float:
        """Seconds, as given when it was added."""
        return self._row.delay

    @property
    def ttr(self) -> float:
        """Time to run in seconds: how long a claim holds before others may take the job."""
        return self._row.ttr

    @property
    def tries(self) -> int:
        """1 on the first run; each run that was not given back counts, and so does one whose worker died."""
        return self._row.tries

    @property
    def fence(self) -> int:
        """The number of its claims. Hand it to outside systems that can refuse a lower one."""
        return self._row.fence

    @property
    def created_at(self) -> float:
        """When it was added: seconds since 1970."""
        return self._row.created_at

    @property
    def run_at(self) -> float:
        """It runs not before this: seconds since 1970. A retry or a give-back moves it; see
        :attr:`scheduled_for`.
        """
        return self._row.run_at

    @property
    def scheduled_for(self) -> float:
        """The time that it is for: seconds since 1970. Of one that a schedule added it is the tick, of any other
        when it was to run at first (``created_at`` and the delay that was given). However often it is retried,
        snoozed, given back or brought back, it is for the same time; ``run_at`` says when it may run next.
        """
        row = self._row
        return row.created_at + row.delay if row.scheduled_for is None else row.scheduled_for

    @property
    def state(self) -> State:
        """Where it stood when it was read."""
        return State(self._row.state)

    @property
    def reason(self) -> str | None:
        """Why it was last retried, given back, given up or recovered; None if never. Of one that is done None, or
        why its result is missing.
        """
        if self._row.state != State.DONE:
            return self._row.reason
        return self.runs[-1].reason if self.runs else None

    @property
    def result(self) -> Any:
        """What its handler gave to ``delete(result=...)``, or returned, if it is done and was kept: see
        ``keep_done``. None if there is none. Decoded anew at each access. Only ``get_job`` reads it.
        """
        return None if self._row.result is None else payload.decode_result(self._row.result)

    @property
    def finished_at(self) -> float | None:
        """When it came to its end, done or dead: seconds since 1970. None while it has not."""
        if self._row.state not in {State.DONE, State.DEAD}:
            return None
        return self.runs[-1].ended_at if self.runs else self._row.asked_at

    @property
    def progress(self) -> Progress | None:
        """How far its last run that told so is, or was; None if none did. Only ``get_job`` reads it."""
        return history.read_progress(self._row.progress)

    @property
    def unique(self) -> str | None:
        """Its unique key, if it has one."""
        return self._row.unique_key

    @property
    def limit_key(self) -> str | None:
        """Jobs of its type with the same one count together where there are limits."""
        return self._row.limit_key

    @property
    def max_tries(self) -> int | None:
        """Failed runs until it is dead, if its own add said so; None: as its type says."""
        found: int | None = json.loads(self._row.own_options or "{}").get("max_tries")
        return found

    @property
    def runs(self) -> list[Run]:
        """How its last runs ended, at most 10, the oldest first. Not known of a job in hand."""
        return history.read(self._row.history)

    @property
    def crashes(self) -> int:
        """Deaths of a process that ran this job and nothing else, since its last settled run."""
        return self._row.crashes

    def __repr__(self) -> str:
        row = self._row
        return f"<{type(self).__name__} {row.id} {row.type} {row.state} tries={row.tries} fence={row.fence}>"


class EndedJobs(NamedTuple):
    """A page of jobs that have ended, in the order in which they did."""

    jobs: list[Job]
    #: Where to go on; None if none has ended yet.
    place: str | None


def row_of(job: Job) -> Row:
    """The row that ``job`` shows."""
    return job._row


class Holder(Protocol):
    """Who answers for a job in hand. See :class:`kqueue.execution.inflight_job.InflightJob`."""

    def delete(self, row: Row, result: object = None) -> None:
        """It is finished, and this came of it."""

    def renew(self, row: Row) -> None:
        """Another TTR from now."""

    def unget(self, row: Row, priority: Priority | str | int | None, delay: float) -> None:
        """Back unrun."""

    def retry(self, row: Row, reason: str, delay: float | None) -> None:
        """Again later."""

    def progress(self, row: Row, done: float, total: float, note: object) -> None:
        """So far it is."""

    def log(self, row: Row, text: str, args: tuple[object, ...]) -> None:
        """A line for its log."""

    def lease_lost(self, row: Row) -> bool:
        """Whether it is not safely ours any more."""

    def cancelled(self, row: Row) -> bool:
        """Whether nobody wants its result any more."""


class JobInHand(Job):
    """The job that a handler is given.

    Exactly one of :meth:`delete`, :meth:`retry` and :meth:`unget` ends it; a handler that returns without
    any has its job retried with the reason "not deleted". They become durable at most ``settle_ms`` later, or at
    ``queue.flush()``, and a lost lease is counted in the report, told by an event and logged. Where ``settle_ms``
    is 0 they are durable when they return, and a lost lease raises here.

    A coroutine under :meth:`~kqueue.KQueue.work` is not made to wait, whatever ``settle_ms`` is, and only
    :meth:`renew` asks the store. There say ``await asyncio.to_thread(job.renew)``.
    """

    __slots__ = ("_holder",)

    def __init__(self, row: Row, holder: Holder) -> None:
        self._row = row  # not by super(): one is made for each run
        self._holder = holder

    def delete(self, result: object = None) -> None:
        """The job is finished. A second call changes nothing.

        ``result``: what came of it, a JSON value or bytes, of ``max_result`` bytes at most; kept for as long as the
        job is (``keep_done``), and not at all if it is not. Raises ``ValueError`` or ``TypeError`` for any other;
        then the job is still in hand. Raises :class:`~kqueue.LeaseLost` if ``settle_ms`` is 0 and the job is not
        ours any more, and :class:`~kqueue.AlreadySettled` if it was retried or given back before.
        """
        self._holder.delete(self._row, result)

    def renew(self) -> None:
        """Hold the job for another TTR from now. Durable when it returns; raises :class:`~kqueue.LeaseLost`."""
        self._holder.renew(self._row)

    # What was read of a job that ran before is not known of one in hand: here it is told.
    def progress(self, done: float, total: float, note: object = None) -> None:  # type: ignore[override]
        """Tell how far the job is: ``done`` of ``total``, and a note, any JSON value.

        It is written a second later with all that was told meanwhile, or with the end of the run if the job is kept
        then; never for a holder that lost its lease. ``queue.get_job(id).progress`` reads it. Raises ``ValueError``
        or ``TypeError`` for a ``total`` that is not above 0, a ``done`` that is not from 0 to ``total``, and a note
        that is no JSON or has over 16 KiB once encoded.
        """
        self._holder.progress(self._row, done, total, note)

    def log(self, text: str, *args: object) -> None:
        """Add a line to the job's log: ``text``, or ``text % args``. It may have line ends.

        Written as :meth:`progress` is; ``queue.job_log(id)`` reads it. The last 1,000 lines are kept, or those with
        64 KiB. Raises ``ValueError`` or ``TypeError`` for what cannot be formatted, and a line over 16 KiB.
        """
        self._holder.log(self._row, text, args)

    @property
    def lease_lost(self) -> bool:
        """Whether the job is not safely this handler's any more; a handler that sees True should stop.

        It is True for ever once another worker has taken the job; once it was deleted, retried or given up by
        someone else; once its renewer could not renew it until its lease was over; and once the run of this handler
        is over. Without ``auto_renew`` it is also True while its lease is over, until a :meth:`renew` that
        succeeds. It is False once the handler has settled the job by itself, unless that came too late.

        May be asked as often as one likes: it looks into the store at most once a second, and so may be a second
        late. Where the store cannot be asked, it says what is known.
        """
        return self._holder.lease_lost(self._row)

    @property
    def cancelled(self) -> bool:
        """Whether nobody wants the result any more: the job was deleted (``kqueue delete``, ``delete_job(id)``), or
        the handler has run for longer than its ``max_runtime``. Then :attr:`lease_lost` is True as well.

        A job that another worker has taken and finished is gone like one that was deleted. Asked and known as
        :attr:`lease_lost` is.
        """
        return self._holder.cancelled(self._row)

    def unget(self, priority: Priority | str | int | None = None, delay: float = 0) -> None:
        """Give the job back as if it had not run: no try is counted. ``delay`` in seconds.

        Raises as :meth:`delete` does.
        """
        self._holder.unget(self._row, priority, delay)

    def retry(self, reason: str, delay: float | None = None) -> None:
        """Run it again in ``delay`` seconds (by default as its retry policy says); dead if its tries are used up.

        Raises as :meth:`delete` does.
        """
        self._holder.retry(self._row, reason, delay)
