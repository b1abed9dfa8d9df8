"""Waiting for others that change the same documents: a little, longer each time, and not for ever."""

import random
import time

from kqueue.system.clock import awake

#: Seconds in all.
PATIENCE_S = 5.0
#: Seconds of the first wait at most, and of any.
_FIRST_S, _LONGEST_S = 0.002, 0.05


class Patience:
    """How long one call has waited for others, and whether it may go on."""

    def __init__(self, seconds: float = PATIENCE_S) -> None:
        self._began = awake()
        self._seconds = seconds
        self._next = _FIRST_S
        #: Seconds since the call began, once it has had to wait; 0 before.
        self.waited = 0.0

    def wait(self) -> bool:
        """Sleep for a while that is drawn, so that of many who meet each other not all come again at once.
        False, at once, if it is at its end.
        """
        if awake() - self._began > self._seconds:
            return False
        time.sleep(random.uniform(0, self._next))  # noqa: S311
        self._next = min(2 * self._next, _LONGEST_S)
        self.waited = awake() - self._began
        return True
