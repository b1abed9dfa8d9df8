"""Retry policies, snoozes and the four words, as a user sees them, the same on every store and broker."""

import logging
import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from kqueue import Job, JobInHand, KQueue, RetryPolicy, RunReport, Snooze, Verdict, exponential, fixed
from kqueue.assembly import assemble
from kqueue.stores.memory.store import MemoryStore
from kqueue.system.clock import ManualClock
from tests.closing import Closes
from tests.flows.conftest import MakeQueue


@pytest.fixture
def turned_queue(closes: Closes) -> Callable[..., tuple[KQueue, ManualClock]]:
    """A queue and the clock that it lives by."""

    def make(**options: Any) -> tuple[KQueue, ManualClock]:
        clock = ManualClock(1_800_000_000.0)
        return closes(KQueue.from_parts(assemble(MemoryStore(clock), clock=clock, **options))), clock

    return make


def the_job(queue: KQueue, job_id: str) -> Job:
    job = queue.get_job(job_id)
    assert job is not None
    return job


def waits(queue: KQueue, job_id: str) -> float:
    """Seconds until the job runs again, to the next ten: some pass between its settle and this look."""
    return round(the_job(queue, job_id).run_at - queue.store.now(), -1)


def waits_about(queue: KQueue, job_id: str) -> float:
    """The same to the next hundred, where there is a jitter."""
    return round(the_job(queue, job_id).run_at - queue.store.now(), -2)


def ran(report: RunReport) -> dict[str, int]:
    names = ("deleted", "retried", "ungot", "dead", "lost_lease")
    return {name: getattr(report, name) for name in names if getattr(report, name)}


def test_types_have_policies_of_their_own_and_the_others_have_the_queues(make_queue: MakeQueue) -> None:
    queue = make_queue(retry_delay=100, max_tries=2)
    queue.options("steady", retry=RetryPolicy(delay=fixed(200)))
    queue.options("short", retry_delay=300)
    for type in ("plain", "steady", "short"):
        queue.add_handler(type, lambda job: 1 / 0)
    queue.add_handler("own", lambda job: 1 / 0, retry=RetryPolicy(max_tries=1))
    ids = {type: queue.add_job(type) for type in ("plain", "steady", "short", "own")}
    assert ran(queue.run_jobs()) == {"retried": 3, "dead": 1}
    assert [waits_about(queue, ids[type]) for type in ("plain", "steady", "short")] == [100, 200, 300]
    assert the_job(queue, ids["own"]).state == "dead"


def test_delays_grow_with_each_failed_run_and_the_tries_end(make_queue: MakeQueue) -> None:
    queue = make_queue()
    asked: list[tuple[int, str | None]] = []

    def delay(failures: int, error: BaseException | None) -> float:
        asked.append((failures, error and str(error)))
        return 0

    @queue.handler("t", retry=RetryPolicy(max_tries=4, delay=delay))
    def handle(job: JobInHand) -> None:
        if job.tries == 2:
            job.retry("asked for")
        else:
            raise ValueError(job.tries)

    job_id = queue.add_job("t")
    assert ran(queue.run_jobs()) == {"retried": 3, "dead": 1}
    assert asked == [(1, "1"), (2, None), (3, "3")]
    assert the_job(queue, job_id).tries == 4


def test_what_the_add_of_a_job_says_wins_over_its_type_and_that_over_the_queue(make_queue: MakeQueue) -> None:
    queue = make_queue(retry_delay=0, max_tries=3)
    queue.options("t", max_tries=2, retry_delay=0)
    for type in ("t", "plain"):
        queue.add_handler(type, lambda job: 1 / 0)
    by_queue, by_type = queue.add_job("plain"), queue.add_job("t")
    own = queue.add_job("t", max_tries=1)
    ids = queue.add_jobs("t", [1, 2], max_tries=5, retry_delay=0)
    assert ran(queue.run_jobs()) == {"retried": 2 + 1 + 0 + 8, "dead": 5}
    assert [the_job(queue, id).tries for id in (by_queue, by_type, own, *ids)] == [3, 2, 1, 5, 5]
    assert [the_job(queue, id).max_tries for id in (by_queue, by_type, own, *ids)] == [None, None, 1, 5, 5]


