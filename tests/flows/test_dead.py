"""Dead jobs: their history, and bringing many of them back or deleting them by a filter."""

from collections.abc import Iterator
from typing import Any

import pytest

from kqueue import Filter, JobInHand, KQueue, StoreUnavailable
from kqueue.admin.dead_jobs import LOT
from tests.flows.conftest import MakeQueue


@pytest.fixture
def queue(make_queue: MakeQueue) -> Iterator[KQueue]:
    with make_queue(max_tries=1) as queue:
        yield queue


def die(queue: KQueue, type: str, payloads: list[Any]) -> list[str]:
    """Add jobs whose handler raises what they carry, and run them to their end."""

    def fail(job: JobInHand) -> None:
        raise ValueError(job.payload)

    queue.add_handler(type, fail)
    ids = queue.add_jobs(type, payloads)
    assert queue.run_jobs().dead == len(payloads)
    queue.remove_handler(type)
    return ids


def ids_of(lots: Iterator[list[Any]]) -> list[str]:
    return [job.id for lot in lots for job in lot]


def test_a_filter_leaves_those_of_which_all_of_it_holds(queue: KQueue) -> None:
    a = die(queue, "a", ["disk full", "no route"])
    b = die(queue, "b", ["Disk full"])
    assert ids_of(queue.dead_jobs()) == [*a, *b]
    assert ids_of(queue.dead_jobs(Filter(type="a"))) == a
    assert ids_of(queue.dead_jobs(Filter(containing="disk FULL"))) == [a[0], *b]
    assert ids_of(queue.dead_jobs(Filter(type="b", containing="route"))) == []
    [job] = [queue.get_job(b[0])]
    assert job is not None
    assert ids_of(queue.dead_jobs(Filter(added_since=job.created_at))) == b
    assert ids_of(queue.dead_jobs(Filter(added_before=job.created_at))) == a
    assert ids_of(queue.dead_jobs(limit=2)) == a


def test_many_are_brought_back_in_lots_and_run(queue: KQueue) -> None:
    ids = die(queue, "a", ["x"] * (2 * LOT + 50))
    die(queue, "b", ["x"])
    assert queue.retry_dead("mended", Filter(type="a")) == len(ids)
    assert queue.counts("b")["dead"] == 1
    seen: list[str] = []
    queue.add_handler("a", lambda job: (seen.append(job.id), job.delete()))
    assert queue.run_jobs().deleted == len(ids)
    assert sorted(seen) == ids


def test_a_limit_holds_over_the_lots(queue: KQueue) -> None:
    die(queue, "a", ["x"] * (LOT + 50))
    assert queue.retry_dead("mended", limit=LOT + 20) == LOT + 20
    assert queue.counts("a")["dead"] == 30
    assert queue.delete_dead(limit=10) == 10
    assert queue.counts("a") == queue.counts("a") | {"dead": 20, "ready": LOT + 20}


def test_only_the_dead_are_deleted(queue: KQueue) -> None:
    die(queue, "a", ["x", "y"])
    waiting = queue.add_job("a", "z")
    assert queue.delete_dead(Filter(type="a")) == 2
    assert queue.delete_dead() == 0
    assert queue.get_job(waiting) is not None


def test_a_job_tells_who_ran_it_when_and_how_that_ended(make_queue: MakeQueue) -> None:
    queue = make_queue(max_tries=3, retry_delay=0)
    job_id = queue.add_job("t")
    reasons = iter(["first", "second", "third"])

    def fail(job: JobInHand) -> None:
        raise ValueError(next(reasons))

    queue.add_handler("t", fail)
    before = queue.store.now()
    queue.run_jobs()
    job = queue.get_job(job_id)
    assert job is not None
    assert [run.reason.partition(" (")[0] for run in job.runs if run.reason] == [
        "ValueError: first",
        "ValueError: second",
        "ValueError: third",
    ]
    for run in job.runs:
        assert run.worker.endswith("on this host")
        assert run.begun_at is not None
        assert before - 1 < run.begun_at < run.ended_at + 1
        assert run.traceback is not None
        assert run.traceback.startswith("Traceback (most recent call last):\n")
        assert run.reason is not None
        assert run.traceback.endswith(run.reason.partition(" (")[0])
        assert "raise ValueError(next(reasons))" in run.traceback
        assert "kqueue/execution" not in run.traceback
    assert queue.retry_job(job_id, "once more")
    revived = queue.get_job(job_id)
    assert revived is not None
    assert len(revived.runs) == 3


