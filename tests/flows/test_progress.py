"""What runs tell of themselves, the same on every store and broker: how far they are, and a log."""

import asyncio
import math
import threading
from typing import Any

import pytest

from kqueue import JobInHand, KQueue, Logged, Progress, Progressed
from kqueue.contracts.reporting import Report
from tests.flows.conftest import MakeQueue
from tests.tubes import PATIENCE_S, await_true

ID = "0" * 28


def told(queue: KQueue, job_id: str) -> list[tuple[int, str]]:
    return [(line.tries, line.text) for line in queue.job_log(job_id)]


def reports_of(queue: KQueue, monkeypatch: pytest.MonkeyPatch) -> list[Report]:
    """What is asked of the store beside the settles."""
    seen: list[Report] = []
    report = queue.store.report

    def note(reports: Any, now: float) -> frozenset[str]:
        seen.extend(reports)
        return report(reports, now)

    monkeypatch.setattr(queue.store, "report", note)
    return seen


def test_it_is_written_while_the_job_runs(queue: KQueue) -> None:
    seen = threading.Event()

    @queue.handler("t", delete_on_success=True)
    def handle(job: JobInHand) -> None:
        job.progress(1, 4, {"at": "a.png"})
        job.log("read %d of %s", 1, "four")
        assert seen.wait(PATIENCE_S)

    job_id = queue.add_job("t")
    runner = threading.Thread(target=queue.run_jobs)
    runner.start()
    try:
        await_true(lambda: told(queue, job_id) == [(1, "read 1 of four")])
        job = queue.get_job(job_id)
        assert job is not None
        assert job.progress is not None
        assert job.progress == Progress(1, 4, {"at": "a.png"}, job.progress.at, 1)
        assert job.progress.percent == 25
    finally:
        seen.set()
        runner.join(PATIENCE_S)
    assert queue.job_log(job_id) == []


def test_a_coroutine_is_not_made_to_wait(queue: KQueue) -> None:
    seen = threading.Event()

    @queue.handler("t", delete_on_success=True)
    async def handle(job: JobInHand) -> None:
        job.log("begun")
        while not seen.is_set():
            await asyncio.sleep(0.01)

    job_id = queue.add_job("t", keep_done=60)
    runner = threading.Thread(target=queue.work, kwargs={"wait": False})
    runner.start()
    try:
        await_true(lambda: told(queue, job_id) == [(1, "begun")])
    finally:
        seen.set()
        runner.join(PATIENCE_S)
    assert told(queue, job_id) == [(1, "begun")]


