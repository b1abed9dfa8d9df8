"""Schedules: any number of workers, each tick added once, by the clock of the store."""

import subprocess
import sys
import threading
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from kqueue import AddFailed, JobInHand, KQueue
from kqueue.assembly import assemble
from kqueue.contracts.intake import Tick
from kqueue.model.schedule import MOST_TICKS, Schedule
from kqueue.stores.memory.store import MemoryStore
from kqueue.stores.sqlite.store import SqliteStore
from kqueue.system.clock import ManualClock
from kqueue.upkeep.cron import LONGEST_LOOK_S
from tests.beanstalkd import Beanstalkd
from tests.closing import Closes
from tests.flows.conftest import MakeQueue
from tests.mongod import Mongod
from tests.tubes import PATIENCE_S, await_true

NOON = datetime(2026, 5, 1, 12, tzinfo=ZoneInfo("UTC")).timestamp()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOON)


@pytest.fixture(params=["memory", "sqlite"])
def timed(  # type: ignore[no-untyped-def]
    request: pytest.FixtureRequest, clock: ManualClock, tmp_path: Path, closes: Closes
):
    """Makes queues on one store, whose clock is turned by hand."""
    memory = MemoryStore(clock)

    def make() -> KQueue:
        store = memory if request.param == "memory" else SqliteStore(tmp_path / "jobs.db", clock=clock)
        return closes(KQueue.from_parts(assemble(store, clock=clock)))

    return make


def ticks_of(queue: KQueue) -> list[float]:
    """The ticks, in minutes after noon, of the jobs that run now."""
    seen: list[float] = []
    if not queue.types():
        queue.add_handler("tidy", lambda job: None)
    queue.remove_handler("tidy")
    queue.add_handler("tidy", lambda job: (seen.append((job.scheduled_for - NOON) / 60), job.delete()))
    queue.run_jobs()
    return seen


def test_a_tick_becomes_a_job_when_its_time_has_come(timed, clock: ManualClock) -> None:  # type: ignore[no-untyped-def]
    queue = timed()
    queue.add_cron("*/5 * * * *", "tidy", {"deep": True}, priority="high", ttr=7)
    seen: list[JobInHand] = []
    queue.add_handler("tidy", lambda job: (seen.append(job), job.delete()))
    assert queue.run_jobs().count == 0  # it begins now
    clock.advance(299)
    assert queue.run_jobs().count == 0
    clock.advance(1)
    assert queue.run_jobs().count == 1
    [job] = seen
    assert (job.payload, job.priority, job.ttr, job.scheduled_for) == ({"deep": True}, 2**14, 7.0, NOON + 300)
    assert queue.run_jobs().count == 0


def test_each_tick_is_added_once_by_any_number_of_workers(timed, clock: ManualClock) -> None:  # type: ignore[no-untyped-def]
    queues = [timed() for _ in range(4)]
    for queue in queues:
        queue.add_cron("* * * * *", "tidy")
        assert ticks_of(queue) == []
    for minute in range(1, 4):
        clock.advance(60)
        assert [tick for queue in queues for tick in ticks_of(queue)] == [minute]


def test_the_last_tick_outlives_its_job_and_its_process(timed, clock: ManualClock) -> None:  # type: ignore[no-untyped-def]
    first = timed()
    first.add_cron("0 * * * *", "tidy")
    ticks_of(first)
    clock.advance(3600)
    assert ticks_of(first) == [60]
    later = timed()
    later.add_cron("0 * * * *", "tidy")
    assert ticks_of(later) == []
    clock.advance(3600)
    assert ticks_of(later) == [120]


@pytest.mark.parametrize(("missed", "expected"), [("none", []), ("last", [180]), ("all", [60, 120, 180])])
def test_missed_ticks(timed, clock: ManualClock, missed: str, expected: list[int]) -> None:  # type: ignore[no-untyped-def]
    queue = timed()
    queue.add_cron("0 * * * *", "tidy", missed=missed)
    ticks_of(queue)
    clock.advance(3.5 * 3600)
    assert ticks_of(queue) == expected
    clock.advance(1800)
    assert ticks_of(queue) == [240]


