"""What hangs in this process: see :mod:`kqueue.upkeep.hanging`."""

from kqueue.contracts.workers import HANGS_S
from kqueue.loops.registry import Registry
from kqueue.upkeep.hanging import Hanging, Hung

#: Seconds that an event loop has not turned, before it counts as hanging.
PATIENCE_S = 3.0
#: Jobs that are named of each kind, at most.
MOST_NAMED = 10


def hanging_in(registry: Registry, now: float) -> Hanging:
    """What hangs here. ``now`` in monotonic seconds."""
    kept = max((now - loop.turned_at for loop in list(registry.event_loops)), default=0.0)
    past = [
        Hung(job.row.id, job.row.type, round(seconds, 1), job.settlement is not None)
        for jobs in registry.in_hand()
        for job, seconds in jobs.past_lease(now)
        if seconds >= HANGS_S
    ]
    past.sort(key=lambda one: -one.seconds)
    abandoned = sorted(Hung(one.id, one.type) for one in registry.abandoned.copy())
    return Hanging(
        tuple(past[:MOST_NAMED]),
        tuple(abandoned[:MOST_NAMED]),
        len(abandoned),
        round(kept, 1) if kept > PATIENCE_S else 0.0,
    )
