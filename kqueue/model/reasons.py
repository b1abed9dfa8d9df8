"""Why a run failed, as a text for operators. Pure."""

import os
import sys
import traceback
from types import FrameType

#: Characters of a reason that are kept.
MAX_REASON = 1000
#: Bytes of a traceback that are kept, in UTF-8,
MAX_TRACEBACK = 16 * 1024
#: and how many of them are its beginning, where it has more.
HEAD = 4 * 1024
#: For the line in the place of what is left out.
_GAP = 60


def describe(error: BaseException) -> str:
    """An exception as a reason: its class, what it says, and the last line of the user's own on the way to it."""
    try:
        message = str(error)
    except Exception as nested:
        message = f"(its text cannot be had: {type(nested).__name__})"
    name = type(error).__name__
    line = own_line(error)
    place = f" ({line})" if line else ""
    return reason_text(f"{name}: {message}" if message else name, MAX_REASON - len(place)) + place


def traceback_of(error: BaseException) -> str | None:
    """Its traceback as a job keeps it: from the user's own code on, without its middle if it is too long. None if
    it cannot be told.
    """
    first = error.__traceback__
    while first is not None and _package(first.tb_frame) == "kqueue":
        first = first.tb_next
    try:
        told = traceback.TracebackException(type(error), error, first or error.__traceback__, compact=True)
        return _bounded(storable("".join(told.format()).rstrip("\n")))
    except Exception:  # of a class of the user's
        return None


def _bounded(text: str) -> str:
    """Whole lines of its beginning and of its end."""
    encoded = text.encode()
    if len(encoded) <= MAX_TRACEBACK:
        return text
    head = encoded[:HEAD].decode(errors="ignore").rpartition("\n")[0]
    tail = encoded[HEAD + _GAP - MAX_TRACEBACK :].decode(errors="ignore")
    tail = tail.partition("\n")[2] or tail
    left_out = len(encoded) - len(head.encode()) - len(tail.encode())
    return f"{head}\n  ... {left_out} bytes are left out ...\n{tail}"


def own_line(error: BaseException) -> str | None:
    """``file.py:12``, the last line of the user's own on the way to ``error``; None if there is none."""
    found = own_place(error)
    return None if found is None else f"{os.path.basename(found[0])}:{found[1]}"


def own_place(error: BaseException) -> tuple[str, int] | None:
    """(the file's path, the line) of the same.

    His own is what lies in the package of the handler, or neither in Python's library nor among what was installed.
    Code that was not read from a file has no line to look at.
    """
    frames = [(frame, line) for frame, line in traceback.walk_tb(error.__traceback__) if not _is_machinery(frame)]
    if not frames:
        return None
    own = _package(frames[0][0])
    mine = [one for one in frames if _package(one[0]) == own or not _is_installed(one[0])]
    frame, line = mine[-1]
    path = frame.f_code.co_filename
    return (path, line) if os.path.isabs(path) else None


def reason_text(reason: str, most: int = MAX_REASON) -> str:
    """``reason`` as a job keeps it: at most ``most`` characters, as every store can keep them."""
    return storable(reason[:most])[:most]


def storable(text: str) -> str:
    """``text`` as UTF-8 can hold it. An exception's may quote a file's name with a lone surrogate in it."""
    return text.encode("utf-8", "backslashreplace").decode()


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__")).partition(".")[0]


def _is_machinery(frame: FrameType) -> bool:
    """Of KQueue, or of Python's own library."""
    package = _package(frame)
    return package == "kqueue" or package in sys.stdlib_module_names


def _is_installed(frame: FrameType) -> bool:
    path = frame.f_code.co_filename
    return "site-packages" in path or "dist-packages" in path
