"""When a child that died is replaced: pure."""

from dataclasses import dataclass

from kqueue.model.retry import backoff

#: Seconds that a child has to live before its death counts as the first again.
STEADY_S = 60.0


@dataclass(frozen=True, slots=True)
class Restarts:
    """How often the children of one slot have died in a row."""

    #: Deaths in a row of children that did not live for long.
    deaths: int = 0

    def after(self, lived_s: float, by_job: bool = False) -> "Restarts":
        """One more child has died that lived for ``lived_s`` seconds. ``by_job``: a job is to blame. It counts its
        own deaths and is dead after a few, and those that wait behind it are not to wait for the next child.
        """
        if by_job:
            return Restarts()
        return Restarts(1 if lived_s >= STEADY_S else self.deaths + 1)

    @property
    def pause_s(self) -> float:
        """Seconds until the next one is started."""
        return backoff(self.deaths) if self.deaths else 0.0
