"""The stream of events: what a subscriber is told, in which order, and that no subscriber harms a job."""

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kqueue import (
    Added,
    AddFailed,
    BrokerUnavailable,
    Died,
    Event,
    Finished,
    GivenBack,
    JobInHand,
    KQueue,
    LostLease,
    Reconnected,
    Retried,
    RunReport,
    Started,
    Swept,
)
from kqueue.assembly import assemble
from kqueue.contracts.budget import Budget
from kqueue.contracts.runs import LeaseKey, Selection
from kqueue.stores.memory.store import MemoryStore
from kqueue.stores.sqlite.store import SqliteStore
from kqueue.system.clock import ManualClock
from kqueue.system.mint import IdMint
from tests.beanstalkd import Beanstalkd
from tests.closing import Closes
from tests.flows.conftest import MakeQueue
from tests.flows.locked import Lock
from tests.flows.processes import run_in_child
from tests.tubes import await_true

ENDS = (Finished, Retried, Died, GivenBack, LostLease)


class Listener:
    """Writes down all events but the sweeps', which come when they are due."""

    def __init__(self, queue: KQueue) -> None:
        self.events: list[Event] = []
        self.threads: dict[type[Event], set[str]] = {}
        self.end = queue.subscribe(self)

    def __call__(self, event: Event) -> None:
        if not isinstance(event, Swept):
            self.events.append(event)
            self.threads.setdefault(type(event), set()).add(threading.current_thread().name)

    def kinds(self) -> list[str]:
        return [type(event).__name__ for event in self.events]

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def each_start_has_one_end(events: Sequence[Event]) -> bool:
    """And comes before it."""
    under_way: set[tuple[str, int]] = set()
    for event in events:
        if isinstance(event, Started):
            assert (event.job_id, event.fence) not in under_way
            under_way.add((event.job_id, event.fence))
        elif isinstance(event, ENDS):
            under_way.remove((event.job_id, event.fence))
    return not under_way


# -- each event, in order -----------------------------------------------------------------------------------


def test_a_job_that_is_done(queue: KQueue) -> None:
    listener = Listener(queue)
    queue.add_handler("t", JobInHand.delete)
    before = queue.store.now()
    job_id = queue.add_job("t")
    job = queue.get_job(job_id)
    assert job is not None
    queue.run_jobs()
    added, started, finished = listener.events
    assert added == Added(job.created_at, job_id, "t", is_new=True)
    assert started == Started(started.at, job_id, "t", tries=1, fence=1)
    assert isinstance(finished, Finished)
    assert finished == Finished(finished.at, job_id, "t", 1, 1, finished.seconds)
    assert before <= added.at <= started.at <= finished.at <= queue.store.now()
    assert 0 <= finished.seconds < 60


def test_a_job_that_fails_and_is_done_at_its_second_try(make_queue: MakeQueue) -> None:
    queue = make_queue(retry_delay=0)
    listener = Listener(queue)

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        if job.tries == 1:
            raise OSError("disk on fire")
        job.delete()

    job_id = queue.add_job("t")
    queue.run_jobs()
    assert listener.kinds() == ["Added", "Started", "Retried", "Started", "Finished"]
    _, _, retried, started, finished = listener.events
    assert isinstance(retried, Retried)
    assert (retried.job_id, retried.type, retried.tries, retried.fence) == (job_id, "t", 1, 1)
    assert retried.reason.startswith("OSError: disk on fire (test_events.py:")
    assert abs(retried.run_at - retried.at) < 60
    assert isinstance(started, Started)
    assert isinstance(finished, Finished)
    assert (started.tries, started.fence, finished.tries, finished.fence) == (2, 2, 2, 2)


def test_a_job_that_dies(make_queue: MakeQueue) -> None:
    queue = make_queue(max_tries=1)
    listener = Listener(queue)
    queue.add_handler("t", lambda job: 1 / 0)
    job_id = queue.add_job("t")
    queue.run_jobs()
    assert listener.kinds() == ["Added", "Started", "Died"]
    died = listener.events[-1]
    assert isinstance(died, Died)
    assert died == Died(died.at, job_id, "t", 1, 1, died.seconds, died.reason)
    assert died.reason.startswith("ZeroDivisionError: division by zero (test_events.py:")


