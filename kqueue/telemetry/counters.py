"""What became of jobs in this process since it began to count, and what waits in the store: by type."""

import threading
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from kqueue.contracts.lookup import Backlog
from kqueue.contracts.settlements import Outcome
from kqueue.model.job import State
from kqueue.model.reports import Stats, TypeStats
from kqueue.system.clock import Clock
from kqueue.system.locks import is_ours

#: The states of jobs that wait for nothing but a worker, or a place under a limit.
WAITING = frozenset({State.READY, State.HELD})


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

    def stats(self, overview: Sequence[Backlog], now: float) -> Stats:
        """The counts beside what the store had at ``now``, by its clock."""
        standings = _by_type(overview)
        with self._lock:
            self._count_late()
            types = sorted({*standings, *self._added, *self._run, *(type for type, _ in self._ended)})
            counted = {type: self._of(type) for type in types}
        return Stats(
            at=now,
            seconds=self._clock.monotonic() - self._began,
            types=MappingProxyType(
                {type: _beside(count, standings.get(type, ()), now) for type, count in counted.items()}
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


def _by_type(overview: Sequence[Backlog]) -> dict[str, list[Backlog]]:
    found: dict[str, list[Backlog]] = {}
    for standing in overview:
        found.setdefault(standing.type, []).append(standing)
    return found


def _beside(count: TypeStats, standings: Sequence[Backlog], now: float) -> TypeStats:
    """A delayed job that is due waits too. How many of a type are due is not told, so they show in the age only."""
    waiting = [one for one in standings if one.state in WAITING]
    due = [one for one in standings if one.state == State.DELAYED and one.oldest_run_at <= now]
    ages = [max(0.0, now - one.oldest_run_at) for one in waiting + due]
    return replace(count, waiting=sum(one.rows for one in waiting), oldest_age=max(ages, default=None))
