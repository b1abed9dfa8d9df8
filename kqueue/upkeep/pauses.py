"""What is paused, as this process saw it last."""

from collections.abc import Callable

from kqueue.contracts.operator import ALL_TYPES
from kqueue.contracts.store import JobStore
from kqueue.model import checks

#: Seconds between two looks: so a pause is seen everywhere within a second.
LOOK_S = 0.5


class Pauses:
    """Shared by the loops of a process."""

    def __init__(self, store: JobStore, monotonic: Callable[[], float]) -> None:
        self._store = store
        self._monotonic = monotonic
        self._look_at = -1.0
        self._is_known = False
        #: Replaced only when something has changed, so that loops see a change by its identity.
        self._paused: frozenset[str] = frozenset()

    def are_known(self) -> bool:
        """Whether a look has gone well."""
        return self._is_known

    def seconds_to_look(self) -> float:
        """Seconds until :meth:`look` is due."""
        return max(0.0, self._look_at - self._monotonic())

    def look(self) -> bool:
        """Ask the store; whether anything has changed. Raises ``StoreError``."""
        if self._is_known:
            self._look_at = self._monotonic() + LOOK_S
        paused = frozenset(self._store.paused())
        self._look_at, self._is_known = self._monotonic() + LOOK_S, True
        changed = paused != self._paused
        if changed:
            self._paused = paused
        return changed

    def paused(self) -> frozenset[str]:
        """Types, and perhaps :data:`~kqueue.contracts.operator.ALL_TYPES`. The same object until something
        changes.
        """
        return self._paused

    def forget(self) -> None:
        """Look again at once: this process has changed something itself."""
        self._look_at = -1.0


class Pausing:
    """An operator pauses and resumes. A type of None stands for all of them. All raise ``StoreError``."""

    def __init__(self, store: JobStore, look_again: Callable[[], None]) -> None:
        """``look_again()``: the loops of this process are to see it at once."""
        self._store = store
        self._look_again = look_again

    def pause(self, type: str | None) -> bool:
        """Pause ``type``, or all if None; False if it was paused."""
        paused = self._store.pause(_type_or_all(type), self._store.now())
        self._look_again()
        return paused

    def resume(self, type: str | None) -> bool:
        """Resume ``type``, or what was paused for all if None; False if it was not paused."""
        resumed = self._store.resume(_type_or_all(type))
        self._look_again()
        return resumed

    def paused(self) -> dict[str | None, float]:
        """Since when, in seconds since 1970."""
        return {None if type == ALL_TYPES else type: since for type, since in self._store.paused().items()}


def _type_or_all(type: str | None) -> str:
    return ALL_TYPES if type is None else checks.job_type(type)


def holds_up(paused: frozenset[str], type: str) -> bool:
    """Whether jobs of ``type`` are not to run."""
    return bool(paused) and (type in paused or ALL_TYPES in paused)
