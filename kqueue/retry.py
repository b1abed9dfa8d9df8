"""When to try again: pure functions of counts. Any jitter is added by the caller, never here."""

from dataclasses import dataclass

#: Seconds before a server that failed is asked again: doubling from the first to the last.
FIRST_BACKOFF_S = 1.0
LAST_BACKOFF_S = 30.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """A fixed delay, and a number of failed runs after which a job is dead."""

    #: Seconds.
    delay: float
    #: None: no end.
    max_tries: int | None

    def delay_after(self, failures: int) -> float | None:
        """Seconds until the next run after ``failures`` failed ones; None when the tries are used up."""
        if self.max_tries is not None and failures >= self.max_tries:
            return None
        return self.delay


def backoff(failures: int) -> float:
    """Seconds to leave a server alone that failed ``failures`` times in a row: 1, 2, 4, ... 30."""
    return min(LAST_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(max(0, failures - 1), 10))
