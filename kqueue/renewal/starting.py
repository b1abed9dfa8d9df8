"""How a worker gets its renewer: one that its parent runs, a process of its own, or else a thread."""

import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from kqueue.contracts.store import JobStore
from kqueue.renewal.server import Server
from kqueue.system.threads import Background, run_aside

#: Seconds that the end of a renewer is waited for.
PATIENCE_S = 5.0
#: Processes that ended before they said anything, in a row, after which a thread must do.
FAILURES = 3
#: What asks a worker to end, and is often sent to all of its group. Its last jobs still need their leases.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class RenewalLink(NamedTuple):
    """The connection to a renewer, and what waits for its end."""

    socket: socket.socket
    #: Called once, when the socket is closed: waits until the renewer has ended.
    end: Callable[[], object]
    #: Whether it kills this process where a handler runs for too long that wants that.
    kills: bool = False


class Starter:
    """Finds or starts the renewer of one process."""

    def __init__(self, store: JobStore, url: str | None, logger: logging.Logger) -> None:
        """``url``: the store's, None if no other process can open it."""
        self._store = store
        self._url = url
        self._logger = logger
        self._offered: list[socket.socket] = []
        self._failures = 0

    @property
    def url(self) -> str:
        """What names the store to the renewer."""
        return self._store.address if self._url is None else self._url

    def offer(self, link: socket.socket) -> None:
        """There is a renewer at the other end of ``link``, to be taken before any is started."""
        self._offered.append(link)

    def close(self) -> None:
        """Hang up on what was offered and not taken."""
        while self._offered:
            self._offered.pop().close()

    def connect(self) -> RenewalLink:
        """The next renewer to be tried."""
        if self._url is None:
            return in_thread(self._store, self._logger)
        if self._offered:
            return RenewalLink(self._offered.pop(), lambda: None, kills=True)
        self._failures += 1
        if self._failures <= FAILURES:
            try:
                return in_process()
            except OSError as error:
                reason = f"{type(error).__name__}: {error}"
        else:
            reason = f"it ended {FAILURES} times before it was there"
        self._logger.warning(
            "no process can be started that renews leases, so a thread does: a handler that keeps the interpreter's"
            " lock for longer than its TTR will lose its lease (%s)",
            reason,
        )
        return in_thread(self._store, self._logger)

    def heard(self) -> None:
        """The renewer has said something, or was let go before it could."""
        self._failures = 0


def in_process() -> RenewalLink:
    """A process of its own. Raises ``OSError`` if it cannot be started.

    It finds its modules where this process does; the store's URL goes through the socket, since it may hold a
    password.
    """
    if not sys.executable or getattr(sys, "frozen", False):  # then it may be the user's whole program
        raise OSError("no Python is known that could run it")
    # In a thread of its own, since the mask is the thread's: a signal handler that raises must leave none behind.
    return run_aside(_start_process, "kqueue-starter")


def _start_process() -> RenewalLink:
    ours, theirs = socket.socketpair()
    path = os.pathsep.join(folder or os.getcwd() for folder in sys.path if isinstance(folder, str))
    number = str(theirs.fileno())
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # inherited, so it never sees one of them
    try:
        process = subprocess.Popen(  # noqa: S603 (ourselves)
            [sys.executable, "-P", "-m", "kqueue.renewal", number],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env={**os.environ, "PYTHONPATH": path},
        )
    except BaseException:
        ours.close()
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        theirs.close()

    def end() -> None:
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    return RenewalLink(ours, end)


def in_thread(store: JobStore, logger: logging.Logger) -> RenewalLink:
    """A thread of this process, for a store that no other process can open."""
    ours, theirs = socket.socketpair()
    server = Server(lambda _: store, logger)
    server.add(theirs)
    thread = Background(partial(server.serve, until_alone=True), "kqueue-renewer")
    return RenewalLink(ours, partial(thread.join, PATIENCE_S))
