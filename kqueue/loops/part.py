"""One part of what a dispatcher serves: types that share their places, and the hands that run them."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from kqueue.contracts.budget import MAX_JOBS, SOLITUDE_S, WORK_S, Budget
from kqueue.execution.auto_renew import AutoRenew
from kqueue.execution.concurrent_jobs import ConcurrentJobs, Whole
from kqueue.execution.context import LoopContext
from kqueue.execution.inflight import BOUND_S, RunIn
from kqueue.execution.inflight_job import InflightJob
from kqueue.loops.registry import Registry
from kqueue.loops.sizer import Sizer
from kqueue.loops.stopping import LoopControls
from kqueue.model.handlers import Handler, HandlersNow

#: Seconds that a suspect waits for other loops to end their windows, and they for it: as long as windows of
#: fast jobs take. A loop that is busy for longer is not waited for.
ASIDE_S = 2.5 * BOUND_S
#: The part of its lease that a suspect waits for others to end. With half of it gone it would not start any more.
WAITING_PART = 0.4


class Hands(Protocol):
    """What runs the handlers of one part of a dispatcher."""

    @property
    def thread(self) -> int:
        """Where handlers run, as :func:`threading.get_ident` has it; -1 where each has its own."""

    def open(self) -> None:
        """Be there. Called at each turn. Raises ``LoopFailed`` if they cannot run anything any more, and
        ``OSError`` where the system has no more threads.
        """

    def number(self) -> int:
        """How many handlers may run at once, now."""

    def free(self) -> int:
        """How many places there are for another one, now."""

    def renew(self, jobs: list[InflightJob]) -> None:
        """Have the leases of those that are about to start renewed while they run, where their types want it."""

    def start(self) -> None:
        """Start what has boarded. Hands that are the dispatcher's own thread run it to its end, and raise what a
        handler raised to end the loop.
        """

    def ring(self) -> None:
        """Wake the dispatcher's thread. From any thread."""

    def keeps_loop(self, job: InflightJob) -> bool | None:
        """Whether it is this one's code that keeps :attr:`thread`; None if it is not known whose."""

    def late(self, jobs: list[InflightJob]) -> None:
        """They should have been cancelled, and the event loop does not come to them."""

    def rest(self) -> None:
        """The dispatcher's thread has left :meth:`start`, perhaps by an interrupt."""

    def close(self) -> None:
        """Nothing runs any more, and nothing will."""


class HandsParts(NamedTuple):
    """What hands work with."""

    context: LoopContext
    registry: Registry
    #: Those of the part, by type. The mapping is replaced when it changes.
    handlers: HandlersNow
    jobs: ConcurrentJobs
    controls: LoopControls
    #: Ends the dispatcher, which then raises it.
    interrupt: Callable[[BaseException], None]
    auto_renew: AutoRenew
    #: How many of a bounded type may run at once here, or of those without a bound.
    number: Callable[[str | None], int]


class PartPlan(NamedTuple):
    """How a part is made."""

    #: Which handlers are its own; None: all.
    belongs: Callable[[str, Handler], bool] | None
    #: Makes what runs them.
    hands: Callable[[HandsParts], Hands]
    #: Where they run.
    run_in: RunIn


class Fit(NamedTuple):
    """When those may start that are claimed beside what runs."""

    #: So many may run with them.
    most: float
    #: Whether they go back where they do not fit in time.
    must_fit: bool
    #: For how long that is awaited, in monotonic seconds.
    until: float


