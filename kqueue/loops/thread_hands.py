"""Threads as the hands of dispatchers: plain functions, one at a time in each.

Theory of operation. A thread takes the next job that is there and runs it; nobody is woken for that. One that finds
none waits at a lock of its own, under which a dispatcher lets go as many as it has jobs for.

A type with a ``concurrency`` is a part of its own, which takes no more threads than that and claims for no more. So
what is at its bound keeps nothing else waiting, and is not claimed in vain. Of several parts that have jobs, the
one goes first that has claimed first.
"""

import threading
from collections import deque
from functools import partial

from kqueue.execution.batch import execute_batch, started
from kqueue.execution.execute import execute
from kqueue.execution.inflight_job import InflightJob
from kqueue.loops.lazy_asyncio import Awaiter
from kqueue.loops.part import HandsParts
from kqueue.loops.registry import Registry
from kqueue.loops.stopping import LoopFailed
from kqueue.model.errors import KQueueError
from kqueue.model.handlers import Handler
from kqueue.model.job import JobInHand
from kqueue.model.wording import interrupted
from kqueue.system.forks import ForkGuard, end_child
from kqueue.system.threads import Background, Sleep

#: Seconds that a thread waits for a job before it looks around, which shows that it gets on.
IDLE_S = 15.0


class SharedThreads:
    """Those of one ``work``, which all parts with plain functions share."""

    def __init__(self, number: int, registry: Registry) -> None:
        """They are started at the first :meth:`open`."""
        self._number = number
        self._registry = registry
        self._lock = threading.RLock()
        self._threads: list[HandThread] = []
        #: Those that wait, the one that came last at the end. Under the lock.
        self._idle: deque[HandThread] = deque()
        self._hands: list[ThreadHands] = []
        self._is_closed = False
        self._fork = ForkGuard()
        #: What ends all of them.
        self.failure: LoopFailed | None = None

    def hands(self, parts: HandsParts, bounded: str | None = None) -> "ThreadHands":
        """Of one more part: that of a ``bounded`` type, or of those without a bound."""
        hands = ThreadHands(parts, self, bounded)
        self._hands.append(hands)
        return hands

    def open(self) -> None:
        """Start the threads. Raises ``LoopFailed`` if one of them has failed, and ``OSError``."""
        if self.failure is not None:
            raise self.failure
        with self._lock:
            while len(self._threads) < self._number:
                self._threads.append(HandThread(self, len(self._threads) + 1))

    def free(self) -> int:
        """How many run nothing."""
        return len(self._threads) - sum(hands.running() for hands in self._hands)

    def start(self, jobs: int) -> None:
        """Wake as many as have something to do: so many jobs have come."""
        with self._lock:
            woken = [self._idle.pop() for _ in range(min(len(self._idle), jobs))]
        for thread in woken:
            thread.wake()

    def close(self) -> None:
        """End the threads, and wait for that. None runs anything. In a forked child there are none."""
        self._is_closed = True
        if self._fork.is_inherited():
            return
        with self._lock:
            self._idle.clear()
        for thread in self._threads:
            thread.wake()
        for thread in self._threads:
            thread.join()

    # -- the threads' own --------------------------------------------------------------------------------

    def work(self, thread: "HandThread") -> None:
        """Run jobs until :meth:`close`. A child that a handler forked ends with that handler."""
        awaiter = Awaiter()
        self._registry.threads.add(thread)
        try:
            while not self._is_closed:
                thread.turns += 1
                taken = self._take(thread)
                if taken is None:
                    thread.wait(IDLE_S)
                    continue
                hands, jobs, handler = taken
                hands.run(jobs, handler, awaiter)
                for one in self._hands:
                    if one is not hands:
                        one.tell_of_thread()
        except BaseException as error:
            for hands in self._hands:
                hands.interrupt(error)
            raise
        finally:
            self._registry.threads.discard(thread)
            awaiter.close()

    def forget(self, thread: "HandThread") -> bool:
        """It does not wait any more. False if it has been woken."""
        with self._lock:
            if thread not in self._idle:
                return False
            self._idle.remove(thread)
            return True

    def _take(self, thread: "HandThread") -> "tuple[ThreadHands, list[InflightJob], Handler] | None":
        """What was claimed first."""
        with self._lock:
            hands = self._hands
            for one in hands if len(hands) == 1 else sorted(hands, key=ThreadHands.waits_since):
                taken = one.take()
                if taken is not None:
                    return one, *taken
            if not self._is_closed:
                self._idle.append(thread)
        return None


