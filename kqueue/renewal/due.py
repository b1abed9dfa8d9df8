"""Which leases are due when: pure, no I/O, no clock. Of one store, for all clients.

Theory of operation. A lease is renewed when a third of it has passed since it began, so two renewals may fail
before it is over. One that falls due soon goes along with those that are due. What has not started is only looked
at: its worker gives it back if it does not come to it, or renews it before its start. Times are seconds of the
host's monotonic clock, which all its processes share.

A renewal that finds nothing to renew means that the job is lost, or that it was settled a moment ago: the client
knows which. One that could not be done is tried again, and the lease is lost only once it is over.
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from kqueue.contracts.renewer import Renewal, RenewalEnd
from kqueue.contracts.settlements import Die, Retry
from kqueue.renewal.messages import RenewalWindow, Told, holds

#: Of a lease, until it is renewed; and how much earlier, if others are renewed anyway.
PART = 1 / 3
SLACK = 1 / 12
#: Seconds between two looks at a job that has not started, at least.
LOOK_S = 0.05
#: Seconds until a renewal that failed is tried again: doubling from the first to the last, or to a slack.
FIRST_BACKOFF_S = 0.1
LAST_BACKOFF_S = 1.0


class HandlerProgress(NamedTuple):
    """What a slot of a board says."""

    #: Of the job that runs.
    serial: int
    started: float


class WindowEntry(NamedTuple):
    """A job whose lease is renewed."""

    client: int
    slot: int
    #: Of its window.
    first: int
    hold: Renewal
    #: What its slot of the board says while it runs.
    serial: int = 0


class News(NamedTuple):
    """What a client is to be told."""

    client: int
    told: Told


class Round(NamedTuple):
    """What is to be done now."""

    renew: list[WindowEntry]
    #: Ran for longer than they may.
    end: list[WindowEntry]
    #: Those of them whose processes are to be killed. Each is here once, and nothing is to be told of it.
    kill: list[WindowEntry]


#: Asked with a client and its slot.
Look: TypeAlias = Callable[[int, int], HandlerProgress]


@dataclass(slots=True)
class _Lease:
    hold: Renewal
    position: int
    #: When it is over, if nothing is done.
    until: float
    #: When something is to be done for it.
    at: float
    #: When its handler has run for too long; infinity as long as it is not known to run.
    deadline: float = math.inf
    #: Calls of the store in a row that failed.
    failures: int = 0
    is_over: bool = False
    #: Whether its client knows.
    is_told: bool = False


@dataclass(slots=True)
class _Window:
    said: RenewalWindow
    #: When to look at it.
    at: float
    #: Seconds by which that may be earlier.
    slack: float
    #: None until it is looked at: most windows are let go before.
    leases: dict[str, _Lease] | None = None


class DueRenewals:
    """The leases of one store. Not for several threads at once."""

    def __init__(self, *, kills: bool = False) -> None:
        """``kills``: whether somebody kills processes whose handlers run for too long."""
        self._kills = kills
        self._windows: dict[tuple[int, int], _Window] = {}

    def __len__(self) -> int:
        """Windows in hand."""
        return len(self._windows)

    def hold(self, client: int, window: RenewalWindow, now: float) -> float:
        """``client`` is about to start these jobs. Returns when to look at them; infinity for never."""
        if not window.runs:
            self.let_go(client, window.slot)
            return math.inf
        shortest = min(run.ttr for run in window.runs)
        bounds = [run.max_runtime for run in window.runs if run.max_runtime is not None]
        at = min(window.leased_at + shortest * PART, now + max(LOOK_S, min(bounds, default=math.inf)))
        self._windows[client, window.slot] = _Window(window, at, shortest * SLACK)
        return at

    def let_go(self, client: int, slot: int) -> None:
        """All of the window in the slot is settled or given back."""
        self._windows.pop((client, slot), None)

    def forget(self, client: int) -> None:
        """Let go of all that it holds."""
        for key in [key for key in self._windows if key[0] == client]:
            del self._windows[key]

    def next_at(self) -> float:
        """When there is something to look at; infinity for never."""
        return min((window.at for window in self._windows.values()), default=math.inf)

    def round(self, now: float, look: Look) -> Round:
        """What is due. One of the next three is to be told what became of it."""
        due = Round([], [], [])
        for (client, slot), window in self._windows.items():
            if window.at - window.slack <= now:
                self._look_at(client, window, now, look(client, slot), due)
        return due

    def renewed(self, entries: Sequence[WindowEntry], lost: Collection[str], at: float) -> list[News]:
        """The store has answered; ``at``: when it was asked."""
        for _, lease in self._known(entries):
            lease.until, lease.at = at + lease.hold.ttr, at + lease.hold.ttr * PART
            lease.failures = 0
        return self._drop([entry for entry in entries if entry.hold.id in lost], RenewalEnd.LOST, entries)

    def ended(self, entries: Sequence[WindowEntry], lost: Collection[str]) -> list[News]:
        """It is written that they ran for too long, but for those that were not ours any more."""
        over = [entry for entry in entries if entry.hold.id not in lost]
        gone = [entry for entry in entries if entry.hold.id in lost]
        written = [_news(entry, RenewalEnd.OVER, is_written=True) for entry, _ in self._known(over)]
        self._drop(over, RenewalEnd.OVER, entries)
        return written + self._drop(gone, RenewalEnd.LOST, entries)

    def failed(self, entries: Sequence[WindowEntry], now: float) -> list[News]:
        """The store could not be asked. A run that is over is told so all the same."""
        news, late = [], []
        for entry, lease in self._known(entries):
            lease.failures += 1
            lease.at = now + _backoff(lease)
            if lease.is_over and not lease.is_told:
                lease.is_told = True
                news.append(_news(entry, RenewalEnd.OVER))
            if now >= lease.until:
                late.append(entry)
        return news + self._drop(late, RenewalEnd.LOST, entries)

    def _look_at(self, client: int, window: _Window, now: float, progress: HandlerProgress, due: Round) -> None:
        leases = window.leases
        if leases is None:
            leases = window.leases = _leases(window.said)
        position = progress.serial - window.said.first
        if position > window.said.size:
            # The slot is another window's already, and the message of that is on its way.
            window.at = now + LOOK_S
            return
        for lease in leases.values():
            if lease.position > position:
                _await_start(lease, now)
            else:
                started = progress.started if lease.position == position else math.inf
                said, hold = window.said, lease.hold
                _judge(
                    WindowEntry(client, said.slot, said.first, hold, said.first + lease.position),
                    lease,
                    started,
                    now,
                    due,
                    kills=self._kills and hold.kill,
                )
        _plan(window)

    def _known(self, entries: Iterable[WindowEntry]) -> Iterator[tuple[WindowEntry, _Lease]]:
        """Those that were not let go meanwhile."""
        for entry in entries:
            leases = self._leases_beside(entry)
            if entry.hold.id in leases:
                yield entry, leases[entry.hold.id]

    def _leases_beside(self, entry: WindowEntry) -> dict[str, _Lease]:
        """Of its window; empty if that was let go."""
        window = self._windows.get((entry.client, entry.slot))
        return {} if window is None or window.leases is None or window.said.first != entry.first else window.leases

    def _drop(self, entries: Sequence[WindowEntry], end: RenewalEnd, asked: Iterable[WindowEntry]) -> list[News]:
        """Hold ``entries`` no more, and plan anew for all that the store was asked about."""
        news = []
        for entry, lease in self._known(entries):
            if not lease.is_told:
                news.append(_news(entry, end))
        for entry in entries:
            self._leases_beside(entry).pop(entry.hold.id, None)
        for key in {(entry.client, entry.slot) for entry in asked}:
            if key in self._windows:
                _plan(self._windows[key])
        return news


def too_long(max_runtime: float | None) -> str:
    """The reason of a run that took longer than it may."""
    return f"ran longer than max_runtime ({max_runtime or 0.0:g} s)"


def settlement(hold: Renewal, now: float) -> Retry | Die:
    """What is written of a job that ran for too long; ``now`` by the store's clock. The sweep puts its pointer."""
    reason = too_long(hold.max_runtime)
    if hold.retry_in is None:
        return Die(hold.id, hold.fence, reason)
    return Retry(hold.id, hold.fence, now + hold.retry_in, reason, None, asked_at=now)


