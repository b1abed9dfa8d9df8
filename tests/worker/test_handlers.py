"""What a worker does for coroutines, for handlers whose leases follow them, for schedules, pauses and limits."""

import os
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

import pytest

from tests.renewal.peers import renewed
from tests.torture.ledger import read
from tests.tubes import await_true
from tests.worker.works import Works

MORE = """
import asyncio, ctypes, os
from pathlib import Path

from app import ledger, queue

gate = None


@queue.handler("together", concurrency=5, delete_on_success=True)
async def together(job):
    global gate
    gate = gate or asyncio.Barrier(5)
    ledger.write("begin", id=job.id, fence=job.fence, pid=os.getpid())
    await gate.wait()
    ledger.write("end", id=job.id, fence=job.fence, pid=os.getpid())


@queue.handler("forever", concurrency=2)
async def forever(job):
    ledger.write("begin", id=job.id, fence=job.fence, pid=os.getpid())
    while not Path("go").exists():
        await asyncio.sleep(0.005)
    job.delete()


@queue.cron("* * * * * *")
def tick(job):
    ledger.write("tick", at=job.run_at)
    job.delete()
"""

FOLLOWED = """
import ctypes, os

from app import ledger, queue


@queue.handler("long", auto_renew=True)
def long(job):
    ledger.write("begin", id=job.id, fence=job.fence, pid=os.getpid())
    ctypes.PyDLL(None).open(b"pipe", os.O_RDONLY)  # keeps the interpreter's lock until somebody writes to it
    job.delete()
"""


@pytest.fixture
def works(make_works: Callable[..., Works]) -> Works:
    works = make_works()
    (works.folder / "more.py").write_text(MORE)
    (works.folder / "followed.py").write_text(FOLLOWED)
    return works


def test_coroutines_run_side_by_side_beside_plain_functions(works: Works) -> None:
    together = works.queue.add_jobs("together", range(20), ttr=600)
    plain = works.add(*["quick"] * 20)
    with works.worker("--threads", "2", app="more:queue") as worker:
        await_true(lambda: not works.queue.counts("together")["ready"] + works.queue.counts("together")["running"])
        await_true(lambda: sum(works.queue.counts("t").values()) == 0)
        assert worker.stop() == 0
    assert {one["id"] for one in works.ledger("end")} == {*together, *plain}


def test_a_coroutine_that_runs_may_end_and_what_has_not_started_goes_back(works: Works) -> None:
    ids = works.queue.add_jobs("forever", range(1000), ttr=600)
    with works.worker(app="more:queue") as worker:
        works.await_begun(*ids[:2])
        worker.tell()
        await_true(lambda: "stopping: running jobs have" in works.log.read_text())
        works.let_go()  # a few more may begin before the child hears of it
        assert worker.status() == 0
    left = works.queue.store.get(ids)
    assert left
    assert [(row.id, row.state, row.tries) for row in left] == [(id, "ready", 0) for id in ids[-len(left) :]]


def test_when_the_grace_runs_out_a_coroutines_job_is_given_back(works: Works) -> None:
    ids = works.queue.add_jobs("forever", range(2), ttr=600)
    with works.worker("--grace", "0.2", app="more:queue") as worker:
        works.await_begun(*ids)
        worker.tell()
        assert worker.status() == 1
    assert [(row.state, row.tries) for row in works.queue.store.get(ids)] == [("ready", 0)] * 2


def test_the_parent_renews_the_lease_of_a_handler_that_keeps_the_interpreter_to_itself(works: Works) -> None:
    os.mkfifo(works.folder / "pipe")
    (id,) = works.queue.add_jobs("long", [None], ttr=600)
    often = "from kqueue.renewal import due; due.PART, due.SLACK = 1 / 3000, 1 / 10_000"
    with works.worker("--processes", "2", app="followed:queue", patch=often) as worker:
        works.await_begun(id)
        (child,) = {one["pid"] for one in works.ledger("begin", id=id)}
        assert Path(f"/proc/{child}/task/{child}/children").read_text() == ""  # no renewer of its own
        renewed(works.queue.store, id, 3)
        (works.folder / "pipe").write_bytes(b"")
        await_true(lambda: works.queue.get_job(id) is None)
        assert worker.stop() == 0
    assert len(works.ledger("begin", id=id)) == 1


