"""How jobs come into a store."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, TypeAlias

from kqueue.model.job import Row

#: From one tick of a schedule to another, both with it: all its ticks in between were added too.
Span: TypeAlias = tuple[float, float]


class Tick(NamedTuple):
    """A schedule goes on from one tick to another. Times in seconds since 1970."""

    schedule: str
    #: Its last tick as it was read; None if it never had one.
    before: float | None
    after: float
    #: The ticks that were added, those of this write too, as far as they are remembered: the earliest first.
    added: tuple[Span, ...] = ()


class Intake(Protocol):
    """How jobs come into a store. See :mod:`kqueue.contracts.store` for what holds for every method."""

    def add(self, rows: Sequence[Row]) -> None:
        """Store new rows; durable when it returns. Costs one write, whatever their number. They may be of several
        types, and of several callers whose rows are written together.

        Whatever goes wrong in the store, also that it is not there, raises :class:`~kqueue.model.errors.AddFailed`,
        with the cause chained. It tells taken, not taken and unknown ids apart.
        """

    def add_unique(self, rows: Sequence[Row], until: Mapping[str, float], now: float) -> list[str]:
        """Add those of ``rows`` whose type and ``unique_key`` are not taken, or that have no key, in one
        transaction; returns for each the id of the job that has its key then: its own if it was added. No two of
        them have the same type and key.

        A key is taken while the job that took it is delayed, ready, held or running, and until ``until[row.id]``
        as its own add said (seconds since 1970) whatever became of it; :meth:`delete` and :meth:`purge` free it.
        An index of the store holds it: of many that add at once one is added. Raises as :meth:`add` does, and names
        none that had another's key.
        """

    def add_tick(self, tick: Tick, rows: Sequence[Row]) -> bool:
        """Add ``rows`` and write the schedule's last tick, in one transaction: a compare-and-set. False, and
        nothing is changed, if its last tick is not ``tick.before`` any more. Raises as :meth:`add` does; where it
        names jobs as unknown, the tick is as unknown as they are.
        """

    def last_ticks(self) -> dict[str, float]:
        """The last tick of every schedule, by its name. They outlive every job."""

    def added_ticks(self) -> dict[str, tuple[Span, ...]]:
        """What the last :class:`Tick` of every schedule said was ``added``, by its name; nothing of one that an
        older KQueue wrote.
        """
