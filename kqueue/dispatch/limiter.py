"""Limits on how many jobs run, over all workers: who has them here, and who lets held jobs in again.

The store keeps count and holds back what has no place (:meth:`kqueue.contracts.store.JobStore.claim`). A held job
has no pointer and is looked at by nobody, until it is admitted: by the settle that frees a place, by the claim that
moved others out of its way, and, for what no settle frees (a worker died, a period is over), at the time that the
store names. To admit one too many costs it one more turn at its gate, never a run too many: the claim decides.
"""

import heapq
import logging
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TypedDict

from kqueue.contracts.admission import Claimer, Limit
from kqueue.contracts.store import JobStore
from kqueue.dispatch.doorbell import Doorbell
from kqueue.model import checks
from kqueue.model.errors import StoreError
from kqueue.model.job import Row

#: Jobs that are admitted at once at most.
MOST = 1000
#: Types that one look asks about at most.
MOST_TYPES = 100
#: Seconds between two looks for what others hold, or held before they lost their limits.
LOOK_S = 5.0
#: Seconds. A store forgets after a day what its limits have counted.
LONGEST_PERIOD_S = 86_400.0


class GivenLimits(TypedDict, total=False):
    """What ``queue.limit`` takes: the fields of :class:`~kqueue.contracts.admission.Limit`. None: no such bound."""

    running: int | None
    running_per_key: int | None
    starts: int | None
    #: Seconds, of ``starts``; by default 1.
    period: float | None


def checked_limit(
    type: str,
    *,
    running: int | None = None,
    running_per_key: int | None = None,
    starts: int | None = None,
    period: float | None = None,
) -> Limit:
    """The limits of ``type``.

    Raises ``ValueError`` or ``TypeError`` for what cannot be counted, or counts nothing.
    """
    bounds = {"running": running, "running_per_key": running_per_key, "starts": starts}
    if all(bound is None for bound in bounds.values()):
        raise ValueError(f"limit: give at least one of {', '.join(bounds)}")
    checked = {name: None if one is None else checks.whole(name, one, 1) for name, one in bounds.items()}
    if starts is None and period is not None:
        raise ValueError("period: only with starts")
    seconds = checks.number("period", 1.0 if period is None else period, 0.001)
    if seconds > LONGEST_PERIOD_S:
        raise ValueError(f"period: at most {LONGEST_PERIOD_S:g} seconds (a day), got {period!r}")
    return Limit(checks.job_type(type), **checked, period=seconds)


class Limiter:
    """Shared by the loops of a process."""

    def __init__(
        self, store: JobStore, doorbell: Doorbell, monotonic: Callable[[], float], logger: logging.Logger
    ) -> None:
        self._store = store
        self._doorbell = doorbell
        self._monotonic = monotonic
        self._logger = logger
        #: Replaced, never changed.
        self._limits: Mapping[str, Limit] = MappingProxyType({})
        self._look_at = -math.inf
        #: The last type that :meth:`look` came to; those after it are next.
        self._looked_at = ""

    def limit(self, limit: Limit) -> None:
        """Raises ``ValueError`` if the type has limits already."""
        if limit.type in self._limits:
            raise ValueError(f"type: {limit.type} has limits already; give all of them in one call")
        self._limits = MappingProxyType({**self._limits, limit.type: limit})

    def limit_of(self, type: str) -> Limit | None:
        """The limits of ``type`` here."""
        return self._limits.get(type)

    def of(self, types: Iterable[str]) -> tuple[Limit, ...]:
        """Those of ``types`` that have any: what a claim is told."""
        limits = self._limits
        return tuple(limits[type] for type in types if type in limits) if limits else ()

    def held_back(self, limits: Iterable[Limit], holder: Claimer | None) -> None:
        """A claim of ``holder`` has held jobs at their keys' gates, perhaps those that were admitted by the types'
        own: others may go in their place. Never raises for a store that is down.
        """
        self._try([(limit, ()) for limit in limits], holder)

    def freed(self, rows: Iterable[Row], holder: Claimer | None) -> None:
        """The runs of ``rows`` are settled, which ``holder`` had claimed. Never raises for a store that is down."""
        limits = self._limits
        if not limits:
            return
        keys: defaultdict[str, set[str]] = defaultdict(set)
        for row in rows:
            if row.type in limits:
                keys[row.type] |= set() if row.limit_key is None else {row.limit_key}
        self._try([(limits[type], keys_of) for type, keys_of in keys.items()], holder)

    def seconds_to_look(self) -> float:
        """Seconds until :meth:`look` is due."""
        return max(0.0, self._look_at - self._monotonic())

    def look(self, types: Collection[str]) -> None:
        """Admit what no settle has let in, of those ``types`` that have a handler here: also where they were held
        by limits that are gone. Of many types it looks at some, and is due again at once. Raises ``StoreError``.
        """
        page = heapq.nsmallest(MOST_TYPES, (type for type in types if type > self._looked_at))
        is_last = len(page) < MOST_TYPES
        self._looked_at = "" if is_last else page[-1]
        self._look_at = self._monotonic() + (LOOK_S if is_last else 0.0)
        for type in self._store.held_types(page) if page else ():
            self._admit(self._limits.get(type) or Limit(type), None)

    def _try(self, gates: Sequence[tuple[Limit, Collection[str]]], holder: Claimer | None) -> None:
        try:
            for limit, keys in gates:
                self._admit(limit, keys, holder)
        except StoreError as error:
            self._look_at = -math.inf
            self._logger.warning("jobs that wait at a limit are admitted later: %s", error)

    def _admit(self, limit: Limit, keys: Collection[str] | None, holder: Claimer | None = None) -> None:
        now = self._store.now()
        dues, next_at = self._store.admit(limit, keys, now, self._doorbell.put_at(now, now), MOST, holder=holder)
        if next_at is not None:
            self._look_at = min(self._look_at, self._monotonic() + max(0.0, next_at - now))
        if dues:
            self._doorbell.ring(dues, now)
        if len(dues) == MOST:
            self._look_at = -math.inf
