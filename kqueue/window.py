"""How much to claim next: pure, no I/O, no clock.

A window is what one claim takes: many fast jobs, or one slow one. Theory of operation:

* the *sizer* keeps, for each job type, the seconds that a job of it is expected to take, and turns a budget
  (about 50 ms of work) into :class:`Limits`;
* the *store* reads candidates in order and asks :meth:`Limits.fit` which of them go into the window. The
  first always fits, so a window always makes progress;
* a *suspect* (its last holder died with several jobs in hand) goes only into a much smaller window: a
  sixteenth for each death, down to one. So the guilty job is alone after a few deaths and its neighbours run.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from kqueue.job import Row

#: Jobs in a window at most.
MAX_JOBS = 512
#: Bytes of payload in a window at most.
MAX_PAYLOAD_BYTES = 8 * 2**20
#: Seconds of expected work in a window: a twentieth of the shortest TTR there can be, so TTRs need no bound here.
WORK_S = 0.050
#: Each death shrinks a suspect's next window by this factor.
SUSPECT_DIVISOR = 16
#: A type that was never measured starts with one job, and its windows grow at most by this factor.
GROWTH = 8
#: Weight of the newest measurement in the expected seconds of a type.
NEWEST = 0.2


@dataclass(frozen=True, slots=True)
class Limits:
    """What one window may hold. All bounds hold together; the first job always fits."""

    jobs: int
    payload_bytes: int = MAX_PAYLOAD_BYTES
    #: Seconds of expected work, all jobs together.
    work_s: float = WORK_S
    #: Expected seconds of one job, by type. A type that is not listed is taken to fill a window.
    job_s: Mapping[str, float] = field(default_factory=dict)

    def fit(self, candidates: Iterable[Row]) -> tuple[list[Row], bool]:
        """(the rows that go into the window, whether any was left out).

        Candidates are taken lazily and in order, and the first that does not fit ends the window.
        """
        taken: list[Row] = []
        jobs, room, seconds, cost = self.jobs, self.payload_bytes, self.work_s, self.job_s
        for row in candidates:
            room -= len(row.payload)
            seconds -= cost.get(row.type, self.work_s)
            if row.suspicion:
                jobs = min(jobs, suspect_jobs(row.suspicion))
            if taken and (len(taken) >= jobs or room < 0 or seconds < 0):
                return taken, True
            taken.append(row)
        return taken, False


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

    def limits(self, jobs_left: int | None = None, seconds_left: float | None = None) -> Limits:
        """The next window's, given what ``count_limit`` and the time limit leave."""
        work_s = WORK_S if seconds_left is None else min(WORK_S, seconds_left)
        jobs = self._jobs if jobs_left is None else min(self._jobs, jobs_left)
        return Limits(jobs=max(1, jobs), work_s=work_s, job_s=self._job_s)


def suspect_jobs(suspicion: int) -> int:
    """Jobs in the window of a suspect at most."""
    divisor: int = SUSPECT_DIVISOR**suspicion
    return max(1, MAX_JOBS // divisor)
