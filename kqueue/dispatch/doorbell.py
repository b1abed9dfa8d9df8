"""The doorbell: puts pointers to rows, and keeps a broker that is down from costing anything but pick-up time.

To ring is never needed for a job to be safe, only for it to run soon. So nobody waits for a ring
(:mod:`kqueue.dispatch.ringing`). One that fails is logged, once an outage, and not tried again until a back-off has
passed; meanwhile rows are written as having no pointer, and the sweep puts them. Whatever goes wrong, who rings is
not told: what he has written is durable.
"""

import logging
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice

from kqueue.contracts.broker import Broker
from kqueue.contracts.repair import Due
from kqueue.dispatch.back_off import BackOff
from kqueue.dispatch.pointers import MAX_TUBE_DELAY_S, group
from kqueue.dispatch.ringing import Ringing
from kqueue.model.errors import BrokerError, BrokerUnavailable
from kqueue.system.clock import Clock
from kqueue.system.forks import PerProcess
from kqueue.telemetry.outages import Outages


class Doorbell:
    """Puts pointers. Shared by threads."""

    def __init__(self, broker: Broker, clock: Clock, logger: logging.Logger, outages: Outages) -> None:
        self._broker = broker
        self._outages = outages
        self._logger = logger
        self._ringing = PerProcess(lambda: Ringing(self._put_or_complain))
        self._back_off = BackOff(clock.monotonic)

    def put_at(self, run_at: float, now: float) -> float | None:
        """What a row's own write says of its pointer: ``now`` if one is about to be put, else None."""
        if not self._broker.carries_pointers or run_at - now > MAX_TUBE_DELAY_S:
            return None
        return None if self._back_off.is_on() or self._ringing.get().is_full() else now

    def ring(self, dues: Iterable[Due], now: float) -> None:
        """Have those of ``dues`` put whose ``put_at`` says so: soon, by another thread. Raises nothing but what is
        no ``Exception``: a ``KeyboardInterrupt`` and its like.
        """
        if not self._broker.carries_pointers:
            self._put_or_complain([*islice(dues, 1)], now)  # any wakes who waits in this process
            return
        put = [due for due in dues if due.put_at is not None]
        if put and not self._back_off.is_on():
            self._ringing.get().ring(put, now)

    def flush(self) -> None:
        """Wait until what this process has rung is put, but not long for a broker that is silent."""
        ringing = self._ringing.existing()
        if ringing is not None:
            ringing.flush()

    def close(self) -> None:
        """Put what is still to be put, for a second at most. A later ring works."""
        ringing = self._ringing.existing()
        if ringing is not None:
            ringing.close()

    def put(self, dues: list[Due], now: float) -> None:
        """Put a pointer with its ``put_at`` to each of ``dues``, back-off or not. Raises ``BrokerError``."""
        if not dues:
            return
        try:
            self._broker.put(group(dues, now))
        except Exception as error:
            if isinstance(error, BrokerUnavailable) or not isinstance(error, BrokerError):
                self._back_off.failed()
                self._outages.has_begun(self._broker.address)
            raise
        self._back_off.is_over()
        if self._broker.carries_pointers:
            self._outages.is_over(self._broker.address)

    def _put_or_complain(self, dues: list[Due], now: float) -> None:
        if self._back_off.is_on():
            return
        try:
            self.put(dues, now)
        except Exception as error:
            if self._back_off.failures <= 1:
                self._complain(error)

    def _complain(self, error: Exception) -> None:
        """In the log, which may fail too."""
        known = isinstance(error, BrokerError)
        said = error if known else f"{type(error).__name__}: {error}"
        with suppress(Exception):
            self._logger.warning(
                "jobs run from the store until the broker is back: %s", said, exc_info=None if known else error
            )
