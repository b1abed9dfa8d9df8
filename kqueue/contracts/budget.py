"""How much to claim next: pure, no I/O, no clock.

A window is what one claim takes: many fast jobs, or one slow one. Theory of operation:

* the *sizer* keeps, for each job type, the seconds that a job of it is expected to take, and turns a budget
  (about 50 ms of work) into :class:`Budget`;
* the *store* reads candidates in order and asks :meth:`Budget.fit` which of them go into the window. The
  first always fits, so a window always makes progress;
* a *suspect* (its last holder died with several jobs in hand) goes only into a much smaller window: a
  sixteenth for each death, down to one. So the guilty job is alone after a few deaths, and its neighbours, which
  it stands behind, run.

A dispatcher whose types do not share their places has a budget for each *part* of them, and takes one window for
all.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from kqueue.model.job import Row

#: Seconds that other loops wait for a suspect. One that takes longer runs on, but is not called alone any more.
SOLITUDE_S = 30.0


#: Jobs in a window at most.
MAX_JOBS = 512
#: Bytes of payload in a window at most.
MAX_PAYLOAD_BYTES = 8 * 2**20
#: Seconds of expected work in a window: a twentieth of the shortest TTR there can be, so TTRs need no bound here.
WORK_S = 0.050
#: Each death shrinks a suspect's next window by this factor.
SUSPECT_DIVISOR = 16


@dataclass(frozen=True, slots=True)
class Budget:
    """What one window may hold. All bounds hold together; the first job always fits."""

    jobs: int
    payload_bytes: int = MAX_PAYLOAD_BYTES
    #: Seconds of expected work, all jobs together.
    work_s: float = WORK_S
    #: Expected seconds of one job, by type. A type that is not listed is taken to fill a window.
    job_s: Mapping[str, float] = field(default_factory=dict)
    #: Of each part of the types that has places of its own; their bounds on payload are not asked. Empty: all types
    #: share all.
    parts: "tuple[Budget, ...]" = ()
    #: Which of these is that of a type. One that has none fits only as the first.
    part_of: Mapping[str, int] = field(default_factory=dict)

    def room(self, type: str) -> int:
        """Jobs of the type that fit at most, where each part has places of its own; 0: none is wanted."""
        index = self.part_of.get(type)
        return 0 if index is None else min(self.jobs, self.parts[index].jobs)

    def fit(self, candidates: Iterable[Row]) -> tuple[list[Row], bool]:
        """(the rows that go into the window, whether any was left out).

        Candidates are taken lazily and in order, and the first that does not fit ends the window.
        """
        if self.parts:
            return self._fit_parts(candidates)
        taken: list[Row] = []
        jobs, room, seconds, cost = self.jobs, self.payload_bytes, self.work_s, self.job_s
        unknown = self.work_s
        for row in candidates:
            room -= len(row.payload)
            seconds -= cost.get(row.type, unknown)
            if row.suspicion or row.crashes:
                jobs = min(jobs, suspect_jobs(row.suspicion, row.crashes))
            if taken and (len(taken) >= jobs or room < 0 or seconds < 0):
                return taken, True
            taken.append(row)
        return taken, False

    def _fit_parts(self, candidates: Iterable[Row]) -> tuple[list[Row], bool]:
        taken: list[Row] = []
        jobs, room = self.jobs, self.payload_bytes
        #: (jobs, seconds of work) that were taken, by part.
        spent: dict[int, tuple[int, float]] = {}
        for row in candidates:
            index = self.part_of.get(row.type)
            if index is None and taken:
                return taken, True
            part = self.parts[index or 0]
            count, seconds = spent.get(index or 0, (0, 0.0))
            seconds += part.job_s.get(row.type, part.work_s)
            room -= len(row.payload)
            if row.suspicion or row.crashes:
                jobs = min(jobs, suspect_jobs(row.suspicion, row.crashes))
            is_over = len(taken) >= jobs or room < 0
            if (taken and is_over) or (count and (count >= part.jobs or seconds > part.work_s)):
                return taken, True
            spent[index or 0] = count + 1, seconds
            taken.append(row)
        return taken, False


def is_suspect(row: Row) -> bool:
    """Whether a worker has died that had it in hand, and it has ended no run since."""
    return row.suspicion > 0 or row.crashes > 0


def suspect_jobs(suspicion: int, crashes: int = 0) -> int:
    """Jobs in the window of a suspect at most. One that was alone when its worker died is alone again."""
    divisor: int = SUSPECT_DIVISOR**suspicion
    return 1 if crashes else max(1, MAX_JOBS // divisor)
