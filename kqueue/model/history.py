"""How a job's earlier runs ended: a short text in its row. Pure.

It is a JSON list of ``[lease_owner, ended_at, reason]``, the oldest first, the last :data:`MOST` of them. A lease's
owner is made as ids are, so it tells when the claim was made, and on which host and by which process.
"""

import json
from typing import NamedTuple

from kqueue.model.ids import is_job_id, maker, origin

#: Runs that are remembered.
MOST = 10


class Run(NamedTuple):
    """A run that ended."""

    #: The owner of its lease; None if it is not known.
    owner: str | None
    #: Seconds since 1970, by the store's clock.
    ended_at: float
    #: Why it failed; None if it did not.
    reason: str | None

    @property
    def begun_at(self) -> float | None:
        """When it was claimed: seconds since 1970, by the clock of the host that claimed it."""
        return origin(self.owner).made_at if self.owner and is_job_id(self.owner) else None

    @property
    def worker(self) -> str:
        """Who ran it: ``process 4711 on this host``."""
        return maker(self.owner)


def read(history: str | None) -> list[Run]:
    """The runs that a row's history tells, the oldest first."""
    return [Run(*run) for run in json.loads(history or "[]")]


def extended(history: str | None, run: Run) -> str:
    """``history`` with one more run at its end, and without the oldest if it has too many."""
    return json.dumps([*read(history), run][-MOST:], separators=(",", ":"))
