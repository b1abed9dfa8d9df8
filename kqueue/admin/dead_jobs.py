"""Jobs in bulk: found by a filter, the dead brought back or deleted, the delayed run now, in bounded lots.

There may be a million of them, so they are read page by page in the order of their ids, and each lot is one write:
others get their turn in between, and what was done before an error stays done.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kqueue.contracts.store import JobStore
from kqueue.dispatch.doorbell import Doorbell
from kqueue.model import checks, history, times
from kqueue.model.job import Row, State
from kqueue.model.reasons import reason_text
from kqueue.model.times import Instant

#: Jobs that are read, and brought back or deleted, together.
LOT = 100


@dataclass(frozen=True, slots=True)
class Filter:
    """Which jobs are meant: those of which all of this holds."""

    #: None: of any type.
    type: str | None = None
    #: A part of the reason, in any case of letters; None: any reason.
    containing: str | None = None
    #: Added not before, and before: an aware ``datetime``, or seconds since 1970.
    added_since: Instant | None = None
    added_before: Instant | None = None
    #: Ended (its last run, if it was not given back) not before, and before.
    ended_since: Instant | None = None
    ended_before: Instant | None = None

    def __post_init__(self) -> None:
        """Raises ``TypeError`` or ``ValueError`` for what could match nothing by mistake."""
        if self.type is not None:
            checks.job_type(self.type)
        if self.containing is not None:
            checks.text("containing", self.containing)
        for name in ("added_since", "added_before", "ended_since", "ended_before"):
            at = getattr(self, name)
            if at is not None:
                object.__setattr__(self, name, times.instant(name, at))

    def matches(self, row: Row) -> bool:
        """Whether this row is meant."""
        return (
            (self.type is None or row.type == self.type)
            and (self.containing is None or self.containing.casefold() in (row.reason or "").casefold())
            and _is_between(row.created_at, self.added_since, self.added_before)
            and (self.ended_since is self.ended_before is None or self._has_ended(row))
        )

    def _has_ended(self, row: Row) -> bool:
        runs = history.read(row.history)
        return bool(runs) and _is_between(runs[-1].ended_at, self.ended_since, self.ended_before)


def _is_between(at: float, since: Instant | None, before: Instant | None) -> bool:
    """Both as a filter keeps them: in seconds since 1970."""
    later = since is None or (isinstance(since, float) and at >= since)
    return later and (before is None or (isinstance(before, float) and at < before))


#: All of them.
ALL_DEAD = Filter()


def checked_search(wanted: object, limit: object) -> tuple[Filter, int | None]:
    """Which jobs, and how many at most. Raises ``TypeError`` or ``ValueError``."""
    return checks.is_a("wanted", wanted, Filter), None if limit is None else checks.whole("limit", limit, 1)


class DeadJobs:
    """The dead jobs of a store, and others that a filter finds."""

    def __init__(self, store: JobStore, doorbell: Doorbell) -> None:
        self._store = store
        self._doorbell = doorbell

    def find(
        self, wanted: Filter, most: int | None = None, state: State = State.DEAD, after: str | None = None
    ) -> Iterator[list[Row]]:
        """Rows in ``state``, ``most`` in all: in lots of at most :data:`LOT`, in the order of their ids, after the
        id ``after``.
        """
        left = most
        while left is None or left > 0:
            page = self._store.find(wanted.type, state, after, LOT)
            if not page:
                return
            after = page[-1].id
            found = [row for row in page if wanted.matches(row)][:left]
            if found:
                left = None if left is None else left - len(found)
                yield found

    def retry(self, wanted: Filter, most: int | None, reason: str) -> int:
        """Bring them back, a lot at a time; returns how many."""
        total = 0
        for lot in self.find(wanted, most):
            total += self.revive([row.id for row in lot], reason)
        return total

    def revive(self, ids: Sequence[str], reason: str) -> int:
        """Bring back those of ``ids`` that are dead, in one write; returns how many."""
        now, reason = self._store.now(), reason_text(reason)
        revived = self._store.revive(ids, reason, now, self._doorbell.put_at(now, now))
        self._doorbell.ring(revived, now)
        return len(revived)

    def hasten(self, wanted: Filter, most: int | None = None) -> int:
        """Have those that wait for their retry run now, a lot at a time; returns how many."""
        total = 0
        for lot in self.find(wanted, most, State.DELAYED):
            now = self._store.now()
            failed = [row.id for row in lot if row.failures]
            hastened = self._store.hasten(failed, now, self._doorbell.put_at(now, now)) if failed else []
            self._doorbell.ring(hastened, now)
            total += len(hastened)
        return total

    def delete(self, wanted: Filter, most: int | None = None) -> int:
        """Delete them, a lot at a time, each right after it was read; returns how many."""
        return sum(self._store.delete([row.id for row in lot]) for lot in self.find(wanted, most))
