"""A child process by fork that can be frozen by its id, and that its parent talks to."""

import os
import signal
import socket
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Self

#: Seconds after which a process that says nothing counts as hung. Nothing waits that long otherwise.
PATIENCE_S = 240.0


class Wire:
    """One end of a line between parent and child: words, each followed by a newline."""

    def __init__(self, end: socket.socket) -> None:
        end.settimeout(PATIENCE_S)
        self._end = end
        self._file = end.makefile("rw", encoding="utf-8", newline="\n")

    def say(self, word: str) -> None:
        self._file.write(f"{word}\n")
        self._file.flush()

    def hear(self) -> str:
        """The next word; empty if the other process has ended."""
        return self._file.readline().removesuffix("\n")

    def close(self) -> None:
        with suppress(OSError):  # what was written, and the other process has ended
            self._file.close()
        self._end.close()


class Forked:
    """Runs ``work(wire)`` in a forked child, until the ``with`` block ends at the latest."""

    def __init__(self, work: Callable[[Wire], object]) -> None:
        ours, its = socket.socketpair()
        self._pid = os.fork()
        self._status: int | None = None
        if self._pid == 0:
            status = 70
            try:
                ours.close()
                work(Wire(its))
                status = 0
            except BaseException:
                traceback.print_exc()  # pytest shows it with the failure of the parent's assertion
            finally:
                os._exit(status)
        its.close()
        self.wire = Wire(ours)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is None:
            os.kill(self._pid, signal.SIGKILL)
            self.status()
        self.wire.close()

    def freeze(self) -> None:
        """SIGSTOP; when it returns no thread of it runs."""
        os.kill(self._pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self._pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def thaw(self) -> None:
        os.kill(self._pid, signal.SIGCONT)

    def status(self) -> int:
        """Wait for its end: its exit status, or minus the signal that ended it."""
        if self._status is None:
            self._status = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        return self._status
