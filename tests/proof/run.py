"""Runs lots, some at a time, until all are done or the time is up."""

import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.proof.lots import ROOT, Lot

#: Seconds between two looks at a lot that runs.
_LOOK_S = 0.1


class Done(NamedTuple):
    """A lot that came to its end."""

    lot: Lot
    seconds: float
    status: int
    output: str


@dataclass
class Account:
    """What became of all lots."""

    done: list[Done] = field(default_factory=list)
    #: Ended by us, since the time was up.
    cut_off: list[Lot] = field(default_factory=list)
    left_out: list[Lot] = field(default_factory=list)

    def failed(self) -> list[Done]:
        return [one for one in self.done if one.status]


class Run:
    """No lot begins after ``seconds``, and none goes on after ``grace`` seconds more."""

    def __init__(self, lots: Sequence[Lot], seconds: float, grace: float, tell: Callable[[Done], None]) -> None:
        self.account = Account()
        self._lots = list(lots)
        self._tell = tell
        self._lock = threading.Lock()
        self._begin_until = time.monotonic() + seconds
        self._stop_at = self._begin_until + grace
        self._is_over = threading.Event()

    def run(self, workers: int) -> Account:
        """With so many at a time. What interrupts it ends those that run."""
        threads = [threading.Thread(target=self._work) for _ in range(workers)]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        finally:
            self._is_over.set()
            for thread in threads:
                thread.join()
        return self.account

    def _work(self) -> None:
        while (lot := self._next()) is not None:
            done = self._run(lot)
            if done is not None and done.status:
                with self._lock:
                    self._tell(done)
                done = self._run(lot)  # some tests still rest on how fast the machine is
            with self._lock:
                if done is None:
                    self.account.cut_off.append(lot)
                else:
                    self.account.done.append(done)
                    self._tell(done)

    def _next(self) -> Lot | None:
        with self._lock:
            if self._is_over.is_set() or time.monotonic() >= self._begin_until:
                self.account.left_out += self._lots
                self._lots = []
            return self._lots.pop(0) if self._lots else None

    def _run(self, lot: Lot) -> Done | None:
        """None if it had to be ended."""
        began = time.monotonic()
        with tempfile.TemporaryFile() as output:  # not a pipe: what it leaves behind may hold that open
            process = subprocess.Popen(
                lot.command,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a group of its own, to end it with all that it has started
            )
            while process.poll() is None and time.monotonic() < self._stop_at:
                if self._is_over.wait(_LOOK_S):
                    break
            was_ended = process.poll() is None
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            status = process.wait()
            output.seek(0)
            text = output.read().decode(errors="replace")
        return None if was_ended else Done(lot, time.monotonic() - began, status, text)
