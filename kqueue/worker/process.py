"""The parent's end of a child: its process, its pipes, and what it said last."""

import math
import os
import subprocess
import sys
from contextlib import suppress

from kqueue.contracts.renewer import Renewal
from kqueue.system.clock import awake
from kqueue.worker import messages
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
)
from kqueue.worker.options import WorkerOptions

_MODULE = "kqueue.worker.child"


class ChildProcess:
    """One child, from its start until it was waited for."""

    def __init__(self, options: WorkerOptions, renewer: int) -> None:
        """Start it. ``renewer``: the file descriptor of a socket to who renews its leases. Raises ``OSError`` if
        the system cannot.
        """
        control, speak = os.pipe()
        hear, report = os.pipe()
        try:
            # -P: no file of the user's own stands in for one of Python's before the app is imported.
            self._process = subprocess.Popen(  # noqa: S603 (our own module)
                [sys.executable, "-P", "-m", _MODULE, str(control), str(report), str(renewer), options.to_text()],
                cwd=options.folder,
                stdin=subprocess.DEVNULL,
                pass_fds=(control, report, renewer),
                start_new_session=True,  # so that Ctrl-C reaches the parent alone
            )
        except BaseException:
            os.close(speak)
            os.close(hear)
            raise
        finally:
            os.close(control)
            os.close(report)
        self._commands = MessageWriter(speak)
        self.reports = MessageReader(hear)
        self.started_at = awake()
        #: How its lease owners end, once it is ready.
        self.tail: str | None = None
        #: Why it could not start.
        self.failure: str | None = None
        #: Why it wants to be replaced.
        self.leaving: str | None = None
        #: Whether it wants another one beside it, since a job there is to run alone.
        self.is_crowded = False
        #: Whether it only ends what it has in hand, for as long as it takes, and another one has its place.
        self.is_kept = False
        #: What it said at its end.
        self.done: Done | None = None
        #: Whether it may take jobs.
        self.went = False
        #: Whether it was told to end.
        self.is_stopped = False
        #: Whether it was killed because its time was over.
        self.was_killed = False
        #: The runs that it was killed for, since they took longer than they may.
        self.overruns: list[Renewal] = []
        #: When it is to be killed, in monotonic seconds.
        self.kill_at = math.inf
        #: Jobs that it has started.
        self.jobs = 0
        #: When its slowest loop had last got on, as far as it has said; in monotonic seconds.
        self.alive_at = self.started_at
        #: When it last said anything, in monotonic seconds.
        self.heard_at = self.started_at

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def is_ready(self) -> bool:
        """Whether it waits to be told to go, or went."""
        return self.tail is not None

    def hear(self) -> None:
        """Take in what it has said. Never waits."""
        for line in self.reports.lines():
            now = self.heard_at = awake()
            match messages.report(line):
                case ChildReady(tail=tail):
                    self.tail = tail
                    self.alive_at = now
                case Failed(why=why):
                    self.failure = why
                case Pulse(jobs=jobs, quiet=quiet):
                    self.jobs = jobs
                    self.alive_at = now - quiet
                case Leaving(why=why):
                    self.leaving = why
                case Crowded():
                    self.is_crowded = True
                case Done() as done:
                    self.done = done
                    self.jobs = done.jobs

    def tell(self, order: ChildCommand) -> None:
        """Send ``order`` to the child, which may be gone already."""
        if order is ChildCommand.GO:
            self.went = True
        else:
            self.is_stopped = True
        self._commands.say(order)

    def kill(self) -> None:
        """At once, whatever it does. It is still to be waited for."""
        self.was_killed = True
        self.kill_at = math.inf
        self._process.kill()

    def signal_group(self, number: int) -> None:
        """To it and to what is in its process group. It may be gone already."""
        with suppress(ProcessLookupError):
            if self._process.poll() is None:
                os.killpg(self.pid, number)

    def put_off(self, seconds: float) -> None:
        """It could do nothing for so long."""
        self.started_at += seconds
        self.kill_at += seconds
        self.alive_at += seconds
        self.heard_at += seconds

    def poll(self) -> int | None:
        """Its exit status, negative for the signal that ended it; None while it lives."""
        return self._process.poll()

    def wait(self) -> int:
        """For its end; returns its exit status, as :meth:`poll` does."""
        return self._process.wait()

    def close(self) -> None:
        """Close the pipes."""
        self._commands.close()
        self.reports.close()
