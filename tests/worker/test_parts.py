"""The parts of a worker that need no process."""

import itertools
import json
import math
import os
import select
import threading
from pathlib import Path

import pytest

from kqueue import JobInHand, KQueue
from kqueue.assembly import assemble
from kqueue.model.retry import LAST_BACKOFF_S
from kqueue.system.clock import ManualClock
from kqueue.system.mint import IdMint
from kqueue.worker import messages
from kqueue.worker.memory import resident_mib
from kqueue.worker.messages import (
    ChildCommand,
    ChildReady,
    Done,
    Failed,
    Leaving,
    MessageReader,
    MessageWriter,
    Pulse,
    Report,
)
from kqueue.worker.restarts import STEADY_S, Restarts
from tests.closing import Closes

# -- messages ---------------------------------------------------------------------------------------------------

REPORTS: list[Report] = [
    ChildReady("tail"),
    Failed('--app: no "way"\nat all'),
    Pulse(3, 0.5),
    Leaving("it has run 3 jobs"),
    Done(3, clean=False),
]


@pytest.mark.parametrize("report", REPORTS)
def test_a_report_is_heard_as_it_was_said(report: Report) -> None:
    assert messages.report(messages.encode(report).rstrip(b"\n")) == report


@pytest.mark.parametrize("order", ChildCommand)
def test_an_order_is_heard_as_it_was_given(order: ChildCommand) -> None:
    assert messages.order(messages.encode(order)) is order


@pytest.mark.parametrize("char", ["x", "\n", "\x01", '"', "é", "\U0001f600", "\ud800"])
def test_a_line_is_written_whole_whatever_it_says(char: str) -> None:
    line = messages.encode(Failed(char * 100_000))
    assert len(line) <= select.PIPE_BUF
    assert line.count(b"\n") == 1
    assert json.loads(line)["why"]


def test_a_reader_gives_whole_lines_and_knows_the_end() -> None:
    hear, say = os.pipe()
    reader = MessageReader(hear)
    assert reader.lines() == []
    os.write(say, b"one\ntw")
    assert reader.lines() == [b"one"]
    os.write(say, b"o\nthr")
    os.close(say)
    assert reader.lines() == [b"two"]
    assert reader.is_over
    assert reader.lines() == []
    reader.close()


def test_a_writer_never_waits_for_who_does_not_read() -> None:
    hear, say = os.pipe()
    writer = MessageWriter(say)
    for number in range(5_000):
        writer.say(Pulse(number, 0.0))
    lines = MessageReader(hear).lines()
    assert [messages.report(line) for line in lines] == [Pulse(number, 0.0) for number in range(len(lines))]
    os.close(hear)
    writer.say(ChildCommand.NOW)
    writer.close()


# -- numbers -------------------------------------------------------------------------------------------------


def test_pauses_grow_with_each_death_and_begin_anew_after_a_long_life() -> None:
    lives = itertools.accumulate([0.1] * 8, Restarts.after, initial=Restarts())
    pauses = [one.pause_s for one in lives]
    assert pauses == [0, 1, 2, 4, 8, 16, 30, 30, LAST_BACKOFF_S]
    assert Restarts(8).after(STEADY_S).pause_s == 1


def test_after_a_death_for_which_a_job_is_to_blame_there_is_no_pause_until_there_were_many() -> None:
    restarts = Restarts()
    for _ in range(30):
        restarts = restarts.after(0.1, by_job=True)
        assert restarts.pause_s == 0
    assert restarts.after(0.1, by_job=True).pause_s == 1
    assert restarts.after(0.1, by_job=True).after(0.1, by_job=True).pause_s == 1
    assert restarts.after(600, by_job=True).pause_s == 0
    assert restarts.after(0.1).pause_s == 1  # the next one dies before it has run anything


def test_resident_memory_grows_with_what_is_used() -> None:
    before = resident_mib()
    block = bytearray(os.urandom(2**20)) * 64
    assert before + 50 < resident_mib() < before + 200
    assert block


def test_all_ids_of_a_process_end_alike_and_no_other_ones_do() -> None:
    mint, other = IdMint(), IdMint()
    assert all(id.endswith(mint.tail()) for id in mint.make(100))
    assert not any(id.endswith(mint.tail()) for id in other.make(100))
    assert len(mint.tail()) == 15


# -- what a queue tells of its loops -------------------------------------------------------------------------


def test_the_loops_of_a_queue_start_no_more_than_their_limit(queue: KQueue) -> None:
    ran = []

    def handle(job: JobInHand) -> None:
        ran.append(job.payload)
        job.delete()

    queue.add_handler("t", handle)
    queue.add_jobs("t", range(200))
    registry = queue.registry
    assert registry.share() is None
    assert queue.run_jobs(count_limit=50).count == 50
    registry.max_jobs = 120
    assert (registry.jobs_started(), registry.share()) == (50, 70)
    assert queue.run_jobs(wait=True).count == 70
    assert (registry.jobs_started(), registry.share()) == (120, 0)
    assert queue.run_jobs(wait=True).count == 0
    assert ran == list(range(120))
    assert queue.counts("t")["ready"] == 80


def test_a_loop_tells_its_turns_and_its_jobs_while_it_runs(queue: KQueue) -> None:
    seen = []

    def handle(job: JobInHand) -> None:
        (loop,) = queue.registry.loops()
        assert loop.thread == threading.get_ident()
        seen.append((loop.turns, loop.count, queue.registry.jobs_started()))
        job.delete()

    queue.add_handler("t", handle)
    queue.add_jobs("t", range(2))
    queue.run_jobs()
    (first, second) = seen
    assert first[1:] == (1, 1)
    assert second[1:] == (2, 2)
    assert 0 < first[0] < second[0]
    assert queue.registry.loops() == []
    assert queue.registry.jobs_started() == 2


def test_a_batch_tells_how_long_the_lease_of_its_running_job_holds(tmp_path: Path, closes: Closes) -> None:
    clock = ManualClock()
    queue = closes(KQueue.from_parts(assemble(f"sqlite:///{tmp_path}/jobs.db", clock=clock)))
    left: list[float | None] = []

    def handle(job: JobInHand) -> None:
        (jobs,) = queue.registry.in_hand()
        now = clock.monotonic()
        left.append(jobs.lease_left(now))
        left.append(jobs.lease_left(now + 100))
        clock.advance(20)
        job.renew()
        left.append(jobs.lease_left(now + 20))
        job.delete()
        left.append(jobs.lease_left(now))

    queue.add_handler("t", handle)
    queue.add_job("t", ttr=50)
    queue.run_jobs()
    assert [number and math.ceil(number) for number in left] == [50, -50, 50, None]