class DispatcherPart:
    """See the module's text. For the dispatcher's thread."""

    def __init__(self, context: LoopContext, handlers: HandlersNow, whole: Whole, run_in: RunIn) -> None:
        """:attr:`hands` is to be set before anything else."""
        self.handlers = handlers
        self._context = context
        self._monotonic = context.clock.monotonic
        self.is_own = run_in is RunIn.OWN_THREAD
        self._sizer = Sizer(context.telemetry.counters.measured(handlers()))
        self.concurrent = ConcurrentJobs(
            whole,
            ring=self._ring,
            keeps_loop=self._keeps_loop,
            late=self._late,
            run_in=run_in,
        )
        self.jobs = self.concurrent.jobs
        self.hands: Hands
        #: The handlers as they were at the last look, and of those with batches how many jobs these take.
        self._seen: tuple[Mapping[str, Handler], Mapping[str, int]] = ({}, {})
        #: What those that are claimed and do not start yet wait for.
        self.fit: Fit | None = None
        #: (hands, jobs that may follow one that runs), as of the last claim.
        self.share = (1, 0)
        #: What was asked for the last budget, and it, while nothing is in hand.
        self._idle: tuple[Mapping[str, Handler], int, float, Budget] | None = None

    def budget(self, most: int, seconds_left: float) -> Budget | None:
        """What the next claim may hold of its types, ``most`` jobs of them; None if all its places are taken: then
        the dispatcher's thread is rung when one gets free.
        """
        handlers, number = self.handlers(), self.hands.number()
        idle, seconds = self._idle, min(WORK_S, seconds_left)
        is_same = idle is not None and idle[:3] == (handlers, number, seconds) and idle[3].jobs <= most
        if idle is not None and is_same and self.concurrent.is_idle():
            return idle[3]
        self._idle = None
        self._sizer.observe(self.concurrent.spent())
        is_idle = self.concurrent.is_idle()
        batches = self._batches(handlers)
        width = max(batches.values(), default=1)
        # Whole batches wait, so that none is called with what is left of one.
        ahead = -(-self._sizer.ahead(number, self.is_own) // width) * width
        places = self.concurrent.places(number, ahead, self.hands.free(), width)
        # Who does not know yet how long jobs take would hold back at their limits what may follow at once.
        first = 1 if self._sizer.is_new() and self._context.limiter.of(handlers) else MAX_JOBS
        jobs = min(places, first, most)
        if jobs <= 0 or self.fit is not None:
            return None
        self.share = number * width, self._sizer.follow()
        # A place that is taken by a batch has had its share.
        free = number if width == 1 else max(1, number - self.jobs.calls())
        budget = self._sizer.shared(jobs, free, handlers, seconds_left, batches)
        if is_idle and jobs < most:
            self._idle = handlers, number, seconds, budget
        return budget

    def _batches(self, handlers: Mapping[str, Handler]) -> Mapping[str, int]:
        """Of those types whose handlers take several jobs in one call, how many."""
        seen, batches = self._seen
        if handlers is not seen:
            batches = {type: handler.batch for type, handler in handlers.items() if handler.batch is not None}
            self._seen = handlers, batches
        return batches

    def claimed(self, seconds: float) -> None:
        """A claim took so long, and the wait for the store with it."""
        self._sizer.claimed(seconds)

    def most(self) -> float:
        """How many may run together with those that are claimed."""
        return math.inf if self.fit is None else self.fit.most

    def look_for_fit(self) -> int:
        """See when those may start that are claimed and not about to. Returns how many."""
        unboarded = self.unboarded()
        if not unboarded:
            return 0
        # One that was alone when its worker died, which may have been the power, is not to wait for ever.
        most = self.concurrent.most_beside()
        must_fit = most < math.inf and any(job.row.suspicion for job in unboarded)
        ttr = min(job.row.ttr for job in unboarded) if must_fit else math.inf
        seconds = min(SOLITUDE_S, WAITING_PART * ttr) if must_fit else ASIDE_S
        self.fit = Fit(most, must_fit, self._monotonic() + seconds)
        return len(unboarded)

    def unboarded(self) -> list[InflightJob]:
        """Those that are claimed and not about to start."""
        with self.jobs.lock:
            return [one for one in self.jobs.unstarted if not one.may_start]

    def holds(self, owner: str) -> bool:
        """Whether anything is in hand that was claimed for ``owner``, and has not started."""
        with self.jobs.lock:
            return any(one.row.lease_owner == owner for one in self.jobs.unstarted)

    def board(self) -> None:
        """Start what is claimed. Raises what a handler raised to end the loop, if it ran in this thread."""
        unboarded = self.unboarded()
        if unboarded:
            self.hands.renew(unboarded)
        self.concurrent.board()
        self.hands.start()

    # -- from any thread ---------------------------------------------------------------------------------

    def _ring(self) -> None:
        self.hands.ring()

    def _keeps_loop(self, job: InflightJob) -> bool | None:
        return self.hands.keeps_loop(job)

    def _late(self, jobs: list[InflightJob]) -> None:
        self.hands.late(jobs)
