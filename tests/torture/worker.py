"""A worker: runs jobs until it is told to end, and keeps account of each run.

Its ledger:

    run   id fence tries start digest act   the handler has begun
    end   id fence act time                 the handler is done with the job and is about to settle it
    lost  id fence unknown                  the settle or the renew raised ``LeaseLost``
    kept  id fence                          a late act settled, and no ``LeaseLost`` came
    down  error                             ``run_jobs`` raised: the store was not there when it opened

Times are of the monotonic clock, which all processes of a host share and nobody steps.
"""

import signal
import sys
import threading
import time
from functools import partial
from pathlib import Path

from kqueue import KQueue
from kqueue.model.errors import LeaseLost, StoreUnavailable
from kqueue.model.job import JobInHand
from tests.torture import plan
from tests.torture.child import obey
from tests.torture.clocks import follow
from tests.torture.file_faults import copy_store
from tests.torture.interrupts import Interrupts
from tests.torture.ledger import SUFFIX, Ledger

#: How long an act sleeps, by TTR.
ASLEEP_TTRS = {"slow": 0.02, "renew": 0.6, plan.HOLD: 0.7}
#: The same for a late one: its lease runs out, and the next holder is at work when it wakes.
LATE_TTRS = 1.5
#: Seconds until a worker that found no store tries again.
AGAIN_S = 0.5
#: How long one ``run_jobs`` takes. A loop that was about to begin when its worker was stopped ends by this.
TURN_MS = 10_000


class Refused(Exception):
    """What a handler raises that is told to raise."""


class Hands:
    """The handler of every type."""

    def __init__(self, ledger: Ledger, *, is_told: bool) -> None:
        """``is_told``: whether ``LeaseLost`` is raised where a settle comes too late."""
        self._ledger = ledger
        self._is_told = is_told

    def handle(self, job: JobInHand) -> None:
        """Do with the job what the plan says."""
        digest = plan.digest(job.payload)
        act = plan.act(digest, job.fence)
        self._ledger.write(
            "run", id=job.id, fence=job.fence, tries=job.tries, start=time.monotonic(), digest=digest, act=act
        )
        try:
            _sleep(job, act)
            self._ledger.write("end", id=job.id, fence=job.fence, act=act, time=time.monotonic())
            _settle(job, act)
        except LeaseLost as error:
            self._ledger.write("lost", id=job.id, fence=job.fence, unknown=error.unknown)
        else:
            if plan.is_late(act) and self._is_told:
                self._ledger.write("kept", id=job.id, fence=job.fence)


def _sleep(job: JobInHand, act: str) -> None:
    if act == "renew":
        time.sleep(job.ttr * 0.6)
        job.renew()
    time.sleep(job.ttr * LATE_TTRS if plan.is_late(act) else job.ttr * ASLEEP_TTRS.get(act, 0))


def _settle(job: JobInHand, act: str) -> None:
    match act:
        case "retry" | "late retry":
            job.retry("as planned", delay=0.1)
        case "unget":
            job.unget(delay=0.1)
        case "raise":
            raise Refused
        case "late renew":
            job.renew()
            job.delete()
        case "forget":
            pass
        case _:
            job.delete()


def main(store: str, broker: str, folder: str, name: str, clock: str, loops: str, threads: str) -> None:
    """Run jobs in so many loops, a thread each, until SIGTERM comes. The main one has so many ``threads``."""
    follow(Path(clock))
    obey(lambda command: copy_store(command, Path(store.removeprefix("sqlite:///"))))
    interrupts = Interrupts()
    stopped = threading.Event()
    # Ends are written together, so only where each is written at once is anybody told; and of deletes that share a
    # write a MongoDB says only how many were late.
    at_once = {"settle_ms": 0} if int(threads) > 1 else {}
    # Who begins while the store is moved away would make another in its place.
    queue = KQueue(store, broker, create=False, **{**plan.OPTIONS, **at_once})
    is_told = bool(at_once) and store.startswith("sqlite:")
    ledger = Ledger(Path(folder, name + SUFFIX))
    for type in plan.TYPES:
        queue.add_handler(type, Hands(ledger, is_told=is_told).handle)

    def stop(*_: object) -> None:
        stopped.set()
        queue.stop()

    def turn(threads: int) -> None:
        try:
            run = queue.run_jobs if threads == 1 else partial(queue.work, threads=threads)
            run(time_limit_ms=TURN_MS, wait=True)
        except StoreUnavailable as error:
            ledger.write("down", error=str(error))
            stopped.wait(AGAIN_S)

    def work() -> None:
        while not stopped.is_set():
            turn(1)

    signal.signal(signal.SIGTERM, stop)
    others = [threading.Thread(target=work) for _ in range(int(loops) - 1)]
    for other in others:
        other.start()
    while not stopped.is_set():
        interrupts.may_strike(partial(turn, int(threads)))
    for other in others:
        other.join()
    queue.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