def test_it_goes_with_the_end_of_a_run_that_leaves_its_job(
    make_queue: MakeQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And costs a job that is deleted nothing."""
    queue = make_queue(retry_delay=0)
    seen = reports_of(queue, monkeypatch)

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        job.log("try")
        job.progress(job.tries, 3)
        if job.tries == 1:
            raise OSError("down")
        if job.tries == 2:
            job.retry("again")
        job.log("done")
        job.delete() if job.tries == 3 else None

    kept, gone = queue.add_job("t", keep_done=60), queue.add_job("t")
    assert queue.run_jobs().deleted == 2
    assert told(queue, kept) == [(1, "try"), (2, "try"), (3, "try"), (3, "done")]
    job = queue.get_job(kept)
    assert job is not None
    assert job.progress is not None
    assert job.progress[:3] == (3, 3, None)
    assert (queue.job_log(gone), seen) == ([], [])


def test_what_is_told_after_the_end_changes_nothing(queue: KQueue) -> None:
    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        job.log("before")
        job.delete()
        job.log("after")
        job.progress(1, 1)

    job_id = queue.add_job("t", keep_done=60)
    queue.run_jobs()
    job = queue.get_job(job_id)
    assert job is not None
    assert (told(queue, job_id), job.progress) == ([(1, "before")], None)


def test_who_has_lost_the_job_changes_nothing(make_queue: MakeQueue) -> None:
    queue, thief = make_queue(), make_queue()

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        job.log("mine")
        queue.flush()
        assert thief.delete_job(job.id)
        job.log("late")
        queue.flush()
        job.retry("late")

    job_id = queue.add_job("t")
    assert queue.run_jobs().lost_lease == 1
    assert queue.job_log(job_id) == []


def test_all_runs_of_a_process_are_written_together(queue: KQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    report = queue.store.report

    def count(reports: Any, now: float) -> frozenset[str]:
        calls.append(len(reports))
        return report(reports, now)

    monkeypatch.setattr(queue.store, "report", count)
    barrier = threading.Barrier(3)

    @queue.handler("t", delete_on_success=True)
    def handle(job: JobInHand) -> None:
        for number in range(50):
            job.log("line %d", number)
        barrier.wait(PATIENCE_S)
        if job.payload == 0:
            queue.flush()
        barrier.wait(PATIENCE_S)

    ids = queue.add_jobs("t", range(3), keep_done=60)
    assert queue.work(threads=3, wait=False).deleted == 3
    assert sum(calls) == 3  # one report for each, of 50 lines
    assert all(told(queue, job_id) == [(1, f"line {number}") for number in range(50)] for job_id in ids)


def test_a_page_of_a_log_goes_on_after_the_last_one(queue: KQueue) -> None:
    queue.add_handler("t", lambda job: [job.log(str(number)) for number in range(5)], delete_on_success=True)
    job_id = queue.add_job("t", keep_done=60)
    queue.run_jobs()
    first = queue.job_log(job_id, limit=3)
    rest = queue.job_log(job_id, after=first[-1].number)
    assert [line.text for line in first + rest] == list("01234")
    assert queue.job_log(job_id, after=rest[-1].number) == []
    assert queue.job_log("no id") == queue.job_log(ID) == []


def test_of_a_run_that_tells_much_the_last_lines_are_kept(queue: KQueue) -> None:
    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        for number in range(3000):
            job.log("%d", number)
        job.delete()

    job_id = queue.add_job("t", keep_done=60)
    queue.run_jobs()
    assert [line.text for line in queue.job_log(job_id, limit=9999)] == [
        str(number) for number in range(2000, 3000)
    ]


@pytest.mark.parametrize(
    ("done", "total", "note", "error", "said"),
    [
        (0, 0, None, ValueError, "total: more than 0, got 0"),
        (0, -1, None, ValueError, "total: a finite number, at least 0, got -1"),
        (-1, 2, None, ValueError, "done: a finite number, at least 0, got -1"),
        (3, 2, None, ValueError, "done: at most total, which is 2, got 3"),
        (math.nan, 2, None, ValueError, "done: a finite number"),
        (1, math.inf, None, ValueError, "total: a finite number"),
        ("1", 2, None, TypeError, "done: expected a number"),
        (True, 2, None, TypeError, "done: expected a number"),
        (1, 2, {1: 2}, TypeError, "note: a JSON object's keys are str"),
        (1, 2, b"x", TypeError, "note: expected a JSON value, got bytes"),
        (1, 2, math.nan, ValueError, "note: nan is no JSON"),
        (1, 2, "x" * 2**20, ValueError, "note: 1048578 bytes, and at most 16384 are allowed"),
    ],
)
def test_a_progress_that_is_none_is_refused(
    queue: KQueue, done: Any, total: Any, note: Any, error: type[Exception], said: str
) -> None:
    queue.add_handler("t", lambda job: _refused(job.progress, (done, total, note), error, said) or job.delete())
    job_id = queue.add_job("t", keep_done=60)
    assert queue.run_jobs().deleted == 1
    job = queue.get_job(job_id)
    assert job is not None
    assert job.progress is None


@pytest.mark.parametrize(
    ("args", "error", "said"),
    [
        ((1,), TypeError, "text: expected a str, got 1"),
        ((None,), TypeError, "text: expected a str"),
        (("%d", "x"), ValueError, "text: '%d' cannot be formatted with 1 values"),
        (("%s %s", "x"), ValueError, "cannot be formatted with 1 values: not enough"),
        (("x" * 2**20,), ValueError, "text: a line has at most 16384 bytes, got 1048576"),
    ],
)
def test_a_line_that_is_none_is_refused(
    queue: KQueue, args: tuple[Any, ...], error: type[Exception], said: str
) -> None:
    queue.add_handler("t", lambda job: _refused(job.log, args, error, said) or job.delete())
    job_id = queue.add_job("t", keep_done=60)
    assert queue.run_jobs().deleted == 1
    assert queue.job_log(job_id) == []


def _refused(call: Any, args: tuple[Any, ...], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        call(*args)


@pytest.mark.parametrize("text", ["", "%", "100 %", "NUL \0", "\x1b[2J", "two\nlines", "☃"])
def test_a_line_without_values_is_taken_as_it_is(queue: KQueue, text: str) -> None:
    queue.add_handler("t", lambda job: job.log(text), delete_on_success=True)
    job_id = queue.add_job("t", keep_done=60)
    assert queue.run_jobs().deleted == 1
    assert told(queue, job_id) == [(1, text)]


def test_it_is_told_where_it_ran_once_it_is_written(queue: KQueue) -> None:
    events: list[object] = []
    queue.subscribe(lambda event: events.append(event) if isinstance(event, Progressed | Logged) else None)

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        job.log("first")
        job.progress(1, 2)
        job.progress(2, 2, "all")
        assert not events
        queue.flush()
        assert [type(event) for event in events] == [Logged, Progressed]
        job.log("last")
        job.delete()

    job_id = queue.add_job("t", keep_done=60)
    queue.run_jobs()
    _, progressed, last = events
    assert isinstance(progressed, Progressed)
    assert isinstance(last, Logged)
    assert progressed == Progressed(progressed.at, job_id, "t", 1, 1, 2, 2, "all")
    assert (last.text, last.job_id, last.fence) == ("last", job_id, 1)


@pytest.mark.parametrize("after", [-1, 1.5, "1"])
@pytest.mark.parametrize("limit", [0, -1, 1.5])
def test_bad_pages_are_refused(queue: KQueue, after: Any, limit: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="^after: "):
        queue.job_log(ID, after=after)
    with pytest.raises((ValueError, TypeError), match="^limit: "):
        queue.job_log(ID, limit=limit)
