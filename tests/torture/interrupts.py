"""Signals that raise at any point of a process of the torture: in its own code, in a handler, within KQueue."""

import signal
from collections.abc import Callable
from types import FrameType

#: What may come. SIGINT raises ``KeyboardInterrupt``, as Python's own does.
SIGNALS = (signal.SIGALRM, signal.SIGUSR1, signal.SIGINT)


class Struck(Exception):
    """What a user's signal handler raises."""


class Interrupts:
    """Of one process, in its main thread: they raise only while :meth:`may_strike`, and once each time."""

    def __init__(self) -> None:
        self._is_armed = False
        for number in SIGNALS:
            signal.signal(number, self._strike)

    def _strike(self, number: int, _: FrameType | None) -> None:
        if self._is_armed:
            self._is_armed = False
            raise KeyboardInterrupt if number == signal.SIGINT else Struck

    def may_strike(self, call: Callable[[], object]) -> bool:
        """Call it; False if it was struck. A context manager would be struck between its own lines."""
        try:
            self._is_armed = True
            call()
            self._is_armed = False
        except (Struck, KeyboardInterrupt):
            return False
        finally:
            self._is_armed = False
        return True
