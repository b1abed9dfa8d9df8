"""``kqueue why``, ``pause``, ``resume``, ``workers`` and ``doctor``, and the dead in bulk: in real processes."""

import json
import os
import pty
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from kqueue import JobInHand, KQueue
from kqueue.model.job import State
from tests.beanstalkd import Beanstalkd
from tests.shop import APP, NO_JOB, PATIENCE_S, Shop
from tests.tubes import await_true


def die(queue: KQueue, type: str, reasons: list[str]) -> list[str]:
    def fail(job: JobInHand) -> None:
        raise RuntimeError(job.payload)

    with KQueue(store=queue.store, max_tries=1) as workers:
        workers.add_handler(type, fail)
        ids = workers.add_jobs(type, reasons)
        assert workers.run_jobs().dead == len(reasons)
    return ids


# -- why -----------------------------------------------------------------------------------------------------


def test_why_says_what_keeps_a_job(shop: Shop, queue: KQueue) -> None:
    job_id = queue.add_job("greet")
    queue.pause("greet")
    done = shop.kqueue("why", job_id)
    assert (done.returncode, done.stderr) == (0, "")
    first, second = done.stdout.splitlines()
    assert first.startswith("its type 'greet' is paused for ")
    assert second.startswith("no worker waits for jobs")
    answers = json.loads(shop.kqueue("why", job_id, "--json").stdout)
    assert [one["cause"] for one in answers["answers"]] == ["paused", "no worker"]
    assert answers["id"] == job_id


def test_why_of_a_dead_job(shop: Shop, queue: KQueue) -> None:
    [job_id] = die(queue, "greet", ["boom"])
    assert "it is dead after 1 failed run: RuntimeError: boom" in shop.kqueue("why", job_id).stdout


def test_why_with_a_beanstalkd_that_lost_its_pointer_or_is_down(shop: Shop, beanstalkd: Beanstalkd) -> None:
    with KQueue(store=shop.store, broker=beanstalkd.url) as queue:
        job_id = queue.add_job("greet")
        [due] = queue.store.find_lost({"greet": None}, queue.store.now() + 60, 0, 9)
        long_ago = queue.store.now() - 60
        queue.store.mark([due], long_ago)
        queue.broker.drain("greet")
    with closing(sqlite3.connect(shop.folder / "jobs.db")) as file, file:
        file.execute("UPDATE kqueue_jobs SET run_at = ?", (long_ago,))
    assert "its pointer is lost" in shop.kqueue("why", job_id, "--broker", beanstalkd.url).stdout
    beanstalkd.kill()
    assert "the broker does not answer" in shop.kqueue("why", job_id, "--broker", beanstalkd.url).stdout


def test_why_with_an_app_knows_its_limits(shop: Shop, queue: KQueue) -> None:
    (shop.folder / "limited.py").write_text(f"{APP}\nqueue.limit('greet', running=2)\n")
    job_id = queue.add_job("greet")
    [row] = queue.store.get([job_id])
    queue.store.delete([job_id])
    queue.store.add([row._replace(state=State.HELD, gate="greet")])
    assert "the limit of its type is reached:" in shop.kqueue("why", job_id).stdout
    assert "is reached (2 at once):" in shop.kqueue("why", job_id, "--app", "limited:queue").stdout


def test_an_app_stands_for_its_store_and_its_broker(shop: Shop, beanstalkd: Beanstalkd) -> None:
    app = APP.replace('jobs.db", retry_delay', f'jobs.db", broker="{beanstalkd.url}", retry_delay')
    (shop.folder / "tubes.py").write_text(app)
    assert shop.ids("greet", "--app", "tubes:queue")
    assert f"broker  {beanstalkd.url}" in shop.kqueue("status", "--app", "tubes:queue").stdout
    assert "broker  none" in shop.kqueue("status", "--broker", "none").stdout


def test_an_app_needs_no_handler_to_be_looked_at_and_its_handlers_are_known(shop: Shop, queue: KQueue) -> None:
    assert shop.kqueue("list", "--app", "shop:empty").stdout == "no dead jobs\n"
    done = shop.kqueue("pause", "greet", "--app", "shop:queue")
    assert (done.returncode, done.stdout, done.stderr) == (0, "paused greet\n", "")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--app", "shop:queue", "--broker", "beanstalk://127.0.0.1:1"], "shop:queue has its own store and broker"),
        (["--app", "shop:nobody"], "--app: module shop has no 'nobody'"),
        (["--app", "memory:queue"], "--app: the store of memory:queue is memory:"),
        (["--app", "elsewhere:queue"], "other/jobs.db, which the app names"),
        (["--app", "shop:queue", "--config", "nofile.toml"], "nofile.toml"),
    ],
)
def test_an_app_that_a_command_cannot_use_is_refused(shop: Shop, queue: KQueue, args: list[str], said: str) -> None:
    (shop.folder / "memory.py").write_text(APP.replace("sqlite:///jobs.db", "memory:"))
    (shop.folder / "elsewhere.py").write_text(APP.replace("jobs.db", "other/jobs.db"))
    assert said in shop.refused("status", *args)


