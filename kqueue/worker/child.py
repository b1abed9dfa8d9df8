"""A child of ``kqueue worker``: ``python -m kqueue.worker.child CONTROL REPORT RENEWER OPTIONS``.

Its main thread runs no job. It hears the parent and signals, looks after the threads that do, and says once a
second how they get on. So a handler never delays it, unless it keeps the interpreter's lock.
"""

import logging
import math
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType

from kqueue import KQueue, KQueueError
from kqueue.execution.overtime import MOST_ABANDONED
from kqueue.model.wording import counted
from kqueue.system import prctl, streams
from kqueue.system.clock import awake, steady
from kqueue.system.wakeup import Wakeup, wait_readable
from kqueue.worker import logs, messages
from kqueue.worker.app import load_queue, serve
from kqueue.worker.liveness import Liveness
from kqueue.worker.memory import resident_mib
from kqueue.worker.messages import (
    ChildCommand,
    ChildReady,
    Crowded,
    Done,
    Failed,
    Leaving,
    MessageReader,
    MessageWriter,
    Pulse,
    Report,
)
from kqueue.worker.options import WorkerOptions
from kqueue.worker.threads import Threads

#: Seconds between two looks at everything.
TICK_S = 1.0
#: Seconds between two looks at least.
LOOK_S = 0.02
#: Seconds in which a loop that runs no job has ended, once it is told to.
IDLE_END_S = 1.0
#: Exit statuses: all ended; running jobs were given back; it could not start.
CLEAN, GAVE_UP, COULD_NOT = 0, 1, 2


class Child:
    """Runs jobs until it is told to end, or finds that it should be replaced."""

    def __init__(self, queue: KQueue, options: WorkerOptions, line: "Line") -> None:
        self._queue = queue
        self._options = options
        self._line = line
        self._logger = logging.getLogger("kqueue.worker")
        self._threads = Threads(queue, options.threads, line.wake, self._logger)
        self._liveness = Liveness(queue.registry)
        self._is_leaving = False
        #: When running handlers have had their time, in monotonic seconds.
        self._give_up_at = math.inf
        self._tick_at = 0.0

    def run(self) -> int:
        """Run jobs until the end; returns the exit status."""
        if not self._line.await_go():
            return self._end()
        self._queue.registry.max_jobs = self._options.max_jobs
        self._queue.registry.blames_interrupts = True
        self._queue.registry.isolation.yields = True
        self._threads.start()
        while not self._threads.have_ended():
            now = awake()
            if now >= self._give_up_at and (self._queue.registry.in_hand() or now >= self._give_up_at + IDLE_END_S):
                return self._give_up()
            if now >= self._tick_at:
                self._tick_at = now + TICK_S
                self._tick(now)
            if self._is_leaving:
                self._threads.stop()
            orders, is_signalled = self._line.listen(max(LOOK_S, min(self._tick_at, self._give_up_at) - now))
            self._obey(orders, is_signalled)
        return self._end()

    def _tick(self, now: float) -> None:
        """Once a second. What else a worker has to do from time to time has its place here."""
        self._line.say(
            Pulse(
                self._queue.registry.jobs_started(),
                self._liveness.quiet_s(now, self._threads.away_since(), steady()),
            )
        )
        if self._queue.registry.isolation.is_crowded() and not self._is_leaving:
            self._line.say(Crowded())
        if len(self._queue.registry.abandoned) >= MOST_ABANDONED:
            self._leave(f"{MOST_ABANDONED} coroutines that were cancelled have not ended")
        most = self._options.max_rss
        if most is not None and (rss := resident_mib()) >= most:
            self._leave(f"it has {rss:.0f} MiB, and --max-rss is {most}")

    def _obey(self, orders: Sequence[ChildCommand], is_signalled: bool) -> None:
        now = awake()
        if self._queue.registry.is_spent():
            self._leave(f"it has run {counted(self._queue.registry.jobs_started(), 'job')}")
        if is_signalled:
            self._leave("it got a signal")
        if ChildCommand.LEAVE in orders:
            self._is_leaving = True
        if ChildCommand.STOP in orders:
            self._is_leaving = True
            self._give_up_at = min(self._give_up_at, now + self._options.grace)
        if ChildCommand.NOW in orders:
            self._is_leaving = True
            self._give_up_at = now

    def _leave(self, why: str) -> None:
        """Take no more jobs, and let another child take this one's place."""
        if not self._is_leaving:
            self._is_leaving = True
            self._line.say(Leaving(why))

    def _end(self) -> int:
        """All loops are over. What could not be settled is the parent's, who gives it back."""
        self._obey([], False)  # the last loop may have ended since
        clean = not self._threads.left_unsettled
        self._line.say(Done(self._queue.registry.jobs_started(), clean))
        self._queue.close()
        return CLEAN if clean else GAVE_UP

    def _give_up(self) -> int:
        """The grace is over: others are to take what runs here. Does not return."""
        self._threads.stop()
        try:
            self._queue.registry.give_up()
        except KQueueError as error:
            self._logger.warning("running jobs are not given back: %s", error)
        self._line.say(Done(self._queue.registry.jobs_started(), clean=False))
        for stream in filter(None, (sys.stdout, sys.stderr)):
            with suppress(OSError, ValueError):  # it is closed, or nobody reads it
                stream.flush()
        os._exit(GAVE_UP)  # handlers run on in their threads, and what they do counts no more


