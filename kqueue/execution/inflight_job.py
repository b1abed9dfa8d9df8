"""One job of a loop of coroutines while it is in hand."""

from typing import Protocol

from kqueue.contracts.renewer import RenewalHold
from kqueue.contracts.runs import LeaseKey
from kqueue.contracts.settlements import Settlement
from kqueue.execution import endings
from kqueue.execution.context import LoopContext
from kqueue.execution.execute import Decision
from kqueue.execution.lease_check import LeaseCheck
from kqueue.execution.overtime import TimeLeft, time_left
from kqueue.model.job import Priority, Row
from kqueue.model.retry import RetryPolicy


class Landing(Protocol):
    """Where a job in flight belongs. See :class:`kqueue.execution.inflight.InflightJobs`."""

    @property
    def context(self) -> LoopContext:
        """What it works with."""

    def now(self) -> float:
        """The store's time. Never waits."""

    def is_here(self) -> bool:
        """Whether this is the loop's own process, and no child that a handler forked."""

    def is_over(self, job: "InflightJob") -> bool:
        """Whether its run is over, or was not ours any more when it ended."""

    def end(self, job: "InflightJob", settlement: Settlement) -> None:
        """Write down how the run of ``job`` ends. Raises ``AlreadySettled``. Never waits."""

    def renew(self, job: "InflightJob") -> None:
        """Another TTR from now, durable when it returns. Raises ``LeaseLost``."""


class InflightJob:
    """Answers for one :class:`~kqueue.JobInHand`. What it is asked for, its owner writes."""

    __slots__ = (
        "_cut",
        "_lease_check",
        "_owner",
        "is_lost",
        "leased_at",
        "max_runtime",
        "renewal",
        "row",
        "settlement",
        "started_at",
    )

    def __init__(self, row: Row, leased_at: float, owner: Landing) -> None:
        self.row = row
        #: When its lease began, in monotonic seconds.
        self.leased_at = leased_at
        #: How its run ended, if it has. Under the lock of its owner.
        self.settlement: Settlement | None = None
        #: When its coroutine was started, in monotonic seconds.
        self.started_at = 0.0
        #: Whether its lease was found lost when its end was written. Under the lock of its owner.
        self.is_lost = False
        #: Of the renewer that renews its lease, if its handler wants that.
        self.renewal: RenewalHold | None = None
        #: Seconds that its coroutine may run, where its lease follows it; None: without end.
        self.max_runtime: float | None = None
        self._cut: Decision | None = None
        self._lease_check: LeaseCheck | None = None
        self._owner = owner

    @property
    def held(self) -> LeaseKey:
        """As ``renew`` of a store wants it."""
        return LeaseKey(self.row.id, self.row.fence, self.row.ttr)

    def leased_since(self) -> float:
        """When its lease began, in monotonic seconds."""
        return self.leased_at

    def is_settled(self) -> bool:
        """Whether its run has an outcome, or none is to be had here: the process is a forked child."""
        return self.settlement is not None or not self._owner.is_here()

    def follows(self) -> bool:
        """Whether its lease is renewed for as long as its coroutine runs. Not once it has its outcome."""
        return self.settlement is None and self.renewal is not None and self.renewal.renews(self.row.id)

    def time_left(self) -> TimeLeft:
        """What its coroutine still has, also after its outcome."""
        return time_left(
            self.row,
            self._owner.context.clock.monotonic(),
            leased_at=self.leased_at,
            started_at=self.started_at,
            max_runtime=self.max_runtime,
            follows=self.follows(),
        )

    def cut(self, decision: Decision) -> None:
        """Its coroutine is cancelled, since its time is over."""
        self._cut = decision

    def cut_short(self) -> Decision | None:
        """How its run ends if it settles nothing itself; None if its coroutine was not cancelled."""
        return self._cut

    def delete(self, row: Row) -> None:
        """The job is finished. A second time changes nothing."""
        self._owner.end(self, self._owner.context.delete(row, self._owner.now))

    def retry(self, row: Row, reason: str, delay: float | None) -> None:
        """Again later, or dead if the tries are used up. ``delay`` in seconds; None: by the retry policy."""
        self.end(row, endings.again(reason, delay))

    def unget(self, row: Row, priority: Priority | str | int | None, delay: float) -> None:
        """Back unrun. ``delay`` in seconds."""
        self.end(row, endings.back(priority, delay))

    def policy(self, row: Row) -> RetryPolicy:
        """The retry policy of the job's type."""
        return self._owner.context.options.of(row.type).retry

    def end(self, row: Row, decision: Decision) -> None:
        """End the run as it was decided."""
        self._owner.end(self, self._owner.context.settlement(row, decision, self._owner.now))

    def raised(self, error: BaseException) -> None:
        """Its coroutine raised ``error``."""
        if self._owner.is_here():
            self._owner.context.telemetry.raised(self.row, error)

    def lease_lost(self, row: Row) -> bool:
        """Whether the job is not safely ours any more. It may ask the store, once a second at most."""
        if self.settlement is not None or not self._owner.is_here():
            return self._owner.is_over(self)
        return self._looks().lease_lost()

    def cancelled(self, row: Row) -> bool:
        """Whether nobody wants its result any more. It may ask the store, once a second at most."""
        return self.settlement is None and self._owner.is_here() and self._looks().cancelled()

    def renewed(self, at: float) -> None:
        """The lease began anew ``at``, in monotonic seconds."""
        self.leased_at = at
        if self._lease_check is not None:
            self._lease_check.renewed(at)

    def let_go(self) -> None:
        """Its lease is not to be renewed any more."""
        if self.renewal is not None:
            self.renewal.let_go()

    def _looks(self) -> LeaseCheck:
        if self._lease_check is None:
            context = self._owner.context
            self._lease_check = LeaseCheck(
                self.row, context.store, context.clock.monotonic, self.leased_at, self.renewal
            )
        return self._lease_check

    def renew(self, row: Row) -> None:
        """Another TTR from now. Waits for the store."""
        self._owner.renew(self)
