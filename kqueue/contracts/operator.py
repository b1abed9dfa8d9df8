"""What an operator does to jobs, whoever has them."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from kqueue.contracts.repair import Due
from kqueue.model import checks

#: Stands for all types where one may be paused; no type is named so.
ALL_TYPES = checks.NO_TYPE


class JobChange(NamedTuple):
    """What is to be another in a job that waits."""

    #: None: as it is.
    priority: int | None
    #: When it may run, in seconds since 1970; None: as it is.
    run_at: float | None


class Operator(Protocol):
    """What an operator does to jobs, whoever has them. See :mod:`kqueue.contracts.store` for what holds for every
    method.
    """

    def delete(self, ids: Sequence[str]) -> int:
        """Delete rows whatever their state and fence, and free their unique keys; returns how many there were."""

    def revive(self, ids: Sequence[str], reason: str, now: float, put_at: float | None) -> list[Due]:
        """Make dead rows ready: tries, failures, crashes and suspicion 0, the fence kept; a holder that there
        may still be has lost them. Returns those made.
        """

    def hasten(self, ids: Sequence[str], now: float, put_at: float | None) -> list[Due]:
        """Make delayed rows ready ``now``, whatever they wait for; returns those made. Nothing else changes."""

    def change(self, id: str, change: JobChange, now: float, put_at: float | None, put_until: float) -> Due | None:
        """Change a row that is delayed, ready or held, in one conditional write; None if there is none. It keeps
        its place, and is delayed if its new ``run_at`` is after ``now``, else ready; but one that is held, and not
        delayed by this, stays held. Where it is to have a pointer, one that waits and runs by ``put_until``,
        ``put_at`` is written, else None; what is returned says it.
        """

    def purge(self, type: str, most: int) -> int:
        """Delete up to ``most`` rows of the type that do not run, and free the type's unique keys that no job has
        any more; returns how many rows.
        """

    def pause(self, type: str, now: float) -> bool:
        """Remember that ``type`` (or :data:`ALL_TYPES`) is paused since ``now``; False if it was already."""

    def resume(self, type: str) -> bool:
        """End the pause of ``type`` (or of :data:`ALL_TYPES`, which leaves those of single types); False if there
        was none.
        """

    def paused(self) -> dict[str, float]:
        """What is paused, and since when. One small read. The store only remembers it: a claim does not look."""

    def backup(self, path: str, *, replace: bool) -> None:
        """Save all there is as the file ``path``, while others go on using the store.

        Raises ``ValueError`` for a path that is there, unless ``replace``, and ``StoreError`` where the store
        cannot do this, naming what can, or where the file cannot be written or does not pass its check.
        """

    def restore(self, path: str, *, replace: bool) -> list[str]:
        """Make the store anew from the backup ``path``, as another one: see :meth:`identity`. What was there is
        moved aside, only if ``replace``; returns where to. The store is closed, by everybody.

        Raises as :meth:`backup` does, and ``StoreUnavailable`` while somebody uses the store.
        """
