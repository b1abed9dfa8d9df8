"""A program whose signal handler adds jobs, wherever it interrupts its own thread.

``python -m tests.signals.reentered STORE BROKER ROUNDS SECONDS``: prints a line for each round, and at its end what
it saw. SECONDS at most pass from one call of the handler to the next signal: less than most calls take. Where it
is less than any call takes, only their number ends a round.
"""

import faulthandler
import json
import random
import signal
import sys
from collections import Counter
from types import FrameType

from kqueue import KQueue
from kqueue.model.errors import KQueueError
from kqueue.model.job import JobInHand
from kqueue.system.mint import IdMint

#: Of a round.
SIGNALS = 60


class Program:
    def __init__(self, store: str, broker: str | None, each_s: float) -> None:
        self._each_s = each_s
        self.queue = KQueue(store, broker, settle_ms=1)
        self.queue.add_handler("t", self._handle)
        self.mint = IdMint()
        self.ids: list[str] = []
        self.ran: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.by_signals = 0
        #: Signals that are still to come.
        self.left = 0
        self.made: list[str] = []

    def _handle(self, job: JobInHand) -> None:
        self.ran[job.id] += 1
        job.delete()

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        try:
            self.made += self.mint.make(1)
            self.ids.append(self.queue.add_job("t"))
            self.by_signals += 1
        except KQueueError as error:
            self.refused[f"{type(error).__name__}: {error}"] += 1
        finally:
            self.arm()

    def arm(self) -> None:
        if self.left > 0:
            self.left -= 1
            signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, self._each_s))

    def round(self) -> None:
        for _ in range(5):
            self.ids.append(self.queue.add_job("t"))
        for _ in range(200):
            self.made += self.mint.make(1)
        self.queue.run_jobs()
        self.queue.counts()


def main(store: str, broker: str, rounds: str, each_s: str) -> None:
    faulthandler.enable()
    program = Program(store, broker or None, float(each_s))
    program.round()
    signal.signal(signal.SIGALRM, program.on_signal)
    for _ in range(int(rounds)):
        print("a round", flush=True)
        program.left = SIGNALS
        program.arm()
        program.round()
        program.left = 0
    signal.setitimer(signal.ITIMER_REAL, 0)
    while sum(program.queue.counts().values()):
        program.queue.run_jobs(wait=True, time_limit_ms=50)
    stats = program.queue.stats().types["t"]
    program.queue.close()
    seen = {
        "by signals": program.by_signals,
        "refused": program.refused,
        "same ids": len(program.ids) - len(set(program.ids)) + len(program.made) - len(set(program.made)),
        "not run": len(set(program.ids) - program.ran.keys()),
        "run twice": sum(times > 1 for times in program.ran.values()),
        "miscounted": stats.added - len(program.ids),
    }
    print(json.dumps(seen), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
