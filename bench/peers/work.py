"""What every peer is asked to do, and how its runs are timed. The standard library only: peers import it.

A peer is a module with

    add_in_bulk(jobs)      add so many jobs, by the fastest way that the queue's documentation has
    add_one_by_one(jobs)   add them singly
    work()                 run as one worker until it is told to end
    left()                 how many jobs are still there

A job does nothing, or sleeps, as the environment says. Its server's address is in the environment too, since the
queues' own worker programs import the module.
"""

import asyncio
import itertools
import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Protocol

#: What every job carries: 100 bytes, as text since some queues take JSON only.
PAYLOAD = "x" * 100
#: Jobs in one call where a queue takes many at once.
LIST = 1000
#: The environment's names.
URL = "PEER_URL"
JOBS = "PEER_JOBS"
REPORT = "PEER_REPORT"
#: Seconds that each job sleeps; not set: jobs do nothing.
SLEEP_S = "PEER_SLEEP_S"
#: Jobs that are to run at once; not set: as many as the queue's own default.
HANDS = "PEER_HANDS"
#: What they run in, for a queue that has several ways: ``threads``, ``greenlets``.
KIND = "PEER_KIND"

#: Seconds that each job of this process sleeps; 0: it does nothing.
SECONDS = float(os.environ.get(SLEEP_S, "0"))


def url() -> str:
    """Where the peer's server is, or its file."""
    return os.environ[URL]


def hands(usual: int) -> int:
    """How many jobs are to run at once: as many as ``usual`` where that is not said."""
    return int(os.environ.get(HANDS, usual))


def kind() -> str:
    """What they are to run in; empty where that is not said."""
    return os.environ.get(KIND, "")


def lists(jobs: int) -> list[int]:
    """The lengths of the lists that make up so many jobs."""
    return [min(LIST, jobs - at) for at in range(0, jobs, LIST)]


class Clock(Protocol):
    """Runs from the first job's start to the last one's end, then writes both down. Called by any thread."""

    def begin(self) -> None: ...

    def end(self) -> None: ...


class ProcessClock:
    """Of a worker whose jobs all run in its own process. Counting is one atomic step."""

    def __init__(self) -> None:
        self._jobs = int(os.environ[JOBS])
        self._numbers = itertools.count(1)
        self._started = 0.0

    def begin(self) -> None:
        if not self._started:
            self._started = time.monotonic()

    def end(self) -> None:
        if next(self._numbers) == self._jobs:
            write_report(self._started, time.monotonic())


class SharedClock:
    """Of a worker with several processes, which share two files beside the report: one holds the start of the first
    job, the other has a byte for each that has ended.
    """

    def __init__(self) -> None:
        self._jobs = int(os.environ[JOBS])
        report = Path(os.environ[REPORT])
        self._begun = report.with_suffix(".begun")
        self._ended = report.with_suffix(".ended")

    def begin(self) -> None:
        # Whose file it is was first.
        with suppress(FileExistsError), self._begun.open("x") as file:
            file.write(str(time.monotonic()))

    def end(self) -> None:
        with self._ended.open("ab", buffering=0) as file:
            file.write(b".")
            size = os.fstat(file.fileno()).st_size
        if size == self._jobs:
            write_report(float(self._begun.read_text()), time.monotonic())


def run(clock: Clock) -> None:
    """All that a job does."""
    clock.begin()
    if SECONDS:
        time.sleep(SECONDS)
    clock.end()


async def run_async(clock: Clock) -> None:
    """The same as a coroutine."""
    clock.begin()
    if SECONDS:
        await asyncio.sleep(SECONDS)
    clock.end()


def write_report(started: float, ended: float) -> None:
    """In one step, so that who waits for it never reads half."""
    path = Path(os.environ[REPORT])
    unfinished = path.with_suffix(f".{os.getpid()}")
    unfinished.write_text(json.dumps({"started": started, "ended": ended}))
    unfinished.rename(path)
