"""``kqueue show ID`` of what runs have told, and ``--follow``."""

import json
import os
import pty
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from kqueue import JobInHand, KQueue
from tests.shop import NO_JOB, PATIENCE_S, Shop


@pytest.fixture
def told(queue: KQueue) -> Iterator[tuple[str, threading.Event]]:
    """The id of a job that runs, has told something, and ends once the event is set."""
    has_told, may_end = threading.Event(), threading.Event()

    @queue.handler("greet", delete_on_success=True)
    def handle(job: JobInHand) -> str:
        job.progress(1, 4, {"at": "\x1b[2J"})
        job.log("first \x1b[2J\nline")
        queue.flush()
        has_told.set()
        assert may_end.wait(PATIENCE_S)
        job.progress(4, 4)
        job.log("last line")
        return "the result"

    job_id = queue.add_job("greet", keep_done=60)
    runner = threading.Thread(target=queue.run_jobs)
    runner.start()
    assert has_told.wait(PATIENCE_S)
    yield job_id, may_end
    may_end.set()
    runner.join(PATIENCE_S)


def test_show_has_the_progress_and_the_log(shop: Shop, told: tuple[str, threading.Event]) -> None:
    job_id, _ = told
    done = shop.kqueue("show", job_id)
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    details, log = done.stdout.split("\n\n")
    shown = dict(line.split(maxsplit=1) for line in details.splitlines())
    assert shown["progress"] == "1 of 4, 25 %, in try 1: {'at': '\\x1b[2J'}"
    first, second = log.splitlines()
    assert first.endswith("  try 1  first ?[2J")
    assert second == "    line"
    found = json.loads(shop.kqueue("show", job_id, "--json").stdout)
    assert found["progress"]["done"] == 1
    assert [(line["try"], line["text"]) for line in found["log"]] == [(1, "first \x1b[2J\nline")]


def test_follow_goes_on_until_the_end(shop: Shop, told: tuple[str, threading.Event]) -> None:
    job_id, may_end = told
    with shop.start("show", job_id, "--follow") as following:
        assert following.stdout is not None
        lines = [following.stdout.readline() for _ in range(2)]
        may_end.set()
        lines += following.stdout.readlines()
        assert following.wait(PATIENCE_S) == 0
    text = "".join(lines)
    assert "\x1b" not in text
    assert lines[0].endswith("try 1  first ?[2J\n")
    assert "running, try 1" in text.splitlines()
    assert text.splitlines()[-2:] == ["done, try 1", "4 of 4, 100 %, in try 1"]
    assert "last line" in text


def test_on_a_terminal_there_is_a_bar(shop: Shop, told: tuple[str, threading.Event]) -> None:
    job_id, may_end = told
    main, side = pty.openpty()
    text = ""
    with shop.start("show", job_id, "--follow", stdout=side) as following:
        os.close(side)
        with suppress(OSError):  # this is how a terminal ends
            while chunk := os.read(main, 1000):
                text += chunk.decode()
                if "1 of 4" in text:
                    may_end.set()
        os.close(main)
        assert following.wait(PATIENCE_S) == 0
    assert f"[{'#' * 7}{'-' * 23}] 1 of 4, 25 %" in text
    assert f"[{'#' * 30}] 4 of 4, 100 %" in text
    assert "\x1b[2J" not in text


def test_follow_of_one_that_dies_is_a_failure_and_of_none_too(shop: Shop, queue: KQueue) -> None:
    with KQueue(store=queue.store, max_tries=1) as workers:
        workers.add_handler("greet", lambda job: 1 / 0)
        job_id = queue.add_job("greet")
        assert workers.run_jobs().dead == 1
    done = shop.kqueue("show", job_id, "--follow")
    assert (done.returncode, done.stdout.splitlines()[0]) == (1, "dead, try 1")
    assert "ZeroDivisionError" in done.stdout
    assert shop.kqueue("show", NO_JOB, "--follow").returncode == 1
    refused = shop.kqueue("show", job_id, "--follow", "--json")
    assert refused.returncode == 2
    assert "--follow" in refused.stderr
