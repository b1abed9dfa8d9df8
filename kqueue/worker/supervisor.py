"""The parent of a worker. It runs no job and waits for no store.

start all -> all are ready -> let them go -> look after them, each second or when something is said
          -> a signal ends them -> the last is gone
"""

import logging
import os
import signal
import time
from collections import deque
from types import FrameType

from kqueue import KQueue
from kqueue.model.wording import counted
from kqueue.renewal.server import Overrun
from kqueue.system.clock import awake
from kqueue.system.wakeup import Wakeup, wait_readable
from kqueue.worker.children import Children
from kqueue.worker.health import HealthFile
from kqueue.worker.liveness import is_alive
from kqueue.worker.messages import ChildCommand
from kqueue.worker.options import WorkerOptions
from kqueue.worker.orphans import Orphans
from kqueue.worker.reaping import Reaper
from kqueue.worker.renewal import RenewalThread
from kqueue.worker.systemd import Systemd

#: Exit statuses: a clean stop; the grace ran out, a second signal came, or a child died meanwhile.
CLEAN, CUT_SHORT = 0, 1
#: Seconds between two looks at everything.
TICK_S = 1.0
#: Types that the first line names.
MOST_TYPES = 20
#: Seconds that the store has to take back what killed children had in hand, at the end.
FINISH_S = 15.0


class Supervisor:
    """The parent of one ``kqueue worker``: starts, watches and ends its children."""

    def __init__(self, queue: KQueue, options: WorkerOptions) -> None:
        """``queue``: the app's own, with its handlers.

        Raises ``ValueError`` if its store does not reach other processes, or the health file could not be written.
        """
        if queue.store.shared_url is None:
            raise ValueError(
                f"--app: the store of {options.app} is {queue.store.address}, which each process has for itself;"
                " a worker's processes need one that they share, such as sqlite:///jobs.db"
            )
        self._options = options
        self._logger = logging.getLogger("kqueue.worker")
        self._health = None if options.health_file is None else HealthFile(options.health_file)
        if self._health is not None:
            self._health.prepare()
        self._systemd = Systemd(os.environ, self._logger)
        self._tick_s = min(TICK_S, self._systemd.every_s or TICK_S)
        self._wakeup = Wakeup()
        self._signals = 0
        self._obeyed = 0
        self._tick_at = 0.0
        self._is_to_stand_still = False
        self._reaper = Reaper()
        self._orphans = Orphans(queue, self._logger)
        self._overruns: deque[Overrun] = deque()
        self._renewer = RenewalThread(self._logger, self._note_overrun)
        self._children = Children(options, self._orphans, self._renewer, self._logger)
        self._serves = _serves(queue, options)

    def run(self) -> int:
        """Until a signal ends it. Returns the exit status. Raises ``KQueueError`` if a first child cannot start."""
        self._catch_signals()
        try:
            if self._start():
                self._look_after()
        finally:
            self._children.kill_all()
            self._renewer.close()
            self._orphans.finish(FINISH_S)
            if self._health is not None:
                self._health.remove()
            _ignore_signals()
        self._logger.info("ended after %s", counted(self._children.jobs(), "job"))
        return CUT_SHORT if self._obeyed > 1 or self._children.was_cut_short else CLEAN

    def _catch_signals(self) -> None:
        def catch(number: int, frame: FrameType | None) -> None:
            self._signals += 1
            self._wakeup.ring()

        def stand_still(number: int, frame: FrameType | None) -> None:
            self._is_to_stand_still = True
            self._wakeup.ring()

        signal.signal(signal.SIGTERM, catch)
        signal.signal(signal.SIGINT, catch)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup
            signal.signal(signal.SIGHUP, catch)
        signal.signal(signal.SIGTSTP, stand_still)
        # One that writes to its terminal, or reads, from the background would be stopped alone.
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        signal.signal(signal.SIGTTIN, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda number, frame: self._wakeup.ring())

    def _start(self) -> bool:
        """Start all children, and let them go once all are ready. False if a signal came first."""
        self._children.begin()
        while not self._signals:
            if self._children.are_ready():
                self._logger.info("%s", self._serves)
                self._children.let_go()
                self._systemd.ready(self._serves)
                return True
            self._listen(TICK_S)
        return False

    def _look_after(self) -> None:
        while self._children.children() or not self._obeyed:
            self._tick()
            self._listen(min(self._tick_at, self._children.look_at()) - awake())
            self._obey()
            while self._overruns:
                self._children.kill_overrun(self._overruns.popleft())
            self._children.look_after()

    def _note_overrun(self, run: Overrun) -> None:
        """Of the renewer's thread."""
        self._overruns.append(run)
        self._wakeup.ring()

    def _listen(self, seconds: float) -> None:
        """Wait until something is said, a signal comes or a child ends, but for so long at most."""
        reports = [child.reports for child in self._children.children() if not child.reports.is_over]
        wait_readable([self._wakeup, *reports], seconds)
        self._wakeup.answer()
        if self._is_to_stand_still:
            self._is_to_stand_still = False
            self._stand_still()
        self._reaper.reap([child.pid for child in self._children.children()])

    def _stand_still(self) -> None:
        """All or none: children that ran on would lose the leases that this process renews for them."""
        began = awake()
        self._children.tell_all(signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)  # until somebody says SIGCONT
        self._children.tell_all(signal.SIGCONT)
        self._children.stood_still(awake() - began)

    def _obey(self) -> None:
        """The first signal stops the children, and any other ends them now."""
        signals = self._signals
        if signals and not self._obeyed:
            self._systemd.stops()
            self._logger.info("stopping: running jobs have %g s", self._options.grace)
            self._children.end(ChildCommand.STOP, self._options.grace)
        if signals > 1 and self._obeyed < 2:
            self._logger.warning("a second signal: ending now")
            self._children.end(ChildCommand.NOW, 0.0)
        self._obeyed = signals

    def _tick(self) -> None:
        """Once a second, or as often as systemd wants to hear of it."""
        now = awake()
        if now < self._tick_at:
            return
        self._tick_at = now + self._tick_s
        if self._health is None and self._systemd.every_s is None:
            return
        if not is_alive(self._children.silences(now)):
            return
        self._systemd.gets_on()
        if self._health is not None:
            try:
                self._health.write(self._state())
            except OSError as error:
                self._logger.warning("--health-file is not written: %s", error)

    def _state(self) -> dict[str, object]:
        return {
            "time": time.time(),
            "pid": os.getpid(),
            "jobs": self._children.jobs(),
            "children": [{"pid": child.pid, "jobs": child.jobs} for child in self._children.children()],
        }


def _serves(queue: KQueue, options: WorkerOptions) -> str:
    """What this worker is, on one line: what an operator asks first."""
    broker = queue.broker.address if queue.broker.carries_pointers else "none"
    types = queue.types()
    more = f" and {len(types) - MOST_TYPES} more" if len(types) > MOST_TYPES else ""
    return (
        f"store {queue.store.address}, broker {broker}, processes {options.processes}, threads {options.threads},"
        f" types {' '.join(types[:MOST_TYPES])}{more}"
    )


def _ignore_signals() -> None:
    """All is done, and the exit status stands. Python, which ends now, would give signals their default back: one
    that comes late would turn a clean stop into a death by signal.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
