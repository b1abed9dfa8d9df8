"""Finished jobs that are kept for a while, the same on every store and broker."""

import pytest

from kqueue import AlreadySettled, BrokerUnavailable, JobInHand, KQueue
from kqueue.stores.memory.store import MemoryStore
from tests.closing import Closes
from tests.flows.conftest import MakeQueue
from tests.tubes import await_true

#: Rows of a sweep's write: 1000 else.
BATCH = 50
NONE = {"delayed": 0, "ready": 0, "held": 0, "running": 0, "dead": 0, "done": 0}


def delete(job: JobInHand) -> None:
    job.delete()


@pytest.fixture
def keeping(queue: KQueue) -> KQueue:
    """A queue that keeps the finished jobs of the type "kept" for an hour."""
    queue.options("kept", keep_done=3600)
    queue.add_handler("kept", delete)
    queue.add_handler("gone", delete)
    return queue


def test_a_finished_job_is_kept_and_can_be_looked_at(keeping: KQueue) -> None:
    kept, gone = keeping.add_job("kept", {"path": "a.png"}), keeping.add_job("gone")
    assert keeping.run_jobs().deleted == 2
    job = keeping.get_job(kept)
    assert job is not None
    assert (job.state, job.payload, job.tries, job.reason) == ("done", {"path": "a.png"}, 1, None)
    assert keeping.get_job(gone) is None
    assert [job.id for job in keeping.jobs("kept", state="done")] == [kept]
    assert keeping.counts() == {**NONE, "done": 1}


def test_it_is_run_no_more_and_stays_as_long_as_was_said(keeping: KQueue) -> None:
    job_id = keeping.add_job("kept")
    assert keeping.run_jobs().count == 1
    assert keeping.run_jobs().count == 0
    assert keeping.retry_job(job_id, "again") is False
    assert keeping.sweep().expired == 0
    assert keeping.counts("kept")["done"] == 1


def test_it_can_be_deleted_before_its_time(keeping: KQueue) -> None:
    ids = keeping.add_jobs("kept", range(3))
    keeping.run_jobs()
    assert keeping.delete_job(ids[1]) is True
    assert [job.id for job in keeping.jobs("kept", state="done")] == [ids[0], ids[2]]
    assert keeping.purge_jobs("kept") == 2


def test_a_second_delete_changes_nothing_and_another_end_is_refused(queue: KQueue) -> None:
    queue.options("t", keep_done=3600)

    seen: list[object] = []

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        job.delete()
        try:
            job.delete()
            seen.append(queue.delete_job(job.id))
            job.retry("no")
        except AlreadySettled as error:
            seen.append(str(error).split(": ")[1])

    queue.add_jobs("t", range(60))
    report = queue.run_jobs()
    assert (report.count, report.deleted) == (60, 60)
    assert seen == [True, "it was deleted before; a run is settled once"] * 60
    assert queue.counts("t") == {**NONE, "done": 60}


def test_a_job_that_was_deleted_under_its_handler_is_not_kept(make_queue: MakeQueue) -> None:
    queue, operator = make_queue(), make_queue()
    queue.options("t", keep_done=3600)

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        assert operator.delete_job(job.id)

    queue.add_job("t")
    assert queue.run_jobs().lost_lease == 1
    assert queue.counts("t") == NONE


def test_the_sweep_deletes_all_whose_time_is_over_and_nothing_that_is_not_finished(
    make_queue: MakeQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kqueue.upkeep.sweep.BATCH", BATCH)
    queue = make_queue(max_tries=1, retry_delay=3600)
    queue.options("short", keep_done=0.001)
    queue.options("long", keep_done=3600)
    for type in ("short", "long"):
        queue.add_handler(type, delete)
    queue.add_handler("fails", lambda job: 1 / 0)
    jobs = 2 * BATCH + 1
    queue.add_jobs("short", range(jobs))
    queue.add_job("long")
    queue.add_job("fails")
    queue.run_jobs()
    left = [queue.add_job("short", delay=3600), queue.add_job("short")]
    over_at = queue.store.now() + 0.001
    await_true(lambda: queue.store.now() > over_at)
    queue.sweep()  # on a slow machine the run's own sweeps took some
    assert queue.counts() == {**NONE, "delayed": 1, "ready": 1, "dead": 1, "done": 1}
    assert all(queue.get_job(job_id) for job_id in left)


def test_a_broker_that_is_down_does_not_hold_up_the_cleaning(closes: Closes) -> None:
    store = MemoryStore()
    queue = closes(KQueue(store=store))
    queue.options("t", keep_done=0.001)
    queue.add_handler("t", delete)
    queue.add_job("t")
    queue.run_jobs()
    over_at = store.now() + 0.001
    await_true(lambda: store.now() > over_at)
    queue.add_job("t")
    with pytest.raises(BrokerUnavailable):
        closes(KQueue(store=store, broker="beanstalk://127.0.0.1:1")).sweep()
    assert queue.counts("t") == {**NONE, "ready": 1}


def test_what_is_done_has_no_reason_any_more(make_queue: MakeQueue) -> None:
    queue = make_queue(retry_delay=0)
    queue.options("t", keep_done=3600)

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        if job.tries == 1:
            raise OSError("down")
        job.delete()

    job_id = queue.add_job("t")
    assert queue.run_jobs().deleted == 1
    job = queue.get_job(job_id)
    assert job is not None
    assert (job.state, job.reason) == ("done", None)
    assert [run.reason is None for run in job.runs] == [False, True]
