"""What comes of a job, the same on every store and broker: its result, kept with its end."""

import datetime
import math

import pytest

from kqueue import JobInHand, KQueue, New, Verdict
from tests.flows.conftest import MakeQueue

#: What cannot be a result, and what is said of it.
REFUSED = [
    (datetime.date(2026, 1, 1), TypeError, r"result: date has no form in JSON; give its text"),
    ({"at": [object()]}, TypeError, r'result\["at"\]\[0\]: object has no form in JSON'),
    (math.nan, ValueError, "result: nan is no JSON"),
    ({1: 2}, TypeError, "result: a JSON object's keys are str, got 1"),
    ("x" * 2**20, ValueError, r"result: 1048578 bytes, and at most 1048576 are allowed \(max_result\)"),
    (b"x" * (2**20 + 1), ValueError, "result: 1048577 bytes"),
]


def finish(queue: KQueue, result: object, **given: float) -> str:
    """The id of a job that has ended with this result."""
    queue.remove_handler("t")
    queue.add_handler("t", lambda job: job.delete(result=result))
    job_id = queue.add_job("t", **given)
    assert queue.run_jobs().deleted == 1
    return job_id


@pytest.mark.parametrize(
    "result",
    [{"pages": [1, 2.5, None, "☃ \0 \x1b[31m"]}, [], "", 0, False, b"", b"\x00\xff", "x" * (2**20 - 2), "\udc80"],
    ids=lambda result: f"{result!r:.20}",
)
def test_a_result_comes_back_as_it_was_given(queue: KQueue, result: object) -> None:
    job = queue.get_job(finish(queue, result, keep_done=60))
    assert job is not None
    assert (job.state, job.result, job.reason) == ("done", result, None)
    assert job.finished_at == job.runs[-1].ended_at


def test_no_result_is_none_and_so_is_that_of_a_job_that_has_not_ended(queue: KQueue) -> None:
    job = queue.get_job(finish(queue, None, keep_done=60))
    waiting = queue.get_job(queue.add_job("t"))
    assert job is not None
    assert waiting is not None
    assert (job.result, waiting.result, waiting.finished_at) == (None, None, None)


def test_a_job_that_is_not_kept_has_no_end_to_ask_for(queue: KQueue) -> None:
    assert queue.get_job(finish(queue, 42)) is None


@pytest.mark.parametrize(
    ("of_type", "of_add", "kept"),
    [
        ({}, {"keep_done": 60}, True),
        ({}, {"tombstone": 60}, True),
        ({"keep_done": 60}, {}, True),
        ({"tombstone": 60}, {}, True),
        ({"keep_done": 60}, {"keep_done": 0}, False),
        ({"tombstone": 60}, {"keep_done": 0}, True),
        ({"keep_done": 60, "tombstone": 60}, {"keep_done": 0, "tombstone": 0}, False),
        ({"keep_done": 60}, {"tombstone": 0, "max_tries": 5}, True),
    ],
)
def test_it_is_kept_as_its_add_says_or_else_its_type(
    queue: KQueue, of_type: dict[str, float], of_add: dict[str, float], kept: bool
) -> None:
    queue.options("t", **of_type)  # type: ignore[arg-type]
    job = queue.get_job(finish(queue, 42, **of_add))
    assert (job is not None and job.result == 42) is kept


def test_each_job_of_a_list_may_say_it_for_itself(queue: KQueue) -> None:
    queue.add_handler("t", lambda job: job.delete(result=job.payload))
    ids = queue.add_jobs("t", [New(1), New(2, keep_done=60), New(3, keep_done=0)], tombstone=0)
    queue.run_jobs()
    assert [job and job.result for job in map(queue.get_job, ids)] == [None, 2, None]


