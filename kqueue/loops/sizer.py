"""How long jobs take, learned, and how many to claim next."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from kqueue.contracts.budget import MAX_JOBS, WORK_S, Budget
from kqueue.execution.inflight import BOUND_S

#: Who has measured nothing starts with one job, and claims more at most by this factor.
GROWTH = 8
#: Weight of the newest measurement in the expected seconds of a type.
NEWEST = 0.2
#: Seconds of work that wait for each place of a dispatcher, at least: several commits take as long.
AHEAD_S = 0.020
#: And at most, so that nothing waits for so long that it is given back.
MOST_AHEAD_S = BOUND_S / 2
#: Seconds of work that wait for a limit in the hands of one dispatcher: what a commit takes.
FOLLOWING_S = 0.005
#: So that the parts of a batch are together no more than its whole, in floats.
EXACTLY = 1 - 1e-6
#: The part that the longest claim still counts after each further one.
FADING = 0.9


class Sizer:
    """Says how much a loop is to claim next. One for each loop, so no lock."""

    def __init__(self, known: Mapping[str, tuple[int, float]]) -> None:
        """``known``: for each type that is served, how many of its jobs this process has run before, and the
        seconds of these together. Who knows them all goes on from there.
        """
        #: Seconds of a job, by type.
        self._job_s = {type: seconds / jobs for type, (jobs, seconds) in known.items() if jobs}
        #: Seconds of a job of whatever came last, all types together; None: nothing was measured.
        self._any_s: float | None = None
        #: How many jobs may be claimed for one place at most: so what is not known yet grows by and by.
        self._jobs = 1
        if known and len(self._job_s) == len(known):
            self._any_s = max(self._job_s.values())
            self._jobs = min(MAX_JOBS, GROWTH * min(jobs for jobs, _ in known.values()))
        #: Of the longest of the last claims.
        self._claim_s = 0.0

    def observe(self, spent: Iterable[tuple[str, int, float]]) -> None:
        """Of each (type, jobs, seconds): so many jobs of the type took so long together."""
        is_new = False
        for type, jobs, seconds in spent:
            self._job_s[type] = _nearer(self._job_s.get(type), jobs, seconds)
            self._any_s = _nearer(self._any_s, jobs, seconds)
            is_new = True
        if is_new:
            self._jobs = min(MAX_JOBS, self._jobs * GROWTH)

    def claimed(self, seconds: float) -> None:
        """A claim took so long, and the wait for the store with it."""
        self._claim_s = max(seconds, FADING * self._claim_s)

    def ahead(self, places: int, in_turn: bool = False) -> int:
        """How many jobs are to wait for one of ``places``, threads or coroutines: the next claim begins when half
        of them are taken, and no place is to wait for its end. ``in_turn``: the next claim begins when all have
        run.

        0 where long ones are expected: beside those a wait for a commit is little, and who waits for longer than
        :data:`BOUND_S` would be given back.
        """
        any_s = self._any_s
        if not places or any_s is None or any_s > BOUND_S:
            return 0
        most = min(MAX_JOBS, places * self._jobs)
        if in_turn:
            return min(most, max(1, int(MOST_AHEAD_S / any_s)) if any_s else most) - 1
        if not any_s:
            return most
        seconds = min(max(AHEAD_S, 2 * self._claim_s), MOST_AHEAD_S)
        return min(most, max(places, int(places * seconds / any_s)))

    def is_new(self) -> bool:
        """Whether nothing was measured yet."""
        return self._any_s is None

    def follow(self) -> int:
        """How many jobs may wait here for one that may not run beside them, while others could run in their place:
        those of :data:`FOLLOWING_S`.
        """
        return min(MAX_JOBS, int(FOLLOWING_S / self._any_s)) if self._any_s else 0

    def shared(
        self,
        jobs: int,
        places: int,
        types: Iterable[str],
        seconds_left: float,
        batches: Mapping[str, int] = MappingProxyType({}),
    ) -> Budget:
        """For ``places`` that share what is claimed: one job at least for each of them, however long it takes. One
        of a type that was never measured takes what jobs take here: should it take long, others go back soon.
        ``batches``: jobs of one call, of types that have several; so many at least for a place.
        """
        work_s = min(WORK_S, seconds_left)
        unknown = work_s if self._any_s is None else self._any_s
        job_s = {type: min(self._job_s.get(type, unknown), work_s) for type in types}
        for type, most in batches.items():
            job_s[type] = min(job_s[type], EXACTLY * work_s / most)
        return Budget(jobs, work_s=work_s * places, job_s=job_s)


def _nearer(before: float | None, jobs: int, seconds: float) -> float:
    mean = seconds / jobs
    return mean if before is None else before + (1 - (1 - NEWEST) ** jobs) * (mean - before)