class Line:
    """To the parent, and to whoever sends signals."""

    def __init__(self, control: int, report: int) -> None:
        for descriptor in (control, report):
            os.set_inheritable(descriptor, False)  # nothing that a handler starts is to keep them open
        self._commands = MessageReader(control)
        self._reports = MessageWriter(report)
        self._wakeup = Wakeup()
        self._signals = 0
        self._heard = 0
        self._is_orphan = False

    def catch_signals(self) -> None:
        """SIGTERM and SIGINT to a child end it when its handlers have ended; the parent starts another one."""

        def catch(number: int, frame: FrameType | None) -> None:
            self._signals += 1
            self._wakeup.ring()

        signal.signal(signal.SIGTERM, catch)
        signal.signal(signal.SIGINT, catch)

    def say(self, report: Report) -> None:
        """Tell the parent. Never waits."""
        self._reports.say(report)

    def wake(self) -> None:
        """End a :meth:`listen`, from any thread."""
        self._wakeup.ring()

    def listen(self, seconds: float) -> tuple[list[ChildCommand], bool]:
        """(orders that came, whether a signal did), after so many seconds at most. The parent's death is a stop."""
        wait_readable([self._wakeup] if self._is_orphan else [self._wakeup, self._commands], seconds)
        self._wakeup.answer()
        orders = [messages.order(line) for line in self._commands.lines()]
        if self._commands.is_over and not self._is_orphan:
            self._is_orphan = True
            orders.append(ChildCommand.STOP)
        signals, self._heard = self._signals - self._heard, self._signals
        return orders, signals > 0

    def await_go(self) -> bool:
        """False if it is told to end instead."""
        while True:
            orders, is_signalled = self.listen(TICK_S)
            if is_signalled or ChildCommand.STOP in orders or ChildCommand.NOW in orders:
                return False
            if ChildCommand.GO in orders:
                return True


def main(arguments: Sequence[str]) -> int:
    """Start, and run until the end. Returns the exit status."""
    streams.secure_program()
    prctl.signal_at_parents_end(signal.SIGCONT, os.getppid())  # one that is stopped would not see it
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)  # the parent ignores these two, and a handler's programs need not
    signal.signal(signal.SIGTTIN, signal.SIG_DFL)
    control, report, renewer, text = arguments
    options = WorkerOptions.of(text)
    line = Line(int(control), int(report))
    line.catch_signals()
    try:
        queue = load_queue(options.app)
        serve(queue, options.types, options.except_types)
        line.catch_signals()  # the app may have come in between
        logs.configure(options.log_level)
        queue.parts.telemetry.tells_jobs = options.log_jobs
        queue.parts.renewer.offer(int(renewer))
        queue.open()
        _check_memory(options.max_rss)
    except (KQueueError, ValueError, TypeError) as error:
        line.say(Failed(str(error)))
        return COULD_NOT
    line.say(ChildReady(queue.owner_tail))
    return Child(queue, options, line).run()


def _check_memory(most: int | None) -> None:
    """Else each child would be replaced at once."""
    rss = resident_mib()
    if most is not None and rss >= most:
        raise ValueError(f"--max-rss: {most} MiB, but a process has {rss:.0f} MiB before its first job")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