class ThreadHands:
    """One part's share in the threads. See :class:`kqueue.loops.part.Hands`."""

    def __init__(self, parts: HandsParts, threads: SharedThreads, bounded: str | None = None) -> None:
        self._parts = parts
        self._bounded = bounded
        self._jobs = parts.jobs
        self._threads = threads

    @property
    def thread(self) -> int:
        """Each job has its own."""
        return -1

    def open(self) -> None:
        """See :meth:`SharedThreads.open`."""
        self._threads.open()

    def number(self) -> int:
        """All threads, or as many as its bounded type may have."""
        return self._parts.number(self._bounded)

    def free(self) -> int:
        """Threads that run nothing, of no part."""
        return self._threads.free()

    def renew(self, jobs: list[InflightJob]) -> None:
        """Each by itself."""
        self._parts.auto_renew.hold_each(jobs, self._parts.handlers())

    def start(self) -> None:
        """Wake as many as have something to do."""
        self._threads.start(min(self._jobs.waiting(), self.number() - self.running()))

    def ring(self) -> None:
        """From any thread."""
        self._parts.controls.ring()

    def keeps_loop(self, job: InflightJob) -> bool | None:
        """Each keeps its own thread."""
        return True

    def late(self, jobs: list[InflightJob]) -> None:
        """Never: what runs in a thread cannot be cancelled."""

    def rest(self) -> None:
        """Nothing: the dispatcher's thread runs no handlers."""

    def close(self) -> None:
        """Nothing: other parts have the threads too."""

    # -- the threads' own --------------------------------------------------------------------------------

    def running(self) -> int:
        """How many of its calls run."""
        return self._jobs.jobs.calls()

    def waits_since(self) -> float:
        """When the first that waits for a thread was claimed, in monotonic seconds; infinity if none does."""
        return self._jobs.waits_since()

    def tell_of_thread(self) -> None:
        """A thread has got free that ran something of another part."""
        self._jobs.tell_of_thread()

    def interrupt(self, error: BaseException) -> None:
        """End the dispatcher, which raises it."""
        self._parts.interrupt(error)

    def take(self) -> tuple[list[InflightJob], Handler] | None:
        """What starts now, in the calling thread: one job, or a batch. None if there is nothing, or its type has
        all that it may have. Under the lock of the threads.
        """
        stopping, handlers = self._parts.controls.stopping, self._parts.handlers()
        if stopping.is_over():
            self.ring()
            return None
        if self.running() >= self.number():
            return None
        taken = self._jobs.take(handlers)
        if not taken:
            return None
        handler = handlers[taken[0].row.type]
        if handler.batch is not None:
            taken = self._jobs.take_with(taken[0], handler.batch)
        with self._jobs.jobs.lock:  # the event loop counts too
            stopping.count += len(taken)
        return taken, handler

    def run(self, jobs: list[InflightJob], handler: Handler, awaiter: Awaiter) -> None:
        """In the calling thread, to its end."""
        interrupt: BaseException | None = None
        job, context = jobs[0], self._parts.context
        try:
            if context.telemetry.is_heard():
                started(jobs, context.clock, heard=True)
            for one in jobs:
                if one.renewal is not None:
                    one.renewal.start(one.row.id, one.started_at)
                    one.max_runtime = handler.max_runtime
            if handler.batch is not None:
                interrupt = execute_batch(handler, jobs, awaiter.wait)
            else:
                interrupt = execute(handler, JobInHand(job.row, job), job, awaiter.wait)
        except KQueueError:
            pass  # its end is not written yet: the dispatcher does that once the store is back
        except BaseException as error:
            interrupt = error
        if not self._jobs.jobs.is_here():
            end_child(interrupt)  # it has a copy of each thread's lock, and may run none
        for one in reversed(jobs):  # the first stands for their place
            self._jobs.ended(one)
        if interrupt is not None:
            self._interrupt(interrupt)
        elif job.cut_short() is not None:
            try:
                awaiter.check()
            except LoopFailed as failure:
                self._threads.failure = failure
                self._parts.interrupt(failure)

    def _interrupt(self, interrupt: BaseException) -> None:
        """It ends the dispatcher; but in a worker, which goes on by itself, the handler has failed and no more."""
        if not self._parts.context.blames_interrupts or not isinstance(interrupt, KeyboardInterrupt | SystemExit):
            self._parts.interrupt(interrupt)
        else:
            self._parts.context.logger.warning("%s", interrupted(interrupt))


class HandThread:
    """One of them. A :class:`kqueue.loops.registry.Turning`."""

    def __init__(self, threads: SharedThreads, number: int) -> None:
        """Raises ``OSError`` if the system has no more threads."""
        self._threads = threads
        self._sleep = Sleep()
        self.turns = 0
        self._thread = Background(partial(threads.work, self), f"kqueue-thread-{number}")

    @property
    def thread(self) -> int:
        """As :func:`threading.get_ident` has it."""
        return self._thread.ident

    def wait(self, seconds: float) -> None:
        """Until :meth:`wake`, or for so long."""
        if not self._sleep.wait(seconds) and not self._threads.forget(self):
            self._sleep.wait()  # it was woken in this very moment

    def wake(self) -> None:
        """From any thread; also where it does not wait, or was woken before."""
        self._sleep.wake()

    def join(self) -> None:
        """Wait for its end."""
        self._thread.join()
