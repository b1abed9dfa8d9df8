"""What the sweep asks for: rows that lost their pointer, their worker or their time."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, Self

from kqueue.model.job import Row


class Due(NamedTuple):
    """A row that wants a pointer."""

    id: str
    type: str
    priority: int
    run_at: float
    #: The row's ``put_at`` as it was read; ``mark`` compares it.
    put_at: float | None

    @classmethod
    def of(cls, row: Row) -> Self:
        """The ``Due`` of ``row``, as it stands there."""
        return cls(row.id, row.type, row.priority, row.run_at, row.put_at)


class Head(NamedTuple):
    """The entry that a tube would serve next."""

    priority: int
    put_at: float


class Abandoned(NamedTuple):
    """A running row whose lease has run out."""

    id: str
    type: str
    alone: bool
    crashes: int
    lease_owner: str | None
    lease_until: float


class Recovered(NamedTuple):
    """Rows whose lease had run out."""

    ready: int
    #: Those that are dead by it, each told by the one sweep that has written it.
    died: tuple[Abandoned, ...] = ()

    @property
    def dead(self) -> int:
        """How many are dead by it."""
        return len(self.died)


class Repairing(Protocol):
    """What the sweep asks for: rows that lost their pointer, their worker or their time. See
    :mod:`kqueue.contracts.store` for what holds for every method.
    """

    def take_sweep(self, now: float, interval: float) -> bool:
        """True for one caller in ``interval`` seconds, over all processes: compare-and-set on the time of
        the last sweep. A last sweep in the future (the clock went back) does not count.
        """

    def promote(self, now: float, most: int) -> int:
        """Make up to ``most`` delayed rows ready whose ``run_at <= now``, the earliest first; how many."""

    def recover(self, now: float, max_crashes: int, most: int) -> Recovered:
        """Take up to ``most`` running rows whose ``lease_until <= now`` from their holder. A server that has a
        clock is asked for its time; then ``now`` does not matter.

        A row that was ``alone`` gets a crash, and is dead at ``max_crashes``; any other gets a suspicion.
        Those not dead are ready, behind all others, with ``put_at`` and ``gate`` None. The fence and the owner
        stay, so a late holder that comes before the next claim may still settle. It adds to their history.
        """

    def expire(self, now: float, most: int) -> int:
        """Delete up to ``most`` done rows whose ``keep_until <= now``, the earliest first; returns how many.
        Nothing that is not done is ever deleted by its age.

        Also forgets, in lots of ``most``, what nobody asks for any more: unique keys that are not taken, claims
        that limits counted more than a day ago, workers that were not heard of for a day.
        """

    def ready_types(self, after: str, most: int) -> list[str]:
        """Up to ``most`` types that have a ready row, sorted: those after the name ``after``, which may be empty.
        A few index probes for each, whatever the backlog and however many others there are.
        """

    def find_due(self, now: float, most: int) -> list[Due]:
        """Up to ``most`` rows that :meth:`promote` would make ready, in its order. Changes nothing."""

    def find_abandoned(self, now: float, most: int) -> list[Abandoned]:
        """Up to ``most`` rows that :meth:`recover` would take, the longest abandoned first. Changes nothing."""

    def find_unput(self, until: float, most: int) -> list[Due]:
        """Up to ``most`` rows with ``put_at`` None that are ready, or delayed with ``run_at <= until``."""

    def find_lost(self, heads: Mapping[str, Head | None], now: float, grace: float, most: int) -> list[Due]:
        """Up to ``most`` ready rows that have lost their pointer, in the order of their types, the best priority
        first. ``heads`` has the types that are asked about, each with what its tube would serve next.

        The head rule: ``put_at`` and ``run_at`` are both at ``now - grace`` or before, and the type's head is None,
        or of a larger priority number, or of the same and put later than the row by more than ``grace``.

        One statement or command, whatever the number of types.
        """

    def mark(self, dues: Sequence[Due], put_at: float) -> list[Due]:
        """Write ``put_at`` where the row still is ready or delayed and its ``put_at`` is as it was read
        (compare-and-set); returns those written. Of many sweeps at once, each row is marked by one.
        """

    def sweep_position(self) -> str:
        """The type that :meth:`keep_sweep_position` was told last; empty at first."""

    def keep_sweep_position(self, type: str) -> None:
        """Remember how far a round of the sweep has come. Whoever writes last is remembered."""
