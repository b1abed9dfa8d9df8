"""Two facts about a process that only Linux keeps (https://man7.org/linux/man-pages/man2/prctl.2.html)."""

import ctypes
import os

_SET_PDEATHSIG, _GET_CHILD_SUBREAPER = 1, 37


def signal_at_parents_end(number: int, parent: int) -> None:
    """Have this process get the signal when ``parent``, which has started it, ends. Does nothing elsewhere."""
    if _prctl(_SET_PDEATHSIG, ctypes.c_ulong(number)) and os.getppid() != parent:
        os.kill(os.getpid(), number)  # it has ended before


def adopts() -> bool:
    """Whether processes whose parents end become children of this one: it is PID 1, or has asked for them."""
    asked = ctypes.c_int(0)
    return os.getpid() == 1 or (_prctl(_GET_CHILD_SUBREAPER, ctypes.byref(asked)) and bool(asked.value))


def _prctl(option: int, value: object) -> bool:
    try:
        return bool(ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) == 0)
    except (AttributeError, OSError):  # not Linux
        return False
