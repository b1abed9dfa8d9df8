"""Processes that freeze, race and die: at most one holder finishes a job, and only the guilty are blamed.

The store's clock is turned by hand, and the processes are real: a child that was forked keeps the time of its fork,
as one that was frozen does.
"""

import math
import signal
from collections import Counter
from pathlib import Path

import pytest

from kqueue import JobInHand, KQueue, LeaseLost
from kqueue.contracts.broker import Peek, Pointer
from kqueue.contracts.rules import GRACE_S
from kqueue.model.job import Row
from kqueue.system.clock import ManualClock
from tests.beanstalkd import Beanstalkd
from tests.faults.conftest import TTR_S, House
from tests.faults.forks import Forked, Wire
from tests.faults.sites import MONGOD, SQLITE, abandon, assert_over, entries_left, house_at
from tests.flows.processes import KILLED, die, run_in_child
from tests.shop import Shop


@pytest.fixture(params=[*SQLITE, *MONGOD])
def house(request: pytest.FixtureRequest) -> House:
    return house_at(request.param, request)


def the_row(house: House, id: str) -> Row:
    (row,) = house.queue.store.get([id])
    return row


# -- a worker frozen past its lease ------------------------------------------------------------------------

#: What a late holder may try.
ACTS = {
    "delete": JobInHand.delete,
    "retry": lambda job: job.retry("late"),
    "unget": lambda job: job.unget(priority=0),
    "renew": JobInHand.renew,
}


@pytest.mark.parametrize("act", ACTS)
def test_a_worker_frozen_past_its_lease_comes_back_and_changes_nothing(house: House, act: str) -> None:
    """The next holder has the job in hand when the first one wakes, and finishes it."""
    late = house.another(settle_ms=0)  # so that its acts say that they are late
    said: list[str] = []
    (id,) = house.add("contested")

    def work(wire: Wire) -> None:
        def handle(job: JobInHand) -> None:
            house.ran(job)
            wire.say("in hand")
            wire.hear()
            try:
                ACTS[act](job)
            except LeaseLost as error:
                wire.say(f"LeaseLost {error.job_id} {error.fence}")
            else:
                wire.say("not told")

        late.add_handler("t", handle)
        report = late.run_jobs(count_limit=1)
        wire.say(f"count {report.count}, lost {report.lost_lease}, deleted {report.deleted}")
        late.close()

    def take_over(job: JobInHand) -> None:
        house.ran(job)
        before = the_row(house, id)
        frozen.thaw()
        frozen.wire.say("go on")
        said.extend([frozen.wire.hear(), frozen.wire.hear()])
        assert the_row(house, id) == before
        assert (before.state, before.fence) == ("running", 2)
        job.delete()

    with Forked(work) as frozen:
        assert frozen.wire.hear() == "in hand"
        frozen.freeze()
        house.queue.remove_handler("t")
        house.queue.add_handler("t", take_over)
        house.clock.advance(TTR_S)
        assert house.queue.sweep().recovered == 1
        assert house.queue.run_jobs().deleted == 1
        assert frozen.status() == 0
    assert said == [f"LeaseLost {id} 1", "count 1, lost 1, deleted 0"]
    assert_over(house, more_runs=1)


def test_a_worker_frozen_in_a_window_of_many_settles_none_of_what_others_took(house: House) -> None:
    """It goes on with its window as if no time had passed. Of two runs of a job one counts."""
    late = house.another()
    ids = house.add(*range(12))
    at_risk: list[str] = []

    def work(wire: Wire) -> None:
        def handle(job: JobInHand) -> None:
            house.ran(job)
            if job.payload == 4:
                late.flush()  # so that it is known what is settled
                wire.say("in hand")
                wire.hear()
            job.delete()

        late.add_handler("t", handle)
        report = late.run_jobs()
        wire.say(str(report.deleted))
        late.close()

    with Forked(work) as frozen:
        assert frozen.wire.hear() == "in hand"
        frozen.freeze()
        at_risk += [row.id for row in house.queue.store.get(ids) if row.state == "running"]
        house.clock.advance(TTR_S)
        assert house.queue.sweep().recovered == len(at_risk)
        report = house.queue.run_jobs()
        frozen.thaw()
        frozen.wire.say("go on")
        assert int(frozen.wire.hear()) + report.deleted == len(ids)
        assert frozen.status() == 0
    assert at_risk
    assert {id for id, count in Counter(run.id for run in house.runs()).items() if count > 1} <= set(at_risk)
    assert_over(house, more_runs=len(at_risk))


