"""Children that die, or find that they should be replaced."""

import os
import signal
from collections import Counter, defaultdict
from collections.abc import Callable

import pytest

from tests.tubes import await_true
from tests.worker.works import Works, is_there

#: No test waits for a back-off to pass that it does not look at.
AT_ONCE = "import kqueue.worker.restarts as r; r.backoff = lambda failures: 0.01"


@pytest.mark.parametrize("broker", [None, "beanstalkd"])
def test_a_child_that_was_killed_is_replaced_and_its_job_runs_again_at_once(
    make_works: Callable[..., Works], request: pytest.FixtureRequest, broker: str | None
) -> None:
    """Its TTR is ten minutes. What had settled does not run again, and neighbours in the window are not lost."""
    works = make_works(request.getfixturevalue("beanstalkd").url if broker else None)
    done = works.add(*["quick"] * 50, priority="urgent")
    waits, *rest = works.add("wait", *["quick"] * 20)
    with works.worker() as worker:
        (child,) = worker.await_children(1)
        works.await_begun(waits)
        await_true(lambda: not works.queue.store.get(done))
        os.kill(child, signal.SIGKILL)
        works.await_begun(waits, times=2)
        works.let_go()
        works.await_empty()
        assert len(worker.children()) == 2
        assert worker.stop() == 0
    first, second = (one["fence"] for one in works.ledger("begin", id=waits))
    assert first < second  # on a slow machine it may have gone back unstarted before
    assert works.runs() == Counter([waits, *done, waits, *rest])
    assert f"child {child} ended: signal SIGKILL" in works.log.read_text()


def test_children_killed_under_load_cost_no_job_and_only_what_they_held_runs_again(works: Works) -> None:
    ids: list[str] = []
    killed: list[int] = []
    with works.worker("--processes", "2", "--threads", "2", patch=AT_ONCE) as worker:
        for number in range(3):
            before_this = len(works.ledger("end"))
            ids += works.add(*["work"] * 200)
            await_true(lambda: len(works.ledger("end")) >= before_this + 50)  # noqa: B023 (called at once)
            killed.append(next(pid for pid in reversed(worker.children()) if is_there(pid)))
            os.kill(killed[-1], signal.SIGKILL)
            worker.await_children(3 + number)
            works.await_empty()  # what it held stands behind the others, and the next one is not to hold it
        assert worker.stop() == 0
    assert {one["id"] for one in works.ledger("end")} == set(ids)
    for id in [id for id, count in works.runs().items() if count > 1]:
        *before, last = works.ledger("begin", id=id)
        assert {one["pid"] for one in before} <= set(killed)
        fences = [one["fence"] for one in (*before, last)]
        assert fences == sorted(set(fences))


def test_only_the_jobs_of_the_child_that_died_run_again(works: Works) -> None:
    ids = works.add("wait", "wait")
    with works.worker("--processes", "2") as worker:
        works.await_begun(*ids)
        by_child = {one["pid"]: one["id"] for one in works.ledger("begin")}
        assert len(by_child) == 2
        killed = min(by_child)
        os.kill(killed, signal.SIGKILL)
        works.await_begun(by_child[killed], times=2)
        works.let_go()
        works.await_empty()
        assert worker.stop() == 0
    assert works.runs() == {by_child[killed]: 2, by_child[max(by_child)]: 1}


def test_a_job_that_kills_its_child_each_time_ends_dead_and_the_others_run(works: Works) -> None:
    poison, *others = works.add("die", *["quick"] * 30)
    with works.worker(patch=AT_ONCE) as worker:
        await_true(
            lambda: {state: number for state, number in works.queue.counts("t").items() if number} == {"dead": 1}
        )
        assert worker.stop() == 0
    job = works.queue.get_job(poison)
    assert job is not None
    assert (job.state, job.crashes) == ("dead", 3)
    assert {id for id, count in works.runs().items() if count == 1} >= set(others[1:])


def test_a_child_that_exits_by_its_handler_has_died_too(works: Works) -> None:
    """Its exit status is 0, and no end was told."""
    (id,) = works.add("end the child")
    with works.worker(patch=AT_ONCE):
        works.await_begun(id, times=2)


def test_a_child_that_cannot_start_any_more_is_tried_again_with_a_back_off(works: Works) -> None:
    with works.worker() as worker:
        (child,) = worker.await_children(1)
        (works.folder / "broken").touch()
        os.kill(child, signal.SIGKILL)
        works.await_line("could not start: --app: cannot import app: RuntimeError: no way to start")
        works.await_line("another one starts in 2 s")
        assert works.log.read_text().count("another one starts in 1 s") == 1
        assert worker.stop() == 0


