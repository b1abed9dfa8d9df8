"""How long jobs take, learned, and how many to claim next."""

from kqueue.contracts.budget import MAX_JOBS, WORK_S, Budget

#: A type that was never measured starts with one job, and its windows grow at most by this factor.
GROWTH = 8


#: Weight of the newest measurement in the expected seconds of a type.
NEWEST = 0.2


class Sizer:
    """Learns how long jobs take and says how much to claim next. One for each loop, so no lock."""

    def __init__(self) -> None:
        self._job_s: dict[str, float] = {}
        self._jobs = 1

    def observe(self, type: str, jobs: int, seconds: float) -> None:
        """``jobs`` jobs of ``type`` took ``seconds`` together."""
        mean = seconds / jobs
        before = self._job_s.get(type)
        weight = 1 - (1 - NEWEST) ** jobs
        self._job_s[type] = mean if before is None else before + weight * (mean - before)
        self._jobs = min(MAX_JOBS, self._jobs * GROWTH)

    def budget(self, jobs_left: int | None = None, seconds_left: float | None = None) -> Budget:
        """The next window's, given what ``count_limit`` and the time limit leave."""
        work_s = WORK_S if seconds_left is None else min(WORK_S, seconds_left)
        jobs = self._jobs if jobs_left is None else min(self._jobs, jobs_left)
        return Budget(jobs=max(1, jobs), work_s=work_s, job_s=self._job_s)
