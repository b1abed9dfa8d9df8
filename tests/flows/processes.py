"""Real processes for flows: a child that shares the test's queue through a fork, and dies as told."""

import os
import signal
import traceback
from collections.abc import Callable


def run_in_child(work: Callable[[], object]) -> int:
    """Run ``work`` in a forked child; returns its exit status, or minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        status = 70
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()  # pytest shows it with the failure of the parent's assertion
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die() -> None:
    """End this process as a crash does."""
    os.kill(os.getpid(), signal.SIGKILL)


#: What :func:`run_in_child` returns for a child that :func:`die` ended.
KILLED = -signal.SIGKILL
