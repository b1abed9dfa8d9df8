"""How long jobs take, learned, and how many to claim next."""

import math
from collections.abc import Iterable

from kqueue.contracts.budget import MAX_JOBS, WORK_S, Budget
from kqueue.execution.inflight import BOUND_S

#: A type that was never measured starts with one job, and its windows grow at most by this factor.
GROWTH = 8
#: Weight of the newest measurement in the expected seconds of a type.
NEWEST = 0.2
#: Seconds of work that wait for each place of a dispatcher, at least: several commits take as long.
AHEAD_S = 0.020
#: And at most, so that nothing waits for so long that it is given back.
MOST_AHEAD_S = BOUND_S / 2
#: Seconds of work that wait for a limit in the hands of one dispatcher: what a commit takes.
FOLLOWING_S = 0.005
#: The part that the longest claim still counts after each further one.
FADING = 0.9


class Sizer:
    """Learns how long jobs take and says how much to claim next. One for each loop, so no lock."""

    def __init__(self) -> None:
        self._job_s: dict[str, float] = {}
        #: Of whatever came last, all types together.
        self._any_s: float | None = None
        #: Of the longest of the last claims.
        self._claim_s = 0.0
        self._jobs = 1

    def observe(self, type: str, jobs: int, seconds: float) -> None:
        """``jobs`` jobs of ``type`` took ``seconds`` together."""
        mean = seconds / jobs
        weight = 1 - (1 - NEWEST) ** jobs
        self._job_s[type] = _nearer(self._job_s.get(type), mean, weight)
        self._any_s = _nearer(self._any_s, mean, weight)
        self._jobs = min(MAX_JOBS, self._jobs * GROWTH)

    def budget(self, jobs_left: int | None = None, seconds_left: float | None = None) -> Budget:
        """The next window's, given what ``count_limit`` and the time limit leave."""
        work_s = WORK_S if seconds_left is None else min(WORK_S, seconds_left)
        jobs = self._jobs if jobs_left is None else min(self._jobs, jobs_left)
        return Budget(jobs=max(1, jobs), work_s=work_s, job_s=self._job_s, likely=self._likely(work_s))

    def claimed(self, seconds: float) -> None:
        """A claim took so long, and the wait for the store with it."""
        self._claim_s = max(seconds, FADING * self._claim_s)

    def ahead(self, places: int) -> int:
        """How many jobs are to wait for one of ``places``, threads or coroutines: the next claim begins when half
        of them are taken, and no place is to wait for its end.

        None where long ones are expected: beside those a wait for a commit is little, and who waits for longer than
        :data:`BOUND_S` would be given back.
        """
        if not places or self._any_s is None or self._any_s > BOUND_S:
            return 0
        seconds = min(max(AHEAD_S, 2 * self._claim_s), MOST_AHEAD_S)
        return min(MAX_JOBS, max(places, int(places * seconds / self._any_s))) if self._any_s else MAX_JOBS

    def is_new(self) -> bool:
        """Whether nothing was measured yet."""
        return self._any_s is None

    def follow(self) -> int:
        """How many jobs may wait here for one that may not run beside them, while others could run in their place:
        those of :data:`FOLLOWING_S`.
        """
        return min(MAX_JOBS, int(FOLLOWING_S / self._any_s)) if self._any_s else 0

    def shared(self, jobs: int, places: int, types: Iterable[str], seconds_left: float) -> Budget:
        """For ``places`` that share what is claimed: one job at least for each of them, however long it takes."""
        work_s = min(WORK_S, seconds_left)
        job_s = {type: min(self._job_s.get(type, work_s), work_s) for type in types}
        return Budget(jobs, work_s=work_s * places, job_s=job_s)

    def _likely(self, work_s: float) -> int | None:
        """How many jobs as they came last are so much work."""
        return max(1, math.floor(work_s / self._any_s)) if self._any_s else None


def _nearer(before: float | None, mean: float, weight: float) -> float:
    return mean if before is None else before + weight * (mean - before)
