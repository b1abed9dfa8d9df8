"""Times of a memory store that lie too far ahead: found, and set right."""

from collections.abc import Iterator, MutableMapping, Sequence
from itertools import islice

from kqueue.contracts.stored_times import Misdated, furthest, latest, past, shifted, times_of
from kqueue.contracts.workers import WorkerRecord
from kqueue.model.job import Row, State
from kqueue.stores.memory.gate_counts import Starts
from kqueue.stores.memory.rows import MemoryRows
from kqueue.stores.memory.unique import Taken
from kqueue.stores.transitions import redated


class MemoryTimes:
    """Over all that a store keeps; its lock is held around every call."""

    def __init__(
        self,
        rows: MemoryRows,
        starts: Starts,
        unique: MutableMapping[tuple[str, str], Taken],
        paused: MutableMapping[str, float],
        workers: MutableMapping[str, WorkerRecord],
    ) -> None:
        self._rows, self._starts = rows, starts
        self._unique, self._paused, self._workers = unique, paused, workers

    def find(self, types: Sequence[str] | None, now: float, most: int) -> list[Misdated]:
        """See :meth:`kqueue.contracts.store.JobStore.find_misdated`."""
        jobs = [
            Misdated("job", row.id, row.type, furthest(times_of(row), now))
            for row in self._wrong_rows(types, now, most)
        ]
        if types is not None:
            return jobs
        keys = [Misdated("unique key", key, type, at) for (type, key), at in self._wrong_keys(now, most)]
        starts = [Misdated("start", type, type, at) for type, at in islice(self._starts.after(latest(now)), most)]
        pauses = [Misdated("pause", name, None, at) for name, at in self._wrong_pauses(now)]
        workers = [
            Misdated("worker", one.id, None, max(one.seen_at, one.started_at)) for one in self._wrong_workers(now)
        ]
        return jobs + keys + starts + pauses + workers

    def repair(self, types: Sequence[str] | None, now: float, most: int) -> int:
        """See :meth:`kqueue.contracts.store.JobStore.repair_times`."""
        rows = self._wrong_rows(types, now, most)
        for row in rows:
            self._rows.write(redated(row, now))
        if types is not None:
            return len(rows)
        keys, pauses, workers = self._wrong_keys(now, most), self._wrong_pauses(now), self._wrong_workers(now)
        for place, since in keys:
            taken = self._unique[place]
            self._unique[place] = taken._replace(until=shifted(taken.until, since, now), since=now)
        for name, _ in pauses:
            self._paused[name] = now
        for worker in workers:
            self._workers[worker.id] = worker._replace(
                started_at=past(worker.started_at, now), seen_at=past(worker.seen_at, now)
            )
        return len(rows) + len(keys) + len(pauses) + len(workers) + self._starts.bring_back(latest(now), now)

    def _wrong_rows(self, types: Sequence[str] | None, now: float, most: int) -> list[Row]:
        return list(islice((row for row in self._asked(types) if redated(row, now) != row), most))

    def _asked(self, types: Sequence[str] | None) -> Iterator[Row]:
        for row in self._rows.all():
            has_pointer = row.state == State.READY and row.put_at is not None
            if has_pointer == (types is not None) and (types is None or row.type in types):
                yield row

    def _wrong_keys(self, now: float, most: int) -> list[tuple[tuple[str, str], float]]:
        wrong = ((place, taken.since) for place, taken in self._unique.items() if taken.since > latest(now))
        return list(islice(wrong, most))

    def _wrong_pauses(self, now: float) -> list[tuple[str, float]]:
        return [(name, since) for name, since in self._paused.items() if since > latest(now)]

    def _wrong_workers(self, now: float) -> list[WorkerRecord]:
        return [one for one in self._workers.values() if max(one.seen_at, one.started_at) > latest(now)]
