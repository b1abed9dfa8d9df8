"""Of the threads that want something put at once, one puts it for all of them.

Theory of operation: each call leaves what it wants put in a queue. Then it takes the turn, if nobody has it, and
puts all that is in the queue. Who finds the turn taken waits for whoever has it, but not for long: where the broker
is silent, one thread waits for its answer, and the others go on. What they have left is put with the next put that
goes well, and thrown away by one that fails: their rows are durable, and the sweep finds them.

Nobody puts for others without end: the turn goes on to one that waits. Where all have gone on, it takes a few puts
more, and leaves what came last to the next call. Nothing is held here where a signal or a fork may come but the
turn, and that is only tried for, never waited for; should an interrupt keep it from being given back, it is taken
over after a while.
"""

import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

from kqueue.contracts.repair import Due
from kqueue.system.threads import Sleep

#: Seconds that a thread waits for another's put at most. One that goes well takes less than a millisecond.
PATIENCE_S = 0.1
#: Puts that a thread makes for others who have gone on, at most.
SPARE_PUTS = 8
#: Calls that may wait in the queue. The rows of later ones are written as having no pointer.
MAX_WAITING = 1000
#: Seconds after which a turn that was not given back never will be: more than any put takes.
LOST_S = 300.0


class Ringing:
    """Of one process. Shared by threads; :meth:`ring` may be called in a signal handler."""

    def __init__(self, put: Callable[[list[Due], float], bool], monotonic: Callable[[], float]) -> None:
        """``put(dues, now)`` is called by one thread at a time, and says whether that went well."""
        self._put = put
        self._monotonic = monotonic
        self._queue: deque[_Call] = deque()
        self._turn = threading.Lock()
        #: When the put that is under way has begun, in monotonic seconds, and whose it is.
        self._since = math.inf
        self._holder = 0

    def is_full(self) -> bool:
        """Whether so many wait for a put that nothing more is to be left here."""
        return len(self._queue) >= MAX_WAITING

    def ring(self, dues: Sequence[Due], now: float) -> bool:
        """Have ``dues`` put; returns once they are, or once the put of another takes ``PATIENCE_S``.

        True if this thread itself has put something, and it went well. Raises what ``put`` raises.
        """
        call = _Call(dues, now)
        self._queue.append(call)
        end = self._monotonic() + PATIENCE_S
        while not call.is_over:
            if self._take_turn():
                return self._put_for_all()
            if self._is_not_waited_for(end) or not call.sleep.wait(PATIENCE_S):
                call.has_left = True
                # Who had the turn may have given it back, and seen that there is someone who waits.
                return self._take_turn() and self._put_for_all()
        return False

    def _is_not_waited_for(self, end: float) -> bool:
        """Whether the put that is under way takes too long, or is this thread's own, which a signal interrupts."""
        return self._monotonic() >= min(end, self._since + PATIENCE_S) or self._holder == threading.get_ident()

    def _take_turn(self) -> bool:
        now = self._monotonic()
        if now > self._since + LOST_S:
            self._since, self._turn = math.inf, threading.Lock()
        if self._turn.acquire(blocking=False):
            return True
        # An interrupt may have come between the turn and its time. To write a wrong one is harmless.
        self._since = min(self._since, now)
        return False

    def _put_for_all(self) -> bool:
        """With the turn, which is given back."""
        went_well = False
        for spare in range(SPARE_PUTS, -1, -1):
            try:
                went_well |= self._put_queue()
            finally:
                heir = next((call for call in list(self._queue) if not call.has_left), None)
                if heir is not None:
                    heir.sleep.wake()
            if heir is not None or not self._queue or not spare or not self._take_turn():
                break
        return went_well

    def _put_queue(self) -> bool:
        """Put all that is in the queue now, with the turn, and give that back."""
        turn = self._turn
        batch: list[_Call] = []
        try:
            self._since, self._holder = self._monotonic(), threading.get_ident()
            with suppress(IndexError):
                for _ in range(len(self._queue)):
                    batch.append(self._queue.popleft())
            if not batch:
                return False
            return self._put([due for call in batch for due in call.dues], max(call.now for call in batch))
        finally:
            self._since, self._holder = math.inf, 0
            with suppress(RuntimeError):  # somebody took it for lost
                turn.release()
            for call in batch:
                call.is_over = True
                call.sleep.wake()


class _Call:
    """What one call wants put."""

    __slots__ = ("dues", "has_left", "is_over", "now", "sleep")

    def __init__(self, dues: Sequence[Due], now: float) -> None:
        self.dues = dues
        self.now = now
        #: Whether they were put, or were thrown away.
        self.is_over = False
        #: Whether nobody waits for that any more.
        self.has_left = False
        #: Of its thread.
        self.sleep = Sleep()
