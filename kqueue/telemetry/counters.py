"""What became of jobs in this process since it began to count, and what waits in the store: by type."""

import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from kqueue.contracts.lookup import Backlog
from kqueue.contracts.settlements import Outcome
from kqueue.model.job import State
from kqueue.model.reports import Stats, TypeStats
from kqueue.system.clock import Clock
from kqueue.system.locks import is_ours

#: The states of jobs that wait for nothing but a worker, or a place under a limit.
WAITING = frozenset({State.READY, State.HELD})


#: Seconds that a process tells of with its heartbeat, and under which name; and types, those with most runs.
LATELY_S: Final = 60.0
LATELY: Final = "lately"
MOST_TYPES: Final = 100


class Ended(NamedTuple):
    """Runs of one type that have ended."""

    runs: float = 0
    finished: float = 0
    failed: float = 0
    #: That all of them took.
    seconds: float = 0.0

    def since(self, before: "Ended") -> "Ended":
        """Those that came after."""
        return Ended(*(now - then for now, then in zip(self, before, strict=True)))


class Counters:
    """Of one process. Each call takes the lock once: for a list of adds, a window that ran, or what was written."""

    def __init__(self, clock: Clock) -> None:
        self._lock = threading.RLock()
        #: Adds that a signal handler has made while its own thread was in here: counted by whoever comes next.
        self._late: deque[tuple[str, int]] = deque()
        self._clock = clock
        self._began = clock.monotonic()
        self._added: Counter[str] = Counter()
        self._run: Counter[str] = Counter()
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._ended: Counter[tuple[str, Outcome]] = Counter()

    def added(self, type: str, jobs: int) -> None:
        """Count jobs that are in the store."""
        self._late.append((type, jobs))
        if not is_ours(self._lock):
            with self._lock:
                self._count_late()

    def _count_late(self) -> None:
        """Under the lock."""
        while self._late:
            type, jobs = self._late.popleft()
            self._added[type] += jobs

    def ran(self, spent: Mapping[str, Sequence[float]]) -> None:
        """Handlers have ended: of each type the seconds of each call."""
        with self._lock:
            for type, seconds in spent.items():
                self._run[type] += len(seconds)
                self._seconds[type] += max(0.0, sum(seconds))

    def settled(self, finished: Iterable[str], others: Iterable[tuple[str, Outcome]]) -> None:
        """Runs ended: the type of each that is finished, and of each other one (type, outcome)."""
        of_type = Counter(finished)
        with self._lock:
            for type, jobs in of_type.items():
                self._ended[type, Outcome.DELETED] += jobs
            self._ended.update(others)

    def ended(self) -> dict[str, Ended]:
        """Runs that have ended here, by type."""
        with self._lock:
            return {
                type: Ended(
                    runs,
                    self._ended[type, Outcome.DELETED],
                    self._ended[type, Outcome.RETRIED] + self._ended[type, Outcome.DEAD],
                    self._seconds.get(type, 0.0),
                )
                for type, runs in self._run.items()
            }

    def measured(self, types: Iterable[str]) -> dict[str, tuple[int, float]]:
        """How many runs of each of ``types`` there were here, and their seconds together."""
        with self._lock:
            return {type: (self._run[type], self._seconds.get(type, 0.0)) for type in types}

    def stats(self, overview: Sequence[Backlog], due: Mapping[str, int], now: float) -> Stats:
        """The counts beside what the store had at ``now``, by its clock. ``due``: delayed jobs that are due then,
        by type, as far as they were counted.
        """
        standings = _by_type(overview)
        with self._lock:
            self._count_late()
            types = sorted({*standings, *self._added, *self._run, *(type for type, _ in self._ended)})
            counted = {type: self._of(type) for type in types}
        return Stats(
            at=now,
            seconds=self._clock.monotonic() - self._began,
            types=MappingProxyType(
                {
                    type: _beside(count, standings.get(type, ()), due.get(type, 0), now)
                    for type, count in counted.items()
                }
            ),
        )

    def _of(self, type: str) -> TypeStats:
        """Under the lock."""
        ended = {outcome: self._ended[type, outcome] for outcome in Outcome}
        return TypeStats(
            added=self._added[type],
            run=self._run[type],
            finished=ended[Outcome.DELETED],
            failed=ended[Outcome.RETRIED] + ended[Outcome.DEAD],
            died=ended[Outcome.DEAD],
            given_back=ended[Outcome.UNGOT],
            lost_lease=ended[Outcome.LOST_LEASE],
            unknown=ended[Outcome.UNKNOWN],
            seconds=self._seconds.get(type, 0.0),
        )


class Lately:
    """What one process has counted in the last minute."""

    def __init__(self, counters: Counters, monotonic: Callable[[], float]) -> None:
        self._counters = counters
        self._monotonic = monotonic
        #: (when, all that was counted until then), from the last one before the last minute on.
        self._looks: deque[tuple[float, Mapping[str, Ended]]] = deque([(monotonic(), {})])

    def note(self) -> dict[str, Any]:
        """For :attr:`kqueue.contracts.workers.WorkerRecord.note`."""
        now, counted = self._monotonic(), self._counters.ended()
        while len(self._looks) > 1 and self._looks[1][0] <= now - LATELY_S:
            self._looks.popleft()
        since, before = self._looks[0]
        self._looks.append((now, counted))
        lately = {type: ended.since(before.get(type, Ended())) for type, ended in counted.items()}
        most = sorted((type for type in lately if any(lately[type])), key=lambda type: -lately[type].runs)
        return {LATELY: {"seconds": now - since, "types": {type: lately[type] for type in most[:MOST_TYPES]}}}


def _by_type(overview: Sequence[Backlog]) -> dict[str, list[Backlog]]:
    found: dict[str, list[Backlog]] = {}
    for standing in overview:
        found.setdefault(standing.type, []).append(standing)
    return found


def _beside(count: TypeStats, standings: Sequence[Backlog], due: int, now: float) -> TypeStats:
    """A delayed job that is due waits too."""
    waiting = [one for one in standings if one.state in WAITING]
    delayed = [one for one in standings if one.state == State.DELAYED and one.oldest_run_at <= now]
    ages = [max(0.0, now - one.oldest_run_at) for one in waiting + delayed]
    rows = sum(one.rows for one in waiting) + (max(1, due) if delayed else 0)
    return replace(count, waiting=rows, oldest_age=max(ages, default=None))
