"""A real process whose wall clock is set ahead and back while it runs, by a preloaded library."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kqueue import KQueue
from kqueue.contracts.stored_times import latest
from tests.conftest import missing
from tests.tubes import await_true

#: Where Debian's package ``faketime`` has it. The one for threads.
LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
DAY_S = 86_400.0
DELAY_S = 3600.0

#: Adds ticks each second and runs them, and adds a delayed job for each line that it reads.
WORKER = """
import select, sys, threading, time

# libfaketime 0.9.10 refuses Python's own sleep, to a moment of the monotonic clock, once it has set the other one.
time.sleep = lambda seconds: select.select([], [], [], seconds)

from kqueue import KQueue

queue = KQueue(store=sys.argv[1], sweep_interval=1)
@queue.cron("* * * * * *")
def tick(job):
    ledger.write(f"tick {job.scheduled_for:.0f}\\n")
    job.delete()

@queue.handler("later")
def later(job):
    ledger.write(f"later {job.scheduled_for:.0f}\\n")
    job.delete()

def add():
    for line in sys.stdin:
        print(queue.add_job("later", delay=float(line)), flush=True)
    queue.stop()

with queue, open(sys.argv[2], "a", buffering=1) as ledger:
    threading.Thread(target=add).start()
    queue.run_jobs(wait=True)
"""


class Worker:
    """The process, and the clock that it sees."""

    def __init__(self, folder: Path, store: str) -> None:
        self._clock, self._ledger = folder / "clock", folder / "ledger"
        self.set_clock("+0")
        environment = {
            "LD_PRELOAD": str(LIBRARIES[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._clock),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        command = [sys.executable, "-c", WORKER, store, str(self._ledger)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, env=os.environ | environment, stdin=pipe, stdout=pipe, text=True)

    def set_clock(self, ahead: str) -> None:
        """To the right time and so much: a sign, a number, and d or h."""
        new = self._clock.with_suffix(".new")
        new.write_text(f"{ahead}\n")
        new.rename(self._clock)

    def add(self, delay: float) -> str:
        """The id of a job that it adds."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{delay}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def seen(self, what: str) -> list[float]:
        """The times that the jobs which ran were for."""
        lines = self._ledger.read_text().splitlines() if self._ledger.exists() else []
        return [float(line.split()[1]) for line in lines if line.startswith(what) and len(line.split()) == 2]


@contextmanager
def running(folder: Path, store: str) -> Iterator[Worker]:
    worker = Worker(folder, store)
    with worker.process:
        try:
            yield worker
            assert worker.process.stdin is not None
            worker.process.stdin.close()
            assert worker.process.wait(120) == 0
        finally:
            worker.process.kill()


def await_a_tick(worker: Worker, wanted: Callable[[float], bool]) -> None:
    """One that was not there when this was called."""
    before = len(worker.seen("tick"))
    await_true(lambda: any(wanted(tick) for tick in worker.seen("tick")[before:]))


def test_a_process_whose_clock_is_set_ahead_and_back(tmp_path: Path) -> None:
    if not LIBRARIES:
        missing("libfaketime", "apt install faketime")
    url = f"sqlite:///{tmp_path}/jobs.db"
    with running(tmp_path, url) as worker:
        await_a_tick(worker, lambda tick: tick < time.time() + DAY_S)
        worker.set_clock("+1000d")
        await_a_tick(worker, lambda tick: tick > time.time() + 999 * DAY_S)
        job_id = worker.add(DELAY_S)
        with KQueue(url) as queue:
            job = queue.get_job(job_id)
            assert job is not None
            assert job.run_at > time.time() + 999 * DAY_S
            worker.set_clock("+0")

            def is_right() -> bool:
                found = queue.get_job(job_id)
                return found is not None and found.run_at <= latest(time.time()) + DELAY_S

            await_true(is_right)
        await_a_tick(worker, lambda tick: tick < time.time() + DAY_S)
        assert worker.seen("later") == []
        worker.set_clock("+2h")
        await_true(lambda: len(worker.seen("later")) == 1)
        worker.set_clock("-2h")
        await_a_tick(worker, lambda tick: tick < time.time() - DELAY_S)
    ticks = worker.seen("tick")
    assert len(ticks) == len(set(ticks))
