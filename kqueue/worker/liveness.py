"""Whether loops get on: told by their turns, not by their being there.

A loop that makes turns gets on; one that waits for jobs turns at least every 15 seconds, and one that waits for a
store that is down every 30; an event loop turns each second. A loop whose handler runs makes no turn; it is taken
to get on as long as the job's lease holds. Past it others take the job, so the handler counts as one that hangs.
"""

from collections.abc import Sequence

from kqueue.loops.registry import Registry, Turning

#: Seconds without a turn from which on a loop counts as hung: twice the longest wait that a loop has.
QUIET_S = 60.0


class Liveness:
    """Tells for how long the loops of one process have made no progress."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        #: By loop: its turns, and when these were first seen, in monotonic seconds.
        self._seen: dict[Turning, tuple[int, float]] = {}

    def quiet_s(self, now: float, away: Sequence[float] = (), leases_at: float | None = None) -> float:
        """Seconds since that loop has made progress which has made none for the longest time; 0 without any loop.

        ``now`` in monotonic seconds; ``away``: since when threads have been without the loop that they should run.
        To be called about once a second: a turn counts from when it is seen. ``leases_at``: the time by the clock
        of leases, which a suspend of the host moves on, where that is another one.
        """
        seen = {}
        for loop in (*self._registry.loops(), *list(self._registry.event_loops), *list(self._registry.threads)):
            turns, since = self._seen.get(loop, (-1, now))
            seen[loop] = (turns, since) if loop.turns == turns else (loop.turns, now)
        self._seen = seen
        at = now if leases_at is None else leases_at
        at_work = {thread for jobs in self._registry.in_hand() for thread in jobs.at_work(at)}
        quiet = [now - since for loop, (_, since) in seen.items() if loop.thread not in at_work]
        return max([*quiet, *(now - since for since in away)], default=0.0)


def is_alive(silent_s: Sequence[float]) -> bool:
    """Whether a worker is alive whose children have made no progress for so many seconds each."""
    return bool(silent_s) and max(silent_s) < QUIET_S