def test_why_of_a_job_that_is_not_there(shop: Shop, queue: KQueue) -> None:
    done = shop.kqueue("why", NO_JOB)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"kqueue: there is no job {NO_JOB}")


# -- pause and resume ----------------------------------------------------------------------------------------


def test_pause_and_resume_a_type(shop: Shop, queue: KQueue) -> None:
    done = shop.kqueue("pause", "greet")
    assert (done.returncode, done.stdout) == (0, "paused greet\n")
    assert done.stderr.startswith("kqueue: greet is a type of no job and of no worker so far")
    shop.ids("greet", '"Ada"')
    assert "count 0" in shop.kqueue("run", "--app", "shop:queue").stdout
    done = shop.kqueue("pause", "greet")
    assert (done.returncode, done.stderr) == (1, "kqueue: greet was paused already\n"), "a job has the type now"
    assert shop.kqueue("resume", "greet").stdout == "resumed greet\n"
    assert "hello Ada" in shop.kqueue("run", "--app", "shop:queue").stdout


def test_pause_and_resume_everything(shop: Shop, queue: KQueue) -> None:
    assert shop.kqueue("pause", "--all").stdout == "paused the whole queue\n"
    queue.pause("part")
    done = shop.kqueue("resume", "--all")
    assert (done.returncode, done.stdout) == (0, "resumed the whole queue\nstill paused: part\n")
    done = shop.kqueue("resume", "--all", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout) == {"type": None, "changed": False}


# -- workers and doctor --------------------------------------------------------------------------------------


def test_workers_are_those_that_wait_and_leave_when_they_end(shop: Shop, queue: KQueue) -> None:
    assert shop.kqueue("workers").stdout == "no worker waits for jobs\n"
    with shop.start("run", "--app", "shop:queue", "--wait") as process:
        await_true(lambda: len(queue.workers()) == 1)
        heads, line = shop.kqueue("workers").stdout.splitlines()
        assert heads.split() == ["host", "pid", "since", "heard", "of", "types"]
        assert line.endswith("greet")
        [found] = json.loads(shop.kqueue("workers", "--json").stdout)["workers"]
        assert (found["types"], found["alive"]) == (["greet"], True)
        assert str(found["pid"]) in line.split()
        started = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert started == [str(found["pid"])], "jobs run in a process that a terminal's Ctrl-C does not reach"
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE_S)
    assert queue.workers() == []


def test_a_worker_that_was_killed_is_remembered_and_not_alive(shop: Shop, queue: KQueue) -> None:
    with shop.start("run", "--app", "shop:queue", "--wait") as process:
        await_true(lambda: len(queue.workers()) == 1)
        process.kill()
    [record] = queue.store.workers()
    queue.store.see_worker(record._replace(seen_at=record.seen_at - 60))
    assert shop.kqueue("workers").stdout == "no worker waits for jobs\n"
    assert str(record.pid) in shop.kqueue("workers", "--all").stdout


def test_doctor(shop: Shop, queue: KQueue) -> None:
    done = shop.kqueue("doctor")
    assert (done.returncode, done.stdout) == (0, "all is well\n")
    die(queue, "greet", ["boom"])
    done = shop.kqueue("doctor")
    assert done.returncode == 1
    assert "dead jobs of type greet: 1; kqueue list --type greet" in done.stdout
    [symptom] = json.loads(shop.kqueue("doctor", "--json").stdout)["symptoms"]
    assert (symptom["severity"], symptom["about"]) == ("warning", "dead")


# -- the dead in bulk ----------------------------------------------------------------------------------------


def test_retry_by_a_filter_with_yes(shop: Shop, queue: KQueue) -> None:
    die(queue, "greet", ["disk full", "no route"])
    die(queue, "part", ["disk full"])
    done = shop.kqueue("retry", "--containing", "disk", "--type", "greet", "--reason", "mended", "--yes")
    assert (done.returncode, done.stdout) == (0, "retried 1\n")
    done = shop.kqueue("retry", "--all-dead", "--reason", "mended", "--yes", "--json")
    assert json.loads(done.stdout) == {"retried": 2, "refused": []}
    assert queue.counts()["dead"] == 0


def test_delete_by_a_filter_and_a_limit(shop: Shop, queue: KQueue) -> None:
    ids = die(queue, "greet", ["x"] * 3)
    done = shop.kqueue("delete", "--type", "greet", "--limit", "2", "--yes")
    assert (done.returncode, done.stdout) == (0, "deleted 2\n")
    assert [job.id for job in queue.jobs()] == [ids[2]]
    done = shop.kqueue("delete", "--all-dead", "--added-since", "2099-01-01T12:00", "--yes")
    assert done.stdout == "deleted 0\n"
    done = shop.kqueue("delete", "--added-before", "2099-01-01", "--yes", "--json")
    assert json.loads(done.stdout) == {"deleted": 1, "refused": []}


