"""What a dead child had in hand: found in the store, and ended at once instead of after its TTR.

The parent has waited for the child, so nobody runs these jobs any more. Every write is fenced all the same, so what
became of a job meanwhile stays.
"""

import logging
import math
import queue as queues
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

from kqueue import BrokerError, KQueue, KQueueError
from kqueue.contracts.renewer import Renewal
from kqueue.contracts.runs import LeaseKey
from kqueue.contracts.settlements import STOPPED, Outcome, unstarted
from kqueue.execution.completer import Completer
from kqueue.execution.execute import Decision
from kqueue.model.ids import is_made_by
from kqueue.model.job import State
from kqueue.model.retry import backoff
from kqueue.renewal.due import too_long
from kqueue.system.clock import awake

#: Rows in one call of the store.
BATCH = 1000


def end(queue: KQueue, tail: str) -> int:
    """Let the leases of a child end now that died by itself; returns how many.

    The sweep takes the jobs then as if their time had come: it blames them for the death by its own rules.
    """
    store = queue.store
    forget(queue, tail)
    rows = store.claimed_by_process(tail)
    now = store.now()
    # One whose lease is over is the sweep's. Were it renewed after a sweep, the next would blame it once more.
    keys = [LeaseKey(row.id, row.fence, 0.0) for row in rows if (row.lease_until or 0.0) > now]
    for start in range(0, len(keys), BATCH):
        store.renew(keys[start : start + BATCH], now)
    return _swept(queue, len(rows))


def give_back(queue: KQueue, tail: str) -> int:
    """Give back, at no cost of a try, what a child had in hand whose time was over; returns how many."""
    store = queue.store
    forget(queue, tail)
    rows = store.claimed_by_process(tail)
    for start in range(0, len(rows), BATCH):
        now = store.now()
        lot = rows[start : start + BATCH]
        store.settle([unstarted(row, now, None, now)._replace(reason=STOPPED) for row in lot], now)
    return _swept(queue, len(rows))


def end_overruns(queue: KQueue, tail: str, overruns: Sequence[Renewal]) -> tuple[int, int]:
    """End what a child had in hand that was killed for these runs: they have failed, and all else is given back, at
    no cost of a try. Returns how many of both there were; what was settled before is not there any more.
    """
    store, context = queue.store, queue.parts.loop_context()
    forget(queue, tail)
    guilty = {(run.id, run.fence): run for run in overruns}
    rows = store.claimed_by_process(tail)
    # A sweep has taken back one whose lease was over, and it is still its last holder's to settle.
    missing = {run.id for run in overruns}.difference(row.id for row in rows)
    found = [row for row in store.get(sorted(missing)) if row.state in {State.READY, State.DELAYED}]
    rows += [row for row in found if (row.id, row.fence) in guilty]
    now = store.now()
    back = f"its process was killed for job {overruns[0].id}, which ran for too long"
    completer = Completer(context)
    for row in rows:
        run = guilty.get((row.id, row.fence))
        if run is None:
            put_at = context.doorbell.put_at(now, now)
            completer.add(row, unstarted(row, now, put_at, now)._replace(reason=back))
        else:
            decision = Decision(
                Outcome.RETRIED, f"{too_long(run.max_runtime)}; its process was killed", run.retry_in
            )
            completer.add(row, context.settlement(row, decision))
            completer.seconds[row.id, row.fence] = run.max_runtime or 0.0
    completer.write()
    failed = sum((row.id, row.fence) in guilty for row in rows)
    return failed, len(rows) - failed


def forget(queue: KQueue, tail: str) -> None:
    """Let nobody count on a child that is gone: it serves no type any more."""
    for worker in queue.store.workers():
        if is_made_by(worker.id, tail):
            queue.store.forget_worker(worker.id)


def _swept(queue: KQueue, rows: int) -> int:
    if rows:
        queue.sweep()
    return rows


class Orphans:
    """Does this in a thread of its own, so that a slow store never keeps the parent from its signals."""

    def __init__(self, queue: KQueue, logger: logging.Logger) -> None:
        self._queue = queue
        self._logger = logger
        self._tasks: queues.SimpleQueue[Callable[[], None] | None] = queues.SimpleQueue()
        self._ending = threading.Event()
        #: Until when a lease shows that a child got on, by its tail; in monotonic seconds.
        self._alive_until: dict[str, float] = {}
        self._asked: set[str] = set()
        self._thread = threading.Thread(target=self._work, name="kqueue-leases", daemon=True)
        self._thread.start()

    def end(self, pid: int, tail: str) -> None:
        """See :func:`end`. Tried again until the store takes it."""
        self._tasks.put(lambda: self._say(pid, "ended", end(self._queue, tail)))

    def give_back(self, pid: int, tail: str) -> None:
        """See :func:`give_back`. Tried again until the store takes it."""
        self._tasks.put(lambda: self._say(pid, "given back", give_back(self._queue, tail)))

    def end_overruns(self, pid: int, tail: str, overruns: Sequence[Renewal]) -> None:
        """See :func:`end_overruns`. Tried again until the store takes it."""

        def task() -> None:
            failed, back = end_overruns(self._queue, tail, overruns)
            self._logger.warning("child %d: %d of its runs failed, %d others are given back", pid, failed, back)

        self._tasks.put(task)

    def alive_until(self, tail: str, heard_at: float) -> float:
        """Until when a lease of this child shows that it gets on, in monotonic seconds. It is looked up again.

        ``heard_at``: when the child last said something. A lease that it took holds for one TTR; it is no evidence
        after that, since the renewer renews leases for a child that hangs, too.
        """
        if tail not in self._asked:
            self._asked.add(tail)
            self._tasks.put(lambda: self._look(tail, heard_at))
        return self._alive_until.get(tail, -math.inf)

    def finish(self, seconds: float) -> None:
        """Try what is left once, for so many seconds at most, and end. What fails is left to run out by itself."""
        self._ending.set()
        self._tasks.put(None)
        self._thread.join(seconds)

    def _look(self, tail: str, heard_at: float) -> None:
        self._asked.discard(tail)
        with suppress(KQueueError):  # then it is not known, and looked up again
            now = self._queue.store.now()
            ttrs = [row.ttr for row in self._queue.store.claimed_by_process(tail) if (row.lease_until or 0.0) > now]
            if ttrs:
                self._alive_until[tail] = min(awake(), heard_at + max(ttrs))

    def _say(self, pid: int, what: str, rows: int) -> None:
        if rows:
            self._logger.warning("child %d: %d of its leases are %s", pid, rows, what)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            failures = 0
            while not self._is_done(task):
                failures += 1
                if self._ending.wait(backoff(failures)):
                    break

    def _is_done(self, task: Callable[[], None]) -> bool:
        try:
            task()
        except BrokerError as error:
            self._logger.warning("not in the tubes yet: %s", error)  # the next sweep of any worker puts it
        except KQueueError as error:
            self._logger.warning("leases of a child that is gone still hold: %s", error)
            return False
        except Exception:
            self._logger.exception("leases of a child that is gone still hold")
        return True