@pytest.mark.parametrize(("result", "error", "said"), REFUSED, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("keep", [0, 60])
def test_what_cannot_be_kept_is_refused_and_the_job_is_still_in_hand(
    queue: KQueue, result: object, error: type[Exception], said: str, keep: float
) -> None:
    seen: list[str] = []

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        with pytest.raises(error, match=said):
            job.delete(result)
        seen.append(job.id)
        job.renew()
        job.delete("instead")

    job_id = queue.add_job("t", keep_done=keep)
    assert queue.run_jobs().deleted == 1
    assert seen == [job_id]
    job = queue.get_job(job_id)
    assert (job.result if job else None) == ("instead" if keep else None)


def test_what_a_handler_returns_is_the_result_where_that_deletes(queue: KQueue) -> None:
    queue.options("t", keep_done=60)
    queue.add_handler("t", lambda job: {"n": job.payload}, delete_on_success=True)
    ids = queue.add_jobs("t", [1, 2])
    assert queue.run_jobs().deleted == 2
    assert [job and job.result for job in map(queue.get_job, ids)] == [{"n": 1}, {"n": 2}]


def test_the_words_keep_their_meaning(queue: KQueue) -> None:
    queue.options("t", keep_done=60)
    queue.add_handler("t", lambda job: Verdict[job.payload], delete_on_success=True)
    ok, failed = queue.add_jobs("t", ["OK", "FAILED"])
    queue.run_jobs()
    jobs = [queue.get_job(ok), queue.get_job(failed)]
    assert [job and (job.state, job.result) for job in jobs] == [("done", None), ("dead", None)]
    assert jobs[1] is not None
    assert jobs[1].finished_at == jobs[1].runs[-1].ended_at


def test_what_a_handler_settles_itself_wins_over_what_it_returns(queue: KQueue) -> None:
    queue.options("t", keep_done=60)

    @queue.handler("t", delete_on_success=True)
    def handle(job: JobInHand) -> str:
        job.delete("settled")
        return "returned"

    job = queue.get_job(queue.add_job("t"))
    queue.run_jobs()
    job = queue.get_job(job.id) if job else None
    assert job is not None
    assert job.result == "settled"


@pytest.mark.parametrize("result", [one for one, _, _ in REFUSED], ids=lambda result: type(result).__name__)
def test_what_is_returned_and_cannot_be_kept_never_makes_a_finished_job_run_again(
    queue: KQueue, result: object, caplog: pytest.LogCaptureFixture
) -> None:
    queue.options("t", keep_done=60)
    queue.add_handler("t", lambda job: result, delete_on_success=True)
    job_id = queue.add_job("t")
    assert queue.run_jobs().deleted == 1
    job = queue.get_job(job_id)
    assert job is not None
    assert (job.state, job.result, job.tries) == ("done", None, 1)
    assert job.reason is not None
    assert job.reason.startswith("its result is missing: ")
    assert any("done, but its result is missing" in text for text in caplog.messages)


class Odd(dict[str, int]):
    """Raises where JSON looks into it."""

    def items(self) -> None:  # type: ignore[override]
        raise LookupError("not to be had")


def test_also_where_it_raises_what_it_likes(queue: KQueue) -> None:
    queue.options("t", keep_done=60)
    queue.add_handler("t", lambda job: Odd(a=1), delete_on_success=True)
    job_id = queue.add_job("t")
    assert queue.run_jobs().deleted == 1
    job = queue.get_job(job_id)
    assert job is not None
    assert job.reason is not None
    assert "LookupError: not to be had" in job.reason


def test_what_is_returned_and_not_kept_is_not_looked_at(queue: KQueue, caplog: pytest.LogCaptureFixture) -> None:
    queue.add_handler("t", lambda job: object(), delete_on_success=True)
    queue.add_job("t")
    assert queue.run_jobs().deleted == 1
    assert caplog.messages == []


@pytest.mark.parametrize("most", [0, 10])
def test_the_queue_says_how_much(make_queue: MakeQueue, most: int) -> None:
    queue = make_queue(max_result=most)

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        with pytest.raises(ValueError, match=f"at most {most} are allowed"):
            job.delete(b"x" * (most + 1))
        job.delete(b"x" * most)

    job_id = queue.add_job("t", keep_done=60)
    assert queue.run_jobs().deleted == 1
    job = queue.get_job(job_id)
    assert job is not None
    assert job.result == b"x" * most


def test_a_coroutine_has_a_result_too(queue: KQueue) -> None:
    queue.options("t", keep_done=60)

    @queue.handler("t", delete_on_success=True)
    async def handle(job: JobInHand) -> list[int]:
        return [job.payload]

    job_id = queue.add_job("t", 7)
    assert queue.work(wait=False).deleted == 1
    job = queue.get_job(job_id)
    assert job is not None
    assert job.result == [7]


def test_a_holder_that_comes_late_leaves_no_result(make_queue: MakeQueue) -> None:
    queue, thief = make_queue(settle_ms=0), make_queue()
    queue.options("t", keep_done=60)

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        assert thief.delete_job(job.id)
        job.delete("late")

    job_id = queue.add_job("t")
    assert queue.run_jobs().lost_lease == 1
    assert queue.get_job(job_id) is None
