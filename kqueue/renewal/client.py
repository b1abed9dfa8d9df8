"""The worker's side: says what is to be renewed, and hears what is lost.

A thread listens, and everything is said by whoever has something to say, in one write that does not wait. What the
socket does not take is not queued: the listening thread says all anew that is to be renewed, once it takes more. So
a renewer that does not read costs no memory and no time; one that ends is replaced, and told all of it.
"""

import logging
import math
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial

from kqueue.contracts.renewer import Renewal, RenewalEnd
from kqueue.model.errors import KQueueError
from kqueue.renewal.board import Board
from kqueue.renewal.due import PART
from kqueue.renewal.messages import (
    VERSION,
    Answer,
    Forget,
    Hello,
    LetGo,
    Lines,
    RenewalWindow,
    ServerReady,
    Told,
    Trouble,
    answer,
    encode,
    runs,
)
from kqueue.renewal.starting import FAILURES, PATIENCE_S, RenewalLink, Starter
from kqueue.system.clock import awake, steady
from kqueue.system.forks import ForkGuard
from kqueue.system.locks import OwnLock, entry, wait_until
from kqueue.system.threads import Background
from kqueue.system.wakeup import Wakeup, wait_readable

#: Seconds that a renewer may take to be there: Python starts, and imports a driver, on a busy machine.
START_S = 3.0
#: Seconds without anything to hold after which the renewer is let go.
IDLE_S = 60.0
#: Seconds between two attempts to say what the socket did not take.
BEHIND_S = 0.02
#: Renewers that are tried for one hold: one that was offered, some processes, a thread.
ATTEMPTS = FAILURES + 3
#: A renewer that ends within so many seconds is replaced at once, but the next one only after so many seconds.
RESTART_S = 1.0
#: Bytes read at a time.
READ_BYTES = 2**16


