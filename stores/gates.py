"""The gates of limited types: who may pass, and what is free. Pure but for the counts that it asks for.

Memory and SQLite share it; each counts in its own way. A gate is named by its type alone, or by the type, a space
and the limit key. A space of the type itself is another character there, so as text a type's gates stand together,
its own first.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Protocol, TypeAlias

from kqueue.contracts.admission import SPACE_IN_GATES, Claimer, Limit, hands_of, type_in_gates

#: After so many that it held, a claim without ids may end; and after so few if it has got a row. Soon it may know
#: better how many jobs can follow each other.
MOST_HELD, FEW_HELD = 1000, 64

#: Seconds that a caller's time may be behind.
STALE_S = 60.0

#: (priority, place): who comes before whom at a gate.
Place: TypeAlias = tuple[int, int]


class Candidate(NamedTuple):
    """What the gates must know of a row that a claim looks at."""

    priority: int
    #: Its place: grows with each row added. On MongoDB those that came back from a run together have the same.
    order: int
    type: str
    #: The gate that has admitted it, if any.
    gate: str | None
    limit_key: str | None


class Leases(NamedTuple):
    """What runs of a type, or of a key, under leases that are not over."""

    #: Rows that each take a place.
    rows: int = 0
    #: Rows that count together, by the gate that they have while they run (:meth:`Claimer.gate_of`).
    held: Mapping[str, int] = MappingProxyType({})
    #: When the first of the leases ends.
    first_end: float | None = None

    def places(self, but: str | None = None) -> int:
        """How many places they take, without those of the holder with this gate."""
        return self.rows + sum(min(rows, hands_of(gate) or rows) for gate, rows in self.held.items() if gate != but)


class GateCounts(Protocol):
    """What a store counts at one time for gates. Each is asked for only when a decision needs it."""

    def leases(self, type: str, limit_key: str | None) -> Leases:
        """What runs of the type, and of the key unless it is None."""

    def starts(self, limit: Limit) -> int:
        """Claims in the limit's last period."""

    def first_start(self, limit: Limit) -> float | None:
        """When the first of those was."""

    def admitted(self, gate: str) -> int:
        """Ready rows that the gate has admitted."""

    def waiting(self, gate: str) -> Iterator[Place]:
        """The rows that are held at the gate and those that it has admitted, in order, lazily."""


def gate_of(type: str, limit_key: str | None) -> str:
    """The gate's name."""
    gate = type_in_gates(type)
    return gate if limit_key is None else f"{gate} {limit_key}"


def key_of(gate: str) -> str | None:
    """The limit key of a gate; None for the gate of a type."""
    _, space, key = gate.partition(" ")
    return key if space else None


def type_of(gate: str) -> str:
    """The type that a gate is of."""
    return gate.partition(" ")[0].replace(SPACE_IN_GATES, " ")


def leases_of(running: Iterable[tuple[str, float]]) -> Leases:
    """From (gate, end of the lease) of each row that runs."""
    rows, first, held = 0, math.inf, defaultdict[str, int](int)
    for gate, end in running:
        first = min(first, end)
        if hands_of(gate) is None:
            rows += 1
        else:
            held[gate] += 1
    return Leases(rows, held, first if first < math.inf else None)


def after_gates(type: str) -> str:
    """Greater than each gate of the type, as text, and no greater than those of any later type."""
    return f"{type_in_gates(type)}!"  # '!' follows the space


def bounded(limit: Limit, limit_key: str | None) -> bool:
    """Whether the gate holds anybody."""
    if limit_key is None:
        return limit.running is not None or limit.starts is not None
    return limit.running_per_key is not None


def free(limit: Limit, limit_key: str | None, counts: GateCounts, holder: Claimer | None = None) -> float:
    """Places at the gate, those of the admitted too; with ``holder``, rows that it may claim. Infinite without a
    bound, and below 0 if too many run.
    """
    places = math.inf
    most = limit.running if limit_key is None else limit.running_per_key
    if most is not None:
        leases = counts.leases(limit.type, limit_key)
        places = most - leases.places() if holder is None else _free_for(holder, most, leases, limit.type)
    if limit_key is None and limit.starts is not None:
        places = min(places, limit.starts - counts.starts(limit))
    return places


def _free_for(holder: Claimer, most: int, leases: Leases, type: str) -> float:
    """Rows that the holder may claim at a gate of ``most`` places."""
    gate, own = holder.gate_of(type), holder.of(type)
    places = most - leases.places(but=gate)
    if own.hands <= places:
        return math.inf
    # Where others have places, or may have some, it may not have more than it says, so each row is one.
    return places * (1 + own.follow if places == most else 1) - leases.held.get(gate, 0)


