"""``kqueue run`` at a terminal: Ctrl-C goes to all processes of its group, also to what a handler has started.

So the jobs run in a process with a session of its own, as those of ``kqueue worker`` do. Whoever started the
command knows the other one: that passes signals on, stops and goes on together with it, and ends as it ends.
"""

import os
import signal
import sys
from contextlib import suppress

from kqueue.system import prctl

#: What is passed on.
PASSED = {
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
}
_AWAITED = {*PASSED, signal.SIGTSTP, signal.SIGCHLD}


def step_aside() -> int | None:
    """Go on in a child process, and return None there. In this one return its exit status once it has ended.

    To be called while there is one thread and nothing is open.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # else both would write it
    parent = os.getpid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # who has started us may have it ignored
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
    child = os.fork()
    if child == 0:
        os.setsid()
        prctl.signal_at_parents_end(signal.SIGKILL, parent)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return None
    return _stand_for(child)


def _stand_for(child: int) -> int:
    # One that writes to its terminal, or reads, from the background would be stopped, and its child would not.
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    signal.signal(signal.SIGTTIN, signal.SIG_IGN)
    while True:
        number = signal.sigwait(_AWAITED)
        if number in PASSED:
            os.kill(child, number)
        elif number == signal.SIGTSTP:
            _tell_all(child, signal.SIGSTOP)
            os.kill(os.getpid(), signal.SIGSTOP)  # until somebody says SIGCONT
            _tell_all(child, signal.SIGCONT)
        else:
            status = _reap(child)
            if status is not None:
                return _end_as(status)


def _tell_all(child: int, number: int) -> None:
    """The child, and what it has started."""
    try:
        os.killpg(child, number)
    except ProcessLookupError:  # it has no session yet
        os.kill(child, number)


def _reap(child: int) -> int | None:
    """The status of the child if it has ended. As PID 1 this has orphans too, which would stay zombies."""
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == child:
            return os.waitstatus_to_exitcode(status)
        if not pid:
            return None


def _end_as(status: int) -> int:
    """The exit status; one that a signal has ended ends this process too."""
    if status >= 0:
        return status
    with suppress(OSError, ValueError):
        signal.signal(-status, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {-status})
    os.kill(os.getpid(), -status)
    return 128 - status
