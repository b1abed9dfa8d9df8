"""Unique keys, the same on every store and broker."""

import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest

from kqueue import Added, AddFailed, JobInHand, KQueue, New
from kqueue.stores.memory.store import MemoryStore
from tests.flows.conftest import MakeQueue
from tests.tubes import PATIENCE_S

#: How many processes add the same key at once.
PROCESSES = 20
#: A program that forks so many, since to start Python so often takes long. Each opens a queue of its own, waits
#: until all have, and adds.
ADDS = """
import os, sys
from kqueue import KQueue

store, broker, processes = sys.argv[1], sys.argv[2] or None, int(sys.argv[3])
ready, set_ready = os.pipe()
gate, open_gate = os.pipe()
children = []
for number in range(processes):
    children.append(os.fork())
    if children[-1] == 0:
        os.close(open_gate)
        with KQueue(store=store, broker=broker) as queue:
            queue.counts()
            os.write(set_ready, b"1")
            os.read(gate, 1)
            os.write(1, f"{queue.add_job('mail', number, unique='user:42')}\\n".encode())
        os._exit(0)
for _ in children:
    os.read(ready, 1)
os.close(open_gate)
sys.exit(any([os.waitpid(child, 0)[1] for child in children]))
"""


def jobs(queue: KQueue, type: str = "t") -> int:
    return sum(queue.counts(type).values())


def pointers(queue: KQueue, type: str = "t") -> int:
    """In the tube; where there is none, as many as there are jobs."""
    if not queue.broker.carries_pointers:
        return jobs(queue, type)
    return sum(queue.broker.depths([type])[type].values())


def test_while_a_job_waits_a_second_add_returns_its_id_and_puts_nothing(queue: KQueue) -> None:
    first = queue.add_job("t", 1, unique="user:42")
    assert [queue.add_job("t", n, unique="user:42", priority="urgent") for n in (2, 3)] == [first, first]
    queue.flush()
    assert (jobs(queue), pointers(queue)) == (1, 1)
    job = queue.get_job(first)
    assert job is not None
    assert (job.payload, job.priority) == (1, 2**16)


def test_another_key_another_type_and_no_key_are_other_jobs(queue: KQueue) -> None:
    ids = {
        queue.add_job("t", unique="user:42"),
        queue.add_job("t", unique="USER:42"),
        queue.add_job("u", unique="user:42"),
        queue.add_job("t"),
        queue.add_job("t"),
    }
    assert len(ids) == 5


def test_it_is_taken_while_its_job_runs_and_free_once_it_is_deleted(queue: KQueue) -> None:
    seen: list[tuple[str, str]] = []

    @queue.handler("t")
    def handle(job: JobInHand) -> None:
        seen.append((job.id, queue.add_job("t", unique="k")))
        job.delete()

    first = queue.add_job("t", unique="k")
    assert queue.run_jobs().deleted == 1
    assert seen == [(first, first)]
    second = queue.add_job("t", unique="k")
    assert second != first
    assert queue.run_jobs().deleted == 1


def test_it_is_taken_until_a_job_that_fails_is_dead(make_queue: MakeQueue) -> None:
    queue = make_queue(max_tries=2, retry_delay=0)
    queue.add_handler("t", lambda job: 1 / 0)
    first = queue.add_job("t", unique="k", delay=0)
    queue.run_jobs(count_limit=1)
    assert queue.add_job("t", unique="k") == first
    assert queue.run_jobs().dead == 1
    assert queue.add_job("t", unique="k") != first


def test_it_is_taken_for_its_time_whatever_becomes_of_its_job(queue: KQueue) -> None:
    queue.options("t", unique_for=3600)
    queue.add_handler("t", lambda job: job.delete())
    first = queue.add_job("t", unique="by the type's option")
    other = queue.add_job("t", unique="a call's own wins", unique_for=0)
    assert queue.run_jobs().deleted == 2
    assert queue.get_job(first) is None
    assert queue.add_job("t", unique="by the type's option", unique_for=0) == first
    assert queue.add_job("t", unique="a call's own wins") != other
    assert jobs(queue) == 1


def test_a_job_that_is_done_and_kept_has_given_its_key_back(queue: KQueue) -> None:
    queue.options("t", keep_done=3600)
    queue.add_handler("t", lambda job: job.delete())
    first = queue.add_job("t", unique="k")
    queue.run_jobs()
    assert queue.add_job("t", unique="k") != first
    assert queue.counts("t")["done"] == 1


@pytest.mark.parametrize("how", ["delete", "purge"])
def test_an_operator_frees_it(queue: KQueue, how: str) -> None:
    first = queue.add_job("t", unique="k", unique_for=3600)
    assert queue.delete_job(first) if how == "delete" else queue.purge_jobs("t")
    assert queue.add_job("t", unique="k") != first


