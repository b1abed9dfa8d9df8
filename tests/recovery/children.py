"""Forked children that work at once, and tell what came of it."""

import json
import os
import signal
import traceback
from collections.abc import Callable
from typing import Any


class Child:
    """Does ``work`` in a process of its own, once every child of the gate has been started."""

    def __init__(self, work: Callable[[], object], gate: "Gate | None" = None) -> None:
        self._reader, writer = os.pipe()
        self._status: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            status = 70
            try:
                if gate is not None:
                    gate.wait()
                with os.fdopen(writer, "w") as result:
                    json.dump(work(), result)
                status = 0
            except BaseException:
                traceback.print_exc()  # pytest shows it with the failure of the parent's assertion
            finally:
                os._exit(status)
        os.close(writer)

    def wait_until_frozen(self) -> None:
        """It stops itself by SIGSTOP. Fails if it ends instead."""
        _, status = os.waitpid(self.pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            self._status = os.waitstatus_to_exitcode(status)
            raise AssertionError(f"it ended with {self._status} before it was frozen")

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def result(self) -> Any:
        """What its work gave, as JSON keeps it. Fails if the work raised."""
        with os.fdopen(self._reader, closefd=False) as result:
            text = result.read()
        self._wait()
        assert self._status == 0
        return json.loads(text)

    def kill(self) -> None:
        """SIGKILL, frozen or not. Idempotent."""
        if self._status is None:
            os.kill(self.pid, signal.SIGKILL)
            self._wait()
        os.close(self._reader)

    def _wait(self) -> None:
        self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


class Gate:
    """Keeps children waiting until the parent opens it."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()

    def wait(self) -> None:
        os.close(self._writer)
        os.read(self._reader, 1)

    def open(self) -> None:
        os.close(self._reader)
        os.close(self._writer)


def freeze() -> None:
    """Stop this process until somebody continues it."""
    os.kill(os.getpid(), signal.SIGSTOP)
