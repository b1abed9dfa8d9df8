"""What hangs in a process: told to the store with its heartbeat, and read by doctor, why and workers."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from kqueue.contracts.workers import WorkerRecord


class Hung(NamedTuple):
    """A run that does not end."""

    job_id: str
    type: str
    #: Seconds since its lease was over, if that is what makes it one.
    seconds: float = 0.0
    #: Whether its handler had settled the job before, or another did for it.
    is_settled: bool = False


@dataclass(frozen=True, slots=True)
class Hanging:
    """What hangs in one process: runs past their leases, abandoned coroutines, an event loop that is kept."""

    #: Handlers that run although their leases are over, and so keep a thread, or the event loop.
    past_lease: tuple[Hung, ...] = ()
    #: Coroutines that were cancelled, since their time was over, and have not ended: some of them,
    abandoned: tuple[Hung, ...] = ()
    #: and how many there are.
    abandoned_count: int = 0
    #: Seconds that the event loop has not turned; 0 if it gets on.
    event_loop_s: float = 0.0

    def note(self) -> dict[str, Any]:
        """For :attr:`kqueue.contracts.workers.WorkerRecord.note`; empty if nothing hangs."""
        return {name: value for name, value in asdict(self).items() if value}

    def find(self, job_id: str) -> Hung | None:
        """The run of this job, if it is among those that are named; one past its lease first."""
        return next((one for one in (*self.past_lease, *self.abandoned) if one.job_id == job_id), None)


def hanging_of(worker: WorkerRecord, now: float) -> Hanging:
    """What that process told, as it is ``now`` by the store's clock, if it still hangs. One of another version may
    tell less, or otherwise: then nothing is known.
    """
    since = max(0.0, now - worker.seen_at)
    try:
        note = json.loads(worker.note)
        return Hanging(
            tuple(_hung(note.get("past_lease", ()), since)),
            tuple(_hung(note.get("abandoned", ()), 0.0)),
            int(note.get("abandoned_count", 0)),
            float(note.get("event_loop_s", 0.0)),
        )
    except (ValueError, TypeError, AttributeError):
        return Hanging()


def _hung(named: Any, since: float) -> Iterator[Hung]:
    for job_id, type, *more in named:
        yield Hung(str(job_id), str(type), float(more[0]) + since if more else 0.0, bool(more[1:] and more[1]))
