"""What a signal handler may leave behind within pymongo: told by the frames that led there."""

import sys
from types import FrameType

from bson.errors import BSONError
from pymongo.errors import PyMongoError

#: The packages of the driver.
_DRIVER = ("pymongo", "bson")


def is_within_driver() -> bool:
    """Whether a signal handler, or a finalizer, has interrupted the driver: a call of it has led to this one."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if _is_drivers(frame):
            return True
        frame = frame.f_back
    return False


def spoils(error: BaseException) -> bool:
    """Whether the client whose call ended by ``error`` may hold a lock for ever: it was raised within the driver,
    and not by it. Of a generator that is closed nobody can tell, so it does.
    """
    if isinstance(error, PyMongoError | BSONError):
        return False
    if isinstance(error, GeneratorExit):
        return True
    at = error.__traceback__
    while at is not None:
        if _is_drivers(at.tb_frame):
            return True
        at = at.tb_next
    return False


def _is_drivers(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).partition(".")[0] in _DRIVER
