"""The coroutines of a loop: started, and landed once each, however they end or do not.

What a handler cannot prevent: a task that is cancelled before its first step, a task factory that fails, an event
loop that fails. What it may do: not end when it is cancelled, or keep the event loop. In each case its job is ended
and its place is free. See :mod:`kqueue.overtime`.
"""

import logging
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from kqueue.crew import Abandoned, Crew
from kqueue.errors import KQueueError
from kqueue.execution import Outcome, Wish, execute_async
from kqueue.flight import Flight
from kqueue.flights import Flights
from kqueue.handlers import Handler
from kqueue.job import JobInHand
from kqueue.overtime import MOST_ABANDONED, TimeLeft, kept_waiting, unended
from kqueue.reasons import describe
from kqueue.settling import Desk

if TYPE_CHECKING:
    from kqueue.loop_thread import LoopThread

#: Seconds after which a coroutine whose code still runs counts as one that keeps its event loop.
SECOND_LOOK_S = 0.01
#: Seconds that the event loop has to come to one that it should have cancelled, where nobody is known to keep it.
LATE_S = 2.0


class CoroutineRuns:
    """Those of one loop."""

    def __init__(
        self, desk: Desk, crew: Crew, loop: "LoopThread", flights: Flights, end: Callable[[BaseException], None]
    ) -> None:
        """``end(interrupt)`` ends the loop, and has ``interrupt`` raised there."""
        self._telling = desk.telling
        self._logger = desk.logger
        self._crew = crew
        self._loop = loop
        self._flights = flights
        self._end = end

    def start(self, handler: Handler, flight: Flight) -> None:
        """In the event loop's thread."""
        self._loop.spawn(self._run(handler, flight), _Run(self, flight))

    async def _run(self, handler: Handler, flight: Flight) -> None:
        interrupt: BaseException | None = None
        try:
            interrupt = await execute_async(handler, JobInHand(flight.row, flight), flight)
        finally:
            if not self._flights.is_here():
                _end_child(interrupt)  # it has a copy of every coroutine, and may run none
        if interrupt is not None:
            self._end(interrupt)

    def landed(self, flight: Flight, error: BaseException | None) -> None:
        """Its coroutine is over. ``error``: what came out of it, which nothing of a handler's should."""
        if not self._flights.is_here():
            return
        if isinstance(error, KeyboardInterrupt | SystemExit):
            self._end(error)
        elif error is not None and not flight.is_settled():
            with suppress(KQueueError):
                flight.end(flight.row, _wish_of(error))
        one = Abandoned(flight.row.id, flight.row.type, flight.row.fence)
        if not self._flights.land(flight) and one in self._crew.abandoned:
            self._crew.abandoned.discard(one)
            self._telling.log(logging.INFO, flight.row, "its coroutine, which was abandoned, has ended")

    def abandon(self, flight: Flight, wish: Wish) -> None:
        """Its coroutine has had its time and goes on: end its run as it is wished, and free its place."""
        if not self._flights.is_here():
            return
        with suppress(KQueueError):  # it has its outcome, or has just landed
            flight.end(flight.row, wish)
        one = Abandoned(flight.row.id, flight.row.type, flight.row.fence)
        self._crew.abandoned.add(one)  # first: it may land meanwhile
        if not self._flights.land(flight):
            self._crew.abandoned.discard(one)
            return
        text = "%s: it is abandoned; its place is free, and what it still does with its job changes nothing"
        self._telling.log(logging.WARNING, flight.row, text, wish.reason)
        if len(self._crew.abandoned) == MOST_ABANDONED:
            self._logger.error(
                "%d coroutines that were cancelled have not ended: this process takes no more jobs of coroutines"
                " until some have",
                MOST_ABANDONED,
            )

    def late(self, flights: list[Flight]) -> None:
        """They should have been cancelled, and the event loop does not come to it. In the watchdog's thread."""
        keeper = self._loop.keeper()
        time.sleep(SECOND_LOOK_S)
        if isinstance(keeper, _Run) and self._loop.keeper() is keeper:
            for one in flights:
                self.abandon(one, kept_waiting(one.row, keeper.flight is one))
            return
        for one in flights:  # the machine may be slow, and the event loop about to come to it
            if one.time_left().seconds < -LATE_S:
                self.abandon(one, kept_waiting(one.row, None))

    def keeps_loop(self, flight: Flight) -> bool | None:
        """Whether it is this one's own code that the event loop runs now; None if it is not known whose."""
        keeper = self._loop.keeper()
        return keeper.flight is flight if isinstance(keeper, _Run) else None


class _Run:
    """A :class:`kqueue.loop_thread.Spawned`."""

    __slots__ = ("_runs", "flight")

    def __init__(self, runs: CoroutineRuns, flight: Flight) -> None:
        self._runs = runs
        self.flight = flight

    def time_left(self) -> TimeLeft:
        return self.flight.time_left()

    def cut(self, wish: Wish) -> None:
        self.flight.cut(wish)

    def abandon(self) -> None:
        wish = self.flight.cut_short()
        if wish is not None:
            self._runs.abandon(self.flight, unended(wish))

    def landed(self, error: BaseException | None) -> None:
        self._runs.landed(self.flight, error)


def _wish_of(error: BaseException) -> Wish:
    """Of a run that came to no end of its own: its start failed, or the event loop did, for no fault of the job."""
    if isinstance(error, KQueueError):
        return Wish(Outcome.UNGOT, str(error), seconds=0.0)
    return Wish(Outcome.RETRIED, describe(error), error=error)


def _end_child(interrupt: BaseException | None) -> None:
    """End a child that a handler forked, with the status that it asked for by ``sys.exit``."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    code = interrupt.code if isinstance(interrupt, SystemExit) else 0
    os._exit(code if isinstance(code, int) else int(code is not None))
