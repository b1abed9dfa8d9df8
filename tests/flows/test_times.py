"""When jobs run: ``timedelta`` and ``datetime`` wherever a time is asked for."""

from datetime import UTC, datetime, timedelta

from kqueue import Filter, JobInHand, KQueue, RetryPolicy, Snooze
from tests.flows.conftest import MakeQueue

HOUR = timedelta(hours=1)


def in_seconds(queue: KQueue, job_id: str) -> float:
    """Until it runs, to the next hundred."""
    job = queue.get_job(job_id)
    assert job is not None
    return round(job.run_at - queue.store.now(), -2)


def test_a_job_may_be_added_for_a_datetime_or_after_a_timedelta(make_queue: MakeQueue) -> None:
    queue = make_queue()
    queue.add_handler("t", JobInHand.delete)
    at = datetime.now(UTC) + HOUR
    later = [queue.add_job("t", run_at=at), queue.add_job("t", delay=HOUR), *queue.add_jobs("t", [1], run_at=at)]
    past = queue.add_job("t", run_at=datetime(2020, 1, 1, tzinfo=UTC))
    job = queue.get_job(past)
    assert job is not None
    assert (job.state, job.scheduled_for) == ("ready", datetime(2020, 1, 1, tzinfo=UTC).timestamp())
    assert queue.run_jobs().deleted == 1
    assert [in_seconds(queue, id) for id in later] == [3600] * 3
    planned = queue.get_job(later[0])
    assert planned is not None
    assert planned.scheduled_for == at.timestamp()


def test_a_run_at_wins_over_the_delay_of_the_type(make_queue: MakeQueue) -> None:
    queue = make_queue()
    queue.options("t", delay=HOUR, ttr=timedelta(minutes=5))
    ids = [queue.add_job("t"), queue.add_job("t", run_at=queue.store.now() + 7200)]
    assert [in_seconds(queue, id) for id in ids] == [3600, 7200]
    job = queue.get_job(ids[0])
    assert job is not None
    assert job.ttr == 300


def test_a_handler_may_say_timedeltas(make_queue: MakeQueue) -> None:
    queue = make_queue()
    queue.options("policy", retry=RetryPolicy(delay=[HOUR]))
    queue.add_handler("retry", lambda job: job.retry("later", delay=HOUR))
    queue.add_handler("unget", lambda job: job.unget(delay=HOUR))
    queue.add_handler("snooze", lambda job: Snooze(HOUR))
    queue.add_handler("policy", lambda job: 1 / 0)
    ids = [queue.add_job(type) for type in queue.types()]
    queue.run_jobs()
    assert [in_seconds(queue, id) for id in ids] == [3600] * 4


def test_the_dead_are_found_by_when_they_were_added_and_by_when_they_died(make_queue: MakeQueue) -> None:
    queue = make_queue(max_tries=1)
    queue.add_handler("t", lambda job: 1 / 0)
    (job_id,) = queue.add_jobs("t", [1])
    queue.run_jobs()
    now = datetime.now(UTC)

    def found(**wanted: datetime) -> list[str]:
        return [job.id for lot in queue.dead_jobs(Filter(**wanted)) for job in lot]

    assert found(added_since=now - HOUR, ended_since=now - HOUR) == [job_id]
    assert found(added_since=now + HOUR) == found(ended_since=now + HOUR) == found(ended_before=now - HOUR) == []
    assert found(ended_before=now + HOUR) == [job_id]


def test_what_is_no_id_is_not_there(make_queue: MakeQueue) -> None:
    queue = make_queue()
    for text in ("", "short", "' OR 1=1 --", '{"$ne": 1}'):
        assert queue.get_job(text) is None
        assert queue.delete_job(text) is False
