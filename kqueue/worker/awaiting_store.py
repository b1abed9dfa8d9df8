"""A worker makes no store: it waits until a producer has made one."""

import logging
import signal
from types import FrameType
from typing import Final

from kqueue import KQueue
from kqueue.system.clock import awake
from kqueue.system.wakeup import Wakeup, wait_readable

#: Seconds between two looks.
LOOK_S: Final = 1.0
#: Seconds between two lines in the log.
SAY_S: Final = 60.0

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def await_store(queue: KQueue, logger: logging.Logger) -> bool:
    """Wait until there is one; False if SIGTERM or SIGINT came first. Says once a minute what it waits for."""
    if queue.store.exists():
        return True
    wakeup = Wakeup()

    def stop(number: int, frame: FrameType | None) -> None:
        wakeup.ring()

    before = {number: signal.signal(number, stop) for number in _SIGNALS}
    try:
        say_at = awake()
        while not queue.store.exists():
            if awake() >= say_at:
                say_at += SAY_S
                logger.warning(
                    "waiting for the store %s: there is none yet; a producer makes it", queue.store.address
                )
            wait_readable([wakeup], LOOK_S)
            if wakeup.answer():
                return False
        return True
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
