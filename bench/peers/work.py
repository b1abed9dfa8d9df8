"""What every peer is asked to do, and how its runs are timed. The standard library only: peers import it.

A peer is a module with

    add_in_bulk(jobs)      add so many no-ops, by the fastest way that the queue's documentation has
    add_one_by_one(jobs)   add them singly
    work()                 run as one worker process until it is told to end
    left()                 how many jobs are still there

Its server's address is in the environment, since the queues' own worker programs import the module.
"""

import itertools
import json
import os
import time
from pathlib import Path

#: What every job carries: 100 bytes, as text since some queues take JSON only.
PAYLOAD = "x" * 100
#: Jobs in one call where a queue takes many at once.
LIST = 1000
#: The environment's names.
URL = "PEER_URL"
JOBS = "PEER_JOBS"
REPORT = "PEER_REPORT"


def url() -> str:
    """Where the peer's server is, or its file."""
    return os.environ[URL]


def lists(jobs: int) -> list[int]:
    """The lengths of the lists that make up so many jobs."""
    return [min(LIST, jobs - at) for at in range(0, jobs, LIST)]


class Clock:
    """Runs in the worker's process from the first job's start to the last one's end, then writes both down.

    Counting is one atomic step, so jobs may run in several threads.
    """

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._started = 0.0

    def tick(self) -> None:
        """A job runs: all that a handler does."""
        number = next(self._numbers)
        if number == 1:
            self._started = time.monotonic()
        if number == int(os.environ[JOBS]):
            write_report(self._started, time.monotonic())


def write_report(started: float, ended: float) -> None:
    """In one step, so that who waits for it never reads half."""
    path = Path(os.environ[REPORT])
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps({"started": started, "ended": ended}))
    unfinished.rename(path)
