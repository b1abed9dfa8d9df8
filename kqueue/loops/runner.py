"""``run_jobs``: reserve, claim, settle the pointers, run the handlers, settle the rows.

    reserve pointers -> settle what has ended (delete / retry / unget, fenced) and claim rows, in one commit
                     -> settle pointers -> handlers

One Runner is one loop of one thread: it sweeps, reserves and waits; what it finds is its dispatcher's, in
:mod:`kqueue.loops.dispatcher`. What several loops of a process share stands in
:class:`kqueue.loops.registry.Registry`.
"""

import math
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing

from kqueue.contracts.broker import Subscription
from kqueue.contracts.budget import WORK_S
from kqueue.contracts.settlements import Outcome
from kqueue.dispatch.slots import ServedHandlers
from kqueue.execution.context import LoopContext
from kqueue.loops.claiming import Found
from kqueue.loops.dispatcher import Dispatcher
from kqueue.loops.isolation import LOOK_S
from kqueue.loops.registry import Registry
from kqueue.loops.stopping import LoopControls, LoopFailed, RunLimits, Stopping
from kqueue.model.errors import BrokerError, KQueueError, StoreError
from kqueue.model.handlers import Handler
from kqueue.model.reports import RunReport
from kqueue.model.retry import backoff
from kqueue.system.resources import are_short, named
from kqueue.system.wakeup import Wakeup, wait_readable
from kqueue.upkeep.maintenance import Maintenance
from kqueue.upkeep.pauses import holds_up
from kqueue.upkeep.sweep import Sweep, Sweeper

#: Seconds that an idle loop waits at most before it looks around.
IDLE_S = 15.0


