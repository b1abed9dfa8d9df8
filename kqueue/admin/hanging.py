"""What hangs in a process: seen there, told to the store with its heartbeat, and read by doctor and why."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from kqueue.contracts.workers import WorkerRecord
from kqueue.loops.registry import Registry

#: Seconds that a run is past its lease, or an event loop has not turned, before it counts as hanging.
PATIENCE_S = 3.0
#: Jobs that are named of each kind, at most.
MOST_NAMED = 10


class Hung(NamedTuple):
    """A run that does not end."""

    job_id: str
    type: str


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

    def names(self, job_id: str) -> bool:
        """Whether the job is among those that are named."""
        return any(one.job_id == job_id for one in (*self.past_lease, *self.abandoned))


def hanging_in(registry: Registry, now: float) -> Hanging:
    """What hangs here. ``now`` in monotonic seconds."""
    kept = max((now - loop.turned_at for loop in list(registry.event_loops)), default=0.0)
    past = [Hung(row.id, row.type) for jobs in registry.batches() for row in jobs.past_lease(now - PATIENCE_S)]
    abandoned = sorted(Hung(one.id, one.type) for one in registry.abandoned.copy())
    return Hanging(
        tuple(past[:MOST_NAMED]),
        tuple(abandoned[:MOST_NAMED]),
        len(abandoned),
        round(kept, 1) if kept > PATIENCE_S else 0.0,
    )


def hanging_of(worker: WorkerRecord) -> Hanging:
    """What that process told. One of another version may tell less, or otherwise: then nothing is known."""
    try:
        note = json.loads(worker.note)
        return Hanging(
            tuple(_hung(note.get("past_lease", ()))),
            tuple(_hung(note.get("abandoned", ()))),
            int(note.get("abandoned_count", 0)),
            float(note.get("event_loop_s", 0.0)),
        )
    except (ValueError, TypeError, AttributeError):
        return Hanging()


def _hung(named: Any) -> Iterator[Hung]:
    for job_id, type in named:
        yield Hung(str(job_id), str(type))
