"""One job while it is in hand, whoever runs its handler: a loop's own thread, or an event loop."""

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from kqueue.contracts.renewer import RenewalHold
from kqueue.contracts.runs import LeaseKey
from kqueue.contracts.settlements import Settlement
from kqueue.contracts.workers import HANGS_S
from kqueue.execution import endings
from kqueue.execution.context import LoopContext
from kqueue.execution.execute import Decision
from kqueue.execution.lease_check import LeaseCheck
from kqueue.execution.overtime import TimeLeft, time_left, unended
from kqueue.execution.reports import RunReports, checked_line, checked_progress
from kqueue.model.handlers import Handler, name_of
from kqueue.model.job import Priority, Row
from kqueue.model.retry import RetryPolicy


class Hold(Protocol):
    """Where a job in flight belongs. See :class:`kqueue.execution.inflight.InflightJobs`."""

    @property
    def context(self) -> LoopContext:
        """What it works with."""

    def now(self) -> float:
        """The store's time."""

    def is_here(self) -> bool:
        """Whether this is the loop's own process, and no child that a handler forked."""

    def check_process(self) -> None:
        """Raises ``KQueueError`` if it is such a child."""

    def is_running(self, job: "InflightJob") -> bool:
        """Whether its handler runs, also after its outcome."""

    def end(self, job: "InflightJob", settlement: Settlement, error: BaseException | None = None) -> None:
        """Write down how the run of ``job`` ends, whose handler has raised ``error``, if any. Raises
        ``AlreadySettled``, and where it is settled at once, ``LeaseLost`` and ``StoreError``.
        """

    def tell(self, job: "InflightJob", note: Callable[[RunReports], None]) -> None:
        """Have ``note`` note what the run of ``job`` tells of itself, unless that has ended."""

    def renew(self, job: "InflightJob") -> None:
        """Another TTR from now, durable when it returns. Raises ``LeaseLost``."""


