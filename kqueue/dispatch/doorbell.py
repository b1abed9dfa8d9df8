"""The doorbell: puts pointers to rows, and keeps a broker that is down from costing more than a short wait.

To ring is never needed for a job to be safe, only for it to run soon. So a ring that fails is logged, once an
outage, and not tried again until a back-off has passed; meanwhile rows are written as having no pointer, and
the sweep puts them. Whatever goes wrong, who rings is not told: what he has written is durable.
"""

import logging
from contextlib import suppress

from kqueue.contracts.broker import Broker
from kqueue.contracts.repair import Due
from kqueue.dispatch.pointers import MAX_TUBE_DELAY_S, group
from kqueue.dispatch.ringing import Ringing
from kqueue.model.errors import BrokerError, BrokerUnavailable
from kqueue.model.retry import backoff
from kqueue.system.clock import Clock
from kqueue.system.forks import PerProcess
from kqueue.telemetry.outages import Outages


class Doorbell:
    """Puts pointers. Shared by threads."""

    def __init__(self, broker: Broker, clock: Clock, logger: logging.Logger, outages: Outages) -> None:
        self._broker = broker
        self._outages = outages
        self._clock = clock
        self._logger = logger
        self._ringing = PerProcess(lambda: Ringing(self._put_or_complain, clock.monotonic))
        self._failures = 0
        self._silent_until = -1.0

    def put_at(self, run_at: float, now: float) -> float | None:
        """What a row's own write says of its pointer: ``now`` if one is about to be put, else None."""
        if not self._broker.carries_pointers or run_at - now > MAX_TUBE_DELAY_S:
            return None
        return None if self._is_silent() or self._ringing.get().is_full() else now

    def ring(self, dues: list[Due], now: float) -> None:
        """Put those of ``dues`` whose ``put_at`` says so. Raises nothing but what is no ``Exception``: a
        ``KeyboardInterrupt`` and its like.

        Threads that ring at once put for each other: of many that find the broker silent, one waits for its answer.
        """
        try:
            if self._broker.carries_pointers:
                dues = [due for due in dues if due.put_at is not None]
            if dues and not self._is_silent() and self._ringing.get().ring(dues, now):
                self._tell()  # without the turn: an observer may add a job
        except Exception as error:
            self._complain(error)

    def put(self, dues: list[Due], now: float) -> None:
        """Put a pointer with its ``put_at`` to each of ``dues``, back-off or not. Raises ``BrokerError``."""
        if dues:
            self._put(dues, now)
            self._tell()

    def _put_or_complain(self, dues: list[Due], now: float) -> bool:
        """Whether it went well."""
        if self._is_silent():
            return False
        try:
            self._put(dues, now)
        except Exception as error:
            if self._failures <= 1:
                self._complain(error)
            return False
        return True

    def _put(self, dues: list[Due], now: float) -> None:
        try:
            self._broker.put(group(dues, now))
        except Exception as error:
            if isinstance(error, BrokerUnavailable) or not isinstance(error, BrokerError):
                self._failures += 1
                self._silent_until = self._clock.monotonic() + backoff(self._failures)
                self._outages.has_begun(self._broker.address)
            raise
        self._failures, self._silent_until = 0, -1.0

    def _complain(self, error: Exception) -> None:
        """In the log, which may fail too."""
        known = isinstance(error, BrokerError)
        said = error if known else f"{type(error).__name__}: {error}"
        with suppress(Exception):
            self._logger.warning(
                "jobs stay in the store until the broker is back: %s", said, exc_info=None if known else error
            )

    def _tell(self) -> None:
        if self._broker.carries_pointers:
            self._outages.is_over(self._broker.address)

    def _is_silent(self) -> bool:
        return self._failures > 0 and self._clock.monotonic() < self._silent_until