def test_a_job_that_its_handler_gives_back(queue: KQueue) -> None:
    listener = Listener(queue)
    queue.add_handler("t", lambda job: job.unget(delay=600))
    job_id = queue.add_job("t")
    queue.run_jobs()
    assert listener.kinds() == ["Added", "Started", "GivenBack"]
    given = listener.events[-1]
    job = queue.get_job(job_id)
    assert isinstance(given, GivenBack)
    assert job is not None
    reason = "given back by its handler"
    assert given == GivenBack(given.at, job_id, "t", 1, 1, given.seconds, reason, job.run_at)
    assert job.reason == reason
    assert job.tries == 0


def test_a_lease_that_was_lost(queue: KQueue) -> None:
    listener = Listener(queue)

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        queue.store.delete([job.id])
        job.retry("too late")

    job_id = queue.add_job("t")
    assert queue.run_jobs().lost_lease == 1
    assert listener.kinds() == ["Added", "Started", "LostLease"]
    lost = listener.events[-1]
    assert isinstance(lost, LostLease)
    assert lost == LostLease(lost.at, job_id, "t", 1, 1, lost.seconds, "retried")


def test_a_sweep_that_takes_back_what_a_dead_worker_left(queue: KQueue) -> None:
    swept: list[Event] = []
    job_id = queue.add_job("t", ttr=1)
    owner, now = IdMint().make(1)[0], queue.store.now()
    claim = queue.store.claim(Selection(("t",)), Budget(1, job_s={"t": 0.0}), owner, now, False)
    assert [row.id for row in claim.rows] == [job_id]
    queue.store.renew([LeaseKey(job_id, 1, 0.0)], now)  # its lease is over at once
    queue.subscribe(swept.append)
    report = queue.sweep()
    assert report.recovered == 1
    (event,) = swept
    assert isinstance(event, Swept)
    assert replace(event.report, seconds=0) == replace(report, seconds=0)
    assert abs(event.at - queue.store.now()) < 60


def test_a_loop_tells_of_its_own_sweeps(queue: KQueue) -> None:
    swept: list[Event] = []
    queue.add_handler("t", JobInHand.delete)
    queue.subscribe(swept.append)
    queue.run_jobs()
    assert [type(event) for event in swept] == [Swept]
    queue.run_jobs()  # not due again
    assert len(swept) == 1


def test_a_thousand_jobs_are_one_event_each(queue: KQueue) -> None:
    listener = Listener(queue)
    ids = queue.add_jobs("t", range(1000))
    assert [event.job_id for event in listener.of(Added)] == ids
    assert len({event.at for event in listener.events}) == 1
    queue.add_handler("t", JobInHand.delete)
    assert queue.run_jobs().deleted == 1000
    # Where a window took long, its watchdog's thread tells of what it settled.
    assert sorted(event.job_id for event in listener.of(Started)) == ids
    assert sorted(event.job_id for event in listener.of(Finished)) == ids
    assert each_start_has_one_end(listener.events)


def test_what_was_told_is_durable(queue: KQueue) -> None:
    """Of each event: how many rows there are when it comes."""
    left: list[tuple[str, int]] = []
    queue.add_handler("t", JobInHand.delete)
    queue.subscribe(lambda event: left.append((type(event).__name__, sum(queue.counts("t").values()))))
    queue.add_job("t")
    queue.run_jobs()
    assert [one for one in left if one[0] != "Swept"] == [("Added", 1), ("Started", 1), ("Finished", 0)]


def test_of_a_list_that_the_store_took_a_part_of_that_part_is_told(queue: KQueue) -> None:
    listener = Listener(queue)
    taken: list[str] = []
    add = queue.store.add

    def add_two(rows: Sequence[Any]) -> None:
        add(rows[:2])
        taken.extend(row.id for row in rows[:2])
        unknown = [row.id for row in rows[2:]]
        raise AddFailed("the store went away", taken=taken, unknown=unknown)

    queue.store.add = add_two  # type: ignore[method-assign]
    with pytest.raises(AddFailed):
        queue.add_jobs("t", range(4))
    assert [event.job_id for event in listener.of(Added)] == taken


