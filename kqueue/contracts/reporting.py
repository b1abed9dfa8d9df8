"""What a run tells of itself while it goes on: how far it is, and a log."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from kqueue.model.history import LogLine

#: Lines of a job's log that are kept at least, where they fit into the bytes,
MOST_LINES = 1000
#: and bytes of their texts, in UTF-8.
MOST_LOG_BYTES = 64 * 1024


class Report(NamedTuple):
    """What a run has told since its last one."""

    id: str
    fence: int
    #: Which of its run's reports it is: each is larger than the one before. One that is sent twice is written once.
    number: int
    #: Of its run: what the lines belong to.
    tries: int
    #: As :func:`kqueue.model.history.read_progress` reads it; None: as it was.
    progress: str | None
    #: (when, in seconds since 1970; text), the oldest first.
    lines: tuple[tuple[float, str], ...] = ()


class Reporting(Protocol):
    """What runs tell of themselves. See :mod:`kqueue.contracts.store` for what holds for every method."""

    def report(self, reports: Sequence[Report], now: float) -> frozenset[str]:
        """Write progress and log lines where id and fence match and the run is not settled, as
        :meth:`~kqueue.contracts.runs.Runs.settle` does; returns the ids lost, of which nothing is written. What a
        settlement brings as its ``report`` is written so, before the run ends.

        Of a job's log the last :data:`MOST_LINES` lines are kept, or as many of them as have
        :data:`MOST_LOG_BYTES` together. All of it goes with its row. A store may leave out lines for which there is
        no room beside a large payload.
        """

    def job_log(self, id: str, after: int | None, most: int) -> list[LogLine]:
        """Up to ``most`` lines of the job's log, the oldest first: those with a number greater than ``after``, or
        from the first that is kept if None. Each new line has a greater number than those before.
        """