# -- two workers, one row ----------------------------------------------------------------------------------


def test_of_two_processes_that_claim_the_same_row_one_has_it_each_time(house: House) -> None:
    """One job at a time, so that both are after the same one; in a tube it has an entry for each of them."""
    queue = house.queue
    ids = house.add(*range(100))
    if queue.broker.carries_pointers:
        for row in queue.store.get(ids):
            queue.broker.put([(Pointer("t", row.priority, row.put_at or 0.0, (row.id,)), 0.0)])

    def work(wire: Wire) -> None:
        worker = house.another("t")
        worker.open()
        wire.say("ready")
        wire.hear()
        wire.say(str(sum(iter(lambda: worker.run_jobs(count_limit=1).count, 0))))
        worker.close()

    with Forked(work) as one, Forked(work) as other:
        for worker in (one, other):
            assert worker.wire.hear() == "ready"
        for worker in (one, other):
            worker.wire.say("go")
        counts = [int(worker.wire.hear()) for worker in (one, other)]
        assert [one.status(), other.status()] == [0, 0]
    assert sum(counts) == len(ids)
    # Its fence may be higher: who waits too long for a processor gives back what it has claimed, unrun.
    assert sorted(run.id for run in house.runs()) == sorted(ids)
    assert_over(house)


# -- a job that kills its process --------------------------------------------------------------------------


