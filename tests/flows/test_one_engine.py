"""What a loop of one thread owes to other loops, to children that a handler forks, and to suspects."""

import os
import threading
from pathlib import Path
from typing import Any

from kqueue import JobInHand, KQueue, LostLease
from kqueue.contracts.budget import MAX_JOBS
from kqueue.stores.sqlite.store import SqliteStore
from kqueue.system.clock import ManualClock
from tests.closing import Closes
from tests.costs.work import at_a_still_clock
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


def test_what_one_run_has_measured_the_next_knows(tmp_path: Path) -> None:
    """So it claims as much at once as the one before did in the end."""
    got: list[int] = []
    with at_a_still_clock(f"sqlite:///{tmp_path}/jobs.db") as queue:
        queue.add_handler("t", JobInHand.delete)
        claim = queue.store.claim

        def first_claim(*arguments: Any) -> Any:
            got.append(len((found := claim(*arguments)).rows))
            return found

        queue.store.claim = first_claim  # type: ignore[method-assign]
        for _ in range(2):
            queue.add_jobs("t", range(600))
            assert queue.run_jobs().deleted == 600
    assert got == [1, MAX_JOBS]


def test_what_ends_while_its_handler_goes_on_is_durable_meanwhile(tmp_path: Path, closes: Closes) -> None:
    """Also one that is alone: nobody else ends whom it could wait for."""
    queue = closes(KQueue(f"sqlite:///{tmp_path}/jobs.db"))

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        job.delete()
        await_true(lambda: not queue.store.get([job.id]))

    queue.add_job("t")
    report = queue.run_jobs()
    assert (report.count, report.deleted) == (1, 1)


def test_a_loop_that_waits_has_nothing_in_hand(tmp_path: Path, closes: Closes) -> None:
    """So a worker's process whose time is over is not cut short for the sake of jobs that have ended."""
    queue = closes(KQueue(f"sqlite:///{tmp_path}/jobs.db"))
    seen: list[int] = []

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        seen.append(len(queue.registry.in_hand()))
        job.delete()

    loop = run(lambda: queue.run_jobs(wait=True))
    queue.add_job("t")
    await_true(lambda: bool(seen) and not queue.registry.in_hand())
    queue.stop()
    loop.join(PATIENCE_S)
    assert seen == [1]


def test_who_ends_a_job_that_another_has_is_counted_and_told_and_nothing_is_raised(
    tmp_path: Path, closes: Closes
) -> None:
    """Only where each end is written at once is it raised."""
    clock = ManualClock()
    queue, other = (closes(KQueue(store=SqliteStore(tmp_path / "jobs.db", clock=clock))) for _ in range(2))
    other.add_handler("t", lambda job: job.retry("the other's", 1000))
    told: list[object] = []
    queue.subscribe(lambda event: told.append(type(event)))

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        clock.advance(10)
        other.sweep()
        other.run_jobs()
        job.delete()

    [job_id] = queue.add_jobs("t", [None], ttr=5)
    assert queue.run_jobs().lost_lease == 1
    assert LostLease in told
    assert queue.store.get([job_id])[0].reason == "the other's"


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