class InflightJob:
    """Answers for one :class:`~kqueue.JobInHand`. What it is asked for, its hold writes."""

    # By the class: one is made for each run, and most runs change few of these.

    #: How its run ended, if it has. Under the lock of its hold.
    settlement: Settlement | None = None
    #: When its handler was called, in monotonic seconds.
    started_at = 0.0
    #: Whether it may start; what is claimed may have to wait for others to end.
    may_start = False
    #: Where its handler runs, if that is a thread of a dispatcher's, as :func:`threading.get_ident` has it.
    thread = -1
    #: Whether its start was told, so that its end is told with its seconds.
    is_told = False
    #: Whether its lease was found lost when its end was written, and whether that may have been done before.
    is_lost = False
    is_unknown = False
    #: Whether it was deleted by its id, by another than its handler.
    is_unwanted = False
    #: All that its handler was called with, itself too, where that takes a list of them.
    batch: "Sequence[InflightJob]" = ()
    #: Of the renewer that renews its lease, if its handler wants that.
    renewal: RenewalHold | None = None
    #: Seconds that its handler may run, where its lease follows it; None: without end.
    max_runtime: float | None = None
    #: Seconds beyond its lease, from which on it is to be told that its handler still runs.
    tell_late_at = HANGS_S
    #: How its run ends if it settles nothing itself, since its coroutine was cancelled; None if it was not.
    cut_decision: Decision | None = None
    _lease_check: LeaseCheck | None = None

    def __init__(self, row: Row, leased_at: float, hold: Hold) -> None:
        self.row = row
        #: When its lease began, as far as this process knows, in monotonic seconds.
        self.leased_at = leased_at
        self._hold = hold

    @classmethod
    def of_claim(cls, rows: Iterable[Row], leased_at: float, hold: Hold) -> "list[InflightJob]":
        """One for each of ``rows``, as by the class, but for the calls of that: one for each run."""
        made, new = [], cls.__new__
        for row in rows:
            job = new(cls)
            job.row, job.leased_at, job._hold = row, leased_at, hold
            made.append(job)
        return made

    @property
    def key(self) -> LeaseKey:
        """As ``renew`` of a store wants it."""
        return LeaseKey(self.row.id, self.row.fence, self.row.ttr)

    # -- its lease ---------------------------------------------------------------------------------------

    def follows(self) -> bool:
        """Whether its lease is renewed for as long as its handler runs. Not once it has its outcome."""
        return self.settlement is None and self.renewal is not None and self.renewal.renews(self.row.id)

    def lease_left(self, now: float) -> float:
        """Seconds that it still holds; below 0 once it is over. ``now`` in monotonic seconds."""
        if self.follows():
            return self.row.ttr
        stopped = math.inf if self.renewal is None else self.renewal.ended_at(self.row.id)
        return (stopped if self.leased_at <= stopped < math.inf else self.leased_at + self.row.ttr) - now

    def leased_since(self) -> float:
        """When it began, in monotonic seconds."""
        return self.leased_at

    def renewed(self, at: float) -> None:
        """The lease began anew ``at``, in monotonic seconds."""
        self.leased_at = at
        if self._lease_check is not None:
            self._lease_check.renewed(at)

    def keep_renewal(self, renewal: RenewalHold) -> None:
        """It is the one that renews its lease, as long as its handler runs."""
        self.renewal = renewal

    def let_go(self) -> None:
        """Its lease is not to be renewed any more."""
        if self.renewal is not None:
            self.renewal.let_go()

    # -- its coroutine's event loop's --------------------------------------------------------------------

    def time_left(self) -> TimeLeft:
        """What its coroutine still has, also after its outcome."""
        return time_left(
            self.row,
            self._hold.context.clock.monotonic(),
            leased_at=self.leased_at,
            started_at=self.started_at,
            max_runtime=self.max_runtime,
            follows=self.follows(),
        )

    def cut(self, decision: Decision) -> None:
        """Its coroutine is cancelled, since its time is over."""
        self.cut_decision = decision

    def cut_short(self) -> Decision | None:
        """How its run ends if it settles nothing itself; None if its coroutine was not cancelled."""
        return self.cut_decision

    def abandon(self) -> None:
        """Its coroutine has not ended, although it was cancelled, and is not waited for any more."""
        if self.cut_decision is not None:
            self.cut_decision = unended(self.cut_decision)
            text = "%s: it is abandoned, and what it still does with its job changes nothing"
            self._hold.context.telemetry.log(logging.WARNING, self.row, text, self.cut_decision.reason)

    # -- its run -----------------------------------------------------------------------------------------

    def tell_start(self, at: float | None = None) -> None:
        """Tell that its handler is about to be called, ``at`` by the store's clock. Raises an interrupt that comes
        meanwhile.
        """
        self.is_told = True
        self._hold.context.telemetry.started(self.row, at)

    def raised(self, error: BaseException) -> None:
        """Its handler raised ``error``."""
        if self._hold.is_here():
            self._hold.context.telemetry.raised(self.row, error)

    def is_settled(self) -> bool:
        """Whether its run has an outcome, or none is to be had here: the process is a forked child."""
        return self.settlement is not None or not self._hold.is_running(self) or not self._hold.is_here()

    def policy(self, row: Row) -> RetryPolicy:
        """The retry policy of the job."""
        return self._hold.context.policy(row)

    def deletes_on_success(self, row: Row) -> bool:
        """Whether jobs of its type are deleted when their handler returns."""
        return self._hold.context.options.of(row.type).delete_on_success

    def left_unsettled(self, handler: Handler) -> None:
        """Its handler has returned and settled nothing."""
        self._hold.context.telemetry.left_unsettled(self.row, name_of(handler.function))

    def end(self, row: Row, decision: Decision) -> None:
        """End the run as it was decided."""
        self._hold.end(self, self._hold.context.settlement(row, decision, self._hold.now), decision.error)

    # -- its handler's, through its JobInHand ------------------------------------------------------------

    def delete(self, row: Row, result: object = None) -> None:
        """The job is finished, with this result. Asked again after it could not be stored, it is tried again.
        Raises ``ValueError`` or ``TypeError`` for a result that cannot be kept, and then nothing has ended.
        """
        self._hold.end(self, self._hold.context.delete(row, self._hold.now, result))

    def retry(self, row: Row, reason: str, delay: float | None) -> None:
        """Again later, or dead if the tries are used up. ``delay`` in seconds; None: by the retry policy."""
        self.end(row, endings.again(reason, delay))

    def unget(self, row: Row, priority: Priority | str | int | None, delay: float) -> None:
        """Back unrun. ``delay`` in seconds."""
        self.end(row, endings.back(priority, delay))

    def renew(self, row: Row) -> None:
        """Another TTR from now. Waits for the store."""
        self._hold.renew(self)

    def progress(self, row: Row, done: float, total: float, note: object) -> None:
        """So far it is. Never waits. Raises ``ValueError`` or ``TypeError``."""
        progress = checked_progress(done, total, note, self._hold.now(), row.tries)
        self._hold.tell(self, lambda reports: reports.progressed(row, progress))

    def log(self, row: Row, text: str, args: tuple[object, ...]) -> None:
        """A line for its log. Never waits. Raises ``ValueError`` or ``TypeError``."""
        line, at = checked_line(text, args), self._hold.now()
        self._hold.tell(self, lambda reports: reports.logged(row, at, line))

    def lease_lost(self, row: Row) -> bool:
        """Whether the job is not safely ours any more. It may ask the store, once a second at most."""
        self._hold.check_process()
        if self.is_unwanted or not self._hold.is_running(self):
            return True
        return self.is_lost if self.settlement is not None else self._looks().lease_lost()

    def cancelled(self, row: Row) -> bool:
        """Whether nobody wants its result any more. It may ask the store, once a second at most."""
        self._hold.check_process()
        if self.settlement is not None or not self._hold.is_running(self):
            return self.is_unwanted
        return self._looks().cancelled()

    def _looks(self) -> LeaseCheck:
        if self._lease_check is None:
            context = self._hold.context
            self._lease_check = LeaseCheck(
                self.row, context.store, context.clock.monotonic, self.leased_at, self.renewal
            )
        return self._lease_check
