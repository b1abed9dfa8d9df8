"""The doorbell: puts pointers to rows, and keeps a broker that is down from costing more than a short wait.

To ring is never needed for a job to be safe, only for it to run soon. So a ring that fails is logged, once an
outage, and not tried again until a back-off has passed; meanwhile rows are written as having no pointer, and
the sweep puts them.
"""

import logging
import threading

from kqueue.broker import Broker
from kqueue.clock import Clock
from kqueue.errors import BrokerError, BrokerUnavailable
from kqueue.forks import PerProcess
from kqueue.locks import is_ours
from kqueue.outages import Outages
from kqueue.pointers import MAX_TUBE_DELAY_S, group
from kqueue.retry import backoff
from kqueue.store import Due


class Doorbell:
    """Puts pointers. Shared by threads."""

    def __init__(self, broker: Broker, clock: Clock, logger: logging.Logger, outages: Outages) -> None:
        self._broker = broker
        self._outages = outages
        self._clock = clock
        self._logger = logger
        self._turn = PerProcess(threading.RLock)
        self._failures = 0
        self._silent_until = -1.0

    def put_at(self, run_at: float, now: float) -> float | None:
        """What a row's own write says of its pointer: ``now`` if one is about to be put, else None."""
        if not self._broker.carries_pointers or run_at - now > MAX_TUBE_DELAY_S or self._is_silent():
            return None
        return now

    def ring(self, dues: list[Due], now: float) -> None:
        """Put those of ``dues`` whose ``put_at`` says so. Never raises for a broker that is down.

        Threads ring one after another, and look again when it is their turn: of many that find the broker
        silent at once, one waits for its answer and the others learn from it.
        """
        if self._broker.carries_pointers:
            dues = [due for due in dues if due.put_at is not None]
        turn = self._turn.get()
        if is_ours(turn):
            return  # a signal handler has added them in the midst of a ring: they are found in the store
        with turn:
            if self._is_silent():
                return
            try:
                self._put(dues, now)
            except BrokerError as error:
                if self._failures <= 1:
                    self._logger.warning("jobs stay in the store until the broker is back: %s", error)
                return
        self._tell(dues)  # out of the lock: an observer may add a job

    def put(self, dues: list[Due], now: float) -> None:
        """Put a pointer with its ``put_at`` to each of ``dues``, back-off or not. Raises ``BrokerError``."""
        self._put(dues, now)
        self._tell(dues)

    def _put(self, dues: list[Due], now: float) -> None:
        if not dues:
            return
        try:
            self._broker.put(group(dues, now))
        except BrokerUnavailable:
            self._failures += 1
            self._silent_until = self._clock.monotonic() + backoff(self._failures)
            self._outages.has_begun(self._broker.address)
            raise
        self._failures, self._silent_until = 0, -1.0

    def _tell(self, put: list[Due]) -> None:
        if put and self._broker.carries_pointers:
            self._outages.is_over(self._broker.address)

    def _is_silent(self) -> bool:
        return self._failures > 0 and self._clock.monotonic() < self._silent_until
