"""A worker that runs in a thread, and what is asked of its queue."""

import threading
from collections.abc import Sequence
from typing import Any

from kqueue import KQueue, RunReport
from kqueue.contracts.budget import Budget
from kqueue.contracts.runs import Selection
from kqueue.system.clock import ManualClock

PATIENCE_S = 240.0


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

    def count(*arguments: Any) -> Any:
        calls.append(arguments)
        return method(*arguments)

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