def _leases(window: RenewalWindow) -> dict[str, _Lease]:
    return {
        hold.id: _Lease(hold, position, window.leased_at + hold.ttr, window.leased_at + hold.ttr * PART)
        for run in window.runs
        for position, hold in holds(run)
    }


def _judge(entry: WindowEntry, lease: _Lease, started: float, now: float, due: Round, *, kills: bool) -> None:
    """Of a lease whose handler has started; ``started`` is infinity once it has ended. ``kills``: its process is
    killed if that takes too long.
    """
    bound = lease.hold.max_runtime
    lease.deadline = math.inf if bound is None else started + bound
    if lease.is_over:
        if now >= lease.at:
            due.end.append(entry)
    elif now >= lease.deadline:
        lease.is_over = True
        if kills:
            lease.at = math.inf
            due.kill.append(entry)
        else:
            due.end.append(entry)
    elif now >= lease.at - (0.0 if lease.failures else lease.hold.ttr * SLACK):
        due.renew.append(entry)


def _await_start(lease: _Lease, now: float) -> None:
    seconds = lease.hold.ttr * SLACK
    if lease.hold.max_runtime is not None:
        seconds = min(seconds, lease.hold.max_runtime)
    lease.at = now + max(LOOK_S, seconds)


def _plan(window: _Window) -> None:
    """When to look at it again. What is over is written again after its back-off, whenever its deadline was."""
    if window.leases is not None:
        times = (one.at if one.is_over else min(one.at, one.deadline) for one in window.leases.values())
        window.at = min(times, default=math.inf)


def _news(entry: WindowEntry, end: RenewalEnd, *, is_written: bool = False) -> News:
    return News(entry.client, Told(entry.first, entry.hold.id, end, is_written))


def _backoff(lease: _Lease) -> float:
    """Short enough for a lease to be saved at the last moment."""
    seconds = FIRST_BACKOFF_S * 2.0 ** min(lease.failures - 1, 10)
    return min(seconds, LAST_BACKOFF_S, max(LOOK_S, lease.hold.ttr * SLACK))
