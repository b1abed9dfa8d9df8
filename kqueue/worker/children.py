"""The children of a worker: started, replaced, ended, and cleared away.

A child is in its slot, or among the *old* ones: these take no more jobs, are about to end, and are replaced
already.
"""

import logging
import math
import signal
import socket

from kqueue import KQueueError
from kqueue.renewal.server import Overrun
from kqueue.system.clock import awake
from kqueue.worker.messages import ChildCommand
from kqueue.worker.options import WorkerOptions
from kqueue.worker.orphans import Orphans
from kqueue.worker.process import ChildProcess
from kqueue.worker.renewal import RenewalThread
from kqueue.worker.slots import Slot

#: Seconds that a child may take to import the app.
START_S = 120.0
#: Seconds that a child has to give back its running jobs before it is killed, and to exit once its loops are over.
GIVE_UP_S = 3.0
EXIT_S = 10.0
#: Children that only end what they have in hand, beside one that has taken its place for a suspect's sake, at most,
#: for each process that was asked for.
MOST_KEPT = 2
#: Seconds of silence after which the store is asked whether a child holds a lease.
SILENT_S = 5.0


class Children:
    """The children of one supervisor, in their slots. It never waits."""

    def __init__(
        self, options: WorkerOptions, orphans: Orphans, renewer: RenewalThread, logger: logging.Logger
    ) -> None:
        self._options = options
        self._renewer = renewer
        self._orphans = orphans
        self._logger = logger
        self._slots = [Slot() for _ in range(options.processes)]
        self._old: list[ChildProcess] = []
        self._is_ending = False
        #: Jobs of children that are gone.
        self._jobs = 0
        #: Whether a child did not end by itself and with all settled after it was told to.
        self.was_cut_short = False

    def children(self) -> list[ChildProcess]:
        """All that are not cleared away yet."""
        return [slot.child for slot in self._slots if slot.child is not None] + self._old

    def jobs(self) -> int:
        """Started by all children that there were."""
        return self._jobs + sum(child.jobs for child in self.children())

    def look_at(self) -> float:
        """When there is something to do for the time's sake, in monotonic seconds."""
        times = [child.kill_at for child in self.children()]
        if not self._is_ending:
            times += [slot.start_at for slot in self._slots if slot.child is None]
        return min(times, default=math.inf)

    # -- the start ---------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start a child in each slot. Raises ``KQueueError`` if the system cannot."""
        for slot in self._slots:
            slot.child = self._spawn()

    def are_ready(self) -> bool:
        """Whether all first children are. Raises ``KQueueError`` if one will not be; none has taken a job then."""
        for child in self.children():
            status = child.poll()
            child.hear()
            why = child.failure or (None if status is None else told(status)) or _lateness(child)
            if why:
                raise KQueueError(f"a child could not start: {why}")
        return all(child.is_ready for child in self.children())

    def let_go(self) -> None:
        """Let those that are ready take jobs."""
        for child in self.children():
            if child.is_ready and not (child.went or self._is_ending):
                child.tell(ChildCommand.GO)
                self._logger.info("child %d runs jobs", child.pid)

    def _spawn(self) -> ChildProcess:
        ours, theirs = socket.socketpair()
        try:
            child = ChildProcess(self._options, theirs.fileno())
        except OSError as error:
            ours.close()
            raise KQueueError(f"a child could not start: {error.strerror}") from error
        finally:
            theirs.close()
        self._renewer.add(ours)
        return child

    # -- from time to time -------------------------------------------------------------------------------

    def look_after(self) -> None:
        """Take in what children say, clear away those that are gone, and start others in their slots."""
        for child in self.children():
            status = child.poll()
            child.hear()
            self._replace_if_leaving(child)  # it may be gone already
            if status is None:
                self._attend(child, awake())
            else:
                self._clear(child, status)
        self.let_go()
        self._fill_slots(awake())

    def _replace_if_leaving(self, child: ChildProcess) -> None:
        if child.leaving is not None and child not in self._old:
            self._replace(child, child.leaving)
        elif child.is_crowded and child not in self._old and not self._is_ending:
            child.is_crowded = False  # it says so again
            if sum(one.is_kept for one in self._old) < MOST_KEPT * self._options.processes:
                child.is_kept = True
                child.tell(ChildCommand.LEAVE)
                self._replace(child, "a job there is to run alone, since it may have killed its worker")

    def _replace(self, child: ChildProcess, why: str) -> None:
        """Start another one in its place. It ends by itself."""
        self._logger.info("child %d is replaced: %s", child.pid, why)
        self._slot_of(child).leave()
        self._old.append(child)

    def _attend(self, child: ChildProcess, now: float) -> None:
        if child.done is not None and child.kill_at == math.inf:
            child.kill_at = now + EXIT_S
        if (late := _lateness(child)) is not None:
            child.failure, child.kill_at = late, now
        if now >= child.kill_at:
            self._logger.warning("child %d does not end, and is killed", child.pid)
            child.kill()

    def kill_overrun(self, run: Overrun) -> None:
        """Kill the child in which it goes on, at once. It may have ended in this very moment: then nothing is done,
        and what a run settled before its process was killed stays settled.
        """
        child = next((one for one in self.children() if one.pid == run.pid and one.poll() is None), None)
        if child is not None and run.goes_on():
            child.overruns.append(run.hold)
            self._logger.warning(
                "child %d is killed: job %s has run longer than max_runtime (%g s)",
                child.pid,
                run.hold.id,
                run.hold.max_runtime,
            )
            child.kill()

    def _slot_of(self, child: ChildProcess) -> Slot:
        return next(slot for slot in self._slots if slot.child is child)

    def _fill_slots(self, now: float) -> None:
        for slot in self._slots:
            if slot.child is None and now >= slot.start_at and not self._is_ending:
                try:
                    slot.child = self._spawn()
                except KQueueError as error:
                    self._logger.warning("%s; again in %.0f s", error, slot.lose(now))

    # -- standing still ----------------------------------------------------------------------------------

    def tell_all(self, number: int) -> None:
        """Send a signal to all children, and to what their handlers have started in their groups."""
        for child in self.children():
            child.signal_group(number)

    def stood_still(self, seconds: float) -> None:
        """All did for so long: nobody is late by it."""
        for child in self.children():
            child.put_off(seconds)
        for slot in self._slots:
            slot.start_at += seconds
            slot.alive_at += seconds

    # -- the end -----------------------------------------------------------------------------------------

    def end(self, order: ChildCommand, grace: float) -> None:
        """Tell all children to end, and kill those that have not done so in time."""
        self._is_ending = True
        for child in self.children():
            if child.went:
                child.tell(order)
                child.kill_at = min(child.kill_at, awake() + grace + GIVE_UP_S)
            else:
                child.kill()  # it holds nothing

    def kill_all(self) -> None:
        """Kill all children at once, and wait for their ends."""
        self._is_ending = True
        for child in self.children():
            child.kill()
            status = child.wait()
            child.hear()
            self._clear(child, status)

    def _clear(self, child: ChildProcess, status: int) -> None:
        """It is gone, so nobody holds its leases."""
        self._jobs += child.jobs
        child.close()
        is_clean = child.done is not None and child.done.clean
        if not (is_clean or child.was_killed):
            what = "ended" if child.went else "could not start"
            self._logger.warning("child %d %s: %s", child.pid, what, child.failure or told(status))
        if child.went and not is_clean:
            self.was_cut_short |= self._is_ending
            self._inherit(child)
        if child in self._old:
            self._old.remove(child)
        else:
            # A signal that nobody of ours has sent, while it ran jobs: most likely it comes from one of them.
            by_job = child.jobs > 0 or bool(child.overruns) or (child.went and status < 0 and not child.was_killed)
            pause = self._slot_of(child).lose(awake(), by_job)
            if not self._is_ending:
                self._logger.warning("child %d: another one starts in %.0f s", child.pid, pause)

    def _inherit(self, child: ChildProcess) -> None:
        """The jobs of a child whose time was over are not to blame; any other death may have come from them."""
        if child.overruns:
            self._orphans.end_overruns(child.pid, child.tail or "", child.overruns)
        elif child.done is not None or child.was_killed:
            self._orphans.give_back(child.pid, child.tail or "")
        else:
            self._orphans.end(child.pid, child.tail or "")

    # -- health ------------------------------------------------------------------------------------------

    def silences(self, now: float) -> list[float]:
        """Seconds since each slot, and each old child, was last known to get on. ``now`` in monotonic seconds."""
        for slot in self._slots:
            if slot.child is not None and slot.child.went:
                slot.alive_at = self._alive_at(slot.child, now)
        alive_at = [slot.alive_at for slot in self._slots] + [self._alive_at(child, now) for child in self._old]
        return [now - at for at in alive_at]

    def _alive_at(self, child: ChildProcess, now: float) -> float:
        """Who keeps the interpreter's lock keeps the whole process silent: then a lease is its sign of life."""
        if child.tail is None or now - child.heard_at < SILENT_S:
            return child.alive_at
        return max(child.alive_at, self._orphans.alive_until(child.tail, child.heard_at))


def told(status: int) -> str:
    """An exit status as people say it."""
    if status >= 0:
        return f"exit status {status}"
    names = {one.value: one.name for one in signal.Signals}
    return f"signal {names.get(-status, -status)}"


def _lateness(child: ChildProcess) -> str | None:
    """What is said of a child that should have been ready by now."""
    if child.is_ready or child.was_killed or awake() - child.started_at <= START_S:
        return None
    return f"it was not ready after {START_S:.0f} s"
