"""A service whose standard library is patched: greenlets add jobs, a loop runs them. Says what it found, as JSON.

Started as ``python -m tests.greenlets.child LIBRARY STORE [BROKER]``.
"""

# ruff: noqa: E402 (the patches come first, as each library wants it)

import importlib
import sys

LIBRARY, *URLS = sys.argv[1:]

if LIBRARY == "eventlet":
    eventlet = importlib.import_module("eventlet")
    eventlet.monkey_patch()
    spawn, wait = eventlet.spawn, lambda greenlet: greenlet.wait()
else:
    importlib.import_module("gevent.monkey").patch_all()
    gevent = importlib.import_module("gevent")
    spawn, wait = gevent.spawn, lambda greenlet: greenlet.get()

import json
import logging

from kqueue import JobInHand, KQueue

#: Greenlets that add at once, and jobs of each.
PRODUCERS, JOBS = 8, 5


class Warnings(logging.Handler):
    """Keeps what was said."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


def main() -> None:
    warnings = Warnings()
    logging.getLogger().addHandler(warnings)
    ran: list[int] = []
    with KQueue(*URLS) as queue:

        @queue.handler("t")
        def handle(job: JobInHand) -> None:
            ran.append(job.payload)
            job.delete()

        def produce(first: int) -> list[str]:
            return [queue.add_job("t", number) for number in range(first, first + JOBS)]

        producers = [spawn(produce, number * JOBS) for number in range(PRODUCERS)]
        ids = [job_id for producer in producers for job_id in wait(producer)]
        pointers = sum(queue.broker.depths(["t"]).get("t", {}).values())
        drained = queue.run_jobs().deleted
        # A loop that waits at the tube, and is woken by an add and stopped from its handler.
        queue.add_handler("last", lambda job: (job.delete(), queue.stop()))
        loop = spawn(queue.run_jobs, wait=True)
        queue.add_job("last")
        woken = wait(loop).deleted
    print(
        json.dumps(
            {
                "ids": len(set(ids)),
                "pointers": pointers,
                "drained": drained,
                "ran": sorted(ran),
                "woken": woken,
                "warnings": warnings.said,
            }
        )
    )


main()
