"""Rings are sent by a thread beside those that add, which do not wait for the broker's answer.

Theory of operation. A job is added once its row is durable. Whoever has added it leaves its ring in a queue, wakes
the *sender* if that sleeps, and goes on. The sender puts the first ring at once, and then all that has come in the
next two milliseconds together, in one exchange: to be woken for each would cost the adding thread more than the put
itself. It begins at the first ring, and ends when none comes for a while, at a close, a fork, and the end of the
interpreter; what is still to be rung then has a second, all queues of the process together.

*Without a sender* whoever rings puts what is in the queue himself, and waits for the answer: where no thread can be
started, where threads are greenlets, after the last rings of an interpreter that ends, and where the sender does
not come (a server may give its threads no time between two requests).

*What dies between the commit and the ring.* The row says by its ``put_at`` that it has a pointer, and has none.
That is how a pointer looks that a tube has lost, and it is found in the same ways: by whoever finds the tube empty
and asks the store (:mod:`kqueue.dispatch.tubes_then_store`), and while others stand in the tube by the head rule,
as soon as one does that was put later (:mod:`kqueue.upkeep.sweep`). This is so for a process that is killed, for a
child that ends without the interpreter's own end (``os._exit``, as ``multiprocessing`` does), for a ring whose put
failed, and for the last rings of a broker that is silent for more than their second. A ring that comes late, after
its job was claimed without it, is a pointer to nothing, and is deleted when it is met. Where so many wait that
another would be thrown away, :meth:`Ringing.is_full` says so before its row is written, which then says that it has
no pointer.

*Signals.* Nothing is held here where one may come: rings are left in a ``deque``, whose steps are atomic, and the
one lock, by ``with``, keeps two threads from starting two senders; one more would do no harm.
"""

import atexit
import math
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

from kqueue.contracts.repair import Due
from kqueue.system.clock import awake
from kqueue.system.forks import ForkGuard
from kqueue.system.threads import Background, Sleep, are_greenlets

#: Seconds from the end of a put to the next one.
GAP_S = 0.002
#: Seconds without a ring after which the sender ends.
IDLE_S = 5.0
#: Seconds that the last rings have: of a close, a fork, an interpreter that ends.
LAST_S = 1.0
#: Seconds that a loop waits for what its process has rung: a put that goes well takes less than a millisecond.
PATIENCE_S = 0.1
#: Seconds after which a sender that was awake and has not come does not come.
STUCK_S = 0.1
#: Rings that may wait. The rows of later ones are written as having no pointer.
MAX_WAITING = 1000


class Ringing:
    """Of one process. Shared by threads; :meth:`ring` may be called in a signal handler."""

    def __init__(self, put: Callable[[list[Due], float], object]) -> None:
        """``put(dues, now)`` is called by the sender, or by whoever rings where there is none."""
        self._put = put
        self._waiting: deque[_Ring] = deque()
        self._sender: _Sender | None = None
        self._starting = threading.RLock()

    def is_full(self) -> bool:
        """Whether so many wait that nothing more is to be left here."""
        return len(self._waiting) >= MAX_WAITING

    def has_waiting(self) -> bool:
        """Whether anything is still to be taken."""
        return bool(self._waiting)

    def ring(self, dues: Sequence[Due], now: float) -> None:
        """Have ``dues`` put soon; without a sender it is done when this returns, and raises what ``put`` raises."""
        self._waiting.append(_Ring(dues, now))
        if not self._is_taken_soon():
            self.put_waiting()

    def flush(self, seconds: float = PATIENCE_S) -> None:
        """Return once all that was rung before is put, or has failed; or after so many seconds."""
        sender = self._sender
        if sender is None or sender.is_here():
            self.put_waiting()
        elif self._waiting or sender.is_putting:
            sleep = Sleep()
            self._waiting.append(_Ring((), -math.inf, sleep))
            sender.wake()
            sleep.wait(seconds)

    def close(self) -> None:
        """Send what waits, and end the sender, within ``LAST_S``. The next ring begins another."""
        sender, self._sender = self._sender, None
        if sender is None or sender.is_here():
            self.put_waiting()
        else:
            end_all([sender])
            if not sender.has_begun():  # a signal struck between its making and its start
                self.put_waiting()

    def put_waiting(self) -> None:
        """Put all that waits now, in this thread."""
        taken: list[_Ring] = []
        try:
            with suppress(IndexError):
                for _ in range(len(self._waiting)):
                    taken.append(self._waiting.popleft())
            dues = [due for one in taken for due in one.dues]
            if dues:
                self._put(dues, max(one.now for one in taken))
        finally:
            for one in taken:
                one.is_over()

    def is_served_by(self, sender: "_Sender") -> bool:
        """Whether that one is to go on."""
        return self._sender is sender

    def leave(self, sender: "_Sender") -> None:
        """It takes nothing more, but what it sees in the queue after this."""
        if self._sender is sender:
            self._sender = None

    def _is_taken_soon(self) -> bool:
        """Whether a sender will take what was left, which is asked for by this."""
        sender = self._sender
        if sender is None:
            return self._start()
        if sender.is_asleep:
            sender.wake()
        elif sender.is_stuck():
            self._sender = None  # should it come yet, it ends
            return False
        return True

    def _start(self) -> bool:
        if _LAST.is_over or are_greenlets():
            return False
        with self._starting:
            if self._sender is None:
                sender = self._sender = _Sender(self)
                try:
                    sender.start()
                except OSError:  # the system has no more threads
                    self._sender = None
                    return False
        return True


