"""What became of jobs in this process since it began to count, by type."""

import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from kqueue.clock import Clock
from kqueue.execution import Outcome
from kqueue.reports import TypeStats


class Counters:
    """Of one process. Each call takes the lock once: for a list of adds, a window that ran, or what was written."""

    def __init__(self, clock: Clock) -> None:
        self._lock = threading.Lock()
        self._clock = clock
        self._began = clock.monotonic()
        self._added: Counter[str] = Counter()
        self._run: Counter[str] = Counter()
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._ended: Counter[tuple[str, Outcome]] = Counter()

    def added(self, type: str, jobs: int) -> None:
        """They are in the store."""
        with self._lock:
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

    def seconds(self) -> float:
        """Since this process began to count."""
        return self._clock.monotonic() - self._began

    def all(self) -> dict[str, TypeStats]:
        """What was counted, by type; sorted, and without what only the store can tell."""
        with self._lock:
            types = sorted({*self._added, *self._run, *(type for type, _ in self._ended)})
            return {type: self._of(type) for type in types}

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
            seconds=self._seconds[type],
        )