class Client:
    """A :class:`kqueue.contracts.renewer.Renewer` in another process. Of one process, shared by its threads; see
    the module's text. Nothing is started before the first :meth:`prepare` or :meth:`hold`.
    """

    def __init__(self, starter: Starter, logger: logging.Logger) -> None:
        self._starter = starter
        self._logger = logger
        self._fork = ForkGuard()
        #: Guards what follows. Held while a renewer is started, never while one is waited for.
        self._lock = threading.RLock()
        self._board: Board | None = None
        self._holds: dict[int, _RenewalHold] = {}
        #: The serial number of the next job. 0 is what an unused slot says.
        self._serial = 1
        self._link: RenewalLink | None = None
        self._listener: Background | None = None
        #: What is left of a message, and whether all is to be said anew after it.
        self._rest = b""
        self._is_behind = False
        #: Renewers in a row that ended soon.
        self._hasty = 0
        #: Wakes the listening thread.
        self._wakeup: Wakeup | None = None
        self._is_ready = False
        #: Whether it was told that nobody kills this process.
        self._is_told = False

    def offer(self, descriptor: int) -> None:
        """There is a renewer at the other end of this socket, inherited from who started this process: none of our
        own is needed.
        """
        self._starter.offer(socket.socket(fileno=descriptor))

    def prepare(self, ttr: float) -> None:
        """See :meth:`kqueue.contracts.renewer.Renewer.prepare`."""
        if self._is_ready:
            return
        with self._turn():
            if self._link is None:
                self._begin()
        if ttr * PART < START_S:
            wait_until(lambda: self._is_ready, START_S)

    def hold(
        self,
        window: Mapping[str, Renewal | None],
        leased_at: float,
        keep: Callable[["_RenewalHold"], object] | None = None,
        over: Callable[[Renewal], object] | None = None,
    ) -> "_RenewalHold":
        """See :meth:`kqueue.contracts.renewer.Renewer.hold`."""
        with self._turn():
            self._board = board = self._board or Board()
            first, self._serial = self._serial, self._serial + len(window) + 1
            slot = board.take()
            said = encode(RenewalWindow(slot, first, len(window), leased_at, runs(window.values())))
            hold = _RenewalHold(self, board, slot, first=first, window=window, said=said, over=over)
            if keep is not None:
                keep(hold)
            self._holds[first] = hold
            try:
                self._say(said)
            except BaseException:
                del self._holds[first]
                board.give_back(slot)
                raise
            kills = self._link is not None and self._link.kills
            tells = not (kills or self._is_told) and any(one is not None and one.kill for one in window.values())
            self._is_told |= tells
        if tells:
            self._logger.warning(
                "a handler has kill=True, and only the parent that kqueue worker has kills a process: here one that"
                " runs longer than max_runtime goes on, and what it does to its job changes nothing"
            )
        return hold

    def close(self) -> None:
        """Let the renewer end, and wait for it, unless something is to be renewed. A later hold has a new one."""
        with self._turn():
            link, listener, wakeup = self._link, self._listener, self._wakeup
            if not self._holds:
                self._starter.close()
            if link is None or listener is None or wakeup is None or self._holds:
                return
            self._starter.heard()
            self._forget_link()
            wakeup.ring()
            with suppress(OSError):  # it has gone already
                link.socket.shutdown(socket.SHUT_RDWR)  # wakes the listening thread, which closes it
        listener.join(PATIENCE_S)

    # -- a hold's ----------------------------------------------------------------------------------------

    def is_here(self) -> bool:
        """Whether this is the process that holds. In a forked child nothing is to be touched."""
        return not self._fork.is_inherited()

    def let_go(self, hold: "_RenewalHold") -> None:
        """See :meth:`kqueue.contracts.renewer.RenewalHold.let_go`."""
        with self._turn():
            if self._holds.pop(hold.first, None) is not None:
                if self._link is not None:
                    self._say(encode(LetGo(hold.slot)))
                hold.board.give_back(hold.slot)

    def _turn(self) -> OwnLock:
        return entry(self._lock, KQueueError, "the renewer of leases")

    # -- saying it, under the lock -----------------------------------------------------------------------

    def _say(self, message: bytes) -> None:
        """``message`` is part of what is to be renewed already, so that all can be said anew. Never waits."""
        link = self._link
        if link is None:
            self._begin()
        elif self._rest or self._is_behind:
            self._is_behind = True
        else:
            self._rest = message
            try:
                self._send(link)
            except OSError:
                self._begin()  # at once: the listening thread may not come to it once the handler runs
            else:
                if self._rest and self._wakeup is not None:
                    self._wakeup.ring()

    def _send(self, link: RenewalLink) -> None:
        """What is left, as far as the socket takes it. Raises ``OSError`` if there is no renewer any more."""
        while self._rest or self._is_behind:
            if not self._rest:
                self._is_behind = False
                self._rest = b"".join([encode(Forget()), *(hold.said for hold in self._holds.values())])
            try:
                self._rest = self._rest[link.socket.send(self._rest) :]
            except BlockingIOError:
                return

    def _begin(self) -> None:
        """Have a renewer, and tell it all."""
        self._board = board = self._board or Board()
        self._wakeup = wakeup = self._wakeup or Wakeup()
        self._is_ready = False
        for _ in range(ATTEMPTS):
            try:
                link = self._starter.connect()
            except OSError as error:
                raise KQueueError(f"no renewer of leases can be started: {error}") from error
            self._link, self._rest, self._is_behind = link, b"", True
            try:
                hello = encode(Hello(VERSION, self._fork.pid, self._starter.url))
                socket.send_fds(link.socket, [hello], [board.fileno()])
                link.socket.setblocking(False)
                self._send(link)
                self._listener = Background(partial(self._listen, link, wakeup), "kqueue-renewals")
                return
            except OSError:
                link.socket.close()
                link.end()
            except BaseException:  # of a signal handler: the renewer sees its end
                self._starter.heard()
                self._forget_link()
                link.socket.close()
                raise
        self._forget_link()
        raise KQueueError("no renewer of leases can be reached")

    def _forget_link(self) -> None:
        self._link = None
        self._is_ready = False

    # -- the listening thread ----------------------------------------------------------------------------

    def _listen(self, link: RenewalLink, wakeup: Wakeup) -> None:
        began = awake()
        try:
            self._hear_all(link, wakeup)
        except (OSError, ValueError) as error:
            self._logger.warning("the renewer of leases is lost: %s", error)
        link.socket.close()
        link.end()
        if self._link is not link:
            return
        self._hasty = self._hasty + 1 if awake() - began < RESTART_S else 0
        if self._hasty > 1:
            wait_readable([wakeup], RESTART_S)
        with self._lock:
            if self._link is link:
                self._forget_link()
                if self._holds:
                    self._take_over()

    def _take_over(self) -> None:
        self._logger.warning("the renewer of leases has ended; another one takes over")
        try:
            self._begin()
        except KQueueError as error:  # whoever holds next tries again
            self._logger.warning("leases are not renewed: %s", error)

    def _hear_all(self, link: RenewalLink, wakeup: Wakeup) -> None:
        """Until the renewer ends, or is not needed any more."""
        lines = Lines()
        while self._link is link:
            is_behind = bool(self._rest or self._is_behind)
            woken = wait_readable([link.socket, wakeup], BEHIND_S if is_behind else IDLE_S)
            wakeup.answer()
            if link.socket.fileno() in woken:
                data = link.socket.recv(READ_BYTES)
                if not data:
                    return
                for line in lines.feed(data):
                    self._hear(answer(line))
            with self._lock:
                if self._link is link and not (woken or is_behind or self._holds):
                    self._forget_link()
                elif self._link is link:
                    self._send(link)

    def _hear(self, said: Answer) -> None:
        match said:
            case ServerReady():
                self._starter.heard()
                self._is_ready = True
            case Trouble(text):
                self._logger.warning("%s", text)
            case Told(first, id, end, is_written):
                hold = self._holds.get(first)
                if hold is not None:
                    self._note_end(hold, id, end, is_written)

    def _note_end(self, hold: "_RenewalHold", id: str, end: RenewalEnd, is_written: bool) -> None:
        is_new = id not in hold.ends
        if is_new:
            hold.ends[id] = end, steady()
        if is_new and end is RenewalEnd.OVER:
            self._logger.log(
                logging.INFO if is_written else logging.WARNING,  # its failed run has a record of its own
                "job %s ran longer than max_runtime: it is given up, and what its handler still does to it changes"
                " nothing",
                id,
            )
        if is_written:
            try:
                hold.tell_over(id)
            except Exception as error:  # whatever comes of it, others are to be heard of
                self._logger.warning("job %s: its end is not told: %s", id, error)