class _Ring:
    """What one call wants put."""

    __slots__ = ("dues", "now", "sleep")

    def __init__(self, dues: Sequence[Due], now: float, sleep: Sleep | None = None) -> None:
        self.dues = dues
        self.now = now
        #: Of who waits for its end.
        self.sleep = sleep

    def is_over(self) -> None:
        if self.sleep is not None:
            self.sleep.wake()


class _Sender:
    """The thread of one :class:`Ringing`."""

    def __init__(self, ringing: Ringing) -> None:
        self._ringing = ringing
        self._fork = ForkGuard()
        self._sleep = Sleep()
        self._thread: Background | None = None
        #: Whether it is to be woken for a ring. It looks into the queue once more after this is set.
        self.is_asleep = False
        #: Set before it takes from the queue.
        self.is_putting = False
        #: By when it looks into the queue, in monotonic seconds; infinity while it sleeps, or waits for the broker.
        self._comes_at = awake()

    def start(self) -> None:
        """Raises ``OSError`` where the system has no more threads."""
        _LAST.senders.add(self)
        try:
            self._thread = Background(self._run, "kqueue-doorbell")
        except BaseException:
            _LAST.senders.discard(self)
            raise

    def is_here(self) -> bool:
        """Whether the caller is its thread: an observer, told of an outage that is over, may add jobs."""
        return self._thread is not None and self._thread.is_here()

    def has_begun(self) -> bool:
        """Whether its thread is known."""
        return self._thread is not None

    def is_stuck(self) -> bool:
        """Whether it should have come long ago."""
        return awake() > self._comes_at + STUCK_S

    def wake(self) -> None:
        """From any thread."""
        if self.is_asleep:
            self._comes_at = awake()
        self._sleep.wake()

    def join(self, seconds: float) -> None:
        """Wait for its end, for so many seconds at most. In a forked child there is none."""
        if self._thread is not None and not self._thread.is_here() and not self._fork.is_inherited():
            self._thread.join(seconds)

    def end(self) -> None:
        """Let it send what waits, and end."""
        self._ringing.leave(self)
        self._sleep.wake()

    def _run(self) -> None:
        try:
            while self._ringing.is_served_by(self):
                self._put()
                self._comes_at = awake() + GAP_S
                self._sleep.wait(GAP_S)
                if not self._ringing.has_waiting():
                    self._wait_for_more()
            self._put()
        finally:
            self._ringing.leave(self)
            _LAST.senders.discard(self)

    def _put(self) -> None:
        self.is_putting, self._comes_at = True, math.inf
        try:
            self._ringing.put_waiting()
        finally:
            self.is_putting = False

    def _wait_for_more(self) -> None:
        """Sleep until there is more, or this one is to end; it ends by itself if nothing comes."""
        self._comes_at, self.is_asleep = math.inf, True
        try:
            if self._ringing.has_waiting() or not self._ringing.is_served_by(self):
                return
            if not self._sleep.wait(IDLE_S):
                self._ringing.leave(self)
        finally:
            self.is_asleep = False


class _Last:
    """What a process has to send before it ends or forks."""

    def __init__(self) -> None:
        #: Those that run. To add to it, to take from it and to list it are each atomic.
        self.senders: set[_Sender] = set()
        #: Whether the interpreter ends: a thread that began now would not get on.
        self.is_over = False

    def before_fork(self) -> None:
        """The parent's threads go on after it with senders of their own, and the child's too."""
        end_all(list(self.senders))

    def at_exit(self) -> None:
        self.is_over = True
        end_all(list(self.senders))


def end_all(senders: Sequence[_Sender]) -> None:
    """Let them send what waits, and end: one second for all."""
    for sender in senders:
        sender.end()
    until = awake() + LAST_S
    for sender in senders:
        sender.join(max(0.0, until - awake()))


_LAST = _Last()
os.register_at_fork(before=_LAST.before_fork)
atexit.register(_LAST.at_exit)
