"""Add, run, delete: what a user sees, the same on every store and broker."""

import re
import threading
from typing import Any

import pytest

from kqueue import AlreadySettled, JobInHand, KQueue, Priority, RunReport, State
from tests.flows.conftest import MakeQueue

ODD_PAYLOADS: list[Any] = [
    "",
    b"",
    b"\0\r\n\xff",
    "a\r\nb\0c",
    "Grüße 世界",
    {"a": [1, None, {"b": 2.5}]},
    0,
    None,
    False,
    "x" * 3_000_000,
]


def deleting(seen: list[Any]) -> Any:
    def handle(job: JobInHand) -> None:
        seen.append(job.payload)
        job.delete()

    return handle


def test_a_job_is_added_run_and_deleted(queue: KQueue) -> None:
    seen: list[Any] = []
    queue.add_handler("resize", deleting(seen))
    job_id = queue.add_job("resize", {"path": "a.png"})
    assert queue.counts("resize") == {"delayed": 0, "ready": 1, "held": 0, "running": 0, "dead": 0, "done": 0}
    report = queue.run_jobs()
    assert isinstance(report, RunReport)
    assert (report.count, report.deleted, report.retried, report.ungot, report.dead, report.lost_lease) == (
        1,
        1,
        0,
        0,
        0,
        0,
    )
    assert report.seconds > 0
    assert seen == [{"path": "a.png"}]
    assert queue.get_job(job_id) is None
    assert sum(queue.counts().values()) == 0


def test_payloads_come_back_as_they_went_in(queue: KQueue) -> None:
    seen: list[Any] = []
    queue.add_handler("odd", deleting(seen))
    queue.add_jobs("odd", ODD_PAYLOADS)
    assert queue.run_jobs().deleted == len(ODD_PAYLOADS)
    assert seen == ODD_PAYLOADS
    assert [type(one) for one in seen] == [type(one) for one in ODD_PAYLOADS]


def test_a_handler_sees_what_was_added(queue: KQueue) -> None:
    jobs: list[dict[str, Any]] = []

    @queue.handler("look")
    def look(job: JobInHand) -> None:
        names = ("id", "type", "payload", "priority", "delay", "ttr", "tries", "fence")
        jobs.append({name: getattr(job, name) for name in names})
        assert abs(job.created_at - queue.store.now()) < 3600
        assert job.state == "running"
        job.delete()

    job_id = queue.add_job("look", [1], priority="high", ttr=7.5)
    queue.run_jobs()
    assert jobs == [
        {
            "id": job_id,
            "type": "look",
            "payload": [1],
            "priority": Priority.HIGH,
            "delay": 0,
            "ttr": 7.5,
            "tries": 1,
            "fence": 1,
        }
    ]


def test_jobs_run_in_the_order_of_priority_then_added(queue: KQueue) -> None:
    seen: list[Any] = []
    queue.add_handler("t", deleting(seen))
    for n, priority in enumerate(["bulk", "normal", 7, "normal", Priority.URGENT, "bulk", 8]):
        queue.add_job("t", n, priority=priority)
    queue.add_jobs("t", range(10, 300), priority="bulk")
    queue.run_jobs()
    assert seen == [2, 6, 4, 1, 3, 0, 5, *range(10, 300)]


