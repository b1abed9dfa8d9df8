"""Limits over all workers: never more than allowed, nobody overtaken, and no loop that is busy with nothing."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from kqueue import JobInHand, KQueue
from kqueue.assembly import assemble
from kqueue.contracts.admission import Limit
from kqueue.contracts.runs import Claim
from kqueue.contracts.settlements import Settled
from kqueue.stores.mongo.store import MongoStore
from kqueue.stores.sqlite.store import SqliteStore
from kqueue.system.clock import ManualClock
from tests.beanstalkd import Beanstalkd
from tests.closing import Closes
from tests.flows.conftest import MakeQueue
from tests.mongod import Mongod
from tests.tubes import await_true
from tests.tubes import run as start


class Gauge:
    """Counts who is inside, by key; threads only."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside: Counter[Any] = Counter()
        self.most: Counter[Any] = Counter()
        self.done = 0

    def pass_through(self, key: Any) -> None:
        with self._lock:
            self._inside[key] += 1
            self._inside[None] += 1
            for one in (key, None):
                self.most[one] = max(self.most[one], self._inside[one])
        os.sched_yield()
        with self._lock:
            self._inside[key] -= 1
            self._inside[None] -= 1
            self.done += 1


def run_in_threads(queues: list[KQueue], is_done: Any) -> None:
    loops = [threading.Thread(target=queue.run_jobs, kwargs={"wait": True}) for queue in queues]
    for loop in loops:
        loop.start()
    try:
        await_true(is_done)
    finally:
        for queue in queues:
            queue.stop()
        for loop in loops:
            loop.join(60)


def test_one_at_a_time_over_several_workers_and_all_run(make_queue: MakeQueue) -> None:
    gauge = Gauge()
    queues = [make_queue() for _ in range(3)]
    for queue in queues:
        queue.limit("t", running=1)
        queue.add_handler("t", lambda job: (gauge.pass_through("k"), job.delete()))
        queue.add_handler("other", lambda job: job.delete())
    queues[0].add_jobs("t", range(60))
    queues[0].add_jobs("other", range(60))
    run_in_threads(queues, lambda: sum(queues[0].counts().values()) == 0)
    assert gauge.most[None] == 1
    assert gauge.done == 60


def test_a_held_job_has_no_pointer_and_the_settle_that_frees_a_place_puts_it(
    beanstalkd: Beanstalkd, tmp_path: Path, closes: Closes
) -> None:
    def make() -> KQueue:
        queue = closes(KQueue(store=f"sqlite:///{tmp_path}/jobs.db", broker=beanstalkd.url))
        queue.limit("t", running=1)
        return queue

    holder, other = make(), make()
    begun, end = threading.Event(), threading.Event()
    seen: list[Any] = []
    holder.add_handler("t", lambda job: (begun.set(), end.wait(60), job.delete()))
    other.add_handler("t", lambda job: (seen.append(job.payload), job.delete()))
    other.add_job("t", "first")
    loop = threading.Thread(target=holder.run_jobs, kwargs={"count_limit": 1})
    loop.start()
    assert begun.wait(60)
    other.add_jobs("t", ["second", "third"])
    assert other.run_jobs().count == 0
    assert other.counts("t") | {"held": 2, "running": 1} == other.counts("t")
    depths = other.broker.depths(["t"])["t"]
    assert sum(depths.values()) == 0
    end.set()
    loop.join(60)
    await_true(lambda: other.broker.depths(["t"])["t"]["ready"] == 1)  # put by the settle, and by no sweep
    assert other.run_jobs().count == 2
    assert seen == ["second", "third"]
    assert sum(other.broker.depths(["t"])["t"].values()) == 0


