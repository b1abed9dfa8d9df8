"""A worker process with one handler for long jobs. It says what it does, a line each, for the test to await.

python -m tests.flows.long_worker OPTIONS    (a JSON object: see ``main``)
"""

import ctypes
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from kqueue import JobInHand, KQueue, LeaseLost

#: C code that keeps the interpreter's lock, as many an extension does: ctypes lets go of it for CDLL only.
LOCKING = ctypes.PyDLL(None)


def say(*words: object) -> None:
    """In one write, so that lines of a forked child do not mix with ours."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def hog_if_told(job: JobInHand, seconds: float) -> None:
    """Nothing else of this process runs, no thread, no signal handler, until the test closes the standard input."""
    if job.payload == "hog":
        LOCKING.read(0, ctypes.create_string_buffer(1), 1)


def wait(job: JobInHand, seconds: float) -> None:
    """As long, with all else running."""
    os.read(0, 1)


def sleep(job: JobInHand, seconds: float) -> None:
    time.sleep(seconds)


def fork(job: JobInHand, seconds: float) -> None:
    """Leave a child behind, which has all that this process has, and outlives it."""
    child = os.fork()
    if child == 0:
        os.close(0)
        time.sleep(600)
        os._exit(0)
    say("child", child)
    time.sleep(seconds)


WAYS: dict[str, Callable[[JobInHand, float], None]] = {
    "hog if told": hog_if_told,
    "wait": wait,
    "sleep": sleep,
    "fork": fork,
}


def main(way: str, seconds: float, renewer: int | None, handler: dict[str, Any], queue: dict[str, Any]) -> None:
    """``way`` to spend ``seconds`` in a run, and the options of the handler and the queue. ``renewer``: an
    inherited socket, if somebody else renews leases.
    """
    jobs = KQueue(**queue)
    if renewer is not None:
        jobs.parts.renewer.offer(renewer)

    @jobs.handler("long", **handler)
    def long(job: JobInHand) -> None:
        say("start", job.payload, job.tries)
        WAYS[way](job, seconds)
        try:
            job.delete()
        except LeaseLost:
            say("late", job.payload)
        else:
            say("end", job.payload)

    say("ready")
    jobs.run_jobs(wait=True)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
