"""How a worker ends: what runs, what has not started, and what becomes of those that do not end."""

import os
import signal
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import closing

import pytest

from kqueue import JobInHand
from tests.tubes import await_true
from tests.worker.works import Works, is_there


@pytest.mark.parametrize("broker", [None, "beanstalkd"])
def test_sigterm_under_load_loses_nothing_and_duplicates_nothing(
    make_works: Callable[..., Works], request: pytest.FixtureRequest, broker: str | None
) -> None:
    """Two workers one after the other, each ended in the middle, while a producer adds."""
    works = make_works(request.getfixturevalue("beanstalkd").url if broker else None)
    added: list[str] = []
    over = threading.Event()

    def produce() -> None:
        while not over.is_set():
            if works.queue.counts("t")["ready"] < 400:  # or those that start slowly find thousands
                added.extend(works.add(*["quick"] * 20, "work"))
            over.wait(0.01)

    producer = threading.Thread(target=produce)
    producer.start()
    try:
        for _ in range(2):
            before = len(works.ledger("end"))
            with works.worker("--processes", "2", "--threads", "3") as worker:
                await_true(lambda: len(works.ledger("end")) >= before + 200)  # noqa: B023 (called at once)
                assert worker.stop() == 0, works.log.read_text()
            left = works.queue.jobs("t", state="ready", limit=100_000)
            assert works.queue.counts("t")["running"] == 0
            assert {job.tries for job in left} <= {0}
    finally:
        over.set()
        producer.join()
    with works.worker("--processes", "2", "--threads", "3") as worker:
        works.await_empty()
        assert worker.stop() == 0
    assert works.runs() == Counter(added)
    assert Counter(one["id"] for one in works.ledger("end")) == Counter(added)


def test_what_has_not_started_goes_back_at_no_cost_while_a_handler_still_runs(works: Works) -> None:
    """The window is large by the time that it comes to the one that waits."""
    works.add(*["quick"] * 100, priority="urgent")
    waits, *rest = works.add("wait", *["quick"] * 50)
    with works.worker() as worker:
        works.await_begun(waits)
        worker.tell()
        await_true(lambda: [row.state for row in works.queue.store.get(rest)] == ["ready"] * 50)
        assert {row.tries for row in works.queue.store.get(rest)} == {0}
        assert worker.is_running()
        works.let_go()
        assert worker.status() == 0
    assert [row.id for row in works.queue.store.get([waits, *rest])] == rest
    assert not works.ledger("begin", id=rest[0])


def test_a_worker_that_waits_ends_at_once_even_without_any_grace(works: Works) -> None:
    with works.worker("--processes", "2", "--threads", "2", "--grace", "0") as worker:
        worker.await_children(2)
        assert worker.stop() == 0


@pytest.mark.parametrize("what", ["wait", "hold the lock"])
def test_when_the_grace_runs_out_others_take_the_job_at_once(works: Works, what: str) -> None:
    """One handler can be left behind, and one must be killed, since it keeps the interpreter's lock in C code."""
    (id,) = works.add(what)
    taken: list[JobInHand] = []
    with works.worker("--grace", "0.2", patch="import kqueue.worker.children as f; f.GIVE_UP_S = 0.5") as worker:
        works.await_begun(id)
        assert worker.stop() == 1
    assert not any(is_there(pid) for pid in worker.children())
    works.queue.add_handler("t", lambda job: (taken.append(job), job.delete()))
    assert works.queue.run_jobs().deleted == 1
    assert [(job.id, job.fence, job.tries) for job in taken] == [(id, 2, 1)]
    assert ("is killed" in works.log.read_text()) == (what == "hold the lock")


@pytest.mark.parametrize("what", ["wait", "hold the lock"])
def test_a_second_signal_ends_it_now(works: Works, what: str) -> None:
    (id,) = works.add(what)
    with works.worker("--grace", "600", patch="import kqueue.worker.children as f; f.GIVE_UP_S = 0.5") as worker:
        works.await_begun(id)
        worker.tell(signal.SIGINT)
        works.await_line("stopping: running jobs have 600 s")
        assert worker.is_running()
        assert worker.stop() == 1
    job = works.queue.get_job(id)
    assert job is not None
    assert (job.state, job.tries, job.fence) == ("ready", 0, 1)