def test_without_that_the_lease_runs_out(works: Works) -> None:
    text = FOLLOWED.replace("auto_renew=True", "auto_renew=False")
    (works.folder / "followed.py").write_text(text)
    os.mkfifo(works.folder / "pipe")
    (id,) = works.queue.add_jobs("long", [None], ttr=1)
    with works.worker("--processes", "2", app="followed:queue") as worker:
        await_true(lambda: len(works.ledger("begin", id=id)) > 1)
        with (works.folder / "pipe").open("wb"):
            worker.stop()


def test_a_worker_adds_what_its_schedules_say_is_listed_and_heeds_a_pause(works: Works) -> None:
    with works.worker("--processes", "2", app="more:queue") as worker:
        await_true(lambda: len(works.ledger("tick")) >= 2)
        await_true(lambda: len(works.queue.workers()) == 2)
        assert {one.pid for one in works.queue.workers()} == set(worker.children())
        assert works.queue.workers()[0].types == ("forever", "limited", "renewed", "t", "tick", "together")
        works.queue.pause("tick")
        await_true(lambda: works.queue.counts("tick")["ready"] >= 2)
        assert worker.stop() == 0
    ticks = [one["at"] for one in works.ledger("tick")]
    assert len(set(ticks)) == len(ticks)
    assert works.queue.workers() == []


def test_a_limit_holds_over_all_processes_of_two_workers(works: Works) -> None:
    ids = works.add(*["doze"] * 60, type="limited")
    options = ("--processes", "2", "--threads", "2")
    with works.worker(*options) as one, works.worker(*options) as other:
        works.await_empty()
        assert (one.stop(), other.stop()) == (0, 0)
    # The ledger is in the order in which all processes wrote, and "end" is written while the place is still held.
    records = [record for record in read(works.folder) if record["what"] in ("begin", "end")]
    at_once = list(accumulate(1 if record["what"] == "begin" else -1 for record in records))
    assert max(at_once) <= 2
    assert sorted(record["id"] for record in records if record["what"] == "end") == sorted(ids)


@pytest.mark.parametrize("options", [["--type", "t", "--type", "limited"], ["--except", "renewed"]])
def test_a_worker_serves_the_types_that_it_is_told(works: Works, options: list[str]) -> None:
    ids = {type: works.add("quick", type=type) for type in ("t", "limited", "renewed")}
    with works.worker(*options) as worker:
        await_true(lambda: works.runs().keys() == {*ids["t"], *ids["limited"]})
        await_true(lambda: [one.types for one in works.queue.workers()] == [("limited", "t")])
        assert worker.stop() == 0
    assert works.queue.counts("renewed")["ready"] == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--type", "mail"], "--type: mail has no handler; these have one: limited, renewed, t"),
        (["--except", "mail"], "--except: mail has no handler; these have one: limited, renewed, t"),
        (["--type", "t", "--except", "t"], "--except: no type is left of t"),
        (["--type", "t", "--type", "t"], "--type: each once"),
    ],
)
def test_a_worker_is_refused_types_that_it_cannot_serve(works: Works, options: list[str], said: str) -> None:
    assert said in works.refused(*options)


def test_the_first_line_of_a_worker_says_what_it_is(works: Works) -> None:
    with works.worker("--processes", "2", "--threads", "3", "--except", "renewed") as worker:
        worker.await_children(2)
        works.await_line("runs jobs", times=2)
        assert worker.stop() == 0
    first = works.log.read_text().splitlines()[0]
    said = f"store sqlite:///{works.folder}/jobs.db, broker none, processes 2, threads 3, types limited t"
    assert first.endswith(said)
