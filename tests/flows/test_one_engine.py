"""What a loop of one thread owes to other loops, to children that a handler forks, and to suspects."""

import os
import threading
from pathlib import Path
from typing import Any

from kqueue import JobInHand, KQueue
from kqueue.stores.sqlite.store import SqliteStore
from kqueue.system.clock import ManualClock
from tests.closing import Closes
from tests.flows.processes import KILLED, die, run_in_child
from tests.flows.working import PATIENCE_S, with_suspicion
from tests.tubes import await_true, run


def test_two_loops_that_begin_together_blame_nobody(tmp_path: Path, closes: Closes) -> None:
    """Each is the only one when it decides to claim, and none is by the time that it has its job."""
    queue = closes(KQueue(f"sqlite:///{tmp_path}/jobs.db"))
    claim, alone, both = queue.store.claim, list[bool](), threading.Barrier(2)

    def claim_late(*arguments: Any) -> Any:
        await_true(lambda: queue.registry.isolation.loops() == 2)
        return claim(*arguments)

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        both.wait(PATIENCE_S)
        alone.append(queue.store.get([job.id])[0].alone)
        both.wait(PATIENCE_S)
        job.delete()

    queue.add_jobs("t", range(2))
    queue.store.claim = claim_late  # type: ignore[method-assign]
    loops = [run(lambda: queue.run_jobs(count_limit=1)) for _ in range(2)]
    for loop in loops:
        loop.join(PATIENCE_S)
    assert alone == [False, False]


def test_a_child_that_is_forked_by_a_job_that_runs_alone_comes_back(tmp_path: Path, closes: Closes) -> None:
    clock = ManualClock()
    queue = closes(KQueue(store=SqliteStore(tmp_path / "jobs.db", clock=clock), retry_delay=0))
    children: list[int] = []
    queue.add_handler("t", lambda job: die())
    queue.add_job("t", ttr=5)
    assert run_in_child(queue.run_jobs) == KILLED
    clock.advance(6)
    queue.sweep()
    queue.remove_handler("t")

    @queue.handler("t")
    def fork(job: JobInHand) -> None:
        child = os.fork()
        if child:
            children.append(child)
            job.delete()

    me = os.getpid()
    report = queue.run_jobs()
    if os.getpid() != me:
        os._exit(report.count)
    assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 1
    assert report.deleted == 1


def test_a_suspect_waits_for_no_end_that_is_to_be_written_late(tmp_path: Path, closes: Closes) -> None:
    """Whatever ``settle_ms`` is: the loop beside writes what it owes, and is out of the suspect's way."""
    clock = ManualClock()
    store = SqliteStore(tmp_path / "jobs.db", clock=clock)
    queue = closes(KQueue(store=store, settle_ms=3_600_000, retry_delay=0))
    ran: list[str] = []
    [suspect] = queue.add_jobs("t", [None], ttr=50)
    with_suspicion(queue, clock, [suspect], 3)

    @queue.handler("t")
    async def be_alone(job: JobInHand) -> None:
        ran.append(job.id)
        job.delete()
        queue.stop()

    @queue.handler("busy")
    def busy(job: JobInHand) -> None:
        job.delete()
        if not ran:
            queue.add_job("busy")

    queue.add_job("busy")
    queue.work(wait=True)
    assert ran == [suspect]