def test_jobs_that_go_back_unstarted_are_no_events(queue: KQueue) -> None:
    """A slow job overruns its window, and the watchdog's thread gives the others back; and so at a stop."""
    queue.add_handler("t", JobInHand.delete)
    queue.add_jobs("t", range(100))
    queue.run_jobs()
    queue.remove_handler("t")
    listener = Listener(queue)

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        if job.payload == "slow":
            await_true(lambda: queue.counts("t")["running"] == 1)
        if job.payload == 25:
            queue.stop()
        job.delete()

    queue.add_jobs("t", ["slow", *range(50)])
    queue.run_jobs()
    queue.run_jobs()
    assert [len(listener.of(kind)) for kind in (Added, Started, Finished)] == [51, 51, 51]
    assert len(listener.events) == 153
    assert each_start_has_one_end(listener.events)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_handler_has_its_end_told(queue: KQueue, error: type[BaseException]) -> None:
    listener = Listener(queue)

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        raise error

    queue.add_job("t")
    with pytest.raises(error):
        queue.run_jobs()
    assert listener.kinds()[1:] == ["Started", "GivenBack" if error is KeyboardInterrupt else "Retried"]


# -- leases that were lost in a window of many --------------------------------------------------------------


def test_of_many_the_one_that_lost_its_lease_is_told_by_name(queue: KQueue) -> None:
    """It is taken from the worker by a sweep, as after a long sleep, and claimed by another."""
    taken: list[str] = []

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        if job.payload == 5:
            queue.store.renew([LeaseKey(job.id, job.fence, 0.0)], queue.store.now())
            queue.store.recover(queue.store.now(), 9, 100)
            only = Selection(("t",), (job.id,))
            owner = IdMint().make(1)[0]
            claim = queue.store.claim(only, Budget(1, job_s={"t": 0.0}), owner, queue.store.now(), False)
            taken.extend(row.id for row in claim.rows)
        job.delete()

    queue.add_jobs("t", ["warm"] * 100, priority=0)
    queue.run_jobs()
    listener = Listener(queue)
    queue.add_jobs("t", range(20))
    queue.run_jobs(count_limit=20)
    assert len(taken) == 1
    assert [(event.job_id, event.outcome) for event in listener.of(LostLease)] == [(taken[0], "deleted")]
    assert len(listener.of(Finished)) == 19
    assert each_start_has_one_end(listener.events)


# -- servers that come back ---------------------------------------------------------------------------------


def test_a_beanstalkd_that_a_producer_hears_again(tmp_path: Path, beanstalkd: Beanstalkd, closes: Closes) -> None:
    queue = closes(KQueue(f"sqlite:///{tmp_path}/jobs.db", beanstalkd.url))
    listener = Listener(queue)
    queue.add_job("t")
    queue.flush()
    beanstalkd.kill()
    queue.add_job("t")
    queue.flush()
    queue.add_job("t")
    with pytest.raises(BrokerUnavailable):
        queue.sweep()
    beanstalkd.restart()
    queue.sweep()
    queue.add_job("t")
    assert listener.kinds() == ["Added"] * 3 + ["Reconnected", "Added"]
    event = listener.of(Reconnected)[0]
    assert event.server == beanstalkd.url
    assert event.seconds > 0


def test_a_beanstalkd_that_a_worker_hears_again_is_told_once(
    tmp_path: Path, beanstalkd: Beanstalkd, caplog: Any, closes: Closes
) -> None:
    caplog.set_level("INFO")
    queue = closes(KQueue(f"sqlite:///{tmp_path}/jobs.db", beanstalkd.url))
    listener = Listener(queue)
    queue.add_handler("t", JobInHand.delete)
    loops = [threading.Thread(target=queue.run_jobs, kwargs={"wait": True}) for _ in range(2)]
    for loop in loops:
        loop.start()
    queue.add_job("t")
    await_true(lambda: len(listener.of(Finished)) == 1)
    beanstalkd.kill()
    queue.add_job("t")
    await_true(lambda: len(listener.of(Finished)) == 2)
    beanstalkd.restart()
    await_true(lambda: listener.of(Reconnected) != [])
    queue.stop()
    for loop in loops:
        loop.join(30)
    assert [event.server for event in listener.of(Reconnected)] == [beanstalkd.url]
    assert f"{beanstalkd.url} is back after" in caplog.text


