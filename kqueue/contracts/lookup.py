"""What stands in a store, read only."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from kqueue.model.job import Row


class Backlog(NamedTuple):
    """Rows of one type in one state."""

    type: str
    state: str
    rows: int
    #: The earliest ``run_at`` among them: since when the longest waiting one waits, where they wait.
    oldest_run_at: float


class EndedRows(NamedTuple):
    """A page of them."""

    rows: list[Row]
    #: Where to go on; None if nothing has ended yet.
    place: str | None


class Lookup(Protocol):
    """What stands in a store, read only. See :mod:`kqueue.contracts.store` for what holds for every method."""

    def get(self, ids: Sequence[str]) -> list[Row]:
        """The rows that there are, in the order of ``ids``, with their results. Their histories have tracebacks;
        those of rows that are found otherwise may have none, and no results.
        """

    def ends(self, type: str | None, after: str | None, most: int) -> EndedRows:
        """Up to ``most`` rows that are done or dead, with their results, in the order in which they ended: those
        behind the place that a former call gave, or from the first that is kept. Who goes on from place to place
        sees each end once, also those that several writers write at once. One that ends anew comes anew.

        Raises ``ValueError`` for a place that no call gave.
        """

    def states(self, ids: Sequence[str]) -> dict[str, str]:
        """The state of each that there is, by its id. Reads nothing else of it, so it may be asked often."""

    def find_unique(self, type: str, key: str) -> Row | None:
        """The row of the job that took the unique key last, whether it still has it or not; None if it is gone, or
        nobody took it.
        """

    def find(self, type: str | None, state: str, after: str | None, most: int) -> list[Row]:
        """Up to ``most`` rows in ``state``, of ``type`` or of all if None, in the order of their ids (the order
        added, as far as ids tell): those with an id greater than ``after``, or from the first if None.

        Dead and done rows are found beside any backlog of waiting ones. In another state it may walk past
        rows of all.
        """

    def counts(self, type: str | None = None) -> dict[str, int]:
        """Rows by state, all states named, of one type or of all."""

    def overview(self) -> list[Backlog]:
        """How many rows stand where, by type and state, sorted. For an operator: it may read every row, and names
        every type that has one.
        """

    def ahead(self, row: Row, most: int) -> int:
        """How many ready rows of its type come before ``row`` by (priority, place); ``most`` at most."""
