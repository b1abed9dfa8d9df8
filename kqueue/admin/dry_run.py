"""What a sweep would do now, and why: its dry run.

It reads what a sweep reads, by the same rules, and reckons with what the sweep would have changed by then: a
lease that is taken back leaves a job without a pointer, a delay that is over makes one ready. So its findings are
what a sweep at the same moment counts, job for job, up to so many of a kind; but not the finished jobs that it
deletes since they need not be kept any more, which is no repair. The one thing that it cannot tell is what stands
behind an entry that is not ours: to see that, the sweep buries it.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from kqueue.contracts.broker import Broker
from kqueue.contracts.repair import Abandoned, Due, Head
from kqueue.contracts.rules import dated, is_lost, recovery
from kqueue.contracts.store import JobStore
from kqueue.contracts.stored_times import Misdated
from kqueue.model.ids import maker
from kqueue.model.job import State
from kqueue.model.reports import Finding, Repair
from kqueue.model.wording import moment, span

#: Why an entry would be buried.
STRANGER = "what its tube would serve next is not ours or malformed; what stands behind it is seen after that"


class DryRun:
    """One look at a store and its tubes. Changes neither."""

    def __init__(
        self,
        store: JobStore,
        broker: Broker,
        *,
        max_crashes: int,
        horizon: float,
        grace: float,
        page: int,
        most: int,
    ) -> None:
        """``horizon`` and ``grace`` are the sweep's, in seconds, and so is ``page``, the types that are looked at
        together; ``most``: findings of a kind.
        """
        self._store = store
        self._broker = broker
        self._max_crashes = max_crashes
        self._horizon = horizon
        self._grace = grace
        self._page = page
        self._most = most
        #: Rows to read: one more, to know whether there are more.
        self._rows = most + 1

    def findings(self) -> Iterator[Finding]:
        """First what the store alone tells, then what the tubes show. Raises as the store and the broker do."""
        now = self._store.now()
        due = self._store.find_due(now, self._rows)
        abandoned = self._store.find_abandoned(now, self._rows)
        yield from self._bounded(_make_ready(row, now) for row in due)
        yield from self._bounded(_take_back(row, now, self._max_crashes) for row in abandoned)
        yield from self._bounded(_set_right(one, now) for one in self._store.find_misdated(None, now, self._rows))
        if not self._broker.carries_pointers:
            return
        freed = [row for row in abandoned if not _is_dead(row, self._max_crashes)]
        unput = self._store.find_unput(now + self._horizon, self._rows)
        yield from self._bounded(chain((_put_first(row, now) for row in unput), map(_put_freed, freed)))
        # The sweep looks at each tube with a ready job, and at those of the jobs that it would put.
        soon_ready = sorted({*(row.type for row in [*due, *unput]), *(row.type for row in freed)})
        pages = chain(self._pages_of(soon_ready), self._ready_types(frozenset(soon_ready)))
        yield from self._bounded(chain.from_iterable(self._in_tubes(page, due, now) for page in pages))

    def _pages_of(self, types: Sequence[str]) -> Iterator[Sequence[str]]:
        return (types[first : first + self._page] for first in range(0, len(types), self._page))

    def _ready_types(self, seen: frozenset[str]) -> Iterator[Sequence[str]]:
        """The others, page by page."""
        position = ""
        while types := self._store.ready_types(position, self._page):
            yield [type for type in types if type not in seen]
            position = types[-1]

    def _in_tubes(self, types: Sequence[str], due: list[Due], now: float) -> Iterator[Finding]:
        yield from (_set_right(one, now) for one in self._store.find_misdated(types, now, self._rows))
        peeks = self._broker.peek(types, bury=False)
        heads = {type: dated(peek.head, now, self._grace) for type, peek in peeks.items()}
        lost = self._store.find_lost(heads, now, self._grace, self._rows)
        lost += [row for row in due if row.type in heads and is_lost(row, heads[row.type], now, self._grace)]
        yield from (Finding(Repair.BURY_ENTRY, STRANGER, type) for type, peek in peeks.items() if peek.foreign)
        for row in {row.id: row for row in lost}.values():
            yield _put_again(row, peeks[row.type].head, now)

    def _bounded(self, findings: Iterable[Finding]) -> Iterator[Finding]:
        for number, finding in enumerate(findings):
            if number == self._most:
                yield Finding(finding.repair, f"there are more than {self._most}; a higher limit shows them")
                return
            yield finding


def _set_right(misdated: Misdated, now: float) -> Finding:
    job_id = misdated.name if misdated.what == "job" else None
    why = f"{misdated.told(now)}: the store's clock was ahead"
    return Finding(Repair.SET_TIME_RIGHT, why, misdated.type, job_id)


def _make_ready(row: Due, now: float) -> Finding:
    return Finding(Repair.MAKE_READY, f"due for {span(now - row.run_at)}", row.type, row.id)


def _take_back(row: Abandoned, now: float, max_crashes: int) -> Finding:
    over = f"lease of {maker(row.lease_owner)} ran out {span(now - row.lease_until)} ago"
    if row.alone:
        blame = f"it ran alone: crash {row.crashes + 1} of {max_crashes}"
    else:
        blame = "it did not run alone: it is suspected, not blamed"
    repair = Repair.END_DEAD if _is_dead(row, max_crashes) else Repair.TAKE_BACK
    return Finding(repair, f"{over}; {blame}", row.type, row.id)


def _put_first(row: Due, now: float) -> Finding:
    if row.run_at > now:
        why = f"delayed until {moment(row.run_at)}: due in {span(row.run_at - now)}, no pointer yet"
    else:
        why = f"due for {span(now - row.run_at)}, no pointer yet: the broker did not answer, or the delay was long"
    return Finding(Repair.PUT_POINTER, why, row.type, row.id)


def _put_freed(row: Abandoned) -> Finding:
    return Finding(Repair.PUT_POINTER, "taken back from its worker: no pointer yet", row.type, row.id)


def _put_again(row: Due, head: Head | None, now: float) -> Finding:
    put = f"its pointer was put {span(now - (row.put_at or now))} ago and is lost"
    if head is None:
        why = f"{put}: nothing in its tube is ready"
    else:
        why = (
            f"{put}: what its tube would serve next (priority {head.priority}, put {span(now - head.put_at)} ago)"
            f" comes after it (priority {row.priority})"
        )
    return Finding(Repair.PUT_POINTER, why, row.type, row.id)


def _is_dead(row: Abandoned, max_crashes: int) -> bool:
    state, _ = recovery(row.alone, row.crashes, max_crashes)
    return state == State.DEAD
