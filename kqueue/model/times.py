"""Times as people have them: a ``timedelta`` beside seconds, an aware ``datetime`` beside seconds since 1970."""

from datetime import datetime, timedelta
from typing import TypeAlias

from kqueue.model import checks

#: How long: seconds, or a ``timedelta``.
Duration: TypeAlias = float | timedelta
#: When: seconds since 1970, or a ``datetime`` that knows its time zone.
Instant: TypeAlias = float | datetime


def seconds(name: str, value: object, at_least: float) -> float:
    """A duration in seconds, finite and not below ``at_least``. Raises ``ValueError`` or ``TypeError``."""
    return checks.number(name, value.total_seconds() if isinstance(value, timedelta) else value, at_least)


def seconds_above_0(name: str, value: object) -> float:
    """A duration in seconds, finite and more than 0. Raises ``ValueError`` or ``TypeError``."""
    result = seconds(name, value, 0)
    if result == 0:
        raise ValueError(f"{name}: seconds, more than 0, got {value!r:.80}")
    return result


def instant(name: str, value: object) -> float:
    """Seconds since 1970. Raises ``ValueError`` or ``TypeError``, also for a ``datetime`` without a time zone: that
    is another moment on each host.
    """
    if not isinstance(value, datetime):
        return checks.number(name, value, 0)
    if value.utcoffset() is None:
        raise ValueError(
            f"{name}: a datetime with a time zone, got {value!r}, which is another moment on each host;"
            " give it one, such as UTC, or this host's by .astimezone()"
        )
    return checks.number(name, value.timestamp(), 0)