def test_a_look_computes_only_what_is_due(timed, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    """However many schedules wait for the end of the month."""
    queue = timed()
    for number in range(300):
        queue.add_cron("0 0 1 * *", "tidy", name=f"monthly {number}")
    queue.add_cron("* * * * *", "tidy", name="each minute")
    assert ticks_of(queue) == []
    computed: list[float] = []
    ticks_after = Schedule.ticks_after
    monkeypatch.setattr(
        Schedule, "ticks_after", lambda plan, moment: computed.append(moment) or ticks_after(plan, moment)
    )
    for minute in range(1, 6):
        clock.advance(60)
        assert ticks_of(queue) == [minute]
    assert len(computed) <= 5 * 5


def test_what_was_missed_comes_in_lots_between_which_a_run_looks_at_its_limits(timed, clock: ManualClock) -> None:  # type: ignore[no-untyped-def]
    queue = timed()
    queue.add_cron("* * * * *", "tidy", missed="all")
    assert ticks_of(queue) == []
    clock.advance(60 * 2500)
    queue.remove_handler("tidy")
    queue.add_handler("tidy", JobInHand.delete)
    assert queue.run_jobs(count_limit=1).count == 1
    assert sum(queue.counts().values()) in {MOST_TICKS - 1, 2 * MOST_TICKS - 1}
    assert queue.run_jobs().count == 2500 - 1


def test_several_schedules_of_one_type_have_names(timed, clock: ManualClock) -> None:  # type: ignore[no-untyped-def]
    queue = timed()
    queue.add_cron("0 * * * *", "tidy", name="hourly")
    queue.add_cron("30 * * * *", "tidy", name="half past")
    ticks_of(queue)
    clock.advance(3600)
    assert sorted(ticks_of(queue)) == [30, 60]  # of those that each missed, the last
    assert set(queue.store.last_ticks()) == {"hourly", "half past"}


def test_a_schedule_with_its_handler_in_one(timed, clock: ManualClock) -> None:  # type: ignore[no-untyped-def]
    queue = timed()
    seen: list[str] = []

    @queue.cron("*/5 * * * *", tz="Europe/Berlin")
    def tidy(job: JobInHand) -> None:
        seen.append(job.type)
        job.delete()

    @queue.cron("*/5 * * * *", type="other", delete_on_success=True)
    def whatever(job: JobInHand) -> None:
        seen.append(job.type)

    queue.run_jobs()
    clock.advance(300)
    queue.run_jobs()
    assert sorted(seen) == ["other", "tidy"]


def test_a_schedule_that_cannot_be_added_loses_no_tick_and_holds_up_no_other_and_no_job(  # type: ignore[no-untyped-def]
    timed, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = timed()
    queue.add_cron("* * * * *", "refused", missed="all")
    queue.add_cron("* * * * *", "tidy")
    ticks_of(queue)
    add_tick = queue.store.add_tick

    def refuse(tick: Tick, rows: Any) -> bool:
        if tick.schedule == "refused":
            raise AddFailed("the disk is full", not_taken=[row.id for row in rows])
        return bool(add_tick(tick, rows))

    with monkeypatch.context() as patch:
        patch.setattr(queue.store, "add_tick", refuse)
        queue.add_job("tidy")
        clock.advance(60)
        assert len(ticks_of(queue)) == 2
        assert ticks_of(queue) == []
    clock.advance(60)
    queue.run_jobs()
    assert queue.counts("refused")["ready"] == 2


def test_a_clock_that_was_ahead_silences_no_schedule(timed, clock: ManualClock, caplog: Any) -> None:  # type: ignore[no-untyped-def]
    queue = timed()
    clock.jump(365 * 86_400)
    queue.add_cron("* * * * *", "tidy")
    ticks_of(queue)
    clock.jump(-365 * 86_400)
    clock.advance(60)
    assert ticks_of(queue) == []
    assert "the clock was ahead: tidy begins again now" in caplog.text
    clock.advance(60)
    assert ticks_of(queue) == [2]


def look_again(clock: ManualClock) -> None:
    """A minute passes, after which every process looks at its schedules, and the time of day is what it was."""
    clock.advance(LONGEST_LOOK_S)
    clock.jump(-LONGEST_LOOK_S)


def minutes(queue: KQueue, clock: ManualClock, count: int) -> list[float]:
    """What runs in each of the next minutes."""
    ran: list[float] = []
    for _ in range(count):
        clock.advance(60)
        ran += ticks_of(queue)
    return ran


#: An hour ahead and back. ``last`` adds the ticks of the last minute, ``all`` each of them, ``none`` those of the
#: last minute too, since these are not missed.
@pytest.mark.parametrize(
    ("missed", "ahead", "later"),
    [
        ("last", [60.0], [*range(1, 60), 61]),
        ("none", [60.0], [*range(1, 60), 61]),
        ("all", list(range(1, 61)), [61]),
    ],
)
def test_ticks_that_a_clock_ahead_has_added_are_not_added_again_and_those_in_between_are(  # type: ignore[no-untyped-def]
    timed, clock: ManualClock, missed: str, ahead: list[float], later: list[int]
) -> None:
    queue, other = timed(), timed()
    for one in (queue, other):
        one.add_cron("* * * * *", "tidy", missed=missed)
        ticks_of(one)
    clock.jump(3600)
    look_again(clock)  # by the other process
    assert ticks_of(other) == ahead
    clock.jump(-3600)
    assert minutes(queue, clock, 61) == later
    assert ticks_of(other) == []


@pytest.mark.parametrize("missed", ["last", "all"])
def test_a_clock_that_steps_to_and_fro_adds_each_tick_once(timed, clock: ManualClock, missed: str) -> None:  # type: ignore[no-untyped-def]
    queue = timed()
    queue.add_cron("* * * * *", "tidy", missed=missed)
    ran = ticks_of(queue)
    for jump in (1200, -1200, 600, -600, 1800, -1800, 7200, -7200, -600, 600, -30, 30):
        clock.jump(jump)
        look_again(clock)
        ran += ticks_of(queue) + minutes(queue, clock, 3)
    assert len(ran) == len(set(ran)), "twice"
    if missed == "all":
        assert sorted(ran) == [float(minute) for minute in range(1, len(ran) + 1)]
    spans = queue.store.added_ticks()["tidy"]
    assert len(spans) < 10
    assert list(spans) == sorted(spans)


def test_a_schedule_of_an_older_kqueue_knows_its_last_tick(timed, clock: ManualClock) -> None:  # type: ignore[no-untyped-def]
    queue = timed()
    queue.store.add_tick(Tick("tidy", None, NOON + 180), [])
    queue.add_cron("* * * * *", "tidy")
    assert ticks_of(queue) == []
    assert minutes(queue, clock, 5) == [1, 2, 4, 5]


def test_a_job_is_for_its_tick_whatever_becomes_of_it(timed, clock: ManualClock) -> None:  # type: ignore[no-untyped-def]
    """A nightly job that succeeds in the end, after midnight, works on its own day."""
    queue = timed()
    queue.add_cron("*/5 * * * *", "tidy", {"nightly": True})
    seen: list[tuple[float, float]] = []
    ends = [
        lambda job: job.retry("no disk", delay=7200),
        lambda job: job.unget(delay=86_400),
        lambda job: job.unget(),
        lambda job: job.delete(),
    ]

    def handle(job: JobInHand) -> None:
        seen.append((job.scheduled_for, job.run_at))
        ends[len(seen) - 1](job)

    queue.add_handler("tidy", handle)
    queue.run_jobs()
    clock.advance(300)
    queue.run_jobs()
    queue.remove_handler("tidy")
    queue = timed()  # without the schedule
    [job] = queue.jobs("tidy", state="delayed")
    assert (job.scheduled_for, job.run_at) == (NOON + 300, NOON + 300 + 7200)
    queue.add_handler("tidy", handle)
    for _ in range(3):
        clock.advance(86_400)
        queue.sweep()
        queue.run_jobs()
    assert [when for when, _ in seen] == [NOON + 300] * 4
    assert seen[0][1] < seen[1][1] < seen[2][1]


def test_a_job_that_was_only_delayed_is_for_the_time_that_was_asked_for(timed, clock: ManualClock) -> None:  # type: ignore[no-untyped-def]
    queue = timed()
    now, later = (queue.get_job(queue.add_job("t", delay=delay)) for delay in (0, 90))
    assert now is not None
    assert later is not None
    assert (now.scheduled_for, later.scheduled_for) == (NOON, NOON + 90)
    queue.add_handler("t", lambda job: job.retry("again", delay=1000) if job.id == now.id else job.delete())
    queue.run_jobs()
    again = queue.get_job(now.id)
    assert again is not None
    assert (again.scheduled_for, again.run_at) == (NOON, NOON + 1000)


def test_a_decorated_handler_that_is_refused_leaves_no_schedule(closes: Closes) -> None:
    parts = assemble("memory:")
    queue = closes(KQueue.from_parts(parts))
    queue.add_handler("tidy", lambda job: None)
    with pytest.raises(ValueError, match="type: tidy has a handler already"):

        @queue.cron("* * * * *")
        def tidy(job: JobInHand) -> None:
            pass

    assert parts.cron.jobs() == []


@pytest.mark.parametrize("name", ["", "\ud800", 5])
def test_a_name_that_no_store_could_keep_is_refused(name: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="name: "):
        KQueue(store="memory:").add_cron("* * * * *", "t", name=name)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"expression": "every day"}, "expression: expected 'minute hour"),
        ({"tz": "Europe/Berln"}, "tz: no time zone 'Europe/Berln'; did you mean Europe/Berlin"),
        ({"missed": "some"}, "missed: one of none, last, all"),
        ({"type": "no\ttype"}, "type: printable"),
        ({"payload": {1, 2}}, "payload: set has no form in JSON"),
        ({"priority": "soon"}, "priority: one of"),
        ({"ttr": 0}, "ttr: a finite number, at least 1"),
    ],
)
def test_bad_input_is_refused_by_name(arguments: dict[str, Any], said: str) -> None:
    parts = assemble("memory:")
    with pytest.raises((ValueError, TypeError), match=said):
        KQueue.from_parts(parts).add_cron(**{"expression": "* * * * *", "type": "t", **arguments})
    assert parts.cron.jobs() == []