@pytest.mark.parametrize("make_queue", ["sqlite", "beanstalkd", "mongod"], indirect=True)
def test_many_processes_that_add_the_same_key_at_once_make_one_job(make_queue: MakeQueue) -> None:
    queue = make_queue()
    queue.open()
    broker = queue.broker.address if queue.broker.carries_pointers else ""
    adders = subprocess.run(
        [sys.executable, "-c", ADDS, queue.store.address, broker, str(PROCESSES)],
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert adders.returncode == 0, adders.stderr
    ids = adders.stdout.split()
    assert len(ids) == PROCESSES
    (the_id,) = set(ids)
    assert [job.id for job in queue.jobs("mail", state="ready")] == [the_id]
    assert (jobs(queue, "mail"), pointers(queue, "mail")) == (1, 1)


def test_unlike_jobs_are_added_as_one_list(make_queue: MakeQueue) -> None:
    queue = make_queue()
    told: list[Any] = []
    queue.subscribe(lambda event: told.append((event.job_id, event.is_new)) if isinstance(event, Added) else None)
    there = queue.add_job("mail", "there", unique="there")
    ids = queue.add_jobs(
        "mail",
        [
            "plain",
            New("other", unique="there"),
            New("twice", unique="twice", priority="high", limit_key="l", ttr=5),
            New("later", delay=timedelta(minutes=1), max_tries=2),
            New(unique="twice"),
            New("then", run_at=2**40),
        ],
        delay=600,
        max_tries=9,
    )
    assert ids[1] == there
    assert ids[4] == ids[2]
    assert sorted({*ids}) == sorted([there, ids[0], ids[2], ids[3], ids[5]])
    plain, twice, later, then = (queue.get_job(ids[place]) for place in (0, 2, 3, 5))
    assert plain and twice and later and then
    assert [job.payload for job in (plain, twice, later, then)] == ["plain", "twice", "later", "then"]
    assert [round(job.delay) for job in (plain, twice, later)] == [600, 600, 60]
    assert (then.run_at, then.scheduled_for) == (2**40, 2**40)
    assert [job.max_tries for job in (plain, twice, later)] == [9, 9, 2]
    assert (twice.priority, twice.limit_key, twice.ttr, twice.unique) == (2**14, "l", 5, "twice")
    new = [there, ids[0], ids[2], ids[3], ids[5]]
    assert told == [*((id, True) for id in new), (there, False)]
    assert queue.add_jobs("mail", []) == []


def test_of_unlike_jobs_each_that_is_wrong_is_named_by_its_place_and_none_is_added(make_queue: MakeQueue) -> None:
    queue = make_queue()
    for job, said in (
        (New(1, delay=-1), r"payloads\[1\]: delay: "),
        (New(1, unique=""), r"payloads\[1\]: unique: "),
        (New(1, unique_for=5), r"payloads\[1\]: unique_for: only together with unique"),
        (New({1, 2}), r"payloads\[1\]: payload: "),
        (New(1, delay=1, run_at=5), r"payloads\[1\]: run_at: either"),
    ):
        with pytest.raises((ValueError, TypeError), match=f"^{said}"):
            queue.add_jobs("mail", [New("good"), job])
    with pytest.raises(TypeError, match="payloads: expected a list of payloads"):
        queue.add_jobs("mail", "good")
    assert sum(queue.counts().values()) == 0


def test_a_job_is_found_by_its_key(make_queue: MakeQueue) -> None:
    queue = make_queue()
    queue.options("mail", keep_done=600)
    assert queue.find_job("mail", unique="k") is None
    job_id = queue.add_job("mail", 1, unique="k")
    found = queue.find_job("mail", unique="k")
    assert found is not None
    assert (found.id, found.payload, found.state) == (job_id, 1, "ready")
    queue.add_handler("mail", lambda job: job.delete())
    queue.run_jobs()
    found = queue.find_job("mail", unique="k")
    assert found is not None
    assert (found.id, found.state) == (job_id, "done")
    queue.delete_job(job_id)
    assert queue.find_job("mail", unique="k") is None
    with pytest.raises(ValueError, match="^unique: 1 to 200"):
        queue.find_job("mail", unique="")


class Forgetful(MemoryStore):
    """Adds, and loses the answer, or does not even add."""

    def __init__(self, *, adds: bool) -> None:
        super().__init__()
        self.adds = adds

    def add_unique(self, rows: Any, until: Any, now: float) -> list[str]:
        if self.adds:
            super().add_unique(rows, until, now)
        raise AddFailed("the answer is lost", unknown=[row.id for row in rows])


@pytest.mark.parametrize("adds", [True, False])
def test_a_job_whose_add_is_unknown_is_put_in_case_it_is_there(beanstalkd: Any, adds: bool) -> None:
    with KQueue(store=Forgetful(adds=adds), broker=beanstalkd.url) as queue:
        queue.add_handler("t", lambda job: job.delete())
        with pytest.raises(AddFailed) as caught:
            queue.add_job("t", unique="k")
        assert len(caught.value.unknown) == 1
        report = queue.run_jobs()
        assert (report.deleted, report.stale_pointers) == ((1, 0) if adds else (0, 1))


def test_a_dead_job_that_is_brought_back_has_its_key_again_unless_another_took_it(make_queue: MakeQueue) -> None:
    queue = make_queue(max_tries=1)
    queue.add_handler("t", lambda job: 1 / 0)
    first, other = queue.add_job("t", unique="k"), queue.add_job("t", unique="other")
    assert queue.run_jobs().dead == 2
    second = queue.add_job("t", unique="other")
    assert all(queue.retry_job(job_id, "mended") for job_id in (first, other))
    assert queue.add_job("t", unique="k") == first
    assert queue.add_job("t", unique="other") == second
    assert queue.counts("t")["ready"] == 3


def test_limit_keys_are_stored(queue: KQueue) -> None:
    ids = [
        queue.add_job("t", limit_key="user:42"),
        *queue.add_jobs("t", [1, 2], limit_key="user:43"),
        queue.add_job("t"),
    ]
    assert [row.limit_key for row in queue.store.get(ids)] == ["user:42", "user:43", "user:43", None]
