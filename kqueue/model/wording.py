"""Times, durations and counts as people read them."""

from datetime import datetime


def moment(seconds: float) -> str:
    """A time, given in seconds since 1970, on this host's clock: ``2026-05-01 12:00:00+02:00``."""
    try:
        return datetime.fromtimestamp(seconds).astimezone().isoformat(sep=" ", timespec="seconds")
    except (ValueError, OverflowError, OSError):
        # A delay may be any finite number of seconds, and reach beyond the last year that a datetime has.
        return f"{seconds:g} s after 1970"


def span(seconds: float) -> str:
    """A duration as one number and its unit: ``90 s``, ``3 min``."""
    for unit, size, until in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172_800)):
        if seconds < until:
            return f"{max(0.0, seconds) / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} days"


def interrupted(error: BaseException) -> str:
    """What a handler did that raised ``error``, an interrupt, in a worker, where nobody has pressed Ctrl-C."""
    what = f"called sys.exit({error.code!r})" if isinstance(error, SystemExit) else "raised KeyboardInterrupt"
    return f"a handler {what}; its job counts a failed try"


def counted(number: int, noun: str) -> str:
    """``1 job``, ``2 jobs``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def shown(value: object) -> str:
    """For a message: as its ``repr``, shortened. Python makes none of a number of thousands of digits, and one of a
    user's own may fail.
    """
    try:
        text = repr(value)
    except Exception:
        return f"what cannot be shown, of {type(value).__name__}"
    return text if len(text) <= 80 else text[:77] + "..."
