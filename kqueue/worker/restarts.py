"""When a child that died is replaced: pure."""

from dataclasses import dataclass

from kqueue.model.retry import backoff

#: Seconds that a child has to live before its death counts as the first again.
STEADY_S = 60.0
#: So many that jobs have killed are replaced at once, and further ones after so many seconds: whatever it is that
#: kills them, it is not to keep a core busy for ever.
AT_ONCE, PAUSE_S = 30, 1.0


@dataclass(frozen=True, slots=True)
class Restarts:
    """How often the children of one slot have died in a row."""

    #: Deaths in a row of children that did not live for long.
    deaths: int = 0
    #: The same, of those for which jobs are to blame.
    by_jobs: int = 0

    def after(self, lived_s: float, by_job: bool = False) -> "Restarts":
        """One more child has died that lived for ``lived_s`` seconds. ``by_job``: a job is to blame. It counts its
        own deaths and is dead after a few, and those that wait behind it are not to wait for the next child.
        """
        is_steady = lived_s >= STEADY_S
        if by_job:
            return Restarts(by_jobs=1 if is_steady else self.by_jobs + 1)
        return Restarts(1 if is_steady else self.deaths + 1)

    @property
    def pause_s(self) -> float:
        """Seconds until the next one is started."""
        if self.deaths:
            return backoff(self.deaths)
        return 0.0 if self.by_jobs <= AT_ONCE else PAUSE_S