def test_types_share_one_order_and_a_type_without_a_handler_is_left_alone(queue: KQueue) -> None:
    seen: list[Any] = []
    queue.add_handler("a", deleting(seen))
    queue.add_handler("b", deleting(seen))
    queue.add_jobs("other", range(50), priority="urgent")
    for n in range(6):
        queue.add_job("ab"[n % 2], n, priority=[5, 6][n // 3])
    assert queue.run_jobs().deleted == 6
    assert sorted(seen[:3]) == [0, 1, 2]
    assert sorted(seen[3:]) == [3, 4, 5]
    assert queue.counts("other")["ready"] == 50


@pytest.mark.parametrize("call", ["run_jobs", "work", "work in threads"])
def test_a_loop_serves_the_types_that_it_is_told(queue: KQueue, call: str) -> None:
    ran: list[Any] = []

    @queue.handler("a", "b", "c", concurrency=2)
    def handle(job: JobInHand) -> None:
        ran.append(job.payload)
        job.delete()

    for type in "abc":
        queue.add_jobs(type, [type] * 3)
    if call == "run_jobs":
        report = queue.run_jobs(types=["a", "c"])
    else:
        report = queue.work(threads=3 if "threads" in call else 1, wait=False, types=iter(["a", "c"]))
    assert (report.count, sorted(ran)) == (6, ["a"] * 3 + ["c"] * 3)
    assert queue.run_jobs().count == 3


def test_types_that_no_loop_can_serve_are_refused(make_queue: MakeQueue) -> None:
    queue = make_queue()
    queue.add_handler("a", JobInHand.delete)
    queue.add_handler("b", JobInHand.delete)
    with pytest.raises(ValueError, match="types: mail has no handler; these have one: a, b"):
        queue.run_jobs(types=["a", "mail"])
    with pytest.raises(ValueError, match="types: there is none; these have one: a, b"):
        queue.work(types=[], wait=False)
    with pytest.raises(TypeError, match="types: expected a list of types, got 'a'"):
        queue.run_jobs(types="a")


def test_count_limit_runs_exactly_so_many_and_keeps_the_order(queue: KQueue) -> None:
    seen: list[Any] = []
    queue.add_handler("t", deleting(seen))
    queue.add_jobs("t", range(20))
    assert queue.run_jobs(count_limit=0).count == 0
    for upto in (3, 6, 9):
        assert queue.run_jobs(count_limit=3).count == 3
        assert seen == list(range(upto))
    assert queue.run_jobs().count == 11
    assert seen == list(range(20))


def test_after_the_time_limit_no_new_job_is_taken_and_the_rest_stays_ready(queue: KQueue) -> None:
    limit_s = 0.5

    @queue.handler("slow")
    def slow(job: JobInHand) -> None:
        threading.Event().wait(limit_s + 0.1)
        job.delete()

    queue.add_jobs("slow", range(5))
    while not (report := queue.run_jobs(time_limit_ms=limit_s * 1000)).count:
        limit_s *= 2  # the machine took longer to come to the first
    assert report.count == 1
    assert queue.counts("slow")["ready"] == 4
    assert queue.run_jobs(time_limit_ms=0).count == 0


def test_stop_from_a_handler_ends_the_loop_after_the_current_job(queue: KQueue) -> None:
    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        if job.payload == 150:
            queue.stop()
        job.delete()

    queue.add_jobs("t", range(200))
    assert queue.run_jobs().count == 151
    assert queue.counts("t") == {"delayed": 0, "ready": 49, "held": 0, "running": 0, "dead": 0, "done": 0}
    assert queue.run_jobs().count == 49


def test_stop_from_another_thread_ends_a_waiting_loop(queue: KQueue) -> None:
    ran = threading.Event()

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        job.delete()
        ran.set()

    reports: list[RunReport] = []
    loop = threading.Thread(target=lambda: reports.append(queue.run_jobs(wait=True)))
    loop.start()
    queue.add_job("t")
    assert ran.wait(30)
    queue.stop()
    loop.join(30)
    assert not loop.is_alive()
    assert reports[0].deleted == 1


def test_a_stop_before_the_loop_is_not_missed_and_counts_once(queue: KQueue) -> None:
    queue.add_handler("t", deleting([]))
    queue.add_job("t")
    queue.stop()
    queue.stop()
    assert queue.run_jobs(wait=True).count == 0
    assert queue.run_jobs().count == 1


def test_waiting_ends_at_the_time_limit_or_the_count_limit(queue: KQueue) -> None:
    queue.add_handler("t", deleting([]))
    assert queue.run_jobs(time_limit_ms=30, wait=True).count == 0
    queue.add_jobs("t", range(3))
    assert queue.run_jobs(count_limit=3, wait=True).count == 3


def test_nothing_to_run_returns_an_empty_report(queue: KQueue) -> None:
    assert queue.run_jobs().count == 0
    queue.add_handler("t", deleting([]))
    assert queue.run_jobs().count == 0


# -- what a handler may do ----------------------------------------------------------------------------------


def test_a_handler_that_raises_has_its_job_retried_with_the_reason(make_queue: MakeQueue) -> None:
    queue = make_queue(retry_delay=600)

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        raise OSError("disk on fire")

    job_id = queue.add_job("t")
    report = queue.run_jobs()
    assert (report.count, report.retried) == (1, 1)
    job = queue.get_job(job_id)
    assert job is not None
    assert (job.state, job.tries) == (State.DELAYED, 1)
    assert re.fullmatch(r"OSError: disk on fire \(test_run\.py:\d+\)", job.reason or "")
    assert 500 < job.run_at - queue.store.now() < 700


def test_a_handler_that_returns_without_settling_has_its_job_retried(queue: KQueue) -> None:
    queue.add_handler("t", lambda job: "anything")
    job_id = queue.add_job("t")
    assert queue.run_jobs().retried == 1
    job = queue.get_job(job_id)
    assert job is not None
    assert job.reason == "not deleted"


def test_delete_on_success_of_a_queue_of_a_type_and_of_a_handler(make_queue: MakeQueue) -> None:
    """The nearest to the handler counts."""
    queue = make_queue(delete_on_success=True, retry_delay=600)
    queue.options("typed", delete_on_success=False)
    queue.add_handler("plain", lambda job: None)
    queue.add_handler("typed", lambda job: None)
    queue.add_handler("own", lambda job: None, delete_on_success=False)
    ids = {type: queue.add_job(type) for type in queue.types()}
    report = queue.run_jobs()
    assert (report.deleted, report.retried) == (1, 2)
    assert queue.get_job(ids["plain"]) is None


def test_a_handler_that_settles_nothing_is_told_of_once_by_its_name(make_queue: MakeQueue, caplog: Any) -> None:
    queue = make_queue(retry_delay=0, max_tries=3)

    def forgetful(job: JobInHand) -> None:
        pass

    queue.add_handler("t", forgetful)
    ids = queue.add_jobs("t", range(2))
    queue.run_jobs()
    told = [record for record in caplog.records if "without having settled" in record.getMessage()]
    (record,) = told
    assert record.levelname == "WARNING"
    assert record.job_id == ids[0]
    name = f"{__name__}.test_a_handler_that_settles_nothing_is_told_of_once_by_its_name.<locals>.forgetful"
    assert f"its handler {name} returned without having settled it" in record.getMessage()


def test_delete_on_success(queue: KQueue) -> None:
    queue.add_handler("t", lambda job: None, delete_on_success=True)
    queue.add_handler("bad", lambda job: 1 / 0, delete_on_success=True)
    queue.add_job("t")
    queue.add_job("bad")
    report = queue.run_jobs()
    assert (report.deleted, report.retried) == (1, 1)


def test_what_a_handler_settled_itself_wins_over_what_it_raises(queue: KQueue) -> None:
    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        {"delete": job.delete, "unget": lambda: job.unget(delay=60), "retry": lambda: job.retry("mine", 60)}[
            job.payload
        ]()
        raise RuntimeError("too late")

    for what in ("delete", "unget", "retry"):
        queue.add_job("t", what)
    report = queue.run_jobs()
    assert (report.deleted, report.ungot, report.retried) == (1, 1, 1)


def test_retry_keeps_reason_and_delay_and_counts_tries(make_queue: MakeQueue) -> None:
    queue = make_queue(retry_delay=0)
    tries: list[int] = []

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        tries.append(job.tries)
        if job.tries < 3:
            queue.retry_job(job, "again")
        else:
            job.retry("later", delay=1000)

    job_id = queue.add_job("t")
    assert queue.run_jobs().retried == 3
    assert tries == [1, 2, 3]
    job = queue.get_job(job_id)
    assert job is not None
    assert (job.state, job.reason, job.fence) == ("delayed", "later", 3)


@pytest.mark.parametrize("back", ["fails", "gives back"])
def test_a_job_that_comes_back_at_once_again_and_again_keeps_no_other_type_waiting(
    make_queue: MakeQueue, back: str
) -> None:
    """Two types that this loop has measured or not, the comer in the first place."""
    queue = make_queue(retry_delay=0, max_tries=None)
    ran: list[Any] = []

    @queue.handler("comer")
    def again(job: JobInHand) -> None:
        ran.append("again")
        if back == "fails":
            job.retry("once more", delay=0)
        else:
            job.unget()

    @queue.handler("other")
    def other(job: JobInHand) -> None:
        ran.append(job.payload)
        job.delete()

    queue.add_job("comer")
    queue.run_jobs(count_limit=3)
    queue.add_jobs("other", range(5))
    queue.run_jobs(count_limit=15)
    assert [payload for payload in ran if payload != "again"] == list(range(5))


def test_unget_costs_no_try_and_may_change_the_priority(queue: KQueue) -> None:
    seen: list[tuple[int, int, int]] = []

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        seen.append((job.tries, job.fence, job.priority))
        if len(seen) == 1:
            queue.unget_job(job, priority="urgent")
        else:
            job.delete()

    queue.add_job("t")
    report = queue.run_jobs()
    assert (report.count, report.ungot, report.deleted) == (2, 1, 1)
    assert seen == [(1, 1, Priority.NORMAL), (1, 2, Priority.URGENT)]


def test_a_job_is_settled_once(queue: KQueue) -> None:
    errors: list[str] = []
    jobs: list[JobInHand] = []

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        jobs.append(job)
        job.delete()
        job.delete()
        assert queue.delete_job(job)
        for again in (lambda: job.retry("no"), job.unget, job.renew):
            with pytest.raises(AlreadySettled) as caught:
                again()
            errors.append(str(caught.value))

    queue.add_job("t")
    assert queue.run_jobs().deleted == 1
    assert all(f"job {jobs[0].id}: it was deleted before" in error for error in errors)
    with pytest.raises(AlreadySettled, match="its run is over"):
        jobs[0].delete()


def test_max_tries_ends_a_job_dead_kept_and_visible(make_queue: MakeQueue) -> None:
    queue = make_queue(retry_delay=0, max_tries=3)
    queue.add_handler("t", lambda job: 1 / 0)
    job_id = queue.add_job("t")
    report = queue.run_jobs()
    assert (report.count, report.retried, report.dead) == (3, 2, 1)
    job = queue.get_job(job_id)
    assert job is not None
    assert (job.state, job.tries) == ("dead", 3)
    assert str(job.reason).startswith("ZeroDivisionError: division by zero (test_run.py:")
    assert queue.counts("t")["dead"] == 1
    assert queue.run_jobs().count == 0


def test_a_dead_job_is_brought_back_with_its_tries_cleared_and_its_fence_kept(make_queue: MakeQueue) -> None:
    queue = make_queue(retry_delay=0, max_tries=2)
    seen: list[tuple[int, int]] = []

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        seen.append((job.tries, job.fence))
        raise ValueError

    job_id = queue.add_job("t")
    queue.run_jobs()
    assert queue.retry_job(job_id, "fixed the handler") is True
    job = queue.get_job(job_id)
    assert job is not None
    assert (job.state, job.reason) == ("ready", "fixed the handler")
    assert queue.retry_job(job_id, "not dead any more") is False
    assert queue.run_jobs().count == 2
    assert seen == [(1, 1), (2, 2), (1, 3), (2, 4)]
    assert queue.delete_job(job_id) is True
    assert queue.retry_job(job_id, "gone") is False


def test_a_reason_that_no_store_could_keep_is_kept_as_well_as_may_be(queue: KQueue) -> None:
    class Unspeakable(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        if job.payload == "surrogate":
            raise ValueError("\ud800 and \0")
        if job.payload == "long":
            raise ValueError("x" * 100_000)
        raise Unspeakable

    ids = queue.add_jobs("t", ["surrogate", "long", "unspeakable"])
    assert queue.run_jobs().retried == 3
    reasons = [job.reason for job in map(queue.get_job, ids) if job and job.reason]
    assert "ValueError: \\ud800 and" in reasons[0]
    assert len(reasons[1]) == 1000
    assert reasons[2].startswith("Unspeakable: (its text cannot be had")


@pytest.mark.parametrize("error", [GeneratorExit, BaseException, StopIteration, MemoryError, RecursionError])
def test_nothing_a_handler_raises_ends_the_loop(queue: KQueue, error: type[BaseException]) -> None:
    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        if job.payload == 0:
            raise error
        job.delete()

    queue.add_jobs("t", range(3))
    report = queue.run_jobs()
    assert (report.deleted, report.retried) == (2, 1)


@pytest.mark.parametrize(("error", "tries"), [(KeyboardInterrupt, 0), (SystemExit, 1)])
def test_interrupts_give_back_what_has_not_started_and_go_on_up(
    queue: KQueue, error: type[BaseException], tries: int
) -> None:
    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        if job.payload == 100:
            raise error("now")
        job.delete()

    ids = queue.add_jobs("t", range(150))
    with pytest.raises(error):
        queue.run_jobs()
    counts = queue.counts("t")
    assert counts["running"] == 0
    assert sum(counts.values()) == 50
    rows = queue.store.get(ids)
    assert [row.tries for row in rows] == [tries] + [0] * 49
    assert counts["ready"] == 50 if error is KeyboardInterrupt else counts["ready"] == 49


def test_a_handler_that_would_do_nothing_is_refused(queue: KQueue) -> None:
    def generator(job: JobInHand) -> Any:
        yield job.delete()

    async def asynchronous(job: JobInHand) -> Any:
        yield job.delete()

    for function in (generator, asynchronous):
        with pytest.raises(TypeError, match="handler of t: a generator function does nothing"):
            queue.add_handler("t", function)
    assert queue.types() == []


def test_a_handler_may_add_jobs_that_run_in_the_same_loop(queue: KQueue) -> None:
    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        if job.payload:
            queue.add_job("t", job.payload - 1)
        job.delete()

    queue.add_job("t", 20)
    assert queue.run_jobs().deleted == 21


def test_a_handler_removed_or_added_meanwhile_takes_effect(queue: KQueue) -> None:
    seen: list[str] = []

    @queue.handler("a")
    def a(job: JobInHand) -> None:
        job.delete()
        seen.append("a")
        if len(seen) == 10:
            assert queue.remove_handler("a") is True
            queue.add_handler("b", lambda job: (seen.append("b"), job.delete()))

    queue.add_jobs("a", range(30))
    queue.add_jobs("b", range(3))
    queue.run_jobs()
    assert seen == ["a"] * 10 + ["b"] * 3
    assert queue.counts("a")["ready"] == 20
    assert queue.remove_handler("a") is False
    assert queue.types() == ["b"]


def test_a_handler_added_from_elsewhere_does_not_end_a_loop_that_drains(queue: KQueue) -> None:
    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        if job.payload == 20:
            queue.registry.wake()  # as add_handler does, once the loop has seen the new handler
        job.delete()

    queue.add_jobs("t", range(40))
    queue.add_job("t", "low", priority="bulk")
    assert queue.run_jobs().count == 41


# -- the operator's ----------------------------------------------------------------------------------------


def test_delete_by_id_tells_whether_there_was_one(queue: KQueue) -> None:
    queue.add_handler("t", deleting([]))
    job_id = queue.add_job("t")
    job = queue.get_job(job_id)
    assert job is not None
    assert queue.delete_job(job) is True
    assert queue.delete_job(job_id) is False
    assert queue.delete_job("0" * 28) is False
    assert queue.run_jobs().count == 0


def test_delete_by_id_of_the_running_job_is_its_own_delete_and_of_an_unstarted_one_keeps_it_from_starting(
    queue: KQueue,
) -> None:
    ids: list[str] = []
    seen: list[int] = []

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        seen.append(job.payload)
        assert queue.delete_job(ids[job.payload])
        if job.payload == 120:
            assert queue.delete_job(ids[121]) is True

    ids += queue.add_jobs("t", range(200))
    report = queue.run_jobs()
    assert seen == [n for n in range(200) if n != 121]
    assert (report.count, report.deleted, report.lost_lease) == (199, 199, 0)
    assert sum(queue.counts().values()) == 0


def test_flush_makes_deletes_durable_while_the_handler_goes_on(queue: KQueue) -> None:
    done: list[object] = []
    left: list[int] = []

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        job.delete()
        done.append(job.payload)
        if len(done) == 51:
            queue.flush()
            left.append(sum(queue.counts("t").values()))

    queue.add_jobs("t", range(100))
    queue.run_jobs()
    assert left == [49]


def test_jobs_are_listed_by_state_and_type_page_by_page(make_queue: MakeQueue) -> None:
    queue = make_queue(max_tries=1)
    queue.add_handler("t", lambda job: 1 / 0)
    ids = queue.add_jobs("t", range(5))
    queue.run_jobs()
    waiting = queue.add_job("u")
    assert [job.id for job in queue.jobs()] == ids
    assert [job.id for job in queue.jobs("t", limit=2)] == ids[:2]
    assert [job.id for job in queue.jobs("t", after=ids[1])] == ids[2:]
    assert [job.id for job in queue.jobs(state=State.READY)] == [waiting]
    assert queue.jobs("u") == []
    (reason,) = {job.reason for job in queue.jobs()}
    assert str(reason).startswith("ZeroDivisionError: division by zero (")
    assert all(queue.retry_job(job, "again") for job in queue.jobs())
    assert queue.jobs() == []


def test_purge_deletes_all_of_a_type_that_do_not_run(queue: KQueue) -> None:
    queue.add_jobs("t", range(2500))
    queue.add_jobs("t", range(5), delay=100)
    queue.add_job("u")
    left: list[dict[str, int]] = []

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        purged.append(queue.purge_jobs("t"))
        left.append(queue.counts("t"))
        job.delete()

    purged: list[int] = []
    queue.run_jobs(count_limit=1)
    assert purged == [2504]
    assert left == [{"delayed": 0, "ready": 0, "held": 0, "running": 1, "dead": 0, "done": 0}]
    assert queue.counts("u")["ready"] == 1
    assert queue.purge_jobs("t") == 0
    assert queue.broker.depths(["t"]) in ({}, {"t": {"ready": 0, "delayed": 0, "reserved": 0, "buried": 0}})


def test_get_job_is_read_only_and_none_for_an_unknown_id(queue: KQueue) -> None:
    job = queue.get_job(queue.add_job("t", {"a": 1}, delay=5, ttr=9))
    assert job is not None
    assert (job.state, job.delay, job.ttr, job.payload, job.fence, job.tries) == ("delayed", 5, 9, {"a": 1}, 0, 0)
    assert job.reason is None
    for name in ("id", "state", "payload", "fence"):
        with pytest.raises(AttributeError):
            setattr(job, name, 1)
    assert not hasattr(job, "delete")
    assert queue.get_job("0" * 28) is None


def test_open_and_close_are_idempotent_and_use_opens(queue: KQueue) -> None:
    queue.close()
    queue.open()
    queue.open()
    with queue as same:
        assert same is queue
        queue.add_job("t")
    queue.close()
    queue.close()
    assert queue.counts("t")["ready"] == 1


def test_states_compare_equal_to_their_names(queue: KQueue) -> None:
    queue.add_job("t")
    assert queue.counts()[State.READY] == queue.counts()["ready"] == 1
    assert list(queue.counts()) == ["delayed", "ready", "held", "running", "dead", "done"]


def test_no_pointer_stays_behind(queue: KQueue) -> None:
    queue.add_handler("t", deleting([]))
    queue.add_jobs("t", range(500))
    queue.run_jobs(count_limit=7)
    queue.run_jobs()
    assert queue.broker.depths(["t"]) in ({}, {"t": {"ready": 0, "delayed": 0, "reserved": 0, "buried": 0}})
