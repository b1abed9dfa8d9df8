"""What a limit holds back, and lets in again."""

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Protocol

from kqueue.contracts.repair import Due


class Claimer(NamedTuple):
    """Who claims: one loop, or one dispatcher with several hands. Of all that it has claimed it runs no more at
    once than it has hands, and of a type and of a key no more than their limits say. So what waits there for its
    turn takes no place of others.
    """

    #: Without a space; no other has the same.
    id: str
    #: Threads, or places of coroutines.
    hands: int
    #: How many of its jobs may wait for one that runs, since all take so little time.
    follow: int = 0
    #: (hands, follow) of the types for which these are others.
    own: Mapping[str, tuple[int, int]] = MappingProxyType({})

    def of(self, type: str) -> "Claimer":
        """The same, with the hands that it has for the type."""
        own = self.own.get(type)
        return self if own is None else Claimer(self.id, *own)

    def gate_of(self, type: str) -> str:
        """The gate of its rows of the type while they run: what they count with."""
        return f"{type_in_gates(type)}{self.gate_end(type)}"

    def gate_end(self, type: str) -> str:
        """What stands behind the type there."""
        return f"{_HELD}{self.of(type).hands} {self.id}"


#: In the place of a space of a type in the names of its gates, where a space ends it. A control, so none holds it.
SPACE_IN_GATES = "\x7f"
#: Stands in no type, and in no limit key.
_HELD = " \t"


def type_in_gates(type: str) -> str:
    """How the names of its gates begin: that of the type itself is this alone."""
    return type.replace(" ", SPACE_IN_GATES)


def hands_of(gate: str) -> int | None:
    """Of the holder whose rows have this gate while they run; None for that of a type or a key."""
    _, is_held, holder = gate.partition(_HELD)
    return int(holder.partition(" ")[0]) if is_held else None


class Limit(NamedTuple):
    """How many jobs of a type may run, over all workers. Who claims says the numbers; the store keeps count.

    A job of a type with a limit passes two *gates*: that of its type (``running`` and ``starts``), and then, if
    it has a ``limit_key``, that of its key (``running_per_key``). A bound that is None does not hold.
    """

    type: str
    #: At once.
    running: int | None = None
    #: At once, of those with the same ``limit_key``.
    running_per_key: int | None = None
    #: Claims in ``period`` seconds. One that is given back unrun has counted.
    starts: int | None = None
    #: Seconds.
    period: float = 1.0


class Admission(NamedTuple):
    """What was let through the gates of a type."""

    #: Ready now, with the ``put_at`` that was given; they want their pointers.
    dues: list[Due]
    #: When a place may be free although no run ends (a lease runs out, a period is over), by the store's clock.
    #: None if nothing is held, or if all the places are those of rows that were admitted and are not claimed yet.
    next_at: float | None


class Admitting(Protocol):
    """What a limit holds back, and lets in again. See :mod:`kqueue.contracts.store` for what holds for every
    method.
    """

    def admit(
        self,
        limit: Limit,
        keys: Collection[str] | None,
        now: float,
        put_at: float | None,
        most: int,
        *,
        holder: Claimer | None = None,
    ) -> Admission:
        """Make held rows of the limit's type ready, up to ``most``, as many at each gate as it has places that
        no row has which it admitted before, the best priority first, then the first added. They keep their
        ``gate`` until they are claimed, and get ``put_at``.

        With a ``holder``, as many as it may claim then: it will.

        Looks at the gate of the type, and at those of ``keys``, or of all keys if None. A bound that is None lets
        all through. Of many that admit at once, no place is given twice.
        """

    def held_types(self, types: Sequence[str]) -> list[str]:
        """Those of ``types`` that have a held row, sorted. One statement, and an index probe for each type."""
