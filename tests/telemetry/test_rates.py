"""How many jobs were run lately: what a process tells of it, and what is read of that."""

import json
import threading

from kqueue import JobInHand, KQueue
from kqueue.contracts.settlements import Outcome
from kqueue.contracts.workers import ALIVE_S, WorkerRecord
from kqueue.system.clock import ManualClock
from kqueue.telemetry.counters import LATELY_S, MOST_TYPES, Counters, Lately
from kqueue.telemetry.rates import Rates, ToldRates, told_by
from tests.tubes import await_true

NOW = 1_700_000_000.0


def worker(note: object, seen_at: float = NOW) -> WorkerRecord:
    return WorkerRecord("0" * 28, "host", 1, ("mail",), NOW - 900, seen_at, json.dumps(note))


def test_a_process_tells_of_the_last_minute_alone() -> None:
    clock = ManualClock()
    counters = Counters(clock)
    lately = Lately(counters, clock.monotonic)
    clock.advance(30)
    counters.ran({"mail": [0.5] * 30})
    counters.settled(["mail"] * 20, [("mail", Outcome.RETRIED), ("mail", Outcome.DEAD)])
    assert told_by([worker(lately.note())], NOW) == ToldRates({"mail": Rates(1.0, 20 / 30, 2 / 30, 0.5)}, 1, 30.0)
    clock.advance(LATELY_S)
    told = told_by([worker(lately.note())], NOW)
    assert told == ToldRates({}, 1, LATELY_S)  # nothing came since
    counters.ran({str(number): [1.0] * (number + 1) for number in range(MOST_TYPES + 9)})
    clock.advance(1)
    told = told_by([worker(lately.note())], NOW)
    assert len(told.types) == MOST_TYPES
    assert "8" not in told.types


def test_all_that_are_alive_count_together() -> None:
    one = {"lately": {"seconds": 10, "types": {"mail": [20, 10, 5, 1.0]}}}
    two = {"lately": {"seconds": 40, "types": {"mail": [20, 20, 0, 3.0], "part": [0, 0, 0, 0]}}}
    told = told_by([worker(one), worker(two), worker(one, NOW - ALIVE_S)], NOW)
    assert told == ToldRates({"mail": Rates(2.5, 1.5, 0.5, 0.1), "part": Rates()}, 2, 40.0)


def test_one_of_another_version_tells_nothing() -> None:
    notes = [3, {"seconds": 0, "types": {}}, {"seconds": 1, "types": {"a": [1] * 9}}, {"seconds": None}]
    others = [{}, [], *({"lately": note} for note in notes)]
    assert told_by(map(worker, others), NOW) == ToldRates({}, 0, 0.0)


def test_a_worker_tells_it_with_its_heartbeat() -> None:
    with KQueue("memory:") as queue:
        queue.add_handler("mail", JobInHand.delete)
        queue.add_jobs("mail", range(50))
        thread = threading.Thread(target=queue.run_jobs, kwargs={"wait": True})
        thread.start()
        try:
            await_true(lambda: "mail" in told_by(queue.store.workers(), queue.store.now()).types)
            assert told_by(queue.store.workers(), queue.store.now()).types["mail"].finished > 0
        finally:
            queue.stop()
            thread.join()