@pytest.mark.parametrize(
    ("retry_delay", "waited"),
    [(400, 400), (timedelta(minutes=10), 600), (fixed(700), 700), ([800, 900], 800), (exponential(1000), 1000)],
    ids=["a number, which grows", "a timedelta", "fixed", "a list", "exponential"],
)
def test_a_job_has_a_delay_of_its_own(make_queue: MakeQueue, retry_delay: Any, waited: float) -> None:
    queue = make_queue()
    queue.options("t", retry=RetryPolicy(delay=fixed(100), max_tries=7))
    queue.add_handler("t", lambda job: 1 / 0)
    job_id = queue.add_job("t", retry_delay=retry_delay, unique="one")
    assert ran(queue.run_jobs()) == {"retried": 1}
    assert waits_about(queue, job_id) == waited


def test_what_is_final_for_a_type_is_final_for_a_job_with_retries_of_its_own(make_queue: MakeQueue) -> None:
    queue = make_queue()
    queue.add_handler("t", lambda job: 1 / 0, retry=RetryPolicy(final=ZeroDivisionError))
    queue.add_job("t", max_tries=9)
    assert ran(queue.run_jobs()) == {"dead": 1}


@pytest.mark.parametrize("by", ["type", "queue"])
def test_a_job_that_fails_so_long_after_its_add_is_dead(
    turned_queue: Callable[..., tuple[KQueue, ManualClock]], by: str
) -> None:
    queue, clock = turned_queue(retry_delay=0, max_tries=None, **({"max_age": 3600} if by == "queue" else {}))
    if by == "type":
        queue.options("t", max_age=timedelta(hours=1))

    @queue.handler("t", retry=RetryPolicy(max_tries=None, delay=600, give_back=ConnectionError))
    def fail(job: JobInHand) -> None:
        if job.payload == "fine":
            job.delete()
        raise ConnectionError if job.payload == "give back" else ValueError(job.payload)

    failing, given_back, later, fine = (
        queue.add_job("t", payload, delay=delay)
        for payload, delay in (("x" * 2000, 0), ("give back", 0), ("later", 3000), ("fine", 4000))
    )
    assert ran(queue.run_jobs()) == {"retried": 1, "ungot": 1}
    clock.advance(3599)
    assert ran(queue.run_jobs()) == {"retried": 2, "ungot": 1}
    clock.advance(600)
    assert ran(queue.run_jobs()) == {"deleted": 1, "retried": 1, "dead": 2}
    for job_id in (failing, given_back):
        job = the_job(queue, job_id)
        assert job.state == "dead"
        assert job.reason is not None
        assert job.reason.endswith("; given up, since it is older than max_age (3600 s)")
        assert len(job.reason) <= 1000
    clock.advance(3000)
    assert ran(queue.run_jobs()) == {"dead": 1}
    assert the_job(queue, later).tries == 3
    assert queue.get_job(fine) is None
    assert queue.retry_job(failing, "once more")
    assert ran(queue.run_jobs()) == {"dead": 1}


def test_a_delay_that_the_handler_gives_wins(make_queue: MakeQueue) -> None:
    queue = make_queue()
    queue.options("t", retry=RetryPolicy(delay=exponential(1000)))
    queue.add_handler("t", lambda job: job.retry("soon", delay=100))
    job_id = queue.add_job("t")
    queue.run_jobs()
    assert waits(queue, job_id) == 100


def test_jitter_is_added_to_the_bare_delay(make_queue: MakeQueue) -> None:
    queue = make_queue()
    queue.add_handler("t", lambda job: 1 / 0, retry=RetryPolicy(delay=fixed(1000, jitter=0.5)))
    ids = queue.add_jobs("t", range(20))
    queue.run_jobs()
    delays = {waits(queue, id) for id in ids}
    assert len(delays) > 5
    assert all(499 <= delay <= 1501 for delay in delays)


def test_final_errors_end_a_job_at_once_and_others_give_it_back(make_queue: MakeQueue) -> None:
    queue = make_queue()
    tries: list[int] = []

    @queue.handler("t", retry=RetryPolicy(max_tries=2, delay=0, final=ValueError, give_back=ConnectionError))
    def handle(job: JobInHand) -> None:
        tries.append(job.tries)
        raise [ConnectionResetError("down"), ConnectionRefusedError("down"), OSError("odd"), ValueError("no")][
            job.fence - 1
        ]

    job_id = queue.add_job("t")
    assert ran(queue.run_jobs()) == {"ungot": 2, "retried": 1, "dead": 1}
    assert tries == [1, 1, 1, 2]
    job = the_job(queue, job_id)
    assert (job.state, job.tries) == ("dead", 2)
    assert str(job.reason).startswith("ValueError: no (test_retries.py:")