def test_children_that_cannot_start_at_all_end_the_worker(works: Works) -> None:
    works.add("quick")
    (works.folder / "broken in children").touch()
    line = works.refused("--processes", "2")
    assert "a child could not start: --app: cannot import app: RuntimeError: not in a child (" in line
    assert not works.runs()


# -- between jobs --------------------------------------------------------------------------------------------


def test_a_child_is_replaced_after_so_many_jobs(works: Works) -> None:
    ids = works.add(*["quick"] * 30)
    with works.worker("--max-jobs", "10") as worker:
        works.await_empty()
        assert worker.stop() == 0
    assert works.runs() == Counter(ids)
    by_child = Counter(one["pid"] for one in works.ledger("begin"))
    assert sorted(by_child.values()) == [10] * 3
    assert "is replaced: it has run 10 jobs" in works.log.read_text()
    assert "another one starts" not in works.log.read_text()


def test_a_child_that_left_and_is_gone_before_the_parent_looks_is_replaced_without_a_pause(works: Works) -> None:
    ids = works.add(*["quick"] * 10)
    slow = """
import time, kqueue.worker.supervisor as s
s.wait_readable = lambda sources, seconds: time.sleep(0.6)
"""
    with works.worker("--max-jobs", "10", patch=slow) as worker:
        works.await_line("is replaced: it has run 10 jobs")
        worker.await_children(2)
        assert worker.stop() == 0
    assert works.runs() == Counter(ids)
    assert "another one starts" not in works.log.read_text()


def test_so_many_jobs_are_those_of_all_its_threads_together(works: Works) -> None:
    ids = works.add(*["work"] * 60)
    with works.worker("--max-jobs", "20", "--threads", "3") as worker:
        works.await_empty()
        assert worker.stop() == 0
    assert works.runs() == Counter(ids)
    by_child = Counter(one["pid"] for one in works.ledger("begin"))
    assert max(by_child.values()) <= 20 + 2


def test_a_child_with_too_much_memory_is_replaced(works: Works) -> None:
    (hoards,) = works.add("hoard")
    with works.worker("--max-rss", "130") as worker:
        works.await_line("and --max-rss is 130")
        worker.await_children(2)
        (later,) = works.add("quick")
        works.await_begun(later)
        works.await_empty()
        assert worker.stop() == 0
    assert works.runs() == {hoards: 1, later: 1}
    assert works.ledger("begin", id=hoards)[0]["pid"] != works.ledger("begin", id=later)[0]["pid"]


def test_another_child_runs_jobs_while_the_one_that_leaves_still_has_one(works: Works) -> None:
    waits, *rest = works.add("wait", *["quick"] * 5)
    with works.worker() as worker:
        (child,) = worker.await_children(1)
        works.await_begun(waits)
        os.kill(child, signal.SIGTERM)  # as an operator does, or a service manager to all processes of a service
        works.await_begun(*rest)
        assert is_there(child)
        works.let_go()
        works.await_empty()
        await_true(lambda: not is_there(child))
        assert worker.stop() == 0
    assert works.runs() == Counter([waits, *rest])
    assert {one["pid"] for one in works.ledger("begin", do="quick")} == {worker.children()[1]}
    assert f"child {child} is replaced: it got a signal" in works.log.read_text()


# -- loops ---------------------------------------------------------------------------------------------------


def test_a_handler_that_exits_ends_its_loop_and_another_loop_begins(works: Works) -> None:
    (exits,) = works.add("exit")
    with works.worker() as worker:
        works.await_line("a handler called sys.exit(3); its job counts a failed try")
        (later,) = works.add("quick")
        works.await_begun(later)
        assert worker.stop() == 0
        assert len(worker.children()) == 1
    job = works.queue.get_job(exits)
    assert job is not None
    assert job.state == "delayed"
    assert str(job.reason).startswith("SystemExit: 3 (app.py:")


def test_a_handler_that_stops_the_queue_does_not_end_the_worker(works: Works) -> None:
    works.add("stop")
    with works.worker() as worker:
        works.await_line("the app called queue.stop()")
        (later,) = works.add("quick")
        works.await_begun(later)
        assert worker.stop() == 0
        assert len(worker.children()) == 1


@pytest.mark.parametrize("threads", ["1", "3"])
def test_loops_have_connections_of_their_own(works: Works, threads: str) -> None:
    """As many jobs run at once as there are loops."""
    processes = defaultdict(set)
    ids = works.add(*["wait"] * 6)
    with works.worker("--processes", "2", "--threads", threads) as worker:
        most = 2 * int(threads)
        await_true(lambda: len(works.ledger("begin")) == most)
        for one in works.ledger("begin"):
            processes[one["pid"]].add(one["id"])
        assert [len(some) for some in processes.values()] == [int(threads)] * 2
        works.let_go()
        works.await_empty()
        assert worker.stop() == 0
    assert works.runs() == Counter(ids)
