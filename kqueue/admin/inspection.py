"""Reads what :mod:`kqueue.admin.why` and :mod:`kqueue.admin.doctor` judge by. Changes nothing."""

import math
from collections import Counter
from collections.abc import Callable

from kqueue.admin import doctor
from kqueue.admin.dead_jobs import LOT
from kqueue.admin.doctor import LATE_S, MOST_COUNTED, OFTEN, UNSERVED_S, Failing, Symptom, Vitals
from kqueue.admin.why import MOST_AHEAD, Answer, Facts, why
from kqueue.contracts.admission import Limit
from kqueue.contracts.broker import Broker, Stray
from kqueue.contracts.repair import Head
from kqueue.contracts.rules import GRACE_S
from kqueue.contracts.store import JobStore
from kqueue.contracts.stored_times import Misdated
from kqueue.model.errors import BrokerError
from kqueue.model.job import Row
from kqueue.system.clock import Clock

#: Types whose tubes are looked at for times that lie ahead, at most.
MOST_TYPES = 1000


class Inspection:
    """Gathers, for one queue, the facts that ``why`` and ``checkup`` judge."""

    def __init__(
        self,
        store: JobStore,
        broker: Broker,
        *,
        beginning: Callable[[], str],
        limit_of: Callable[[str], Limit | None],
        sweep_interval: float,
        max_crashes: int,
        clock: Clock,
    ) -> None:
        """``beginning()``: what the names of the tubes begin with. ``limit_of(type)``: its limits, as this
        process knows them.
        """
        self._store = store
        self._broker = broker
        self._beginning = beginning
        self._limit_of = limit_of
        self._sweep_interval = sweep_interval
        self._max_crashes = max_crashes
        self._clock = clock

    def why(self, job_id: str) -> list[Answer]:
        """What keeps a job from running; nothing if it is not there. Raises ``StoreError``."""
        found = self._store.get([job_id])
        return why(self._facts_about(found[0])) if found else []

    def checkup(self) -> list[Symptom]:
        """What somebody should look at. Raises ``StoreError``."""
        store, now, host_time = self._store, self._store.now(), self._clock.time()
        late = now - LATE_S
        overview = store.overview()
        by_rows = sorted(overview, key=lambda standing: -standing.rows)
        warnings, broker_error = self._warnings(list(dict.fromkeys(standing.type for standing in by_rows)))
        strays = [] if broker_error is not None else self._strays(now - UNSERVED_S)
        return doctor.diagnose(
            Vitals(
                now=now,
                host_time=host_time,
                overview=overview,
                workers=store.workers(),
                paused=store.paused(),
                overdue=len(store.find_due(late, MOST_COUNTED)),
                abandoned=len(store.find_abandoned(late, MOST_COUNTED)),
                unput=self._unput(late),
                broker_warnings=warnings,
                strays=strays,
                beginning=self._beginning(),
                broker_error=broker_error,
                misdated=self._misdated(now),
                failing=self._failing(),
            )
        )

    def _facts_about(self, row: Row) -> Facts:
        head, broker_error = self._head_of(row.type)
        return Facts(
            row=row,
            now=self._store.now(),
            paused=self._store.paused(),
            workers=self._store.workers(),
            ahead=self._store.ahead(row, MOST_AHEAD),
            limit=self._limit_of(row.type),
            has_tubes=self._broker.carries_pointers,
            head=head,
            broker_error=broker_error,
            grace=GRACE_S,
            sweep_interval=self._sweep_interval,
            max_crashes=self._max_crashes,
        )

    def _head_of(self, type: str) -> tuple[Head | None, str | None]:
        try:
            return self._broker.peek([type], bury=False)[type].head, None
        except BrokerError as error:
            return None, str(error)

    def _warnings(self, types: list[str]) -> tuple[list[str], str | None]:
        try:
            return self._broker.warnings(types), None
        except BrokerError as error:
            return [], str(error)

    def _misdated(self, now: float) -> list[Misdated]:
        """All but ready jobs in tubes, and those of the first types that have some."""
        found = self._store.find_misdated(None, now, MOST_COUNTED)
        if self._broker.carries_pointers:
            found += self._store.find_misdated(self._store.ready_types("", MOST_TYPES), now, MOST_COUNTED)
        return found

    def _failing(self) -> list[Failing]:
        """Types whose jobs fail again and again, among the delayed jobs that are due first."""
        ids = [due.id for due in self._store.find_due(math.inf, MOST_COUNTED)]
        jobs: Counter[str] = Counter()
        reasons: dict[str, str | None] = {}
        for first in range(0, len(ids), LOT):
            for row in self._store.get(ids[first : first + LOT]):
                if row.failures >= OFTEN:
                    jobs[row.type] += 1
                    reasons[row.type] = row.reason
        return [Failing(type, number, reasons[type]) for type, number in jobs.items()]

    def _strays(self, before: float) -> list[Stray]:
        try:
            return self._broker.strays(before)
        except BrokerError:
            return []  # it has just answered; the next look says more

    def _unput(self, until: float) -> int:
        """Jobs that were due by then and have no pointer, counted up to a bound."""
        if not self._broker.carries_pointers:
            return 0
        found = self._store.find_unput(until, MOST_COUNTED)
        return sum(due.run_at <= until for due in found)
