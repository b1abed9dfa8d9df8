"""How far ahead of the clock each stored time may lie, and what it is set to where it lies further: pure.

A wall clock may be set wrong and then right again: by an operator, by a battery that is flat, by a failover to
another host. What was stored while it was ahead lies in the future then, and whoever compared it with the clock
would wait for the difference: seconds or years. Nothing in a store can rightly lie so far ahead, but for what was
asked for:

- what *has been* (added, put, asked for, heard of, paused, started) is not after now;
- a lease is not longer than the job's TTR;
- a delay, and the time that a finished job or a unique key is kept, is not longer than it was asked for. So a row
  keeps *when* that was (``asked_at``, or else ``created_at``), and the whole span is moved by as much as that is
  wrong.

So no such time makes anything wait for longer than it would have, had the clock gone wrong now. The time that a job
is *for* (``scheduled_for``) is never touched.
"""

from typing import NamedTuple, TypeVar

from kqueue.model.job import Row, State
from kqueue.model.wording import span

#: Seconds that a stored time may lie ahead and be left alone: clocks that are kept right are set by small steps.
TOLERANCE_S = 5.0

T = TypeVar("T", float, float | None)


class StoredTimes(NamedTuple):
    """Those of a row, and what they are judged by. The fields of :class:`kqueue.model.job.Row` of these names."""

    state: str
    ttr: float
    fence: int
    gate: str | None
    run_at: float
    created_at: float
    put_at: float | None
    asked_at: float | None
    lease_until: float | None
    keep_until: float | None


#: Those that :func:`set_right` may change.
CHANGED = ("state", "run_at", "created_at", "put_at", "asked_at", "lease_until", "keep_until")


class Misdated(NamedTuple):
    """Something in the store that has a time which lies further ahead than it can."""

    #: ``job``, ``unique key``, ``start`` (of a job that a limit counts), ``pause`` or ``worker``.
    what: str
    #: The job's id, or the worker's; the name of a type otherwise.
    name: str
    #: Of the job or key or start; None for a pause or worker.
    type: str | None
    #: The latest of those times: seconds since 1970.
    at: float

    def told(self, now: float) -> str:
        """What has the time, and how far it lies ahead, in plain words."""
        return f"a time of the {self.what} {self.name} lies {span(self.at - now)} ahead"


def times_of(row: Row) -> StoredTimes:
    """The times of a row."""
    return StoredTimes(*(getattr(row, name) for name in StoredTimes._fields))


def latest(now: float) -> float:
    """What has been is not later than this."""
    return now + TOLERANCE_S


def past(time: T, now: float) -> T:
    """The time of what has been: ``now`` if it lies further ahead than clocks may differ."""
    return now if time is not None and time > latest(now) else time


def shifted(until: float, since: float, now: float) -> float:
    """The end of a span that was asked for at ``since``: moved by as much as that lies too far ahead."""
    return until - (since - past(since, now))


def longest_lease(ttr: float, now: float) -> float:
    """A lease of a job with this TTR ends no later."""
    return latest(now) + ttr


def set_right(times: StoredTimes, now: float) -> StoredTimes:
    """The times as they can be; equal to what was given if none lies too far ahead. To do it again changes nothing.

    A job that was made ready by a clock that was ahead is delayed again, if it is known that it asked for that.
    """
    asked_at = times.created_at if times.asked_at is None else times.asked_at
    right = times._replace(
        created_at=past(times.created_at, now),
        put_at=past(times.put_at, now),
        asked_at=past(times.asked_at, now),
        run_at=shifted(times.run_at, asked_at, now),
    )
    match times.state:
        case State.RUNNING if times.lease_until is not None and times.lease_until > longest_lease(times.ttr, now):
            return right._replace(lease_until=now + times.ttr)
        case State.DONE if times.keep_until is not None and times.asked_at is not None:
            return right._replace(keep_until=shifted(times.keep_until, times.asked_at, now))
        case State.READY | State.HELD if right.run_at > latest(now):
            # An older KQueue wrote no ``asked_at`` where a run came back.
            is_known = times.asked_at is not None or times.fence == 0
            if times.state == State.READY and times.gate is None and is_known:
                return right._replace(state=State.DELAYED.value, put_at=None)
            return right._replace(run_at=now)
    return right


def is_misdated(row: Row, now: float) -> bool:
    """Whether any time of the row lies further ahead than it can."""
    times = times_of(row)
    return set_right(times, now) != times


def furthest(times: StoredTimes, now: float) -> float:
    """The latest of those that lie too far ahead; ``now`` if none does."""
    changes = zip(times, set_right(times, now), strict=True)
    wrong = [before for before, after in changes if before != after and isinstance(before, float)]
    return max(wrong, default=now)
