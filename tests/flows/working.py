"""A worker that runs in a thread, and what is asked of its queue."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kqueue import JobInHand, KQueue, RunReport
from kqueue.contracts.budget import Budget
from kqueue.contracts.runs import Selection
from kqueue.stores.sqlite.store import SqliteStore
from kqueue.system.clock import ManualClock

PATIENCE_S = 240.0


class Gate:
    """What handlers wait at until the test opens it."""

    def __init__(self) -> None:
        self.inside: list[Any] = []
        self._open = threading.Event()

    def wait(self, who: Any) -> None:
        self.inside.append(who)
        assert self._open.wait(PATIENCE_S)

    def open(self) -> None:
        self._open.set()


class Working:
    """A ``work`` in a thread of its own, until its end."""

    def __init__(self, queue: KQueue, **options: Any) -> None:
        self._queue = queue
        self._options = options
        self._ended: list[RunReport | BaseException] = []
        self._is_stopped = False
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> "Working":
        self._thread.start()
        return self

    def stop(self) -> None:
        """Once: a second ``stop``, when nothing runs any more, would end the next ``work``."""
        if not self._is_stopped:
            self._is_stopped = True
            self._queue.stop()

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "work does not end"

    @property
    def report(self) -> RunReport:
        """Once it has ended."""
        [report] = self._ended
        assert isinstance(report, RunReport), report
        return report

    def _work(self) -> None:
        try:
            self._ended.append(self._queue.work(**self._options))
        except BaseException as error:
            self._ended.append(error)


def is_drained(queue: KQueue, *types: str) -> bool:
    """Whether no job and no pointer is left."""
    depths = queue.broker.depths(types)
    return not sum(queue.counts().values()) and not any(any(states.values()) for states in depths.values())


def counted(queue: KQueue, name: str) -> list[tuple[Any, ...]]:
    """The calls of a method of the store from now on."""
    calls: list[tuple[Any, ...]] = []
    method = getattr(queue.store, name)

    def count(*arguments: Any, **named: Any) -> Any:
        calls.append(arguments)
        return method(*arguments, **named)

    setattr(queue.store, name, count)
    return calls


def with_suspicion(queue: KQueue, clock: ManualClock, ids: Sequence[str], deaths: int) -> None:
    """As after so many deaths of processes that held these jobs among others."""
    for death in range(deaths):
        limits = Budget(len(ids), job_s={"t": 0.0})
        for one in ids:
            claim = queue.store.claim(Selection(("t",), (one,)), limits, f"dead {death} {one}", clock.time(), False)
            assert len(claim.rows) == 1
        clock.advance(60)
        queue.sweep()
    assert {row.suspicion for row in queue.store.get(ids)} == {deaths}


class Suspects:
    """Three of them and forty others of type "t", in a queue whose clock stands still; and what ran beside them."""

    def __init__(self, folder: Path, deaths: int) -> None:
        """``deaths``: how many each has seen."""
        clock = ManualClock()
        self.queue = KQueue(store=SqliteStore(folder / "jobs.db", clock=clock))
        #: How many ran, the suspect among them, at each look while one did.
        self.beside: list[int] = []
        #: Of each suspect, whether it was stored that it ran alone.
        self.alone: list[bool] = []
        self._running: set[str] = set()
        self._lock = threading.Lock()
        suspects = self.queue.add_jobs("t", ["suspect 1", "suspect 2", "suspect 3"], ttr=50)
        with_suspicion(self.queue, clock, suspects, deaths)
        self.queue.add_jobs("t", map(str, range(20)), priority="high")
        self.queue.add_jobs("t", map(str, range(100, 120)), priority="low")

    def begin(self, job: JobInHand) -> None:
        with self._lock:
            self._running.add(job.payload)

    def look(self) -> None:
        with self._lock:
            if any(one.startswith("suspect") for one in self._running):
                self.beside.append(len(self._running))

    def end(self, job: JobInHand) -> None:
        if job.payload.startswith("suspect"):
            self.alone.append(self.queue.store.get([job.id])[0].alone)
        with self._lock:
            self._running.discard(job.payload)
        job.delete()