def test_no_loop_is_busy_while_all_is_held(make_queue: MakeQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    holder, other = make_queue(), make_queue()
    begun, end = threading.Event(), threading.Event()
    for queue, handle in (
        (holder, lambda job: (begun.set(), end.wait(60), job.delete())),
        (other, lambda job: job.delete()),
    ):
        queue.limit("t", running=1)
        queue.add_handler("t", handle)
    holder.add_jobs("t", range(200))
    loop = threading.Thread(target=holder.run_jobs, kwargs={"count_limit": 1})
    loop.start()
    assert begun.wait(60)
    claims: list[object] = []
    claim = other.store.claim
    if type(other.store).__name__ != "MemoryStore":  # which both share
        monkeypatch.setattr(other.store, "claim", lambda *args: (claims.append(args), claim(*args))[1])
    assert other.run_jobs().count == 0
    held_after = len(claims)
    assert other.counts("t")["held"] == 199
    assert other.run_jobs(wait=True, time_limit_ms=300).count == 0
    assert len(claims) == held_after
    end.set()
    loop.join(60)
    assert other.run_jobs().count == 199


def test_per_key_and_per_type_together(make_queue: MakeQueue) -> None:
    gauge = Gauge()
    queues = [make_queue() for _ in range(4)]
    for queue in queues:
        queue.limit("t", running=3, running_per_key=1)
        queue.add_handler("t", lambda job: (gauge.pass_through(job.payload), job.delete()))
    for key in ("a", "b", "c", "d"):
        for _ in range(15):
            queues[0].add_job("t", key, limit_key=key)
    run_in_threads(queues, lambda: sum(queues[0].counts().values()) == 0)
    assert gauge.done == 60
    assert gauge.most[None] <= 3
    assert {key: most for key, most in gauge.most.items() if key is not None and most > 1} == {}


@pytest.mark.parametrize("limits", [{"running": 2}, {"running_per_key": 1}, {"running": 3, "running_per_key": 2}])
def test_threads_of_one_dispatcher_run_no_more_at_once_than_may(
    make_queue: MakeQueue, limits: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It claims more than may run, as long as they take so little time, and lets them wait for each other."""
    monkeypatch.setattr("kqueue.loops.sizer.FOLLOWING_S", 60.0)  # so little on any machine
    gauge = Gauge()
    queues = [make_queue() for _ in range(2)]
    for queue in queues:
        queue.limit("t", **limits)
        queue.add_handler("t", lambda job: (gauge.pass_through(job.payload), job.delete()))
    for key in "abc":  # one after the other, so that most of a window are of one key
        queues[0].add_jobs("t", [key] * 60, limit_key=key)
    claims = claims_of(queues[0])
    queues[0].work(threads=4, wait=False)
    assert gauge.done == 180
    assert max(len(claim.rows) for claim in claims) > limits.get("running", 3) * 2
    queues[0].add_jobs("t", ["d"] * 60, limit_key="d")
    workers = [start(partial(queue.work, threads=4, wait=True)) for queue in queues]
    await_true(lambda: sum(queues[0].counts().values()) == 0)
    for queue in queues:
        queue.stop()
    for worker in workers:
        worker.join(60)
    assert gauge.done == 240
    assert gauge.most[None] <= limits.get("running", 8)
    assert max(gauge.most[key] for key in "abcd") <= limits.get("running_per_key", 8)


def claims_of(queue: KQueue) -> list[Claim]:
    """What each claim gets from now on."""
    claims: list[Claim] = []
    claim, both = queue.store.claim, getattr(queue.store, "settle_and_claim", None)

    def noted(*arguments: Any) -> Claim:
        claims.append(claim(*arguments))
        return claims[-1]

    def both_noted(*arguments: Any, **named: Any) -> tuple[Settled, Claim]:
        settled, claimed = both(*arguments, **named)
        claims.append(claimed)
        return settled, claimed

    queue.store.claim = noted  # type: ignore[method-assign]
    if both is not None:
        queue.store.settle_and_claim = both_noted  # type: ignore[attr-defined]
    return claims


def test_a_slow_job_of_a_key_keeps_no_thread_from_those_of_others(make_queue: MakeQueue) -> None:
    queue, is_free = make_queue(), threading.Event()
    queue.limit("t", running_per_key=1)
    ran: list[str] = []

    @queue.handler("t")
    def work(job: JobInHand) -> None:
        if job.payload == "first a":
            is_free.wait(60)
        ran.append(job.payload)
        job.delete()

    queue.add_jobs("t", ["first a", *["a"] * 20], limit_key="a")
    queue.add_jobs("t", ["b"] * 20, limit_key="b")
    worker = start(partial(queue.work, threads=2, wait=True))
    await_true(lambda: ran.count("b") == 20)
    assert ran.count("a") == 0
    is_free.set()
    await_true(lambda: sum(queue.counts().values()) == 0)
    queue.stop()
    worker.join(60)


def test_starts_per_period(make_queue: MakeQueue) -> None:
    queue = make_queue()
    claimed: list[float] = []

    def handle(job: JobInHand) -> None:
        [row] = queue.store.get([job.id])
        assert row.lease_until is not None
        claimed.append(row.lease_until - row.ttr)
        job.delete()

    queue.add_handler("t", handle)
    queue.add_handler("u", lambda job: job.delete())
    queue.limit("t", starts=5, period=0.5)
    queue.limit("u", starts=5, period=3600)
    queue.add_jobs("u", range(12))
    assert queue.run_jobs().count == 5
    assert queue.counts("u")["held"] == 7
    queue.add_jobs("t", range(12))
    run_in_threads([queue], lambda: len(claimed) == 12)
    # By the times of the claims, which the store keeps; a claim that waits for its lock leases from a little later.
    claimed.sort()
    for first, sixth in zip(claimed, claimed[5:], strict=False):
        assert sixth - first > 0.5 - 0.05


def test_better_priority_first_then_first_added(make_queue: MakeQueue) -> None:
    queue = make_queue()
    queue.limit("t", running=1)
    seen: list[Any] = []

    def handle(job: JobInHand) -> None:
        if job.payload == "blocker":
            other = make_queue()
            other.limit("t", running=1)
            other.add_handler("t", handle)
            for payload, priority in (("low", "low"), ("a", "normal"), ("b", "normal"), ("urgent", "urgent")):
                other.add_job("t", payload, priority=priority)
            assert other.run_jobs().count == 0
        seen.append(job.payload)
        job.delete()

    queue.add_handler("t", handle)
    queue.add_job("t", "blocker")
    queue.run_jobs()
    assert seen == ["blocker", "urgent", "a", "b", "low"]


def test_other_types_are_not_starved_by_a_full_one(make_queue: MakeQueue) -> None:
    queue = make_queue()
    seen: list[str] = []
    queue.limit("full", starts=1, period=3600)
    for type in ("full", "free"):
        queue.add_handler(type, lambda job: (seen.append(job.type), job.delete()))
    queue.add_jobs("full", range(3000), priority="urgent")
    queue.add_jobs("free", range(50), priority="bulk")
    queue.run_jobs()
    assert Counter(seen) == {"full": 1, "free": 50}
    assert queue.counts("full")["held"] == 2999


def test_held_jobs_are_let_in_once_their_type_has_no_limits_any_more(make_queue: MakeQueue) -> None:
    before = make_queue()
    before.limit("t", starts=1, period=3600)
    before.add_handler("t", lambda job: job.delete())
    before.add_jobs("t", range(5))
    assert before.run_jobs().count == 1
    after = make_queue()
    after.add_handler("t", lambda job: job.delete())
    assert after.run_jobs().count == 4


def test_a_retry_an_unget_and_a_failure_free_the_place(make_queue: MakeQueue) -> None:
    queue = make_queue(retry_delay=600)
    queue.limit("t", running=1)
    acts = {
        "retry": lambda job: job.retry("again", delay=600),
        "unget": lambda job: job.unget(delay=600),
        "raise": lambda job: 1 / 0,
        "last": lambda job: job.delete(),
    }
    seen: list[Any] = []
    queue.add_handler("t", lambda job: (seen.append(job.payload), acts[job.payload](job)))
    queue.add_jobs("t", list(acts))
    queue.run_jobs()
    assert seen == list(acts)


def test_an_operators_look(make_queue: MakeQueue) -> None:
    queue = make_queue()
    queue.limit("t", starts=1, period=3600)
    queue.add_handler("t", lambda job: job.delete())
    first, second = queue.add_jobs("t", [1, 2])
    queue.run_jobs()
    assert queue.get_job(first) is None
    job = queue.get_job(second)
    assert job is not None
    assert job.state == "held"
    assert [job.id for job in queue.jobs("t", state="held")] == [second]
    assert queue.delete_job(second)


WORKER = """
import os, sys, time
from kqueue import KQueue

queue = KQueue(store=sys.argv[1], broker=sys.argv[2] or None, sweep_interval=0.5)
queue.limit("t", running=1)

@queue.handler("t")
def handle(job):
    print("begun", flush=True)
    time.sleep(600)

queue.run_jobs(wait=True)
"""


@pytest.mark.parametrize("place", ["sqlite", "beanstalkd", "mongod"])
def test_a_worker_that_dies_gives_its_place_back_with_its_lease(
    place: str, request: pytest.FixtureRequest, tmp_path: Path, closes: Closes
) -> None:
    store, broker = f"sqlite:///{tmp_path}/jobs.db", ""
    if place == "beanstalkd":
        server: Beanstalkd = request.getfixturevalue("beanstalkd")
        broker = server.url
    elif place == "mongod":
        mongod: Mongod = request.getfixturevalue("mongod")
        store = mongod.url(request.getfixturevalue("mongo_database"))
    clock = ManualClock(time.time())  # that of the worker goes on by itself
    here = MongoStore(store, clock=clock) if place == "mongod" else SqliteStore(tmp_path / "jobs.db", clock=clock)
    queue = closes(KQueue.from_parts(assemble(here, broker or None, clock=clock)))
    queue.limit("t", running=1)
    queue.add_job("t", "dies", ttr=600)
    with subprocess.Popen([sys.executable, "-c", WORKER, store, broker], stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"begun\n"
        queue.add_handler("t", lambda job: job.delete())
        queue.add_job("t", "waits")
        assert queue.run_jobs().count == 0
        worker.send_signal(signal.SIGKILL)
    clock.advance(900)
    queue.sweep()
    run_in_threads([queue], lambda: sum(queue.counts().values()) == 0)


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({}, "limit: give at least one of running, running_per_key, starts"),
        ({"running": 0}, "running: at least 1, got 0"),
        ({"running_per_key": -1}, "running_per_key: at least 1, got -1"),
        ({"starts": 1.5}, "starts: expected an integer, at least 1, got 1.5"),
        ({"starts": 1, "period": 0}, "period: a finite number, at least 0.001, got 0"),
        ({"starts": 1, "period": 86_401}, r"period: at most 86400 seconds \(a day\), got 86401"),
    ],
)
def test_bad_limits_are_refused_by_name(limits: dict[str, Any], said: str) -> None:
    queue = KQueue(store="memory:")
    with pytest.raises((ValueError, TypeError), match=said):
        queue.limit("t", **limits)


def test_limits_are_given_once() -> None:
    queue = KQueue(store="memory:")
    queue.limit("t", running=1)
    with pytest.raises(ValueError, match="type: t has limits already; give all of them in one call"):
        queue.limit("t", starts=1)
    assert queue._parts.limiter.limit_of("t") == Limit("t", running=1)
