"""Threads as the hands of a dispatcher: plain functions, one at a time in each.

Theory of operation. A thread takes the next job that is there and runs it; nobody is woken for that. One that finds
none waits at a lock of its own, under which the dispatcher lets go as many as it has jobs for.
"""

from collections import deque
from collections.abc import Mapping
from functools import partial

from kqueue.execution.execute import execute
from kqueue.execution.inflight_job import InflightJob
from kqueue.loops.dispatcher import HandsParts
from kqueue.loops.lazy_asyncio import Awaiter
from kqueue.loops.stopping import LoopFailed
from kqueue.model.errors import KQueueError
from kqueue.model.handlers import Handler
from kqueue.model.job import JobInHand
from kqueue.model.wording import interrupted
from kqueue.system.forks import end_child
from kqueue.system.threads import Background, Sleep

#: Seconds that a thread waits for a job before it looks around, which shows that it gets on.
IDLE_S = 15.0


class ThreadHands:
    """See :class:`kqueue.loops.dispatcher.Hands`. Threads are started at the first :meth:`open`."""

    def __init__(self, parts: HandsParts, *, threads: int) -> None:
        self._parts = parts
        self._lock = parts.jobs.jobs.lock
        self._number = threads
        self._hands: list[HandThread] = []
        #: Those that wait, the one that came last at the end. Under the lock of the jobs.
        self._idle: deque[HandThread] = deque()
        self._failure: LoopFailed | None = None
        self._is_closed = False

    @property
    def thread(self) -> int:
        """Each has its own."""
        return -1

    def open(self) -> None:
        """Start the threads. Raises ``LoopFailed`` if one of them has failed, and ``OSError``."""
        if self._failure is not None:
            raise self._failure
        while len(self._hands) < self._number:
            self._hands.append(HandThread(self, len(self._hands) + 1))

    def number(self) -> int:
        """Threads."""
        return len(self._hands)

    def start(self) -> None:
        """Wake as many as have something to do."""
        with self._lock:
            woken = [self._idle.pop() for _ in range(min(len(self._idle), self._parts.jobs.waiting()))]
        for hand in woken:
            hand.wake()

    def ring(self) -> None:
        """From any thread."""
        self._parts.controls.wakeup.ring()

    def keeps_loop(self, job: InflightJob) -> bool | None:
        """Each keeps its own thread."""
        return True

    def late(self, jobs: list[InflightJob]) -> None:
        """Never: what runs in a thread cannot be cancelled."""

    def close(self) -> None:
        """End the threads, and wait for that."""
        self._is_closed = True
        if not self._parts.jobs.jobs.is_here():
            return
        with self._lock:
            self._idle.clear()
        for hand in self._hands:
            hand.wake()
        for hand in self._hands:
            hand.join()

    # -- the threads' own --------------------------------------------------------------------------------

    def work(self, hand: "HandThread") -> None:
        """Run jobs until :meth:`close`. A child that a handler forked ends with that handler."""
        registry, awaiter = self._parts.registry, Awaiter()
        registry.threads.add(hand)
        try:
            while not self._is_closed:
                hand.turns += 1
                handlers = self._parts.handlers()
                job = self._take(hand, handlers)
                if job is None:
                    hand.wait(IDLE_S)
                else:
                    self._run(job, handlers[job.row.type], awaiter)
        except BaseException as error:
            self._parts.interrupt(error)
            raise
        finally:
            registry.threads.discard(hand)
            awaiter.close()

    def forget(self, hand: "HandThread") -> bool:
        """It does not wait any more. False if it has been woken."""
        with self._lock:
            if hand not in self._idle:
                return False
            self._idle.remove(hand)
            return True

    def _take(self, hand: "HandThread", handlers: Mapping[str, Handler]) -> InflightJob | None:
        stopping = self._parts.controls.stopping
        with self._lock:
            is_over = stopping.is_over()
            taken = [] if is_over else self._parts.jobs.take(handlers)
            if taken:
                stopping.count += 1
            elif not self._is_closed:
                self._idle.append(hand)
        if is_over:
            self.ring()
        return taken[0] if taken else None

    def _run(self, job: InflightJob, handler: Handler, awaiter: Awaiter) -> None:
        jobs = self._parts.jobs
        interrupt: BaseException | None = None
        try:
            if self._parts.context.telemetry.is_heard():
                job.tell_start()
                job.started_at = self._parts.context.clock.monotonic()  # not before all have listened
            if job.renewal is not None:
                job.renewal.start(job.row.id, job.started_at)
                job.max_runtime = handler.max_runtime
            interrupt = execute(handler, JobInHand(job.row, job), job, awaiter.wait)
        except KQueueError:
            pass  # its end is not written yet: the dispatcher does that once the store is back
        except BaseException as error:
            interrupt = error
        if not jobs.jobs.is_here():
            end_child(interrupt)  # it has a copy of each thread's lock, and may run none
        jobs.ended(job)
        if interrupt is not None:
            self._interrupt(interrupt)
        elif job.cut_short() is not None:
            try:
                awaiter.check()
            except LoopFailed as failure:
                self._failure = failure
                self._parts.interrupt(failure)

    def _interrupt(self, interrupt: BaseException) -> None:
        """It ends the dispatcher; but in a worker, which goes on by itself, the handler has failed and no more."""
        if not self._parts.context.blames_interrupts or not isinstance(interrupt, KeyboardInterrupt | SystemExit):
            self._parts.interrupt(interrupt)
        else:
            self._parts.context.logger.warning("%s", interrupted(interrupt))


class HandThread:
    """One of them. A :class:`kqueue.loops.registry.Turning`."""

    def __init__(self, hands: ThreadHands, number: int) -> None:
        """Raises ``OSError`` if the system has no more threads."""
        self._hands = hands
        self._sleep = Sleep()
        self.turns = 0
        self._thread = Background(partial(hands.work, self), f"kqueue-thread-{number}")

    @property
    def thread(self) -> int:
        """As :func:`threading.get_ident` has it."""
        return self._thread.ident

    def wait(self, seconds: float) -> None:
        """Until :meth:`wake`, or for so long."""
        if not self._sleep.wait(seconds) and not self._hands.forget(self):
            self._sleep.wait()  # it was woken in this very moment

    def wake(self) -> None:
        """From any thread; also where it does not wait, or was woken before."""
        self._sleep.wake()

    def join(self) -> None:
        """Wait for its end."""
        self._thread.join()
