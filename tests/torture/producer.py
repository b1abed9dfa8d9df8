"""A producer: adds jobs one by one and in lists, and keeps account of what was acknowledged.

Its ledger, for each call ``add``:

    adding  add digests                   before the call
    added   add ids time                  it returned: acknowledged
    failed  add taken not_taken unknown   it raised; ids, none of them if it never reached the store

A call without an outcome was under way when its producer was killed, or struck by a signal.
"""

import signal
import sys
import threading
import time
from pathlib import Path
from random import Random

from kqueue import KQueue
from kqueue.model.errors import AddFailed, StoreError
from tests.torture.child import obey
from tests.torture.clocks import follow
from tests.torture.file_faults import copy_store
from tests.torture.interrupts import Interrupts
from tests.torture.ledger import SUFFIX, Ledger
from tests.torture.plan import OPTIONS, TTR_S, Addition, addition, digest

#: Seconds between two calls at most.
PAUSE_S = 0.08
#: Ready jobs from which on producers wait: so that what is left for the drain does not grow with the time.
BACKLOG = 1000
#: Calls between two looks at the backlog.
LOOK_EVERY = 10


def main(store: str, broker: str, folder: str, name: str, clock: str, seed: str) -> None:
    """Add until SIGTERM comes."""
    follow(Path(clock))
    obey(lambda command: copy_store(command, Path(store.removeprefix("sqlite:///"))))
    interrupts = Interrupts()
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    ledger = Ledger(Path(folder, name + SUFFIX))
    random = Random(f"{seed} {name}")
    # Who begins while the store is moved away would make another in its place.
    queue = KQueue(store, broker, create=False, **OPTIONS)
    count = 0
    while not stopped.is_set():
        count += 1
        wanted, call = addition(random), f"{name} {count}"
        interrupts.may_strike(lambda: _add(queue, wanted, ledger, call))  # noqa: B023 (called at once)
        stopped.wait(random.uniform(0, PAUSE_S))
        while count % LOOK_EVERY == 0 and not stopped.is_set() and _is_full(queue):
            stopped.wait(PAUSE_S)
    queue.close()


def _is_full(queue: KQueue) -> bool:
    try:
        return queue.counts()["ready"] > BACKLOG
    except StoreError:
        return False


def _add(queue: KQueue, wanted: Addition, ledger: Ledger, add: str) -> None:
    ledger.write("adding", add=add, digests=[digest(payload) for payload in wanted.payloads])
    try:
        ids = _call(queue, wanted)
    except AddFailed as error:
        ledger.write("failed", add=add, taken=error.taken, not_taken=error.not_taken, unknown=error.unknown)
    except StoreError:
        ledger.write("failed", add=add, taken=[], not_taken=[], unknown=[])
    else:
        ledger.write("added", add=add, ids=ids, time=time.monotonic())


def _call(queue: KQueue, wanted: Addition) -> list[str]:
    type, payloads, priority, delay = wanted
    if len(payloads) == 1:
        return [queue.add_job(type, payloads[0], priority=priority, delay=delay, ttr=TTR_S)]
    return queue.add_jobs(type, payloads, priority=priority, delay=delay, ttr=TTR_S)


if __name__ == "__main__":
    main(*sys.argv[1:])
