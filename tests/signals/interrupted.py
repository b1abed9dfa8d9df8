"""A program that interrupts its own calls of a queue with real signals, at times that sweep over them.

``python -m tests.signals.interrupted STORE BROKER ROUNDS SEED`` prints a line for each round that was begun, and at
its end what it saw, as JSON. It hangs where a lock stays held: whoever runs it watches the lines.
"""

import faulthandler
import json
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from types import FrameType

from kqueue import KQueue
from kqueue.model.errors import KQueueError
from kqueue.model.job import JobInHand
from kqueue.system.threads import Background

#: Seconds of a lease: what an interrupt leaves claimed is free again after it.
TTR_S = 1.0
#: Seconds that jobs may take to be run at the end.
PATIENCE_S = 240.0


#: What it says.
STRUCK = "struck by a signal"


class Late(Exception):
    """What a user's signal handler raises, say for a time-out."""


class Interrupter:
    """Raises in the main thread, in the midst of a call, as Ctrl-C and a user's own signal handlers do."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._error: BaseException | None = None
        self.caught: Counter[str] = Counter()
        #: How long each kind of call takes by itself, as seen last, in seconds.
        self._spans: dict[str, float] = {}
        signal.signal(signal.SIGALRM, self._raise)
        signal.signal(signal.SIGUSR1, self._raise)

    def _raise(self, number: int, frame: FrameType | None) -> None:
        if _is_at_a_lock_of_pymongo(frame):
            signal.setitimer(signal.ITIMER_REAL, 1e-4)  # a moment later
            return
        if isinstance(self._error, Late) and number == signal.SIGALRM and self._dice.random() < 0.5:
            os.kill(os.getpid(), signal.SIGUSR1)  # comes at once: Python looks for signals after each call
        error, self._error = self._error, None
        if error is not None:
            raise error

    def call(self, name: str, function: Callable[[], object]) -> None:
        """Call it, and interrupt it somewhere. Every tenth call shows how long it takes."""
        if name not in self._spans or self._dice.random() < 0.1:
            began = time.perf_counter()
            function()
            self._spans[name] = time.perf_counter() - began
            return
        at = self._dice.uniform(0, min(0.2, self._spans[name] * 1.2))
        try:
            self._error = self._dice.choice([KeyboardInterrupt, Late])(STRUCK)
            signal.setitimer(signal.ITIMER_REAL, max(1e-6, at))
            function()
            self._error = None
        except (KeyboardInterrupt, Late) as error:
            self.caught[f"{name} {type(error).__name__}"] += 1
        except Exception as error:
            # CPython and pymongo catch it here and there, and raise one of their own, or trip over what it left; so
            # does bson's C code, where it has struck.
            trips = isinstance(error, SystemError) and self._error is None
            if not trips and not _comes_from(error, (KeyboardInterrupt, Late)):
                raise
            self.caught[f"{name} {type(error).__name__}"] += 1
        finally:
            self._error = None
            signal.setitimer(signal.ITIMER_REAL, 0)


def _is_at_a_lock_of_pymongo(frame: FrameType | None) -> bool:
    """Whether it takes a lock of its pool or lets go of it, which is Python code of a ``Condition``. What is raised
    there may leave the lock held, and pymongo waits for it in its own clean-up (docs/worker.rst).
    """
    own = (_is_at_a_lock_of_pymongo.__code__, Interrupter._raise.__code__)
    while frame is not None and frame.f_code in own:  # a signal has come in the midst of the last one's handler
        frame = frame.f_back
    codes = (threading.Condition.__enter__.__code__, threading.Condition.__exit__.__code__)
    if frame is None or frame.f_code not in codes or frame.f_back is None:
        return False
    return str(frame.f_back.f_globals.get("__name__")).startswith("pymongo.")


def _comes_from(error: BaseException | None, kinds: tuple[type[BaseException], ...]) -> bool:
    """Whether it, or what was handled when it was raised, is one of them. bson's C code keeps only its text."""
    while error is not None:
        if isinstance(error, kinds) or STRUCK in str(error):
            return True
        error = error.__context__
    return False


