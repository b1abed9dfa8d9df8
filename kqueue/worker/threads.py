"""The threads of a child, each with a loop that runs jobs."""

import logging
import threading
from collections.abc import Callable
from functools import partial

from kqueue import KQueue, KQueueError
from kqueue.model.retry import backoff
from kqueue.model.wording import interrupted
from kqueue.system.clock import awake
from kqueue.system.forks import ForkGuard

#: Seconds that a loop has to run before its failure counts as the first again.
STEADY_S = 30.0


class Threads:
    """Threads in which ``run_jobs(wait=True)`` begins again whenever something else than a stop ends it.

    Where there are several, or a handler is a coroutine function, one thread does with ``work``, which has threads
    of its own.
    """

    def __init__(self, queue: KQueue, count: int, ended: Callable[[], None], logger: logging.Logger) -> None:
        """``ended()`` is called in a thread that ends."""
        self._queue = queue
        self._run_jobs: Callable[[], object] = partial(queue.run_jobs, wait=True)
        if count > 1 or queue.has_coroutines():
            self._run_jobs, count = partial(queue.work, threads=count), 1
        self._ended = ended
        self._logger = logger
        self._fork = ForkGuard()
        self._stopped = threading.Event()
        #: Whether a store that was down has kept a loop from settling what it had in hand.
        self.left_unsettled = False
        #: Since when a thread has no loop, by its number; in monotonic seconds.
        self._away: dict[int, float] = {}
        #: The numbers of those that have ended.
        self._over: list[int] = []
        # A daemon, so that a handler which never ends cannot keep the process.
        self._threads = [
            threading.Thread(target=self._work, args=(number,), name=f"kqueue-{number}", daemon=True)
            for number in range(1, count + 1)
        ]

    def start(self) -> None:
        """Begin to take jobs."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Take no more jobs. To be called until :meth:`have_ended`: a loop that is about to begin misses it."""
        self._stopped.set()
        self._queue.stop()

    def have_ended(self) -> bool:
        """Whether all threads have."""
        return len(self._over) == len(self._threads)

    def away_since(self) -> list[float]:
        """Since when each thread that has no loop has none, in monotonic seconds."""
        return list(self._away.values())

    def _work(self, number: int) -> None:
        try:
            self._loop(number)
        finally:
            self._away.pop(number, None)
            self._over.append(number)
            self._ended()

    def _loop(self, number: int) -> None:
        failures = 0
        while not self._is_over():
            self._away.pop(number, None)
            began = awake()
            error = self._run()
            if self._is_over():
                self.left_unsettled |= isinstance(error, KQueueError)
                break
            now = self._away[number] = awake()
            if isinstance(error, SystemExit | KeyboardInterrupt):
                self._logger.warning("%s", interrupted(error))
                continue
            failures = 1 if now - began >= STEADY_S else failures + 1
            pause = backoff(failures)
            why = f"{type(error).__name__}: {error}" if error else "the app called queue.stop()"
            self._logger.warning("a loop ended, and begins again in %.0f s: %s", pause, why)
            self._stopped.wait(pause)

    def _run(self) -> BaseException | None:
        try:
            self._run_jobs()
        except BaseException as error:
            return error
        return None

    def _is_over(self) -> bool:
        """Also in a child that a handler forked, and that came out of the loop."""
        return self._stopped.is_set() or self._fork.is_inherited() or self._queue.registry.is_spent()
