"""Tells when a job runs alone in its process, so that a death may be blamed on it and on nothing else.

In a process with one loop every window of one job is alone. Where several loops (threads) share the process,
jobs run side by side and none is alone; a *suspect*, whose last holder died, is then taken aside: the other
loops end their windows and wait until it has ended, and only then is it alone. Where one of them is busy for
long, the suspect goes back into the store, for longer each time, and nobody waits for it.

A process in which a suspect waits for others, or they for it, for longer than a moment is *crowded*: who can start
another process then does so, and this one ends with what it has in hand.
"""

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kqueue.contracts.budget import SOLITUDE_S
from kqueue.model.retry import backoff
from kqueue.system.clock import Clock
from kqueue.system.locks import wait_until

#: Seconds from its first loop on in which a process runs no suspect, where these yield to all others.
YIELD_S = 0.1
#: Seconds of such a wait from which on the process is crowded.
CROWDED_S = 0.5
#: How often a dispatcher that waits for its suspect asks whether it is to end, in seconds.
LOOK_S = 0.05


class Isolation:
    """Shared by the loops of one process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        #: Held for a few steps. Who waits looks again and again: see :mod:`kqueue.system.locks`.
        self._lock = threading.Lock()
        #: One token each, taken out by one step whatever a signal handler raises.
        self._loops: set[object] = set()
        self._windows: set[object] = set()
        self._refusals = 0
        #: Whether suspects let others go first in a new process: those that wait are not to see one process after
        #: the other end by a suspect before it has run anything else.
        self.yields = False
        #: When the first loop began, in monotonic seconds.
        self._began_at = math.inf
        #: Since when suspects wait for others, or they for them, by a token each; in monotonic seconds.
        self._waits: dict[object, float] = {}
        #: The thread whose suspect is aside, or about to be.
        self._taken_by: int | None = None
        self._taken_for: object = None
        #: When its solitude ends, in monotonic seconds.
        self._until = math.inf

    @contextmanager
    def loop(self, me: object = None) -> Iterator[None]:
        """While a loop lives. ``me``: what :meth:`forget` is told of it."""
        me = me or object()
        self._began_at = min(self._began_at, self._clock.monotonic())
        try:
            self._loops.add(me)
            yield
        finally:
            self._loops.discard(me)

    def has_one_loop(self) -> bool:
        """Whether only one loop lives in this process."""
        return len(self._loops) == 1

    def loops(self) -> int:
        """How many live in this process."""
        return len(self._loops)

    def is_taken(self) -> bool:
        """Whether a suspect of another thread is aside. A handler of that suspect may run a loop of its own."""
        return self._taken_by not in {None, threading.get_ident()} and self._clock.monotonic() < self._until

    def has_expired(self) -> bool:
        """Whether a suspect is still running whose solitude is over: it must not be called alone any more."""
        return self._taken_by is not None and self._clock.monotonic() >= self._until

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """While a suspect waits for others to end, or they for it."""
        me = object()
        try:
            self._waits[me] = self._clock.monotonic()
            yield
        finally:
            self._waits.pop(me, None)

    def is_crowded(self) -> bool:
        """Whether that takes long, or was in vain again and again: another process would do all of them good."""
        since = min(list(self._waits.values()), default=math.inf)
        return self._refusals > 1 or self._clock.monotonic() - since >= CROWDED_S

    def wait_until_free(self, is_over: Callable[[], bool]) -> None:
        """Wait while a suspect is aside, but no longer than until ``is_over()``."""
        if self.is_taken():
            wait_until(lambda: not self.is_taken() or is_over(), math.inf)

    def enter(self, me: object) -> bool:
        """``me`` has something in hand, or is about to, until :meth:`leave`. False if a suspect of another thread
        is aside: then nothing may be claimed. Whoever is in already may ask again.
        """
        with self._lock:
            if self.is_taken():
                return False
            self._windows.add(me)
            return True

    def leave(self, me: object) -> None:
        """``me`` has nothing in hand. Idempotent."""
        self._windows.discard(me)

    @contextmanager
    def window(self) -> Iterator[bool]:
        """While something is in hand: see :meth:`enter`."""
        me = object()
        try:
            yield self.enter(me)
        finally:
            self.leave(me)

    @contextmanager
    def aside(
        self, timeout: float, of: object = None, has_only_it: Callable[[], bool] = lambda: True
    ) -> Iterator[bool]:
        """Within a window: while its one job runs alone. Yields False if the other loops' windows did not end
        within ``timeout`` seconds, or another suspect is aside. ``of``: what :meth:`forget` is told of it;
        ``has_only_it()``: whether nothing else is in the window itself.
        """
        me, mine = threading.get_ident(), False

        def is_alone() -> bool:
            return len(self._windows) == 1 and has_only_it()

        try:
            with self._lock:
                if self._taken_by is None:
                    self._until, self._taken_by, self._taken_for, mine = math.inf, me, of, True
            if mine:
                wait_until(is_alone, timeout, self._clock.monotonic)
                self._until = self._clock.monotonic() + SOLITUDE_S
            alone = mine and is_alone()
            self._refusals = 0 if alone else self._refusals + 1
            with self.waiting():
                yield alone
        finally:
            if mine:
                self._taken_by = self._taken_for = None

    def forget(self, me: object) -> None:
        """``me`` is over, a loop or a window: where a signal handler raised on the way out, it may still count."""
        self._loops.discard(me)
        self._windows.discard(me)
        if self._taken_for is me:
            self._taken_by = self._taken_for = None

    def must_yield(self) -> bool:
        """Whether a suspect is to let others go first, and to be tried again in :data:`YIELD_S`."""
        return self.yields and self._clock.monotonic() - self._began_at < YIELD_S

    def again_in(self) -> float:
        """Seconds until a suspect that was refused is to be tried again: more after each refusal."""
        return backoff(self._refusals)