def test_a_run_that_raised_nothing_has_no_traceback(make_queue: MakeQueue) -> None:
    queue = make_queue(max_tries=2, retry_delay=0)
    queue.add_handler("t", lambda job: job.retry("asked for") if job.tries == 1 else None)
    job_id = queue.add_job("t")
    queue.run_jobs()
    job = queue.get_job(job_id)
    assert job is not None
    assert [(run.reason, run.traceback) for run in job.runs] == [("asked for", None), ("not deleted", None)]


@pytest.mark.parametrize("limit", [0, -1, 1.5])
def test_a_limit_that_is_none_is_refused(limit: Any) -> None:
    queue = KQueue(store="memory:")
    with pytest.raises((ValueError, TypeError), match="limit: "):
        queue.retry_dead("mended", limit=limit)
    with pytest.raises((ValueError, TypeError), match="limit: "):
        queue.delete_dead(limit=limit)


@pytest.mark.parametrize(
    ("field", "value"),
    [("type", "no\ttype"), ("type", 3), ("containing", 3), ("added_since", "2026-05-01"), ("added_before", -1)],
)
def test_a_filter_that_could_match_nothing_is_refused(field: str, value: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=f"{field}: "):
        Filter(**{field: value})


def test_what_was_done_before_an_error_stays_done(queue: KQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    die(queue, "a", ["x"] * (LOT + 50))
    delete, lots = queue.store.delete, []

    def delete_once(ids: list[str]) -> int:
        lots.append(ids)
        if len(lots) == 2:
            raise StoreUnavailable("the disk is full")
        return delete(ids)

    monkeypatch.setattr(queue.store, "delete", delete_once)
    with pytest.raises(StoreUnavailable):
        queue.delete_dead()
    assert queue.counts("a")["dead"] == 50


def test_after_an_outage_what_waits_for_its_retry_runs_at_once(make_queue: MakeQueue) -> None:
    """In lots; what waits for its first run waits on, and no try is forgotten."""
    queue = make_queue(retry_delay=3600)
    is_down = True

    @queue.handler("mail", "image")
    def handle(job: JobInHand) -> None:
        if is_down:
            raise ConnectionError("the server is down")
        job.delete()

    mails = queue.add_jobs("mail", range(150))
    image = queue.add_job("image")
    later = queue.add_job("mail", delay=3600)
    assert queue.run_jobs().retried == 151
    is_down = False
    assert queue.retry_delayed(Filter("mail", containing="is up")) == 0
    assert queue.retry_delayed(Filter("mail", containing="IS DOWN"), limit=10) == 10
    assert queue.retry_delayed(Filter("mail")) == 140
    assert queue.retry_delayed(Filter("mail")) == 0
    job = queue.get_job(mails[0])
    assert job is not None
    assert (job.state, job.tries) == ("ready", 1)
    report = queue.run_jobs()
    assert (report.count, report.deleted) == (150, 150)
    assert {job.id for lot in queue.search("delayed") for job in lot} == {image, later}
    assert [job.id for lot in queue.search("delayed", Filter(containing="down")) for job in lot] == [image]


@pytest.mark.parametrize("call", ["retry_dead", "delete_dead", "retry_delayed", "search"])
def test_what_is_no_filter_is_refused(make_queue: MakeQueue, call: str) -> None:
    """A type in its place would mean all."""
    queue = make_queue()
    calls: dict[str, Any] = {
        "retry_dead": lambda: queue.retry_dead("why", "mail"),  # type: ignore[arg-type]
        "delete_dead": lambda: queue.delete_dead("mail"),  # type: ignore[arg-type]
        "retry_delayed": lambda: queue.retry_delayed("mail"),  # type: ignore[arg-type]
        "search": lambda: queue.search("dead", "mail"),  # type: ignore[arg-type]
    }
    with pytest.raises(TypeError, match="^wanted: expected a Filter, got 'mail'"):
        calls[call]()