def test_ctrl_c_reaches_the_parent_alone(works: Works) -> None:
    """It goes to the whole group of a terminal; the handler ends all the same."""
    (id,) = works.add("wait")
    with works.worker() as worker:
        works.await_begun(id)
        os.killpg(worker.pid, signal.SIGINT)
        works.await_line("stopping")
        works.let_go()
        assert worker.status() == 0
    works.await_empty()
    assert "is replaced: it got a signal" not in works.log.read_text()


def test_a_signal_before_the_children_are_ready_is_a_clean_stop(works: Works) -> None:
    works.add("quick")
    patch = """
import os, signal
from kqueue.worker import children
first = children.ChildProcess
children.ChildProcess = lambda *given: (os.kill(os.getpid(), signal.SIGTERM), first(*given))[1]
"""
    with works.worker("--processes", "2", patch=patch) as worker:
        assert worker.status() == 0
        assert worker.children() == []
    assert not works.runs()


def test_a_signal_after_the_end_changes_no_status(works: Works) -> None:
    """Python gives signals their default back before it drops its modules: one that comes then would kill."""
    patch = """
import os, signal, sys
class Last:
    def __del__(self, kill=os.kill, pid=os.getpid(), numbers=(signal.SIGTERM, signal.SIGINT)):
        for number in numbers:
            kill(pid, number)
sys.modules["last"] = Last()
"""
    with works.worker(patch=patch) as worker:
        worker.await_children(1)
        assert worker.stop() == 0


def test_children_of_a_parent_that_was_killed_end_cleanly(works: Works) -> None:
    """The running handler ends, its delete is stored, and no process is left."""
    (id,) = works.add("wait")
    with works.worker("--processes", "2") as worker:
        children = worker.await_children(2)
        works.await_begun(id)
        worker.tell(signal.SIGKILL)
        worker.status()
        await_true(lambda: sum(is_there(pid) for pid in children) == 1)  # the other one had nothing to do
        works.let_go()
        await_true(lambda: not any(is_there(pid) for pid in children))
    assert works.queue.get_job(id) is None
    assert works.runs() == {id: 1}


def test_children_of_a_parent_that_was_killed_give_up_after_their_grace(works: Works) -> None:
    (id,) = works.add("wait")
    with works.worker("--grace", "0.2") as worker:
        (child,) = worker.await_children(1)
        works.await_begun(id)
        worker.tell(signal.SIGKILL)
        await_true(lambda: not is_there(child))
    job = works.queue.get_job(id)
    assert job is not None
    assert (job.state, job.tries) == ("ready", 0)


def test_a_child_that_dies_while_the_worker_stops_makes_it_no_clean_stop(works: Works) -> None:
    (id,) = works.add("wait")
    with works.worker() as worker:
        (child,) = worker.await_children(1)
        works.await_begun(id)
        worker.tell()
        works.await_line("stopping")
        os.kill(child, signal.SIGKILL)
        assert worker.status() == 1
    job = works.queue.get_job(id)
    assert job is not None
    assert (job.state, job.crashes) == ("ready", 1)


def test_a_store_that_does_not_take_the_last_settle_makes_it_no_clean_stop(works: Works) -> None:
    """The job has ended, but the store does not know. Then it runs again, once its lease is over."""
    (id,) = works.add("wait")
    with works.worker() as worker:
        works.await_begun(id)
        with closing(sqlite3.connect(works.folder / "jobs.db", isolation_level=None)) as locker:
            locker.execute("BEGIN IMMEDIATE")
            works.let_go()
            await_true(lambda: bool(works.ledger("end", id=id)))
            assert worker.stop() == 1
    job = works.queue.get_job(id)
    assert job is not None
    assert (job.state, job.fence) == ("running", 1)
    assert "leases of a child that is gone still hold: sqlite:" in works.log.read_text()
