"""A handler that goes on beyond its lease is told of, at growing gaps, and stands in what the process tells."""

import logging
from typing import cast

import pytest

from kqueue import JobInHand, KQueue
from kqueue.admin.hanging import hanging_in
from kqueue.assembly import assemble
from kqueue.contracts.renewer import RenewalEnd, RenewalHold
from kqueue.contracts.workers import HANGS_S
from kqueue.execution.inflight_job import Hold, InflightJob
from kqueue.stores.memory.store import MemoryStore
from kqueue.system.clock import ManualClock
from kqueue.testing.contracts.rows import row
from kqueue.upkeep.heartbeat import workers_of
from tests.tubes import await_true

TTR = 60.0


def warnings(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if "still runs in process" in record.getMessage()]


@pytest.mark.parametrize("threads", [None, 2])
def test_it_is_told_of_while_it_runs_and_again_when_the_time_has_doubled(
    threads: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock()
    with KQueue.from_parts(assemble(MemoryStore(clock), clock=clock, sweep_interval=1e6)) as queue:
        told: list[int] = []

        @queue.handler("mail", delete_on_success=True)
        def mail(job: JobInHand) -> None:
            [jobs] = queue.registry.in_hand()
            clock.advance(TTR + 30)
            await_true(lambda: bool(warnings(caplog)))  # the watchdog has seen it
            for seconds in (31, 59, 60, 61, 119, 121):
                clock.advance(TTR + seconds - clock.monotonic())
                jobs.tell_late(clock.monotonic())
                told.append(len(warnings(caplog)))
            [hung] = hanging_in(queue.registry, clock.monotonic()).past_lease
            assert hung == (job.id, "mail", 121, False)

        job_id = queue.add_job("mail", ttr=TTR)
        report = queue.run_jobs() if threads is None else queue.work(threads=threads, wait=False)
    assert report.deleted == 1, "nobody has taken it, so it was still ours"
    assert told == [1, 1, 2, 2, 2, 3]
    first = warnings(caplog)[0]
    assert first.levelname == "WARNING"
    assert f"job {job_id} (mail): its handler still runs in process" in first.getMessage()
    assert ", 30 s beyond its lease, and keeps its place there: it hangs, or its ttr of 60 s" in first.getMessage()
    assert (vars(first)["job_id"], vars(first)["job_type"], vars(first)["job_try"]) == (job_id, "mail", 1)


def test_one_that_keeps_its_time_is_not(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    with KQueue.from_parts(assemble(MemoryStore(clock), clock=clock, sweep_interval=1e6)) as queue:

        @queue.handler("mail")
        def mail(job: JobInHand) -> None:
            [jobs] = queue.registry.in_hand()
            clock.advance(TTR)
            job.delete()
            clock.advance(HANGS_S - 0.1)
            jobs.tell_late(clock.monotonic())

        queue.add_job("mail", ttr=TTR)
        assert queue.run_jobs().deleted == 1
    assert warnings(caplog) == []


@pytest.mark.parametrize("threads", [None, 2])
@pytest.mark.parametrize("end", ["delete", "retry", "unget"])
def test_one_that_hangs_after_it_has_ended_its_job_is_told_of(
    end: str, threads: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock()
    with KQueue.from_parts(assemble(MemoryStore(clock), clock=clock, sweep_interval=1e6)) as queue:
        told: list[int] = []

        @queue.handler("mail")
        def mail(job: JobInHand) -> None:
            queue.stop()
            {
                "delete": job.delete,
                "retry": lambda: job.retry("later", 9999),
                "unget": lambda: job.unget(delay=9999),
            }[end]()
            [jobs] = queue.registry.in_hand()
            clock.advance(TTR + 30)
            await_true(lambda: bool(warnings(caplog)))  # the watchdog has seen it
            for seconds in (31, 59, 60, 61, 119, 121):
                clock.advance(TTR + seconds - clock.monotonic())
                jobs.tell_late(clock.monotonic())
                told.append(len(warnings(caplog)))
            [hung] = hanging_in(queue.registry, clock.monotonic()).past_lease
            assert hung == (job.id, "mail", 121, True)

        job_id = queue.add_job("mail", ttr=TTR)
        report = queue.run_jobs() if threads is None else queue.work(threads=threads, wait=False)
    assert report.count == 1
    assert told == [1, 1, 2, 2, 2, 3]
    how = {"delete": "deleted", "retry": "retried", "unget": "ungot"}[end]
    message = warnings(caplog)[0].getMessage()
    assert f"job {job_id} (mail): was {how}, and its handler still runs in process" in message
    assert ", 30 s beyond its lease, and keeps its place there" in message
    assert "others may run" not in message


def test_of_one_that_was_renewed_the_time_goes_on_from_its_end() -> None:
    """Nobody renews it any more, and what its handler still does has one ttr."""
    clock = ManualClock()
    with KQueue.from_parts(assemble(MemoryStore(clock), clock=clock, sweep_interval=1e6)) as queue:
        seen: list[float] = []

        @queue.handler("mail", auto_renew=True)
        def mail(job: JobInHand) -> None:
            [jobs] = queue.registry.in_hand()
            clock.advance(10 * TTR)
            job.delete()
            clock.advance(TTR + 5)
            seen.extend(seconds for _, seconds in jobs.past_lease(clock.monotonic()))

        queue.add_job("mail", ttr=TTR)
        queue.run_jobs()
    assert seen == [5]


class Stopped:
    """Of a renewer that has stopped with the job at 600 s."""

    def renews(self, id: str) -> bool:
        return False

    def end_of(self, id: str) -> RenewalEnd | None:
        return RenewalEnd.OVER

    def ended_at(self, id: str) -> float:
        return 600.0


def test_a_lease_that_was_renewed_is_over_when_its_renewer_stops() -> None:
    """And not one ttr after its claim, which was long ago."""
    job = InflightJob(row(ttr=TTR), 0.0, cast(Hold, None))
    job.keep_renewal(cast(RenewalHold, Stopped()))
    assert job.lease_left(610.0) == -10
    job.renewed(605.0)  # by its handler
    assert job.lease_left(610.0) == TTR - 5


def test_workers_say_what_hangs_there() -> None:
    clock = ManualClock()
    store = MemoryStore(clock)
    with KQueue.from_parts(assemble(store, clock=clock, sweep_interval=1e6)) as queue:
        found: list[object] = []

        def hangs() -> bool:
            clock.advance(1)
            queue.parts.maintenance.look_again()  # so that it tells what is due
            return any(worker.hanging for worker in workers_of(store))

        @queue.handler("mail", delete_on_success=True)
        def mail(job: JobInHand) -> None:
            queue.stop()
            over_at = clock.monotonic() + TTR
            await_true(hangs)
            clock.advance(2)
            [hung] = workers_of(store)[0].hanging
            found.append((hung.job_id, hung.type, round(hung.seconds - (clock.monotonic() - over_at), 6)))
            found.extend(symptom.about for symptom in queue.checkup())

        job_id = queue.add_job("mail", ttr=TTR)
        queue.run_jobs(wait=True)
    assert found == [(job_id, "mail", 0.0), "hang"]