class _RenewalHold:
    """A :class:`kqueue.contracts.renewer.RenewalHold`."""

    __slots__ = ("_client", "_over", "_positions", "_window", "board", "ends", "first", "said", "slot")

    def __init__(
        self,
        client: Client,
        board: Board,
        slot: int,
        *,
        first: int,
        window: Mapping[str, Renewal | None],
        said: bytes,
        over: Callable[[Renewal], object] | None,
    ) -> None:
        self._client = client
        self._window = window
        self._over = over
        self._positions = {id: position for position, id in enumerate(window)}
        self.board = board
        self.slot = slot
        self.first = first
        #: As it is said to a renewer.
        self.said = said
        #: What it has told, by id, and when that was heard.
        self.ends: dict[str, tuple[RenewalEnd, float]] = {}

    def start(self, id: str, now: float) -> None:
        """See :meth:`kqueue.contracts.renewer.RenewalHold.start`."""
        self.board.write(self.slot, self.first + self._positions[id], now)

    def rest(self) -> None:
        """See :meth:`kqueue.contracts.renewer.RenewalHold.rest`."""
        if self._client.is_here():
            self.board.write(self.slot, self.first + len(self._positions), 0.0)

    def let_go(self) -> None:
        """See :meth:`kqueue.contracts.renewer.RenewalHold.let_go`."""
        if self._client.is_here():
            self._client.let_go(self)

    def renews(self, id: str) -> bool:
        """See :meth:`kqueue.contracts.renewer.RenewalHold.renews`."""
        return self._window.get(id) is not None and id not in self.ends

    def tell_over(self, id: str) -> None:
        """It is written that this job ran for too long."""
        hold = self._window.get(id)
        if self._over is not None and hold is not None:
            self._over(hold)

    def end_of(self, id: str) -> RenewalEnd | None:
        """See :meth:`kqueue.contracts.renewer.RenewalHold.end_of`."""
        return self.ends[id][0] if id in self.ends else None

    def ended_at(self, id: str) -> float:
        """See :meth:`kqueue.contracts.renewer.RenewalHold.ended_at`."""
        return self.ends[id][1] if id in self.ends else math.inf