def test_what_is_given_back_waits_for_the_policys_delay(make_queue: MakeQueue, caplog: Any) -> None:
    queue = make_queue()
    queue.options("t", retry=RetryPolicy(delay=[300, 600], give_back=ConnectionError))

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        raise ConnectionError("no route")

    job_id = queue.add_job("t")
    with caplog.at_level(logging.INFO, "kqueue"):
        queue.run_jobs()
    assert waits(queue, job_id) == 300
    assert f"job {job_id} (t): given back: ConnectionError: no route" in caplog.text


@pytest.mark.parametrize("how", ["returned", "raised"])
def test_a_snooze_costs_no_try(make_queue: MakeQueue, how: str) -> None:
    queue = make_queue(max_tries=1)
    tries: list[int] = []

    @queue.handler("t")
    def handle(job: JobInHand) -> Any:
        tries.append(job.tries)
        snooze = Snooze(0 if job.fence < 3 else 500)
        if how == "raised":
            raise snooze
        return snooze

    job_id = queue.add_job("t", priority="high")
    assert ran(queue.run_jobs()) == {"ungot": 3}
    assert tries == [1, 1, 1]
    assert (waits(queue, job_id), the_job(queue, job_id).priority) == (500, 2**14)
    (answer,) = queue.why(job_id)
    assert answer.text.endswith("; said last: snoozed for 500 s")


def test_the_four_words(make_queue: MakeQueue) -> None:
    queue = make_queue(retry_delay=100)
    queue.add_handler("t", lambda job: Verdict[job.payload])
    ids = {word.name: queue.add_job("t", word.name) for word in Verdict}
    assert ran(queue.run_jobs()) == {"deleted": 1, "dead": 1, "retried": 2}
    assert queue.get_job(ids.pop("OK")) is None
    ended = {word: the_job(queue, job_id) for word, job_id in ids.items()}
    assert {word: str(job.state) for word, job in ended.items()} == {
        "FAILED": "dead",
        "RETRY": "delayed",
        "ERROR": "delayed",
    }
    assert all(job.reason == f"the handler returned {word}" for word, job in ended.items())


class Quit(BaseException):
    """What no ``except Exception`` catches."""


@pytest.mark.parametrize("nonsense", [None, "5", math.nan, -1, True, ValueError("typo"), Quit()])
def test_a_delay_function_that_fails_loses_no_job_and_ends_no_loop(
    make_queue: MakeQueue, nonsense: Any, caplog: Any
) -> None:
    queue = make_queue(retry_delay=200)

    def delay(failures: int, error: BaseException | None) -> float:
        if isinstance(nonsense, BaseException):
            raise nonsense
        result: float = nonsense
        return result

    queue.options("t", retry=RetryPolicy(delay=delay, give_back=KeyError))

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        if job.payload == "asks":
            job.retry("again")
        raise {"fails": ValueError, "gives back": KeyError}[job.payload]

    ids = queue.add_jobs("t", ["asks", "fails", "gives back"])
    assert ran(queue.run_jobs()) == {"retried": 2, "ungot": 1}
    assert [waits(queue, id) for id in ids] == [200] * 3
    assert caplog.text.count("its delay function failed") == 3
    assert all(f"job {id} (t): its delay function" in caplog.text for id in ids)


def test_a_delay_function_that_is_interrupted_gives_its_job_back(make_queue: MakeQueue) -> None:
    queue = make_queue()

    def delay(failures: int, error: BaseException | None) -> float:
        raise KeyboardInterrupt

    queue.add_handler("t", lambda job: 1 / 0, retry=RetryPolicy(delay=delay))
    job_id = queue.add_job("t")
    with pytest.raises(KeyboardInterrupt):
        queue.run_jobs()
    job = the_job(queue, job_id)
    assert (job.state, job.tries) == ("ready", 0)


def test_a_policy_set_while_a_loop_runs_holds_from_then_on(make_queue: MakeQueue) -> None:
    queue = make_queue(retry_delay=100)

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        if job.payload == 1:
            queue.options("t", retry_delay=300)
        raise ValueError

    ids = queue.add_jobs("t", range(3))
    queue.run_jobs()
    assert [waits_about(queue, id) for id in ids] == [100, 300, 300]


def test_a_handler_whose_policy_is_refused_is_not_registered(make_queue: MakeQueue) -> None:
    queue = make_queue()
    queue.options("t", retry_delay=5)
    with pytest.raises(ValueError, match="^retry: t has retry_delay"):
        queue.add_handler("t", print, retry=RetryPolicy())
    assert queue.types() == []
    queue.add_handler("u", print)
    with pytest.raises(ValueError, match="u has a handler already"):
        queue.add_handler("u", print, retry=RetryPolicy())
    assert queue.options("u", retry=RetryPolicy(max_tries=3)).retry.max_tries == 3