class Runner:
    """One ``run_jobs``, or one loop of a ``work``."""

    def __init__(
        self,
        *,
        open: Callable[[], str],
        context: LoopContext,
        subscribe: Callable[[Sequence[str], bool], Subscription],
        sweeper: Sweeper,
        registry: Registry,
        maintenance: Maintenance,
        handlers: ServedHandlers,
        limits: RunLimits,
        dispatcher: Callable[[LoopControls], Dispatcher],
    ) -> None:
        """``open()`` opens what is not open, and returns what the names of the tubes begin with.
        ``subscribe(types, waits)`` returns what a loop that waits, or does not, reserves from. ``handlers`` are
        closed at the end of :meth:`run`. ``dispatcher`` makes the loop's.
        """
        self._open = open
        self._logger = context.logger
        self._tally = context.tally
        self._store = context.store
        self._outages = context.outages
        self._monotonic = context.clock.monotonic
        self._subscribe_to = subscribe
        self._sweeper = sweeper
        self._registry = registry
        self._maintenance = maintenance
        self._handlers = handlers
        self._waits = limits.wait
        self._stopping = Stopping(limits, self._monotonic, None if registry.max_jobs is None else registry.is_spent)
        self._wakeup = Wakeup()
        self._dispatcher = dispatcher(
            LoopControls(self._stopping, self._wakeup, self._ring_place, self.stop, self._turned)
        )
        #: What the subscription goes by: whose tubes there are, the handlers, and what is paused.
        self._tubes = ""
        self._served: Mapping[str, Handler] = {}
        self._paused: frozenset[str] = frozenset()
        self._subscription: Subscription | None = None
        #: Those of the subscription.
        self._types: frozenset[str] = frozenset()
        self._sweep: Sweep | None = None
        self._foreign = 0
        #: Jobs that its sweeps found dead.
        self._swept_dead = 0
        #: Turns in a row that failed for a store that is down.
        self._failures = 0
        #: See :class:`kqueue.loops.registry.Loop`.
        self.turns = 0
        self.thread = threading.get_ident()

    def _turned(self) -> None:
        self.turns += 1

    @property
    def count(self) -> int:
        """Jobs that were started."""
        return self._stopping.count

    def types(self) -> Collection[str]:
        """Those that it serves now. From any thread."""
        return self._handlers().keys()

    def stop(self) -> None:
        """End the loop after the current job. Safe in a signal handler."""
        self._stopping.stop()
        self._ring()

    def wake(self) -> None:
        """End a wait for jobs, to look for what is new. A loop that does not wait must not be told that nothing
        is ready.
        """
        if self._waits:
            self._ring()

    def _ring(self) -> None:
        self._wakeup.ring()
        subscription = self._subscription
        if subscription is not None:
            subscription.wake()

    def _ring_place(self) -> None:
        """A place that the dispatcher waits for has got free. From any thread."""
        self._wakeup.ring()
        subscription = self._subscription
        if subscription is not None:
            subscription.freed()

    def run(self) -> RunReport:
        """Loop until a limit, or nothing is ready, or :meth:`stop`."""
        self.thread = threading.get_ident()  # not where it was made: that may be another one
        try:
            if self._waits:
                self._maintenance.attend(self)
            with self._registry.running(self), closing(self._dispatcher):
                try:
                    self._loop()
                finally:
                    if self._sweep is not None:
                        self._sweeper.give_back(self._sweep)
                    self._unsubscribe()
        finally:
            # Where a signal handler has raised on the way out, something is still to be done.
            self._maintenance.loops.discard(self)
            try:
                self._registry.forget(self)
                self._dispatcher.close()
            finally:
                self._handlers.close()
                if self._waits:
                    self._maintenance.leave()
        return self._report()

    def _loop(self) -> None:
        while True:
            self.turns += 1
            try:
                tubes = self._open()
                self._dispatcher.settle_leftovers()
                self._maintenance.do_due()
                subscription = self._subscribe(tubes)
                if self._stopping.is_over() or not self._turn(subscription):
                    self._dispatcher.finish()
                    return
                self._failures = 0
            except LoopFailed:
                raise
            except (KQueueError, OSError) as caught:
                error = self._understood(caught)
                self._unsubscribe()
                stopped = self._stopping.is_stopped()
                if not self._waits or (stopped and self._dispatcher.has_leftovers()):
                    raise error  # noqa: B904 (it is the same, or has its cause)
                if stopped:
                    return
                self._stand_back(error)

    def _understood(self, error: KQueueError | OSError) -> KQueueError:
        """As an error of ours. Raises it if it is none that may pass, but one of a user's signal handler, say."""
        if isinstance(error, OSError):
            if not are_short(error):
                raise error
            return named(error)
        if isinstance(error, StoreError):
            self._outages.has_begun(self._store.address)
        return error

    def _turn(self, subscription: Subscription | None) -> bool:
        """A part of the sweep, and one window. False if nothing was ready and the loop is not to wait."""
        self._go_on_sweeping()
        if subscription is None:
            self._dispatcher.look_at_waiting()
            self._pause(min(self._patience(), self._dispatcher.seconds_to_fit()))
            return self._waits or self._sweep is not None
        isolation = self._registry.isolation
        if isolation.is_taken() and self._dispatcher.owes():
            self._dispatcher.settle()  # the suspect waits for that
        isolation.wait_until_free(self._stopping.is_over)
        if self._stopping.is_over():
            return True
        self._registry.deny_solitude()
        budget, to_fit = self._dispatcher.budget(self._types), self._dispatcher.seconds_to_fit()
        if budget is None:
            seconds = 0.0 if self._sweep is not None else min(self._seconds_to_look(), to_fit)
            self._pause(self._stopping.seconds_left(seconds))
            return True
        owes, fits = self._dispatcher.owes(), to_fit == math.inf
        patience = self._patience() if fits and not owes else 0.0
        reservation = subscription.reserve(budget.jobs, patience, budget.room if budget.parts else None)
        self._foreign += reservation.foreign
        if reservation.selection is None:
            if owes:
                self._dispatcher.settle()
            if not fits:
                self._pause(min(LOOK_S, to_fit))
            return owes or not fits or self._waits or self._sweep is not None or self._dispatcher.wait_for_more()
        self._dispatcher.take(Found(subscription, reservation, reservation.selection, budget))
        return True

    def _go_on_sweeping(self) -> None:
        """For as long as a window of jobs takes, so that a large repair and the jobs share the time."""
        if self._sweep is None:
            self._sweep = self._sweeper.begin_if_due()
        until = self._monotonic() + WORK_S
        while self._sweep is not None and not self._stopping.is_over():
            try:
                under_way = self._sweep.step()
            except BrokerError as error:
                self._logger.warning("sweep: %s", error)
                under_way = False
            if not under_way:
                swept = self._sweep.report()
                self._foreign += swept.foreign_pointers
                self._swept_dead += swept.dead
                self._sweep = None
            if self._monotonic() >= until:
                return

    def _patience(self) -> float:
        """Seconds to wait for a job."""
        if not self._waits or self._sweep is not None:
            return 0.0
        # Whole seconds, as beanstalkd counts them: to end a wait before its time costs a new connection.
        return self._stopping.seconds_left(float(math.ceil(self._seconds_to_look())))

    def _seconds_to_look(self) -> float:
        return min(IDLE_S, self._sweeper.seconds_to_look())

    def _stand_back(self, error: KQueueError) -> None:
        self._failures += 1
        seconds = backoff(self._failures)
        self._logger.warning("trying again in %.0f s: %s", seconds, error)
        self._pause(self._stopping.seconds_left(seconds))

    def _pause(self, seconds: float) -> None:
        """Sleep, unless :meth:`stop` or :meth:`wake` comes or came."""
        self.turns += 1
        wait_readable([self._wakeup], seconds)
        self._wakeup.answer()

    def _subscribe(self, tubes: str) -> Subscription | None:
        """The subscription to all types that have a handler now and are not paused; None without any. ``tubes``:
        what the names of their tubes begin with now.
        """
        handlers, paused = self._handlers(), self._maintenance.paused()
        is_served = (tubes, handlers, paused) == (self._tubes, self._served, self._paused)
        if not is_served or self._subscription is None:
            self._unsubscribe()
            self._tubes = tubes
            self._served, self._paused = handlers, paused
            types = sorted(type for type in handlers if not holds_up(paused, type))
            self._types = frozenset(types)
            self._subscription = self._subscribe_to(types, self._waits) if types else None
        return self._subscription

    def _unsubscribe(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            subscription.close()

    def _report(self) -> RunReport:
        tally = self._tally
        return RunReport(
            count=self._stopping.count,
            deleted=tally[Outcome.DELETED],
            retried=tally[Outcome.RETRIED],
            ungot=tally[Outcome.UNGOT],
            dead=tally[Outcome.DEAD] + self._swept_dead,
            lost_lease=tally[Outcome.LOST_LEASE],
            seconds=self._monotonic() - self._stopping.started,
            stale_pointers=self._dispatcher.stale,
            foreign_pointers=self._foreign,
            unknown=tally[Outcome.UNKNOWN],
        )
