"""``kill=True``: a handler that runs longer than ``max_runtime`` costs its process, and its neighbours no try."""

import logging
from typing import Any

import pytest

from kqueue import JobInHand, KQueue
from kqueue.contracts.budget import Budget
from kqueue.contracts.renewer import Renewal
from kqueue.contracts.runs import Selection
from kqueue.contracts.settlements import Delete
from kqueue.model.job import Row, State
from kqueue.worker.orphans import end_overruns
from tests.torture.ledger import read
from tests.tubes import await_true
from tests.worker.works import Works

KILLED = """
import ctypes, os, threading

from app import ledger, queue
from kqueue import Died, Retried

beside = threading.Event()


@queue.handler("beside", delete_on_success=True)
def handle(job):
    ledger.write("begin", id=job.id, fence=job.fence, tries=job.tries, pid=os.getpid())
    beside.set()
    while not os.path.exists("go"):
        threading.Event().wait(0.005)


@queue.handler("stuck", auto_renew=True, max_runtime=1.0, kill=True)
def stuck(job):
    ledger.write("begin", id=job.id, fence=job.fence, tries=job.tries, pid=os.getpid())
    beside.wait()
    ctypes.PyDLL(None).sleep(600)  # keeps the interpreter's lock, so that its process can tell nobody


queue.options("stuck", max_tries=2, retry_delay=0)


def tell(event):
    if isinstance(event, Retried | Died):
        ledger.write(type(event).__name__, id=event.job_id, reason=event.reason)


queue.subscribe(tell)
"""
REASON = "ran longer than max_runtime (1 s); its process was killed"


def test_the_guilty_fails_and_its_neighbours_start_again(works: Works) -> None:
    (works.folder / "killed.py").write_text(KILLED)
    (beside,) = works.add(None, type="beside")
    (stuck,) = works.add(None, type="stuck")
    with works.worker("--threads", "2", app="killed:queue") as worker:
        await_true(lambda: works.queue.counts("stuck")["dead"] == 1)
        await_true(lambda: works.queue.counts("beside")["running"] == 1)
        [row] = works.queue.store.get([beside])
        assert (row.tries, row.failures, row.suspicion, row.crashes) == (1, 0, 0, 0), "as if it had not been there"
        works.let_go()
        await_true(lambda: not sum(works.queue.counts("beside").values()))
        assert worker.stop() == 0
    [row] = works.queue.store.get([stuck])
    assert (row.state, row.failures, row.suspicion, row.crashes) == (State.DEAD, 2, 0, 0)
    assert row.reason == REASON
    assert [record["tries"] for record in works.ledger("begin", id=stuck)] == [1, 2]
    assert [record["tries"] for record in works.ledger("begin", id=beside)] == [1, 1, 1]
    told = [(one["what"], one["id"], one["reason"]) for one in read(works.folder) if "reason" in one]
    assert told == [("Retried", stuck, REASON), ("Died", stuck, REASON)]
    log = works.log.read_text()
    assert log.count(f"is killed: job {stuck} has run longer than max_runtime (1 s)") == 2
    assert f"job {stuck} (stuck): try 1 failed, the next is in 0 s: {REASON}" in log
    assert f"job {stuck} (stuck): try 2 failed, it is dead: {REASON}" in log
    assert log.count("1 of its runs failed, 1 others are given back") == 2


# -- what a child had in hand that was killed -------------------------------------------------------------------


def claimed(queue: KQueue, jobs: int, **options: Any) -> list[Row]:
    queue.add_jobs("t", range(jobs), **options)
    owner = queue.parts.mint.make(1)[0]
    budget = Budget(jobs, job_s={"t": 0.0})
    rows = queue.store.claim(Selection(("t",)), budget, owner, queue.store.now(), False).rows
    # As they are stored: MongoDB counts a lease by its own clock, in milliseconds.
    return queue.store.get([row.id for row in rows])


def overrun(row: Row, retry_in: float | None = 0.0) -> Renewal:
    return Renewal(row.id, row.fence, row.ttr, 5.0, retry_in, kill=True)


def now_of(queue: KQueue, row: Row) -> Row:
    [found] = queue.store.get([row.id])
    return found


def test_one_that_ended_in_the_very_moment_stays_ended(queue: KQueue) -> None:
    guilty, other = claimed(queue, 2)
    queue.store.settle([Delete(guilty.id, guilty.fence)], queue.store.now())
    assert end_overruns(queue, queue.owner_tail, [overrun(guilty)]) == (0, 1)
    assert queue.get_job(guilty.id) is None
    assert now_of(queue, other).state == State.READY


def test_one_that_another_has_claimed_since_is_not_touched(queue: KQueue) -> None:
    guilty, other = claimed(queue, 2)
    earlier = guilty._replace(fence=guilty.fence - 1)
    assert end_overruns(queue, "nobody", [overrun(earlier)]) == (0, 0)
    assert now_of(queue, guilty) == guilty
    assert now_of(queue, other) == other


def test_one_that_a_sweep_has_taken_back_has_failed_all_the_same(queue: KQueue) -> None:
    guilty, other = claimed(queue, 2, ttr=1)
    recovered: list[int] = []

    def are_both_over() -> bool:
        recovered.append(queue.store.recover(queue.store.now(), 3, 10).ready)
        return sum(recovered) == 2

    await_true(are_both_over)
    assert end_overruns(queue, queue.owner_tail, [overrun(guilty)]) == (1, 0)
    row = now_of(queue, guilty)
    assert (row.failures, row.suspicion) == (1, 0)
    assert (row.reason or "").startswith("ran longer than max_runtime (5 s)")
    assert now_of(queue, other).suspicion == 1, "its lease was over before anybody could give it back"


def test_without_a_parent_it_is_said_once_that_nobody_kills(caplog: pytest.LogCaptureFixture) -> None:
    with KQueue("memory:") as queue:

        @queue.handler("t", auto_renew=True, max_runtime=60, kill=True)
        def handle(job: JobInHand) -> None:
            queue.add_job("t") if job.payload else None
            job.delete()

        queue.add_job("t", True)
        with caplog.at_level(logging.WARNING):
            assert queue.run_jobs().deleted == 2
    assert sum("only the parent that kqueue worker has kills a process" in one for one in caplog.messages) == 1


@pytest.mark.parametrize("auto_renew", [False, True])
def test_it_wants_a_bound(auto_renew: bool) -> None:
    with pytest.raises(ValueError, match="^kill: only with auto_renew=True and max_runtime"):
        KQueue("memory:").add_handler("t", print, kill=True, auto_renew=auto_renew)
