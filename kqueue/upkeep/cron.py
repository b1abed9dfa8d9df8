"""Jobs that a clock adds: each tick of each schedule once, whoever looks first.

The store keeps the last tick of every schedule, and moves it on in the very transaction that adds the jobs of the
ticks since (compare-and-set). So of any number of workers one adds a tick, one that dies before the commit has
added nothing, and the tick outlives its job. A schedule that the store has never seen begins now.

It also keeps which ticks were added, as spans of time. So after a clock was ahead and is set right, those that were
added for a time to come are known by that time, and those in between are added when they come.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from types import MappingProxyType
from typing import Any, NamedTuple, TypedDict

from kqueue.contracts.intake import Span, Tick
from kqueue.contracts.store import JobStore
from kqueue.contracts.stored_times import latest
from kqueue.dispatch.adding import Adding, NewJobs
from kqueue.model import checks
from kqueue.model.errors import StoreError
from kqueue.model.handlers import HandlerOptions
from kqueue.model.job import Priority, Row
from kqueue.model.reports import ScheduleReport
from kqueue.model.retry import backoff
from kqueue.model.schedule import MOST_TICKS, Missed, Schedule, is_in, make
from kqueue.model.times import Duration

#: Seconds between two looks at most: the store's clock may be set meanwhile.
LONGEST_LOOK_S = 60.0


class CronOptions(TypedDict, total=False):
    """What ``queue.add_cron`` takes beside the expression, the type and the payload."""

    #: A time zone's name. By default "UTC".
    tz: str
    #: What becomes of ticks that nobody noticed within a minute: see :class:`kqueue.model.schedule.Missed`.
    missed: str
    #: Under which the store keeps the last tick. By default None: the type.
    name: str | None
    #: Of its jobs. By default None: as the type's options say.
    priority: Priority | str | int | None
    ttr: Duration | None


class CronHandlerOptions(CronOptions, HandlerOptions, total=False):
    """What ``queue.cron`` takes: those of a schedule, and those of its handler."""


def split(given: CronHandlerOptions) -> tuple[CronOptions, HandlerOptions]:
    """Those of the schedule, and those of the handler."""
    named: Mapping[str, Any] = given
    of_cron: Any = {name: value for name, value in named.items() if name in CronOptions.__annotations__}
    of_handler: Any = {name: value for name, value in named.items() if name not in of_cron}
    return of_cron, of_handler


class CronJob(NamedTuple):
    """What a schedule adds at each of its ticks."""

    #: Its last tick is kept under this name.
    name: str
    schedule: Schedule
    #: One job.
    order: NewJobs


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
        #: What each schedule waits for, by its name: a look computes only those that are due, or have gone on.
        self._awaited: dict[str, _Awaited] = {}

    def plan(self, expression: str, type: str, payload: object, given: CronOptions) -> None:
        """See :meth:`kqueue.KQueue.add_cron`."""
        plan = make(expression, given.get("tz", "UTC"), given.get("missed", Missed.LAST))
        order = self._adding.check(type, [payload], priority=given.get("priority"), delay=0, ttr=given.get("ttr"))
        name = given.get("name")
        self.add(CronJob(order.type if name is None else checks.key("name", name), plan, order))

    def add(self, job: CronJob) -> None:
        """Raises ``ValueError`` if its name is taken."""
        if job.name in self._jobs:
            raise ValueError(f"name: there is a schedule {job.name!r} already; give another name")
        self._jobs = MappingProxyType({**self._jobs, job.name: job})
        self._look_at = -math.inf

    def jobs(self) -> list[CronJob]:
        """All of them, in the order added."""
        return list(self._jobs.values())

    def reports(self, ticks: int) -> list[ScheduleReport]:
        """Each with its next ``ticks``; then those that only the store knows, by name. Raises ``StoreError``."""
        now = self._store.now()
        last_ticks, added = self._store.last_ticks(), self._store.added_ticks()
        known = [self._report(job, last_ticks.get(job.name), added, now, ticks) for job in self.jobs()]
        names = sorted(last_ticks.keys() - self._jobs.keys())
        nothing = (None, None, None, None)
        return known + [ScheduleReport(name, *nothing, _last(added.get(name)), None, ()) for name in names]

    def _report(
        self, job: CronJob, dealt_with: float | None, added: Mapping[str, Sequence[Span]], now: float, ticks: int
    ) -> ScheduleReport:
        schedule, due = job.schedule, None
        if dealt_with is not None and dealt_with <= latest(now):
            due = next(iter(schedule.due(dealt_with, now)), None)
        return ScheduleReport(
            job.name,
            job.order.type,
            schedule.expression,
            str(schedule.zone),
            schedule.missed.value,
            _last(added.get(job.name)),
            due,
            tuple(islice(schedule.ticks_after(now), ticks)),
        )

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
        last_ticks, added_ticks = self._store.last_ticks(), self._store.added_ticks()
        added, wait, errors = 0, LONGEST_LOOK_S, []
        for job in jobs.values():
            last, awaited = last_ticks.get(job.name), self._awaited.get(job.name)
            if awaited is None or not awaited.stands(last, now):
                try:
                    found, awaited = self._look(job, last, added_ticks.get(job.name, ()), now)
                except StoreError as error:
                    errors.append(error)
                    continue
                added += found
                self._awaited[job.name] = awaited
            wait = min(wait, awaited.next_tick - now)
        if errors:
            raise errors[0]
        self._failures = 0
        # One that was added meanwhile is to be looked at.
        self._look_at = asked_at + wait if jobs is self._jobs else -math.inf
        return added

    def _look(
        self, job: CronJob, stored: float | None, spans: Sequence[Span], now: float
    ) -> tuple[int, "_Awaited"]:
        """(how many jobs were added, what is awaited then)."""
        if stored is not None and not spans:  # by an older KQueue
            spans = ((stored, stored),)
        last = self._begun(job, stored, spans, now)
        found, last, is_behind = self._add_ticks(job, last, spans, now)
        next_tick = now if is_behind else job.schedule.next_after(max(last, now))
        return found, _Awaited(last, now, math.inf if next_tick is None else next_tick)

    def _begun(self, job: CronJob, last: float | None, added: Sequence[Span], now: float) -> float:
        """The last tick that was dealt with. A schedule that has none begins now. One whose last tick is in the
        future, since a clock was ahead, goes on from the last tick by now that was added, and if none is known,
        begins now: it must not be silent until that time has come. What was added ahead is known by its own time.
        """
        if last is not None and last <= latest(now):
            return last
        begin = now
        if last is not None:
            begin = max((min(until, now) for first, until in added if first <= now), default=now)
            self._logger.warning(
                "cron: the clock was ahead: %s begins again now, without what was added for later already", job.name
            )
        self._store.add_tick(Tick(job.name, last, begin, tuple(added)), [])
        return begin

    def _add_ticks(self, job: CronJob, last: float, added: Sequence[Span], now: float) -> tuple[int, float, bool]:
        """(how many jobs were added, the last tick that was dealt with, whether more are due). One lot of a
        schedule: the others, the jobs and the limits of the run get their turn before the next.
        """
        before = last
        while ticks := job.schedule.due(last, now):
            last = ticks[-1]
            new = [tick for tick in ticks if not is_in(added, tick)]
            if not new:
                continue
            rows = self._rows(job, new, now)
            spans = tuple(job.schedule.remember(added, ticks))
            if not self._store.add_tick(Tick(job.name, before, last, spans), rows):
                return 0, before, False  # another worker was first
            self._adding.announce(rows, now)
            self._logger.debug("cron: %s: %d jobs of type %s added", job.name, len(rows), job.order.type)
            return len(rows), last, len(ticks) == MOST_TICKS
        return 0, last, False

    def _rows(self, job: CronJob, ticks: Sequence[float], now: float) -> list[Row]:
        """A job for each tick, whose time is what it is for."""
        rows = self._adding.rows(job.order._replace(payloads=job.order.payloads * len(ticks)), now)
        return [row._replace(run_at=tick, scheduled_for=tick) for row, tick in zip(rows, ticks, strict=True)]


def _last(spans: Sequence[Span] | None) -> float | None:
    """The last tick that was added."""
    return max((until for _, until in spans or ()), default=None)


class _Awaited(NamedTuple):
    """What a schedule waits for, as a look has found. Times by the store's clock."""

    #: The last tick that was dealt with, ...
    last: float
    #: when that was, ...
    looked_at: float
    #: and the next one; infinite if there is none.
    next_tick: float

    def stands(self, stored: float | None, now: float) -> bool:
        """Whether a look ``now`` would find the same. ``stored``: its last tick in the store. Not if another
        process has gone on, or a clock was set back.
        """
        return stored == self.last and self.looked_at <= now < self.next_tick
