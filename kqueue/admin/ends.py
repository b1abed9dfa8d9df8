"""Waits for the ends of jobs: one look at the store for all threads and coroutines of a process.

Theory of operation. A call looks once by itself: so it knows what has ended before, and that the end of each other
will be kept for long enough to be seen. Then a thread looks for all calls that wait, some ten milliseconds apart:
first whether anything has changed in the store at all, where that can tell, and only then at the states of all the
jobs that anybody waits for. It looks at least once after a call has come, so no end falls between the two. Each
call has a time of its own, after which it is answered whatever has become of the store; and who waits does so with
a bound of his own, should even that thread be no more.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from kqueue.contracts.store import JobStore
from kqueue.model import checks, times
from kqueue.model.errors import StoreError
from kqueue.model.ids import is_job_id
from kqueue.model.job import Job, Row, State
from kqueue.model.options import Options
from kqueue.model.reports import End
from kqueue.model.times import Duration
from kqueue.system.clock import Clock, busy
from kqueue.system.threads import Background, Sleep

ENDED = frozenset({State.DONE, State.DEAD})
#: Seconds between two looks at a store that tells whether anything has changed, and at one that does not; and at
#: most.
LOOK_S, BLIND_LOOK_S, LONGEST_LOOK_S = 0.01, 0.04, 0.05
#: The part of a core that looks take, as long as that does not make them rarer.
BUSY_PART = 0.006
#: Seconds until the next look where the store is not there.
AWAY_S = 0.5
#: Seconds beyond its time after which a call answers by itself.
PATIENCE_S = 5.0
#: Rows that are read at once, and states.
ROWS, STATES = 100, 1000


class Ends:
    """Of one process. Shared by threads."""

    def __init__(self, store: JobStore, options: Options, clock: Clock) -> None:
        self._store = store
        self._options = options
        self._monotonic = clock.monotonic
        self._lock = threading.Lock()
        self._waits: list[_Wait] = []
        self._thread: Background | None = None
        self._sleep = Sleep()
        self._pulse: object = None

    def wait(self, ids: Sequence[str], timeout: Duration) -> list[End]:
        """An end for each id, in their order. Raises ``ValueError`` and ``TypeError``, and ``StoreError`` where the
        store cannot be asked at first.
        """
        sleep = Sleep()
        wait = self._begun(ids, timeout, sleep.wake)
        if not wait.is_over:
            try:
                sleep.wait(wait.deadline - self._monotonic() + PATIENCE_S)
            finally:
                self._forget(wait)
        return wait.answer(ids)

    async def wait_async(self, ids: Sequence[str], timeout: Duration) -> list[End]:
        """The same, for a coroutine."""
        import asyncio  # noqa: PLC0415 (see test_layout.LAZY)

        loop, over = asyncio.get_running_loop(), asyncio.Event()

        def tell() -> None:
            with suppress(RuntimeError):  # it is closed
                loop.call_soon_threadsafe(over.set)

        wait = await asyncio.to_thread(self._begun, ids, timeout, tell)
        if not wait.is_over:
            try:
                await asyncio.wait_for(over.wait(), wait.deadline - self._monotonic() + PATIENCE_S)
            except TimeoutError:
                pass
            finally:
                self._forget(wait)
        return wait.answer(ids)

    # -- a call's own thread -----------------------------------------------------------------------------

    def _begun(self, ids: Sequence[str], timeout: Duration, tell: Callable[[], None]) -> "_Wait":
        """Over already if there is nothing to wait for."""
        for one in ids:
            checks.text("id", one)
        seconds = times.seconds("timeout", timeout, 0)
        wait = _Wait(self._monotonic() + seconds, tell)
        known = [one for one in dict.fromkeys(ids) if is_job_id(one)]
        for row in self._rows(known):
            if row.state in ENDED:
                wait.ends[row.id] = _end(row)
            else:
                wait.missing[row.id] = self._kept_for(row)
        if wait.missing and seconds:
            wait.seen_at = self._monotonic()
            with self._lock:
                self._waits.append(wait)
                if self._thread is None or not self._thread.is_alive():
                    self._thread = Background(self._look_on, "kqueue-ends")
            self._sleep.wake()
        else:
            wait.is_over = True
        return wait

    def _kept_for(self, row: Row) -> float:
        seconds = self._options.keeps(row.type, row.own_options)
        if not seconds:
            raise ValueError(
                f"id: nobody keeps the end of {row.id}, so it cannot be waited for: add it with tombstone= or"
                f" keep_done=, in seconds, or set one of them for its type, by queue.options({row.type!r}, ...)"
            )
        return seconds

    def _rows(self, ids: Sequence[str]) -> Iterator[Row]:
        for first in range(0, len(ids), ROWS):
            yield from self._store.get(ids[first : first + ROWS])

    def _forget(self, wait: "_Wait") -> None:
        with self._lock:
            if wait in self._waits:
                self._waits.remove(wait)

    # -- the thread's ------------------------------------------------------------------------------------

    def _look_on(self) -> None:
        """Until nobody waits any more."""
        while True:
            with self._lock:
                waits = list(self._waits)
                if not waits:
                    self._thread = None
                    return
            self._sleep.wait(self._look(waits))

    def _look(self, waits: Sequence["_Wait"]) -> float:
        """Seconds until the next one."""
        began, spent = self._monotonic(), busy()
        next_s = LOOK_S
        try:
            pulse = self._store.pulse()
            next_s = BLIND_LOOK_S if pulse is None else LOOK_S
            if pulse is None or pulse != self._pulse or not all(wait.is_looked_at for wait in waits):
                self._find(waits, began)
                self._pulse = pulse  # as it was before: what came meanwhile is looked at again
            for wait in waits:
                wait.is_looked_at, wait.seen_at = True, began
        except StoreError:
            next_s = AWAY_S
        now = self._monotonic()
        for wait in waits:
            if not wait.missing or now >= wait.deadline:
                self._forget(wait)
                wait.is_over = True
                wait.tell()
        next_s = max(next_s, min((busy() - spent) / BUSY_PART, LONGEST_LOOK_S))
        return max(0.0, min([next_s, *(wait.deadline - now for wait in waits if not wait.is_over)]))

    def _find(self, waits: Sequence["_Wait"], now: float) -> None:
        wanted = list({id for wait in waits for id in wait.missing})
        states: dict[str, str] = {}
        for first in range(0, len(wanted), STATES):
            states.update(self._store.states(wanted[first : first + STATES]))
        ended = [id for id, state in states.items() if state in ENDED]
        ends = {row.id: _end(row) for row in self._rows(ended) if row.state in ENDED}
        for wait in waits:
            for id, kept_s in list(wait.missing.items()):
                if id in ends:
                    wait.found(id, ends[id])
                elif id not in states:
                    # It may have ended, and its time be over, where nobody has looked for so long.
                    was_seen = now - wait.seen_at < kept_s
                    wait.found(id, End("deleted" if was_seen else "unknown"))


class _Wait:
    """One call."""

    def __init__(self, deadline: float, tell: Callable[[], None]) -> None:
        """``deadline`` in monotonic seconds. ``tell()`` is called, by another thread, once it is over."""
        self.deadline = deadline
        self.tell = tell
        self.ends: dict[str, End] = {}
        #: Seconds for which the end of each is kept that has not ended.
        self.missing: dict[str, float] = {}
        #: When they were last seen not to have ended, in monotonic seconds.
        self.seen_at = 0.0
        self.is_looked_at = False
        self.is_over = False

    def found(self, id: str, end: End) -> None:
        """Its end is known."""
        self.ends[id] = end
        self.missing.pop(id, None)

    def answer(self, ids: Sequence[str]) -> list[End]:
        """In the order of ``ids``. What was never there, or is no more, is unknown."""
        rest = End("timeout")
        return [self.ends.get(id, rest if id in self.missing else End("unknown")) for id in ids]


def _end(row: Row) -> End:
    job = Job(row)
    return End(str(row.state), job.result, job.reason)
