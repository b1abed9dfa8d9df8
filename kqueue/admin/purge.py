"""All waiting jobs of a type go, in bounded lots: others get their turn in between."""

import logging

from kqueue.contracts.broker import Broker
from kqueue.contracts.store import JobStore
from kqueue.model.errors import BrokerError

#: Rows that are deleted at a time.
LOT = 1000


def purge(store: JobStore, broker: Broker, type: str, logger: logging.Logger) -> int:
    """Delete the jobs of ``type`` that do not run, and then drain its tube; returns how many jobs.

    Raises ``StoreError``. A broker that is down is told to ``logger``.
    """
    total = 0
    while deleted := store.purge(type, LOT):
        total += deleted
    try:
        broker.drain(type)
    except BrokerError as error:
        logger.warning("purged, but the tube is not drained; runs will delete its entries: %s", error)
    return total