@pytest.mark.parametrize(("answer", "status", "left"), [("y\n", 0, 0), ("n\n", 1, 7)])
def test_a_filter_is_asked_about_with_some_of_those_that_match(
    shop: Shop, queue: KQueue, answer: str, status: int, left: int
) -> None:
    ids = die(queue, "greet", ["x"] * 7)
    ours, theirs = pty.openpty()
    try:
        with shop.start("retry", "--all-dead", "--reason", "mended", stdin=theirs) as process:
            os.write(ours, answer.encode())
            out, err = process.communicate(timeout=PATIENCE_S)
    finally:
        os.close(ours)
        os.close(theirs)
    assert (process.returncode, err) == (status, "")
    assert [job_id in out for job_id in ids] == [True] * 5 + [False] * 2
    assert "Retry all dead jobs that match, such as these? [y/N]:" in out
    assert queue.counts()["dead"] == left


def test_show_tells_who_ran_it_when(shop: Shop, queue: KQueue) -> None:
    [job_id] = die(queue, "greet", ["boom"])
    _, runs, told = shop.kqueue("show", job_id).stdout.split("\n\n")
    heads, run = runs.splitlines()
    assert told.splitlines()[-1] == "RuntimeError: boom"
    assert heads.split() == ["begun", "ended", "by", "reason"]
    assert f"process {os.getpid()} on this host" in run
    assert run.rstrip().endswith("RuntimeError: boom") or "RuntimeError: boom (" in run
    [as_json] = json.loads(shop.kqueue("show", job_id, "--json").stdout)["runs"]
    assert as_json["by"] == f"process {os.getpid()} on this host"
    assert as_json["reason"].startswith("RuntimeError: boom")
    assert as_json["traceback"] + "\n" == told.partition("\n")[2]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["pause"], "pause: give either a TYPE or --all"),
        (["resume", "greet", "--all"], "resume: give either a TYPE or --all"),
        (["pause", "two\nlines"], "type: "),
        (["why", "soon"], "id: "),
        (["why"], "ID"),
        (["retry", NO_JOB, "--all-dead", "--reason", "x"], "retry: give either IDs, or --all-dead or a filter"),
        (["retry", "--reason", "x"], "retry: give either IDs"),
        (["delete", "--yes"], "delete: give either IDs"),
        (["retry", NO_JOB, "--limit", "5", "--reason", "x"], "--limit: only for --all-dead or a filter"),
        (["retry", "--all-dead", "--reason", "x"], "give --yes"),
        (["delete", "--all-dead"], "give --yes"),
        (["delete", "--added-since", "yesterday", "--yes"], "expected a time such as 2026-05-01T12:00"),
    ],
)
def test_what_is_not_clear_is_refused_on_one_line(shop: Shop, queue: KQueue, args: list[str], said: str) -> None:
    assert said in shop.refused(*args)


def test_purge_deletes_what_does_not_run(shop: Shop):
    shop.ids("greet", "1", "2", "--delay", "1h")
    shop.ids("other", "3")
    assert "give --yes" in shop.refused("purge", "greet")
    assert shop.kqueue("purge", "greet", "--yes").stdout == "purged 2\n"
    assert json.loads(shop.kqueue("purge", "greet", "--yes", "--json").stdout) == {"purged": 0}
    with KQueue(store=shop.store) as queue:
        assert queue.counts()["ready"] == 1


# -- change --------------------------------------------------------------------------------------------------


def test_change_gives_jobs_that_wait_another_priority_and_time(shop: Shop, queue: KQueue) -> None:
    first, second = queue.add_job("greet"), queue.add_job("greet", delay=60)
    done = shop.kqueue("change", first, second, "--priority", "high", "--delay", "10m")
    assert (done.returncode, done.stdout, done.stderr) == (0, "changed 2\n", "")
    jobs = [queue.get_job(job_id) for job_id in (first, second)]
    assert [(job.priority, job.state) for job in jobs if job] == [(2**14, "delayed")] * 2
    done = shop.kqueue("change", first, NO_JOB, "--priority", "7", "--delay", "0", "--json")
    assert (done.returncode, json.loads(done.stdout)) == (1, {"changed": 1, "refused": [NO_JOB]})
    assert done.stderr == f"kqueue: not waiting: {NO_JOB}\n"
    changed = queue.get_job(first)
    assert changed is not None
    assert (changed.priority, changed.state) == (7, "ready")
    done = shop.kqueue("change", first)
    assert (done.returncode, done.stdout) == (2, "")
    assert "give a priority, a delay or a run_at" in done.stderr