def test_a_name_is_given_once() -> None:
    queue = KQueue(store="memory:")
    queue.add_cron("* * * * *", "t")
    with pytest.raises(ValueError, match="name: there is a schedule 't' already; give another name"):
        queue.add_cron("0 * * * *", "t")


#: Runs the jobs of a schedule that ticks each second, in several processes: until there is a file, then the rest.
WORKER = """
import os, sys
from kqueue import KQueue

queue = KQueue(store=sys.argv[1], broker=sys.argv[2] or None)

@queue.cron("* * * * * *", missed="all")
def tick(job):
    ledger.write(f"{job.scheduled_for:.0f}\\n")
    ledger.flush()
    job.delete()

with queue, open(sys.argv[3], "a") as ledger:
    while not os.path.exists(sys.argv[4]):
        queue.run_jobs(time_limit_ms=500, wait=True)
    queue.run_jobs()
"""


@pytest.mark.parametrize("place", ["sqlite", "beanstalkd", "mongod"])
def test_many_processes_add_and_run_each_second_once(
    place: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    store, broker = f"sqlite:///{tmp_path}/jobs.db", ""
    if place == "beanstalkd":
        server: Beanstalkd = request.getfixturevalue("beanstalkd")
        broker = server.url
    elif place == "mongod":
        mongod: Mongod = request.getfixturevalue("mongod")
        store = mongod.url(request.getfixturevalue("mongo_database"))
    ledger = tmp_path / "ledger"
    ledger.touch()
    enough = tmp_path / "enough"
    command = [sys.executable, "-c", WORKER, store, broker, str(ledger), str(enough)]
    workers = [subprocess.Popen(command) for _ in range(4)]
    try:
        await_true(lambda: len(ledger.read_text().split()) >= 4)
    finally:
        enough.touch()
        ended = [worker.wait(PATIENCE_S) for worker in workers]
    assert ended == [0] * 4
    subprocess.run(command, check=True, timeout=PATIENCE_S)  # what one has put back
    ticks = sorted(map(int, ledger.read_text().split()))
    assert set(Counter(ticks).values()) == {1}
    assert ticks == list(range(ticks[0], ticks[-1] + 1))


def test_a_long_handler_holds_up_no_schedule_while_the_loop_waits(make_queue: MakeQueue) -> None:
    queue, elsewhere = make_queue(), make_queue()
    begun, end = threading.Event(), threading.Event()
    queue.add_handler("long", lambda job: (begun.set(), end.wait(60), job.delete()))
    queue.add_cron("* * * * * *", "tick")
    queue.add_job("long")
    loop = threading.Thread(target=queue.run_jobs, kwargs={"wait": True})
    loop.start()
    assert begun.wait(60)
    try:
        await_true(lambda: elsewhere.counts("tick")["ready"] >= 1)
    finally:
        end.set()
        queue.stop()
        loop.join(60)
