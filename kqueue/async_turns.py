"""The turns of a loop of coroutines: claim rows as places get free, settle the pointers, start the coroutines.

It goes on where :mod:`kqueue.turns` would wait for the window to end: a claim holds up to as many jobs as there are
free places, and what :mod:`kqueue.flights` has in hand ends in its own time. Everything that asks a store or a
broker is done by the loop's thread or the watchdog's, and nothing by the event loop's.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING

from kqueue.bell import wait_readable
from kqueue.broker import Reservation, Subscription
from kqueue.claims import claim_rows, give_back_claim, leased_at, look_after, post_verdicts, release
from kqueue.coroutine_runs import CoroutineRuns
from kqueue.crew import Crew
from kqueue.ending import Reins
from kqueue.errors import KQueueError
from kqueue.flight import Flight
from kqueue.flights import Flights
from kqueue.following import Following
from kqueue.handlers import Handler
from kqueue.ids import IdMint
from kqueue.overtime import MOST_ABANDONED
from kqueue.pointers import judge, stale
from kqueue.quarantine import LOOK_S, SOLITUDE_S
from kqueue.settling import Desk
from kqueue.store import Selection
from kqueue.turns import ASIDE_S
from kqueue.watchdog import Watchdog
from kqueue.window import MAX_JOBS, Limits

if TYPE_CHECKING:
    from kqueue.loop_thread import LoopThread

#: Seconds between two looks at the limits while a landing is awaited, which wakes its loop by itself.
IDLE_S = 1.0
#: Seconds between two looks for more, in a loop that ends when nothing is ready, while coroutines run.
DRAIN_LOOK_S = 0.1
#: The part of its lease that a suspect waits for others to land. With half of it gone it would not start any more.
WAITING_PART = 0.4


class AsyncTurns:
    """Those of one loop. Its jobs are of one type."""

    def __init__(
        self,
        desk: Desk,
        crew: Crew,
        handlers: Callable[[], Mapping[str, Handler]],
        mint: IdMint,
        reins: Reins,
        *,
        following: Following,
        loop: "LoopThread",
    ) -> None:
        """``handlers()`` is that of the type, or empty."""
        self._desk = desk
        self._store = desk.store
        self._logger = desk.logger
        self._monotonic = desk.clock.monotonic
        self._crew = crew
        self._handlers = handlers
        self._mint = mint
        self._following = following
        self._loop = loop
        self._ending = reins.ending
        self._bell = reins.bell
        self._stop = reins.stop
        self._turned = reins.turned
        self._watchdog = Watchdog(desk.clock, desk.logger)
        self._flights = Flights(
            desk,
            is_loop_thread=loop.is_here,
            awake=self._awake,
            ring=self._ring,
            keeps_loop=self._keeps_loop,
            late=self._late,
        )
        self._runs = CoroutineRuns(desk, crew, loop, self._flights, self._interrupt_with)
        #: Those of its jobs when it began to look for more.
        self._writes = 0
        #: What a handler raised to end the loop.
        self._interrupt: BaseException | None = None
        #: Pointers that had no row to claim at all.
        self.stale = 0

    # -- see kqueue.turns --------------------------------------------------------------------------------

    def limits(self) -> Limits | None:
        """What the next claim may hold; None if all places are taken. The loop's bell rings when one gets free.

        Raises ``KQueueError`` if the event loop has failed.
        """
        self._loop.check()
        self._writes = self._flights.writes()
        self._flights.read_clock()
        concurrency = max((handler.concurrency for handler in self._handlers().values()), default=0)
        if len(self._crew.abandoned) >= MOST_ABANDONED:
            concurrency = 0
        places = self._flights.places(concurrency)
        left = [number for number in (self._ending.jobs_left(), self._crew.share()) if number is not None]
        jobs = min([places, MAX_JOBS, *left])
        # What a coroutine does most is to wait, so a claim is bounded by the places and not by expected work.
        return Limits(jobs, job_s=dict.fromkeys(self._handlers(), 0.0)) if jobs > 0 else None

    def has_leftovers(self) -> bool:
        """Whether something could not be settled. What is still in the air is none."""
        return self._flights.is_failing()

    def settle_leftovers(self) -> None:
        """What a store that was down could not take before. Raises ``StoreError``."""
        if self._flights.is_failing():
            self._flights.settle()

    def deny_solitude(self) -> None:
        """See :meth:`kqueue.crew.Crew.deny_solitude`."""
        self._crew.deny_solitude()

    def take(self, subscription: Subscription, reservation: Reservation, limits: Limits) -> None:
        """Claim what was reserved and start it, or give it back if a suspect of another loop is aside."""
        with ExitStack() as window:
            if not window.enter_context(self._crew.quarantine.window()):
                post_verdicts(subscription, release(reservation), self._logger)
            elif reservation.selection is not None:
                try:
                    self._claim(subscription, reservation, reservation.selection, limits)
                except BaseException:
                    self._flights.give_back()
                    raise
                finally:
                    self._flights.keep(window)

    def wait_for_more(self) -> bool:
        """Wait for a moment while anything is in hand; False, at once, if nothing is. What it added, or itself, may
        be ready then. Raises ``StoreError``.
        """
        if self._flights.in_the_air():
            self._pause(self._ending.seconds_left(DRAIN_LOOK_S))
            return True
        if not self._flights.is_written():
            self._flights.settle()
        # What the watchdog has written since the tube was found empty may have come back too.
        self._flights.await_rings()
        return self._flights.writes() != self._writes

    def land(self) -> None:
        """Start nothing more, wait until all in the air has ended, and settle it. Raises ``StoreError``, and what a
        handler raised to end the loop.
        """
        self._flights.give_back()
        while self._flights.in_the_air():
            self._pause(IDLE_S)
        interrupt, self._interrupt = self._interrupt, None
        try:
            self._flights.settle()
            self._flights.await_rings()
        except KQueueError as error:
            if interrupt is None:
                raise
            self._logger.warning("not settled: %s", error)
        if interrupt is not None:
            raise interrupt

    def close(self) -> None:
        """End the watchdog, and let go of what could not be settled."""
        try:
            self.land()
        except KQueueError as error:
            self._logger.warning("not settled: %s", error)
        finally:
            self._crew.let_go(self._flights)
            self._watchdog.close()

    # -- the loop's thread -------------------------------------------------------------------------------

    def _claim(
        self, subscription: Subscription, reservation: Reservation, selection: Selection, limits: Limits
    ) -> None:
        self._flights.thread = self._loop.thread
        self._crew.hold(self._flights)
        owner = self._mint.make(1)[0]
        try:
            claim, now = claim_rows(selection, limits, owner, self._desk, alone=False)
            rows = claim.rows
            most = self._flights.claim(rows, leased_at(rows, self._desk)) if rows else 0
        except BaseException:
            self._give_back_claim(owner)
            raise
        verdicts = judge(reservation.entries, claim, now)
        self.stale += stale(verdicts, claim)
        post_verdicts(subscription, verdicts, self._logger)
        look_after(claim, selection, self._desk)
        if rows:
            self._watchdog.watch(self._flights, alone=len(rows) == 1)
            self._start(most, min(row.ttr for row in rows))

    def _give_back_claim(self, owner: str) -> None:
        """A store that is down must not hide the error that led here."""
        try:
            give_back_claim(owner, self._desk)
        except KQueueError as failure:
            self._logger.warning("not settled yet: %s", failure)

    def _start(self, most: float, ttr: float) -> None:
        """Start what is claimed, once no more than ``most`` are in the air with it."""
        until = self._monotonic() + min(SOLITUDE_S, WAITING_PART * ttr)
        while not self._flights.fits(most) and self._monotonic() < until and not self._ending.is_stopped():
            self._pause(min(IDLE_S, until - self._monotonic()))
        if not self._flights.fits(most):
            self._flights.give_back(0.0 if self._ending.is_stopped() else self._crew.quarantine.again_in())
        elif most == 1:
            self._start_aside()
        else:
            self._flights.renew_late()
            self._board()

    def _start_aside(self) -> None:
        """Start the suspect that is claimed, and wait for its end as long as others wait for it."""
        quarantine = self._crew.quarantine
        if not self._flights.is_written():
            self._flights.settle()
        with quarantine.aside(ASIDE_S) as isolated:
            if not isolated:
                self._flights.give_back(quarantine.again_in())
                return
            self._flights.mark_alone()
            self._board()
            while self._flights.are_under_way() and not quarantine.has_expired():
                self._pause(LOOK_S)
            self._flights.deny_solitude()
            self._flights.settle()

    def _board(self) -> None:
        for flight in self._flights.claimed():
            flight.grip = self._following.hold([flight.row], self._handlers(), flight.leased_since)
        self._flights.board()
        self._loop.call(self._take_off)

    def _pause(self, seconds: float) -> None:
        self._turned()
        wait_readable([self._bell], seconds)
        self._bell.answer()

    # -- the event loop's thread -------------------------------------------------------------------------

    def _take_off(self) -> None:
        handlers, heard = self._handlers(), self._desk.telling.is_heard()
        for flight in self._flights.take_off(not handlers or self._ending.is_stopped()):
            self._ending.count += 1
            if heard:
                self._desk.telling.started(flight.row, self._flights.now())
            handler = handlers[flight.row.type]
            if flight.grip is not None:
                flight.grip.start(flight.row.id, flight.started_at)
                flight.max_runtime = handler.max_runtime
            self._runs.start(handler, flight)

    def _ring(self) -> None:
        if self._loop.is_here():
            # Not at once: several may be about to land, and one claim for all costs as much as one for each.
            self._loop.call_last(self._bell.ring)
        else:
            self._bell.ring()

    # -- from any thread ---------------------------------------------------------------------------------

    def _keeps_loop(self, flight: Flight) -> bool | None:
        return self._runs.keeps_loop(flight)

    def _late(self, flights: list[Flight]) -> None:
        self._runs.late(flights)

    def _interrupt_with(self, interrupt: BaseException) -> None:
        self._interrupt = interrupt
        self._stop()

    def _awake(self) -> None:
        self._watchdog.watch(self._flights, alone=False)
