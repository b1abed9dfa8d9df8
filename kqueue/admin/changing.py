"""Another priority or time for a job that waits.

Its row says what holds. A pointer that names it with the priority that it had before is passed over from then on,
and a new one is put: see :meth:`kqueue.contracts.runs.Selection.serves`.
"""

from typing import NamedTuple

from kqueue.contracts.operator import JobChange
from kqueue.contracts.store import JobStore
from kqueue.dispatch.doorbell import Doorbell
from kqueue.dispatch.pointers import MAX_TUBE_DELAY_S
from kqueue.model import checks, times
from kqueue.model.job import Priority
from kqueue.model.times import Duration, Instant


class WantedChange(NamedTuple):
    """What is to be changed, checked. None: as it is."""

    priority: int | None
    #: Seconds from now.
    delay: float | None
    #: Seconds since 1970.
    run_at: float | None


def checked_change(
    priority: Priority | str | int | None, delay: Duration | None, run_at: Instant | None
) -> WantedChange:
    """Raises ``ValueError`` or ``TypeError``, also where nothing is to be changed."""
    if priority is delay is run_at is None:
        raise ValueError("change_job: give a priority, a delay or a run_at")
    if delay is not None and run_at is not None:
        raise ValueError("run_at: either it or delay, not both")
    return WantedChange(
        None if priority is None else checks.priority(priority),
        None if delay is None else times.seconds("delay", delay, 0),
        None if run_at is None else times.instant("run_at", run_at),
    )


class Changing:
    """Changes jobs of a store that wait."""

    def __init__(self, store: JobStore, doorbell: Doorbell) -> None:
        self._store = store
        self._doorbell = doorbell

    def change(self, job_id: str, wanted: WantedChange) -> bool:
        """False if it does not wait. Raises ``StoreError``."""
        now = self._store.now()
        run_at = wanted.run_at if wanted.delay is None else now + wanted.delay
        put_at, put_until = self._doorbell.put_at(now, now), now + MAX_TUBE_DELAY_S
        due = self._store.change(job_id, JobChange(wanted.priority, run_at), now, put_at, put_until)
        if due is None:
            return False
        self._doorbell.ring([due], now)
        return True
