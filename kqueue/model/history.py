"""What a job's runs leave: how each ended, how far it came, and a log. Pure.

How they ended is a short text in its row: a JSON list of ``[lease_owner, ended_at, reason]``, the oldest first, the
last :data:`MOST` of them; some have the traceback of what they raised behind it. A lease's owner is made as ids
are, so it tells when the claim was made, and on which host and by which process.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from kqueue.model.ids import is_job_id, maker, origin

#: Runs that are remembered.
MOST = 10
#: Of these the last so many that raised something keep its traceback.
TRACEBACKS = 3


class Run(NamedTuple):
    """A run that ended."""

    #: The owner of its lease; None if it is not known.
    owner: str | None
    #: Seconds since 1970, by the store's clock.
    ended_at: float
    #: Why it failed; None if it did not.
    reason: str | None
    #: Of what it raised, where that is kept: lines, not more than 16 KiB; what is longer lacks its middle.
    traceback: str | None = None

    @property
    def begun_at(self) -> float | None:
        """When it was claimed: seconds since 1970, by the clock of the host that claimed it."""
        return origin(self.owner).made_at if self.owner and is_job_id(self.owner) else None

    @property
    def worker(self) -> str:
        """Who ran it: ``process 4711 on this host``."""
        return maker(self.owner)


class Progress(NamedTuple):
    """How far a run is, as it told last."""

    done: float
    total: float
    #: Any JSON value.
    note: Any
    #: Seconds since 1970, by the store's clock.
    at: float
    #: Of its run: see ``job.tries``.
    tries: int

    @property
    def percent(self) -> float:
        """0..100."""
        return 100.0 * self.done / self.total


class LogLine(NamedTuple):
    """What a run has told."""

    #: Greater than those of the lines before.
    number: int
    #: Seconds since 1970, by the store's clock.
    at: float
    #: Of its run: see ``job.tries``.
    tries: int
    text: str


def read_progress(written: str | None) -> Progress | None:
    """That of a row, a JSON list of its fields; None if none was told."""
    return None if written is None else Progress(*json.loads(written))


def read(history: str | None) -> list[Run]:
    """The runs that a row's history tells, the oldest first."""
    return [Run(*run) for run in json.loads(history or "[]")]


def extended(history: str | None, run: Run) -> str:
    """``history`` with one more run at its end, and without the oldest if it has too many."""
    runs = [*read(history), run][-MOST:]
    raised = [place for place, one in enumerate(runs) if one.traceback is not None]
    for place in raised[:-TRACEBACKS]:
        runs[place] = runs[place]._replace(traceback=None)
    return _written(runs)


def with_tracebacks(history: str, tracebacks: Mapping[str | None, str]) -> str:
    """``history`` with those of runs, given by the owners of their leases."""
    return _written(run._replace(traceback=tracebacks.get(run.owner, run.traceback)) for run in read(history))


def values(run: Run) -> list[str | float | None]:
    """As it stands in a history."""
    return list(run if run.traceback is not None else run[:3])


def _written(runs: Iterable[Run]) -> str:
    return json.dumps([values(run) for run in runs], separators=(",", ":"))