def test_a_poison_job_among_200_innocent_dies_alone_and_no_innocent_does(
    house: House, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Deaths: one in the window of all, at most one in a window of a sixteenth and one in a pair, and then
    ``max_crashes`` alone. All innocent are done by then: those that stand behind it last.
    """
    # No window is smaller, or settled sooner, because this machine is slow.
    monkeypatch.setattr("kqueue.loops.sizer.WORK_S", 60.0)
    monkeypatch.setattr("kqueue.loops.sizer.MOST_AHEAD_S", 60.0)
    monkeypatch.setattr("kqueue.execution.concurrent_jobs.BOUND_S", 60.0)
    worker = house.another(settle_ms=60_000)
    together: list[Row] = []
    left: list[tuple[int, int]] = []
    at_risk = 0

    def handle(job: JobInHand) -> None:
        if job.payload == "poison":
            die()
        house.handle(job)

    worker.add_handler("t", handle)
    house.add(*["warm"] * 100, priority=0)  # windows grow with these, so that the first one behind them holds all
    payloads = ["innocent"] * 100 + ["poison"] + ["innocent"] * 100
    ids = house.queue.add_jobs("t", payloads, ttr=TTR_S)
    before, poison, behind = ids[:100], ids[100], ids[101:]
    for id in (*before, *behind):
        house.acknowledged(id, "innocent")
    while run_in_child(worker.run_jobs) == KILLED:
        left.append((len(house.queue.store.get(before)), len(house.queue.store.get(behind))))
        assert len(left) <= 6
        in_hand = house.queue.store.find("t", "running", None, 1000)
        together = together or in_hand
        at_risk += len(in_hand)
        house.clock.advance(TTR_S + GRACE_S)
        house.queue.sweep()
    with capsys.disabled():
        print(f" [dead after {len(left)} deaths; innocent left at each, before and behind it: {left}]", end="")
    assert set(ids) <= {row.id for row in together}
    assert len({row.lease_owner for row in together}) == 1
    job = house.queue.get_job(poison)
    assert job is not None
    assert (job.state, job.crashes) == ("dead", 3)
    assert house.queue.counts("t") == {"delayed": 0, "ready": 0, "held": 0, "running": 0, "dead": 1, "done": 0}
    assert 1 + job.crashes <= len(left) <= 3 + job.crashes
    assert house.queue.delete_job(poison)
    assert_over(house, more_runs=at_risk)


# -- cron runs only ----------------------------------------------------------------------------------------

#: Run by cron. Its clock is the one that the test has written into a file.
CRON = """
import json, os, signal
from pathlib import Path
from kqueue import KQueue
from kqueue.system.clock import ManualClock
from kqueue.stores.sqlite.store import SqliteStore

clock = ManualClock(float(Path("clock").read_text()))
queue = KQueue(store=SqliteStore("jobs.db", clock=clock), broker=os.environ.get("CRON_BROKER"), sweep_interval=15)

@queue.handler("t")
def handle(job):
    with open("jobs/cron.ledger", "a") as ledger:
        ledger.write(json.dumps({"what": "run", "id": job.id, "fence": job.fence, "payload": job.payload}) + "\\n")
    if os.environ.get("CRASHES_AT") == str(job.payload):
        os.kill(os.getpid(), signal.SIGKILL)
    job.delete()
"""
#: Seconds between two runs.
EVERY_S = 15.0
#: Seconds that a job of these may run.
CRON_TTR_S = 30.0
#: Runs until every lease is over, the grace too, and a sweep has begun; and one that runs what it found.
REPAIRED_IN = math.ceil((CRON_TTR_S + GRACE_S + EVERY_S) / EVERY_S) + 1


@pytest.mark.parametrize("house", SQLITE, indirect=True)
def test_short_cron_runs_alone_repair_and_finish_what_a_crash_has_left(
    house: House, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """The crash left running rows, and the beanstalkd lost its memory. No worker lives longer than its 200 ms."""
    has_tubes = house.queue.broker.carries_pointers
    shop = Shop(tmp_path)
    (tmp_path / "cron.py").write_text(CRON)
    if has_tubes:
        shop.environment["CRON_BROKER"] = house.queue.broker.address

    def cron() -> int:
        house.clock.advance(EVERY_S)
        (tmp_path / "clock").write_text(str(house.clock.time()))
        return shop.kqueue("run", "--app", "cron:queue", "--time-limit-ms", "200").returncode

    house.add(*range(60), ttr=CRON_TTR_S)
    house.add("later", ttr=CRON_TTR_S, delay=2 * EVERY_S)
    shop.environment["CRASHES_AT"] = "30"
    statuses = [cron()]
    while statuses[-1] == 0:  # on a slow machine a run may end before it comes to that job
        statuses.append(cron())
        assert len(statuses) < 30
    assert statuses[-1] == -signal.SIGKILL
    at_risk = house.queue.counts("t")["running"]
    assert at_risk > 0
    del shop.environment["CRASHES_AT"]
    if has_tubes:
        request.getfixturevalue("beanstalkd").restart()
    for _ in range(REPAIRED_IN):
        assert cron() == 0
    assert house.queue.counts("t")["running"] == 0
    runs = REPAIRED_IN
    while sum(house.queue.counts("t").values()) or entries_left(house):
        assert cron() == 0
        runs += 1
        assert runs <= REPAIRED_IN + 20  # a run of 200 ms does little on a slow machine
    house.assert_even(more_runs=at_risk)


@pytest.mark.parametrize("lost", ["the pointer", "the worker"])
def test_short_cron_runs_come_to_every_type(
    beanstalkd: Beanstalkd, request: pytest.FixtureRequest, lost: str
) -> None:
    """Twenty other types wait as they should, and each look at a tube takes a tenth of a run."""
    house = house_at("sqlite+beanstalkd", request)
    for number in range(20):
        house.queue.add_job(f"another{number}")
    (id,) = house.add("ours")
    if lost == "the worker":
        abandon(house, id)
    house.queue.broker.drain("t")
    runs = 0
    while not house.runs():
        house.clock.advance(TTR_S + GRACE_S)
        cron = slow_cron(house)
        cron.run_jobs(time_limit_ms=200)
        cron.close()
        runs += 1
        assert runs < 100


def slow_cron(house: House) -> KQueue:
    """Its own time goes on by 20 ms at each look at a tube, and at nothing else."""
    hand = ManualClock()
    queue = house.another("t", clock=hand)
    peek = queue.broker.peek

    def slow_peek(type: str, **options: bool) -> Peek:
        hand.advance(0.02)
        return peek(type, **options)

    queue.broker.peek = slow_peek  # type: ignore[method-assign]
    return queue