class Program:
    """What is interrupted: all that a user's main thread does with a queue."""

    def __init__(self, store: str, broker: str | None, dice: random.Random) -> None:
        self._dice = dice
        self.queue = KQueue(store, broker, sweep_interval=0.05, settle_ms=1, retry_delay=0)
        self.queue.add_handler("t", self._handle)
        self.queue.add_handler("renewed", self._handle, auto_renew=True)
        self.added: set[str] = set()
        self.ran: Counter[str] = Counter()
        #: What befell those that add beside the main thread: no signal is theirs.
        self.told: Counter[str] = Counter()
        self._asked: SimpleQueue[bool] = SimpleQueue()
        self._others = [Background(self._add_when_asked, "beside") for _ in range(3)]

    def _add_when_asked(self) -> None:
        while self._asked.get():
            try:
                self.added.add(self.queue.add_job("t", ttr=TTR_S))
            except BaseException as error:
                self.told[f"beside: {type(error).__name__}: {error}"] += 1

    def end_others(self) -> None:
        for _ in self._others:
            self._asked.put(False)
        if not all(other.join(PATIENCE_S) for other in self._others):
            self.told["beside: one waits for ever"] += 1

    def _handle(self, job: JobInHand) -> None:
        self.ran[job.id] += 1
        job.delete()

    def add(self) -> None:
        for _ in range(3):
            self.added.add(self.queue.add_job("t", ttr=TTR_S))

    def add_beside_others(self) -> None:
        for _ in self._others:
            self._asked.put(True)
        self.add()

    def add_many(self) -> None:
        self.added.update(self.queue.add_jobs("t", range(5), ttr=TTR_S))

    def window(self) -> None:
        self.queue.run_jobs()

    def renewed(self) -> None:
        self.added.update(self.queue.add_jobs("renewed", range(2), ttr=TTR_S))
        self.queue.run_jobs()

    def wait(self) -> None:
        self.queue.run_jobs(wait=True, time_limit_ms=3)

    def work(self) -> None:
        self.queue.work(threads=2, wait=False)

    def again(self) -> None:
        self.queue.close()
        self.added.add(self.queue.add_job("t", ttr=TTR_S))

    def look(self) -> None:
        self.queue.counts()
        self.queue.stats()
        self.queue.sweep()
        self.queue.pause("nothing")
        self.queue.resume("nothing")

    def leftovers(self) -> list[str]:
        """What an interrupt has left in the process although no call is under way."""
        registry = self.queue.registry
        found = {
            "loops": registry.loops(),
            "jobs in hand": registry.in_hand(),
            "loops that live": registry.isolation.loops(),
            "windows": registry.isolation._windows,
            "aside": registry.isolation._taken_by,
            "waiting loops": self.queue._parts.maintenance.loops,
            "held by the renewer": self.queue._parts.renewer._holds,
        }
        return [f"{name}: {value}" for name, value in found.items() if value]


def main(store: str, broker: str, rounds: str, seed: str) -> None:
    faulthandler.enable()  # whoever finds it hanging sends SIGABRT, to see where
    dice = random.Random(seed)
    program, interrupter = Program(store, broker or None, dice), Interrupter(dice)
    acts = {
        "add": (program.add, 6),
        "add_beside_others": (program.add_beside_others, 3),
        "add_many": (program.add_many, 2),
        "window": (program.window, 6),
        "renewed": (program.renewed, 1),
        "wait": (program.wait, 1),
        "work": (program.work, 1),
        "again": (program.again, 1),
        "look": (program.look, 1),
    }
    for one, _ in acts.values():
        one()
    errors: Counter[str] = Counter()
    for _ in range(int(rounds)):
        [name] = dice.choices(list(acts), [weight for _, weight in acts.values()])
        print(name, flush=True)
        try:
            interrupter.call(name, acts[name][0])
        except Exception as error:
            errors[f"{name}: {type(error).__name__}: {error}"] += 1
        errors.update(f"after {name}: {one}" for one in program.leftovers())
    print("the end", flush=True)
    program.end_others()
    errors.update(program.told)
    deadline = time.monotonic() + PATIENCE_S
    while sum(program.queue.counts().values()) and time.monotonic() < deadline:
        with suppress(KQueueError):
            program.queue.run_jobs(wait=True, time_limit_ms=50)
    left = program.queue.counts()
    program.queue.close()
    seen = {
        "caught": interrupter.caught,
        "errors": errors,
        "left": {state: jobs for state, jobs in left.items() if jobs},
        "not run": len(program.added - program.ran.keys()),
        "added": len(program.added),
        "ran": sum(program.ran.values()),
    }
    print(json.dumps(seen), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
