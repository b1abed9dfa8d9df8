"""Whatever call of a store a signal strikes, and wherever in it: no lock stays held, and no transaction open.

The exceptions of the handlers are kept, with their tracebacks and so with all frames, as a debugger or a log does:
nothing is freed merely because it is thrown away.
"""

import gc
import os
import random
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kqueue.contracts.budget import Budget
from kqueue.contracts.runs import Selection
from kqueue.contracts.settlements import Delete
from kqueue.model.job import Row, State
from kqueue.stores.sqlite.file.anchor import FENCE
from kqueue.stores.sqlite.file.handle import ANCHORS
from kqueue.stores.sqlite.file.ofd import is_free
from kqueue.stores.sqlite.store import SqliteStore
from tests.flows.processes import run_in_child

NOW = 1_700_000_000.0
#: Seconds, of which each call is struck in so many signals: its own time here, as it is measured, and a little.
SLACK = 1.2


class Strike(BaseException):
    """Raised by the handler. Not an ``Exception``, as KeyboardInterrupt is none."""


class Struck:
    """Makes calls, and has a signal strike in the midst of each."""

    def __init__(self, path: Path, seed: int) -> None:
        self.store = SqliteStore(path, synchronous="OFF", busy_timeout=30)
        self.random = random.Random(seed)
        self.acknowledged: list[str] = []
        self.kept: deque[BaseException] = deque(maxlen=20)
        self.strikes = 0
        self._armed = False
        self._number = 0
        self.store.open()
        # It is never closed here: that would drop SQLite's own locks.
        self._watch = os.open(path, os.O_RDWR)
        signal.signal(signal.SIGALRM, self._strike)

    def _strike(self, *_: Any) -> None:
        if self._armed:
            self._armed = False
            self.strikes += 1
            raise Strike

    def call(self, work: Callable[[], object], longest: float) -> None:
        """At a random moment of ``longest`` seconds it is struck."""
        try:
            self._armed = True
            signal.setitimer(signal.ITIMER_REAL, self.random.uniform(0.000_001, longest))
            work()
            self._armed = False
        except Strike as strike:
            self.kept.append(strike)
        signal.setitimer(signal.ITIMER_REAL, 0)
        self.look()

    def look(self) -> None:
        """Nothing is held or open."""
        handle = self.store._file._handles.get()
        assert handle.lock.held == []
        assert not handle.lock.plain.locked()
        for anchor in ANCHORS._anchors.values():
            assert anchor.lock.held == []
            assert not anchor.lock.plain.locked()
        assert is_free(self._watch, FENCE, 2)
        if handle.connection is not None and handle.serial is not None:
            assert not handle.connection.in_transaction

    def add(self) -> None:
        """One job."""
        self._number += 1
        id = f"{self._number:028d}"
        self.store.add([Row(id, "t", b"{}", "json", 1, State.READY, 0.0, NOW, 30.0, created_at=NOW, put_at=NOW)])
        self.acknowledged.append(id)

    def run(self) -> None:
        """Of a type of its own: those of the other are counted."""
        owner = str(self.random.random())
        row = Row(owner, "u", b"{}", "json", 1, State.READY, 0.0, NOW, 30.0, created_at=NOW, put_at=NOW)
        self.store.add([row])
        taken = self.store.claim(Selection(("u",)), Budget(jobs=1, job_s={"u": 0.0}), owner, NOW, False)
        self.store.settle([Delete(found.id, found.fence) for found in taken.rows], NOW)

    def reopen(self) -> None:
        """Close, and open again."""
        self.store.close()
        self.store.open()

    def fork(self) -> None:
        """A child that does nothing."""
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)


def strike_often(path: Path, seed: int, signals: int) -> None:
    """In a process of its own."""
    sys.unraisablehook = lambda _: None  # a signal may strike in a hook of a fork, or while something is freed
    struck = Struck(path, seed)
    works = [
        (struck.add, 8),
        (struck.run, 4),
        (struck.store.counts, 2),
        (struck.store.pulse, 1),
        (struck.reopen, 1),
        (struck.fork, 1),
    ]
    longest = {work: _seconds(work) * SLACK for work, _ in works}
    while struck.strikes < signals:
        (work, _), *_ = struck.random.choices(works, [weight for _, weight in works])
        struck.call(work, longest[work])
    gc.collect()
    struck.look()
    # Another thread can use it, and close it.
    done = threading.Thread(target=lambda: (struck.add(), struck.store.close()), daemon=True)
    done.start()
    done.join(120)
    assert not done.is_alive(), "a lock was left held"
    there = {row.id for row in struck.store.find("t", "ready", None, 10**9)}
    struck.store.close()
    assert [id for id in struck.acknowledged if id not in there] == []


def _seconds(work: Callable[[], object]) -> float:
    times = []
    for _ in range(9):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return sorted(times)[4]


@pytest.mark.parametrize("signals", [150, pytest.param(20_000, marks=pytest.mark.proof)])
def test_no_signal_leaves_a_lock_held(tmp_path: Path, signals: int) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    assert run_in_child(lambda: strike_often(tmp_path / "jobs.db", seed, signals)) == 0