def free_at(limit: Limit, limit_key: str | None, counts: GateCounts) -> float | None:
    """When there may be one place more at the gate although no run ends: once a lease is over, or a period. None if
    time alone brings none: those have the places that were admitted.
    """
    type, times = limit.type, []
    most = limit.running if limit_key is None else limit.running_per_key
    if most is not None:
        leases = counts.leases(type, limit_key)
        if leases.places() + counts.admitted(gate_of(type, limit_key)) >= most:
            times.append(leases.first_end)
    if limit_key is None and limit.starts is not None:
        first = counts.first_start(limit)
        if first is not None and counts.starts(limit) + counts.admitted(type) >= limit.starts:
            times.append(first + limit.period)
    return max((time for time in times if time is not None), default=None)


def counted_starts(limit: Limit, now: float) -> tuple[float, float]:
    """(since, until): starts count after the one, and up to the other. Those further ahead than a stale ``now`` can
    tell were counted before the clock went back, and would else shut the gate until it has caught up.
    """
    return now - limit.period, now + limit.period + STALE_S


class Gates:
    """One claim's look at the gates. It counts the places that it gives."""

    def __init__(self, limits: Sequence[Limit], counts: GateCounts, holder: Claimer | None = None) -> None:
        self._limits = {limit.type: limit for limit in limits}
        self._counts = counts
        self._holder = holder
        self._free: dict[str, float] = {}
        self._lines: dict[str, _Line] = {}

    def limited(self, type: str) -> bool:
        """Whether the type has a limit."""
        return type in self._limits

    def while_running(self, type: str) -> str | None:
        """The gate of a row of the type while it runs; None if it has no limit."""
        if type not in self._limits:
            return None
        return type_in_gates(type) if self._holder is None else self._holder.gate_of(type)

    def stop(self, candidate: Candidate) -> str | None:
        """The first gate that holds the row, which waits there from now on. None if it passes all of them, and then
        it has a place at each.
        """
        limit = self._limits.get(candidate.type)
        if limit is None:
            return None
        keys = [None] if candidate.limit_key is None else [None, candidate.limit_key]
        passed = []
        for key in keys:
            if not bounded(limit, key):
                continue
            gate = gate_of(candidate.type, key)
            if self._is_shut(limit, key, gate, candidate):
                self._leave(candidate, gate)
                self._line(gate).join(candidate)
                return gate
            passed.append(gate)
        self._leave(candidate, None)
        for gate in passed:
            self._free[gate] -= 1
        return None

    def _is_shut(self, limit: Limit, limit_key: str | None, gate: str, candidate: Candidate) -> bool:
        if gate not in self._free:
            self._free[gate] = free(limit, limit_key, self._counts, self._holder)
        if self._free[gate] < 1:
            return True
        return candidate.gate != gate and self._line(gate).has_before(candidate)

    def _leave(self, candidate: Candidate, gate: str | None) -> None:
        """It goes on from the gate that has admitted it, to wait at ``gate`` or to run."""
        if candidate.gate is not None and candidate.gate != gate:
            self._line(candidate.gate).leave(candidate)

    def _line(self, gate: str) -> "_Line":
        if gate not in self._lines:
            self._lines[gate] = _Line(self._counts.waiting(gate))
        return self._lines[gate]


class _Line:
    """Who stands at one gate: the stored rows, as far as they are read, and what this claim has changed."""

    def __init__(self, stored: Iterator[Place]) -> None:
        self._stored = stored
        self._next = next(stored, None)
        #: How many have left, by their places: those that came back together have the same.
        self._left: Counter[int] = Counter()
        self._joined: Place | None = None

    def has_before(self, candidate: Candidate) -> bool:
        """Whether one stands there that comes before the candidate, which does not."""
        while self._next is not None and self._left[self._next[1]]:
            self._left[self._next[1]] -= 1
            self._next = next(self._stored, None)
        place = candidate[:2]
        return (self._next is not None and self._next < place) or (
            self._joined is not None and self._joined < place
        )

    def join(self, candidate: Candidate) -> None:
        """Take in a row that waits at the gate from now on."""
        place = candidate[:2]
        self._joined = place if self._joined is None else min(self._joined, place)

    def leave(self, candidate: Candidate) -> None:
        """A row that stood at the gate waits there no more."""
        self._left[candidate.order] += 1