def test_an_observer_of_a_broker_that_is_back_may_add_a_job(
    tmp_path: Path, beanstalkd: Beanstalkd, closes: Closes
) -> None:
    """It is called with no lock held: to add a job rings the same wakeup."""
    queue = closes(KQueue(f"sqlite:///{tmp_path}/jobs.db", beanstalkd.url))
    queue.add_job("t")
    queue.flush()
    beanstalkd.kill()
    queue.add_job("t")
    queue.close()
    beanstalkd.restart()
    listener = Listener(queue)
    queue.subscribe(lambda event: queue.add_job("alert") if isinstance(event, Reconnected) else None)
    await_true(lambda: bool(queue.add_job("t") and listener.of(Reconnected)))
    await_true(lambda: queue.counts("alert")["ready"] == 1)
    queue.close()


def test_a_store_that_a_worker_hears_again(tmp_path: Path, caplog: Any, closes: Closes) -> None:
    queue = closes(KQueue(store=SqliteStore(tmp_path / "jobs.db", busy_timeout=0.1)))
    listener = Listener(queue)
    queue.add_handler("t", JobInHand.delete)
    queue.add_job("t")
    queue.sweep()  # so that none is due
    lock = closes(Lock(tmp_path / "jobs.db"))
    lock.take()
    loop = threading.Thread(target=queue.run_jobs, kwargs={"wait": True, "count_limit": 1})
    loop.start()
    await_true(lambda: "trying again" in caplog.text)
    assert listener.of(Reconnected) == []
    lock.free()
    loop.join(30)
    assert listener.kinds() == ["Added", "Reconnected", "Started", "Finished"]
    assert listener.of(Reconnected)[0].server == queue.store.address


def test_a_store_that_goes_away_while_a_job_runs_is_told_before_the_jobs_end(
    tmp_path: Path, caplog: Any, closes: Closes
) -> None:
    queue = closes(KQueue(store=SqliteStore(tmp_path / "jobs.db", busy_timeout=0.1)))
    listener = Listener(queue)
    lock = closes(Lock(tmp_path / "jobs.db"))

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        lock.take()
        job.delete()

    queue.add_job("t")
    reports: list[RunReport] = []
    loop = threading.Thread(target=lambda: reports.append(queue.run_jobs(wait=True, count_limit=1)))
    loop.start()
    await_true(lambda: "trying again" in caplog.text)
    lock.free()
    loop.join(30)
    assert [report.deleted for report in reports] == [1]
    assert listener.kinds() == ["Added", "Started", "Reconnected", "Finished"]


def test_a_store_that_an_idle_worker_hears_again_is_told_by_its_sweep(
    tmp_path: Path, caplog: Any, closes: Closes
) -> None:
    queue = closes(KQueue(store=SqliteStore(tmp_path / "jobs.db", busy_timeout=0.1), sweep_interval=0.5))
    listener = Listener(queue)
    queue.add_handler("t", JobInHand.delete)
    queue.open()
    lock = closes(Lock(tmp_path / "jobs.db"))
    lock.take()
    loop = threading.Thread(target=queue.run_jobs, kwargs={"wait": True})
    loop.start()
    await_true(lambda: "trying again" in caplog.text)
    lock.free()
    await_true(lambda: listener.kinds() == ["Reconnected"])
    queue.stop()
    loop.join(30)


# -- observers ----------------------------------------------------------------------------------------------


def test_one_that_raises_harms_no_job_and_is_logged_once_for_each_kind(queue: KQueue, caplog: Any) -> None:
    def broken(event: Event) -> None:
        raise {Added: KeyError, Finished: KeyError}.get(type(event), RuntimeError)("out of order")

    queue.subscribe(broken)
    listener = Listener(queue)
    queue.add_handler("t", JobInHand.delete)
    queue.add_jobs("t", range(300))
    report = queue.run_jobs()
    assert (report.count, report.deleted, report.retried) == (300, 300, 0)
    assert sum(queue.counts().values()) == 0
    assert Counter(listener.kinds()) == {"Added": 300, "Started": 300, "Finished": 300}
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert sorted(error.split("raised ")[1].split()[0] for error in errors) == ["KeyError", "RuntimeError"]


