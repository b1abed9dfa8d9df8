"""The slots for children: each has one that takes jobs, or is about to get one."""

from kqueue.system.clock import awake
from kqueue.worker.process import ChildProcess
from kqueue.worker.restarts import Restarts


class Slot:
    """A slot for one child, and for those that follow it."""

    def __init__(self) -> None:
        self.child: ChildProcess | None = None
        self._restarts = Restarts()
        #: When the next child is to be started, in monotonic seconds.
        self.start_at = 0.0
        #: When a child in this slot was last known to get on, in monotonic seconds.
        self.alive_at = awake()

    def leave(self) -> None:
        """Its child ends by itself: another one is to be started at once."""
        self.child = None
        self.start_at = 0.0

    def lose(self, now: float, by_job: bool = False) -> float:
        """Its child has died, ``by_job`` or by something else, or none could be started: returns the seconds after
        which it is tried again.
        """
        lived_s = 0.0 if self.child is None else now - self.child.started_at
        self._restarts = self._restarts.after(lived_s, by_job)
        self.child = None
        self.start_at = now + self._restarts.pause_s
        return self._restarts.pause_s
