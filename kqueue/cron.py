"""Jobs that a clock adds: each tick of each schedule once, whoever looks first.

The store keeps the last tick of every schedule, and moves it on in the very transaction that adds the jobs of the
ticks since (compare-and-set). So of any number of workers one adds a tick, one that dies before the commit has
added nothing, and the tick outlives its job. A schedule that the store has never seen begins now.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from kqueue.adding import Adding, Order
from kqueue.errors import StoreError
from kqueue.job import Row
from kqueue.retry import backoff
from kqueue.schedule import LATE_S, Schedule
from kqueue.store import JobStore, Tick

#: Seconds between two looks at most: the store's clock may be set meanwhile.
LONGEST_LOOK_S = 60.0


class CronJob(NamedTuple):
    """What a schedule adds at each of its ticks."""

    #: Its last tick is kept under this name.
    name: str
    schedule: Schedule
    #: One job.
    order: Order


class Cron:
    """The schedules of a queue. Shared by the threads of a process, one of which looks at a time."""

    def __init__(
        self, store: JobStore, adding: Adding, monotonic: Callable[[], float], logger: logging.Logger
    ) -> None:
        self._store = store
        self._adding = adding
        self._monotonic = monotonic
        self._logger = logger
        #: Replaced, never changed: another thread may be walking through it.
        self._jobs: Mapping[str, CronJob] = MappingProxyType({})
        self._look_at = -math.inf
        #: Looks in a row that failed.
        self._failures = 0

    def add(self, job: CronJob) -> None:
        """Raises ``ValueError`` if its name is taken."""
        if job.name in self._jobs:
            raise ValueError(f"name: there is a schedule {job.name!r} already; give another name")
        self._jobs = MappingProxyType({**self._jobs, job.name: job})
        self._look_at = -math.inf

    def jobs(self) -> list[CronJob]:
        """All of them, in the order added."""
        return list(self._jobs.values())

    def seconds_to_look(self) -> float:
        """Seconds until :meth:`add_due` has something to do; infinite without a schedule."""
        return max(0.0, self._look_at - self._monotonic()) if self._jobs else math.inf

    def add_due(self) -> int:
        """Add the jobs of all ticks that are due; how many. Costs nothing before the next tick's time.

        Raises ``StoreError``, once it has tried every schedule; what was not added is due again after a back-off.
        """
        if self.seconds_to_look() > 0:
            return 0
        asked_at, jobs = self._monotonic(), self._jobs
        self._failures += 1
        self._look_at = asked_at + backoff(self._failures)  # unless all goes well
        now = self._store.now()
        last_ticks = self._store.last_ticks()
        added, wait, errors = 0, LONGEST_LOOK_S, []
        for job in jobs.values():
            try:
                last = self._begun(job, last_ticks.get(job.name), now)
                found, last = self._add_ticks(job, last, now)
            except StoreError as error:
                errors.append(error)
                continue
            added += found
            following = job.schedule.next_after(max(last, now))
            if following is not None:
                wait = min(wait, following - now)
        if errors:
            raise errors[0]
        self._failures = 0
        # One that was added meanwhile is to be looked at.
        self._look_at = asked_at + wait if jobs is self._jobs else -math.inf
        return added

    def _begun(self, job: CronJob, last: float | None, now: float) -> float:
        """The last tick that was dealt with. A schedule that has none begins now; so does one whose last tick is in
        the future, since a clock that was ahead must not silence it until that time has come.
        """
        if last is not None and last <= now + LATE_S:
            return last
        if last is not None:
            self._logger.warning("cron: the clock was ahead: %s begins again now", job.name)
        self._store.add_tick(Tick(job.name, last, now), [])
        return now

    def _add_ticks(self, job: CronJob, last: float, now: float) -> tuple[int, float]:
        """(how many jobs were added, the last tick that was dealt with)."""
        added = 0
        while ticks := job.schedule.due(last, now):
            rows = self._rows(job, ticks, now)
            if not self._store.add_tick(Tick(job.name, last, ticks[-1]), rows):
                break  # another worker was first
            self._adding.announce(rows, now)
            self._logger.debug("cron: %s: %d jobs of type %s added", job.name, len(rows), job.order.type)
            added, last = added + len(rows), ticks[-1]
        return added, last

    def _rows(self, job: CronJob, ticks: Sequence[float], now: float) -> list[Row]:
        """A job for each tick, whose time is its ``run_at``."""
        rows = self._adding.rows(job.order._replace(payloads=job.order.payloads * len(ticks)), now)
        return [row._replace(run_at=tick) for row, tick in zip(rows, ticks, strict=True)]