def test_one_may_unsubscribe_itself_and_another_is_told_all(queue: KQueue) -> None:
    first: list[Event] = []

    def until_it_starts(event: Event) -> None:
        if isinstance(event, Started):
            first.append(event)
            assert queue.unsubscribe(until_it_starts)

    queue.subscribe(until_it_starts)
    listener = Listener(queue)
    queue.add_handler("t", JobInHand.delete)
    queue.add_jobs("t", range(50))
    queue.run_jobs()
    assert first == listener.of(Started)[:1]
    assert len(listener.of(Finished)) == 50
    listener.end()
    listener.end()
    assert not queue.unsubscribe(listener)
    queue.add_job("t")
    assert len(listener.of(Added)) == 50


def test_what_is_no_plain_function_is_refused(queue: KQueue) -> None:
    async def later(event: Event) -> None:
        """Nobody would await it."""

    with pytest.raises(TypeError, match="function: expected something to call, got 7"):
        queue.subscribe(7)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="function: an async def"):
        queue.subscribe(later)
    queue.subscribe(print)
    with pytest.raises(ValueError, match="function: print is subscribed already"):
        queue.subscribe(print)
    assert not queue.unsubscribe(len)
    assert queue.unsubscribe(print)


def test_a_slow_observer_is_not_the_handlers_time(closes: Closes) -> None:
    clock = ManualClock()
    queue = closes(KQueue.from_parts(assemble(MemoryStore(clock), clock=clock)))
    listener = Listener(queue)
    queue.subscribe(lambda event: clock.advance(100) if isinstance(event, Started) else None)
    queue.add_handler("t", lambda job: (clock.advance(7), job.delete()))
    queue.add_job("t", ttr=1000)
    queue.run_jobs()
    assert [event.seconds for event in listener.of(Finished)] == [7]
    assert queue.stats().types["t"].seconds == 7


def test_a_handler_that_subscribes_is_told_from_the_next_window_on(queue: KQueue) -> None:
    listeners: list[Listener] = []

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        if not listeners:
            listeners.append(Listener(queue))
        job.delete()

    queue.add_job("t")
    queue.run_jobs()
    assert listeners[0].events == []
    queue.add_job("t")
    queue.run_jobs()
    assert listeners[0].kinds() == ["Added", "Started", "Finished"]


def test_one_may_use_the_queue(make_queue: MakeQueue) -> None:
    """An alert for each dead job, and a flush at each end."""
    queue = make_queue(max_tries=1)
    alerts: list[Any] = []

    def alert(event: Event) -> None:
        queue.flush()
        if isinstance(event, Died) and event.type == "t":
            queue.add_job("alert", event.reason)

    queue.subscribe(alert)
    queue.add_handler("t", lambda job: job.retry("no paper"))
    queue.add_handler("alert", lambda job: (alerts.append(job.payload), job.delete()))
    queue.add_jobs("t", range(30))
    report = queue.run_jobs()
    assert (report.dead, report.deleted, alerts) == (30, 30, ["no paper"] * 30)


def test_it_is_told_in_the_thread_in_which_it_happened(queue: KQueue) -> None:
    """Three loops, two producers; each event of each job comes once, and the start before the end."""
    listener = Listener(queue)
    queue.add_handler("t", JobInHand.delete)
    loops = [threading.Thread(target=queue.run_jobs, kwargs={"wait": True}, name=f"loop{n}") for n in range(3)]
    producers = [
        threading.Thread(target=lambda: [queue.add_jobs("t", range(20)) for _ in range(5)], name=f"producer{n}")
        for n in range(2)
    ]
    for thread in [*loops, *producers]:
        thread.start()
    for thread in producers:
        thread.join(60)
    await_true(lambda: len(listener.of(Finished)) == 200)
    queue.stop()
    for thread in loops:
        thread.join(60)
    ids = [{event.job_id for event in listener.of(kind)} for kind in (Added, Started, Finished)]
    assert ids[0] == ids[1] == ids[2]
    assert len(listener.events) == 600
    assert each_start_has_one_end(listener.events)
    assert listener.threads[Added] == {"producer0", "producer1"}
    assert listener.threads[Started] <= {"loop0", "loop1", "loop2"}


# -- interrupts that come while an observer runs ------------------------------------------------------------


