"""Processes whose parents have ended. As PID 1, as in a container, the worker's parent gets them, and somebody has
to wait for them: else they stay zombies.
"""

import os
import threading
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from kqueue.system import prctl


class Reaper:
    """Waits for adopted processes that have ended, for one supervisor."""

    def __init__(self) -> None:
        """What the process has started before, the app say, is not touched: its starter waits for it."""
        self._adopts = prctl.adopts()
        self._known = _children() if self._adopts else frozenset()

    def reap(self, ours: Collection[int]) -> None:
        """Wait for those that have ended and are not ``ours``. Never blocks."""
        while self._adopts:
            with suppress(ChildProcessError):
                # The first that has ended; it stays to be waited for.
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if ended is not None and ended.si_pid not in ours and ended.si_pid not in self._known:
                    os.waitpid(ended.si_pid, 0)
                    continue
            return


def _children() -> frozenset[int]:
    """As far as the kernel tells."""
    try:
        text = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text()
    except OSError:
        return frozenset()
    return frozenset(map(int, text.split()))
