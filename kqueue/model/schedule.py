"""When a job falls due by a cron expression: pure, but for the time zones that the host knows.

A *tick* is a moment that the expression names, in seconds since 1970. What an expression means, and what becomes of
it when clocks are set forward or back, is cronsim's to say, which follows Debian's cron: a job at a fixed time that
a day lacks runs when the clocks have gone forward, one at a time that a day has twice runs at the first; one that a
star repeats runs at each step of real time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import islice, takewhile
from typing import TYPE_CHECKING, TypeAlias

from kqueue.model.wording import shown

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

#: Seconds after its time at which a tick counts as missed.
LATE_S = 60.0
#: Ticks that are added at once at most.
MOST_TICKS = 1000
#: How a look back for the last missed tick grows.
_FURTHER = 4
#: Spans of ticks that are remembered as added, of each schedule.
MOST_SPANS = 50
#: From one tick to another, both with it.
Span: TypeAlias = tuple[float, float]


class Missed(StrEnum):
    """What becomes of ticks that nobody noticed within a minute. Each compares equal to its name."""

    #: They are left out.
    NONE = "none"
    #: The last of them is added, unless a later tick is due by now.
    LAST = "last"
    #: Each of them is added.
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Schedule:
    """A cron expression in a time zone. Made by :func:`make`, which checks both."""

    expression: str
    zone: ZoneInfo
    missed: Missed

    def ticks_after(self, moment: float) -> Iterator[float]:
        """All ticks later than ``moment``, the earliest first. Ends where the next 50 years have none."""
        from cronsim import CronSim  # noqa: PLC0415 (most queues have no schedule)

        last = moment
        for tick in CronSim(self.expression, datetime.fromtimestamp(moment, self.zone)):
            seconds = tick.timestamp()
            if seconds > last:  # begun within an hour that comes twice, it may go back to the first one
                last = seconds
                yield seconds

    def next_after(self, moment: float) -> float | None:
        """The first tick later than ``moment``; None if there is none."""
        return next(self.ticks_after(moment), None)

    def remember(self, added: Sequence[Span], ticks: Sequence[float]) -> tuple[Span, ...]:
        """``added`` and these ticks, which are all that the schedule has between the first and the last of them, as
        spans from a tick to a tick, the earliest first: of all ticks in a span it is known that they were added. Of
        too many spans those that lie furthest ahead are kept.
        """
        first, last = ticks[0], ticks[-1]
        before = [span for span in added if span[1] < first]
        after = [span for span in added if span[0] > last]
        for span in added:
            if span not in before and span not in after:
                first, last = min(first, span[0]), max(last, span[1])
        if before and self.next_after(before[-1][1]) == first:
            first = before.pop()[0]
        if after and self.next_after(last) == after[0][0]:
            last = after.pop(0)[1]
        return tuple([*before, (first, last), *after][-MOST_SPANS:])

    def due(self, last: float, now: float) -> list[float]:
        """The ticks to be added at ``now``, the earliest first, if those up to ``last`` have been dealt with.

        At most :data:`MOST_TICKS`; then more may be due from the last of them on.
        """
        if self.missed is Missed.ALL:
            return self._between(last, now)
        # Not from the last one on: that may be years ago, and most ticks since are of no use.
        back = LATE_S
        ticks = self._between(max(last, now - back), now)
        while self.missed is Missed.LAST and not ticks and last < now - back:
            back *= _FURTHER
            ticks = list(deque(self._within(max(last, now - back), now), maxlen=1))
        return ticks

    def _between(self, after: float, until: float) -> list[float]:
        return list(islice(self._within(after, until), MOST_TICKS))

    def _within(self, after: float, until: float) -> Iterator[float]:
        return takewhile(lambda tick: tick <= until, self.ticks_after(after))


def is_in(spans: Iterable[Span], moment: float) -> bool:
    """Whether ``moment`` lies in one of the spans."""
    return any(first <= moment <= last for first, last in spans)


def make(expression: object, tz: object, missed: object) -> Schedule:
    """Check what a user wrote. Raises ``TypeError`` or ``ValueError`` that names the argument."""
    for name, value in (("expression", expression), ("tz", tz), ("missed", missed)):
        if not isinstance(value, str):
            raise TypeError(f"{name}: expected a str, got {shown(value)}")
    from cronsim import CronSim, CronSimError  # noqa: PLC0415 (as above)

    zone = _zone(str(tz))
    try:
        # Its first tick too: only then is one refused that no day will ever match.
        next(CronSim(str(expression), datetime(2000, 1, 1, tzinfo=zone)))
    except StopIteration:
        raise ValueError(f"expression: no day of the next 50 years matches {expression!r:.80}") from None
    except CronSimError as error:
        raise ValueError(
            f"expression: expected 'minute hour day month weekday' (or with seconds before them),"
            f" got {expression!r:.80}: {error}"
        ) from None
    if missed not in list(Missed):
        raise ValueError(f"missed: one of {', '.join(Missed)}, got {missed!r:.80}")
    return Schedule(str(expression), zone, Missed(str(missed)))


def _zone(name: str) -> ZoneInfo:
    import difflib  # noqa: PLC0415 (as above)
    from zoneinfo import ZoneInfo, available_timezones  # noqa: PLC0415

    try:
        return ZoneInfo(name)
    except Exception:  # what it raises depends on how wrong the name is: a missing file, a folder, a null byte
        near = difflib.get_close_matches(name, available_timezones(), 1)
        meant = f"; did you mean {near[0]}?" if near else "; give one such as UTC or Europe/Berlin"
        raise ValueError(f"tz: no time zone {name!r:.80}{meant}") from None