def interrupted_at(kind: type[Event], how: Callable[[], object]) -> Callable[[Event], None]:
    def interrupt(event: Event) -> None:
        if isinstance(event, kind):
            how()

    return interrupt


def signalled() -> None:
    """Ctrl-C: Python raises KeyboardInterrupt here."""
    os.kill(os.getpid(), signal.SIGINT)
    threading.Event().wait(30)


def leave() -> None:
    raise SystemExit(3)


@pytest.mark.parametrize(("how", "error"), [(signalled, KeyboardInterrupt), (leave, SystemExit)])
def test_at_a_start_the_job_goes_back_at_no_try_and_the_loop_ends(
    queue: KQueue, how: Callable[[], object], error: type[BaseException]
) -> None:
    runs: list[str] = []
    queue.add_handler("t", lambda job: (runs.append(job.id), job.delete()))
    ids = queue.add_jobs("t", range(3))
    listener = Listener(queue)
    end = queue.subscribe(interrupted_at(Started, how))
    with pytest.raises(error):
        queue.run_jobs()
    assert runs == []
    assert [(row.state, row.tries) for row in queue.store.get(ids)] == [("ready", 0)] * 3
    assert listener.kinds() == ["Started", "GivenBack"]
    end()
    assert queue.run_jobs().deleted == 3


@pytest.mark.parametrize(("how", "error"), [(signalled, KeyboardInterrupt), (leave, SystemExit)])
def test_at_an_end_the_loop_ends_and_nothing_is_lost(
    make_queue: MakeQueue, how: Callable[[], object], error: type[BaseException]
) -> None:
    queue = make_queue(settle_ms=3_600_000)  # so that no other thread writes and tells
    queue.add_handler("t", JobInHand.delete)
    queue.add_jobs("t", range(100))
    queue.run_jobs()
    queue.add_jobs("t", range(100))
    end = queue.subscribe(interrupted_at(Finished, how))
    with pytest.raises(error):
        queue.run_jobs()
    end()
    counts = queue.counts("t")
    assert counts["running"] == 0
    assert queue.run_jobs().deleted == counts["ready"] < 100


def test_at_an_add_it_is_raised_by_the_add_and_the_job_is_there(queue: KQueue) -> None:
    queue.subscribe(interrupted_at(Added, signalled))
    with pytest.raises(KeyboardInterrupt):
        queue.add_job("t")
    assert queue.counts("t")["ready"] == 1


def test_in_another_thread_it_is_an_error_like_any_other(queue: KQueue, caplog: Any) -> None:
    """No signal is delivered there: it is the observer's own doing."""
    queue.add_handler("t", JobInHand.delete)
    queue.add_jobs("t", range(20))
    queue.subscribe(interrupted_at(Event, leave))
    reports: list[Any] = []
    loop = threading.Thread(target=lambda: reports.append(queue.run_jobs()))
    loop.start()
    loop.join(60)
    assert [report.deleted for report in reports] == [20]
    assert caplog.text.count("raised SystemExit") == 1


# -- after a fork -------------------------------------------------------------------------------------------


def test_a_child_tells_its_own_copy_of_the_observers(tmp_path: Path, closes: Closes) -> None:
    queue = closes(KQueue(f"sqlite:///{tmp_path}/jobs.db"))
    listener = Listener(queue)
    queue.add_handler("t", JobInHand.delete)
    queue.add_job("t")

    def work() -> None:
        assert queue.run_jobs().deleted == 1
        assert listener.kinds() == ["Added", "Started", "Finished"]

    assert run_in_child(work) == 0
    assert listener.kinds() == ["Added"]


def test_a_child_that_comes_back_into_the_loop_tells_nothing_of_its_parents_job(
    tmp_path: Path, closes: Closes
) -> None:
    queue = closes(KQueue(f"sqlite:///{tmp_path}/jobs.db"))
    listener = Listener(queue)
    parent = os.getpid()
    children: list[int] = []

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        child = os.fork()
        if child:
            children.append(child)
        job_is_mine = child != 0
        if job_is_mine:
            job.delete()

    queue.add_job("t")
    try:
        queue.run_jobs()
    finally:
        if os.getpid() != parent:
            os._exit(0 if listener.kinds() == ["Added", "Started"] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 0
    assert listener.kinds() == ["Added", "Started", "Finished"]
