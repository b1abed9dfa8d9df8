"""Times on the command line: ``90``, ``10m``, ``2026-05-01T12:00``; and ``10m`` for that long ago."""

import re
from datetime import datetime, timedelta

import click

from kqueue.system.clock import SystemClock

#: Seconds of each unit.
UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)", re.ASCII)


def duration(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    """Seconds. Raises ``BadParameter``."""
    if value is None:
        return None
    found = _DURATION.fullmatch(value)
    if found is None:
        raise click.BadParameter(f"expected seconds, or 90s, 10m, 2h, 3d, got {value!r:.40}")
    return float(found[1]) * UNITS[found[2]]


def instant(context: click.Context, parameter: click.Parameter, value: str | None) -> datetime | None:
    """A time; without a zone it is this host's. Raises ``BadParameter``."""
    try:
        return None if value is None else datetime.fromisoformat(value).astimezone()
    except (ValueError, OverflowError):
        raise click.BadParameter(f"expected a time such as 2026-05-01T12:00, got {value!r:.40}") from None


def instant_or_ago(context: click.Context, parameter: click.Parameter, value: str | None) -> datetime | None:
    """A time, or how long ago with its unit. Raises ``BadParameter``."""
    found = None if value is None else _DURATION.fullmatch(value)
    if found is None or not found[2]:
        return instant(context, parameter, value)
    try:
        now = datetime.fromtimestamp(SystemClock().time()).astimezone()
        return now - timedelta(seconds=float(found[1]) * UNITS[found[2]])
    except OverflowError:
        raise click.BadParameter(f"expected less than {value!r:.40} ago") from None
