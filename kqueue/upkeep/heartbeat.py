"""What a process that waits for jobs tells the store of itself, so that others know who serves what."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kqueue.contracts.store import JobStore
from kqueue.contracts.workers import TELL_S, WorkerRecord, is_alive
from kqueue.model.errors import StoreError
from kqueue.upkeep.hanging import Hung, hanging_of

#: Seconds until its first.
FIRST_S = 1.0


class Heartbeat:
    """One process's. Shared by its loops, of which one tells at a time."""

    def __init__(
        self,
        *,
        store: JobStore,
        id: str,
        types: Callable[[], list[str]],
        note: Callable[[], Mapping[str, object]],
        monotonic: Callable[[], float],
    ) -> None:
        """``id``: made as job ids are. ``types()``: those with a handler here. ``note()``: what else to tell."""
        self._store = store
        self._id = id
        self._types = types
        self._note = note
        self._monotonic = monotonic
        self._tell_at = 0.0
        self._started_at: float | None = None

    def arrive(self) -> None:
        """Tell of me in a second: who is gone by then need not be known, and costs the store no write."""
        self._tell_at = self._monotonic() + FIRST_S

    def seconds_to_tell(self) -> float:
        """Seconds until :meth:`tell` is due."""
        return max(0.0, self._tell_at - self._monotonic())

    def tell(self) -> None:
        """I am here. Raises ``StoreError``."""
        self._tell_at = self._monotonic() + TELL_S
        now = self._store.now()
        self._started_at = min(self._started_at or now, now)  # unless the clock was ahead then
        note = json.dumps(dict(self._note()))
        worker = WorkerRecord(
            self._id,
            os.uname().nodename,
            os.getpid(),
            tuple(self._types()),
            self._started_at,
            now,
            note,
        )
        self._store.see_worker(worker)

    def leave(self) -> None:
        """I am gone. A store that is down forgets me by itself."""
        if self._started_at is not None:
            self._started_at = None
            try:
                self._store.forget_worker(self._id)
            except StoreError:
                return


@dataclass(frozen=True, slots=True)
class Worker:
    """A process that waits for jobs, as the store knows it."""

    #: Of 28 characters, in the order started.
    id: str
    host: str
    pid: int
    #: Those that have a handler there, sorted.
    types: tuple[str, ...]
    #: Seconds since 1970, by the store's clock.
    started_at: float
    #: Seconds since it was heard of last.
    silent_s: float
    #: Whether that is lately: 15 seconds ago at most.
    alive: bool
    #: Runs there that go on beyond their leases, as ``(job_id, type, seconds, is_settled)``: the longest first, ten
    #: at most. Seconds since their leases were over, or would have been if the job had not ended before.
    hanging: tuple[Hung, ...] = ()


def workers_of(store: JobStore) -> list[Worker]:
    """All that it remembers, in the order started. Raises ``StoreError``."""
    now = store.now()
    return [worker_of(record, now) for record in store.workers()]


def worker_of(record: WorkerRecord, now: float) -> Worker:
    """What the store remembers of it, as users get it. ``now`` by the store's clock."""
    return Worker(
        record.id,
        record.host,
        record.pid,
        record.types,
        record.started_at,
        max(0.0, now - record.seen_at),
        is_alive(record, now),
        hanging_of(record, now).past_lease if is_alive(record, now) else (),
    )
