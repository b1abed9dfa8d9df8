"""``kqueue list``, ``show``, ``retry`` and ``delete``, in real processes."""

import json
import os
import pty
from datetime import datetime

import pytest

from kqueue import Job, KQueue
from tests.beanstalkd import Beanstalkd
from tests.shop import NO_JOB, PATIENCE_S, Shop, the_job


@pytest.fixture
def dead(queue: KQueue) -> list[str]:
    """Ids of three jobs that ended dead, the last one of another type."""
    ids = [*queue.add_jobs("greet", ["a", "b"]), queue.add_job("part", b"\0\xff")]
    with KQueue(store=queue.store, max_tries=1) as workers:
        workers.add_handler("greet", fail)
        workers.add_handler("part", fail)
        assert workers.run_jobs().dead == 3
    return ids


def fail(job: Job) -> None:
    raise RuntimeError("two\nlines \x1b[2J")


#: Where that is, as the reason says it.
PLACE = f"(test_jobs.py:{fail.__code__.co_firstlineno + 1})"


def test_list_shows_the_dead_with_their_reason(shop: Shop, queue: KQueue, dead: list[str]):
    queue.add_job("greet")
    done = shop.kqueue("list")
    assert (done.returncode, done.stderr) == (0, "")
    heads, *lines = done.stdout.splitlines()
    assert heads.split() == ["id", "type", "state", "tries", "when", "reason"]
    assert [line.split()[:4] for line in lines] == [
        [dead[0], "greet", "dead", "1"],
        [dead[1], "greet", "dead", "1"],
        [dead[2], "part", "dead", "1"],
    ]
    assert all(line.endswith(f"RuntimeError: two lines ?[2J {PLACE}") for line in lines)


def test_list_of_one_type_and_of_another_state(shop: Shop, queue: KQueue, dead: list[str]):
    ready = queue.add_job("greet")
    assert [line.split()[0] for line in shop.kqueue("list", "--type", "part").stdout.splitlines()] == [
        "id",
        dead[2],
    ]
    assert [line.split()[0] for line in shop.kqueue("list", "--state", "ready").stdout.splitlines()] == [
        "id",
        ready,
    ]
    assert shop.kqueue("list", "--state", "running").stdout == "no running jobs\n"


def test_list_says_how_to_page(shop: Shop, dead: list[str]):
    first = shop.kqueue("list", "--limit", "2").stdout
    assert first.splitlines()[-1].endswith(f"--after {dead[1]}")
    second = shop.kqueue("list", "--limit", "2", "--after", dead[1]).stdout
    assert [line.split()[0] for line in second.splitlines()] == ["id", dead[2]]


def test_list_for_programs(shop: Shop, dead: list[str]):
    page = json.loads(shop.kqueue("list", "--limit", "2", "--json").stdout)
    assert page["more_after"] == dead[1]
    first = page["jobs"][0]
    assert datetime.fromisoformat(first.pop("scheduled_for")).tzinfo is not None
    assert datetime.fromisoformat(first.pop("when")).tzinfo is not None
    assert first == {
        "id": dead[0],
        "type": "greet",
        "state": "dead",
        "tries": 1,
        "reason": f"RuntimeError: two\nlines \x1b[2J {PLACE}",
    }
    assert json.loads(shop.kqueue("list", "--json", "--after", dead[2]).stdout) == {"jobs": [], "more_after": None}


def test_show_says_all_but_the_payload(shop: Shop, queue: KQueue, dead: list[str]):
    done = shop.kqueue("show", dead[0])
    assert (done.returncode, done.stderr) == (0, "")
    details, runs, told = done.stdout.split("\n\n")
    assert runs.splitlines()[0].split() == ["begun", "ended", "by", "reason"]
    first, second, *_, last = told.splitlines()
    assert first.startswith("of the run that ended ")
    assert second == "Traceback (most recent call last):"
    assert last == "lines ?[2J"
    assert "\x1b" not in done.stdout
    (run,) = json.loads(shop.kqueue("show", dead[0], "--json").stdout)["runs"]
    assert run["traceback"].endswith("RuntimeError: two\nlines \x1b[2J")
    shown = dict(line.split(maxsplit=1) for line in details.splitlines())
    assert (shown["id"], shown["type"], shown["state"], shown["tries"]) == (dead[0], "greet", "dead", "1")
    assert (shown["priority"], shown["fence"], shown["ttr"]) == ("65536", "1", "60.0")
    assert shown["reason"] == f"RuntimeError: two lines ?[2J {PLACE}"
    created = datetime.fromisoformat(shown["created_at"])
    assert created.timestamp() == int(the_job(queue, dead[0]).created_at)
    assert "payload" not in done.stdout


def test_show_of_a_payload(shop: Shop, queue: KQueue, dead: list[str]):
    payload = {"name": "é\n", "n": [1, None]}
    job_id = queue.add_job("greet", payload)
    (line,) = [line for line in shop.kqueue("show", job_id, "--payload").stdout.splitlines() if "payload" in line]
    assert json.loads(line.removeprefix("payload")) == payload
    assert json.loads(shop.kqueue("show", job_id, "--payload", "--json").stdout)["payload"] == payload
    assert json.loads(shop.kqueue("show", dead[2], "--payload", "--json").stdout)["payload_base64"] == "AP8="
    assert "payload" not in json.loads(shop.kqueue("show", job_id, "--json").stdout)


@pytest.mark.parametrize(
    ("result", "name", "shown"),
    [({"n": "\x1b[2J\n"}, "result", '{"n": "\\u001b[2J\\n"}'), (b"\0\xff", "result_base64", '"AP8="')],
)
def test_show_of_a_result(shop: Shop, queue: KQueue, result: object, name: str, shown: str):
    queue.add_handler("greet", lambda job: job.delete(result))
    job_id = queue.add_job("greet", keep_done=60)
    assert queue.run_jobs().deleted == 1
    lines = dict(
        line.split(maxsplit=1) for line in shop.kqueue("show", job_id).stdout.split("\n\n")[0].splitlines()
    )
    assert (lines[name], lines["state"], lines["finished_at"]) == (shown, "done", lines["finished_at"])
    assert json.loads(shop.kqueue("show", job_id, "--json").stdout)[name] == json.loads(shown)


@pytest.mark.parametrize("delay", [1e12, 1e300])
def test_show_of_a_job_that_no_calendar_holds(shop: Shop, queue: KQueue, delay: float):
    done = shop.kqueue("show", queue.add_job("greet", delay=delay))
    assert (done.returncode, done.stderr) == (0, "")
    assert " s after 1970" in done.stdout


def test_show_of_a_job_that_is_not_there(shop: Shop, queue: KQueue):
    done = shop.kqueue("show", NO_JOB)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"kqueue: there is no job {NO_JOB}; it may have been deleted\n"


def test_retry_brings_dead_jobs_back(shop: Shop, queue: KQueue, dead: list[str]):
    done = shop.kqueue("retry", *dead[:2], dead[0], "--reason", "mended")
    assert (done.returncode, done.stdout, done.stderr) == (0, "retried 2\n", "")
    assert [(job.state, job.tries) for job in map(queue.get_job, dead) if job] == [("ready", 0)] * 2 + [("dead", 1)]
    assert the_job(queue, dead[0]).reason == "mended"


def test_retry_names_what_was_not_dead(shop: Shop, queue: KQueue, dead: list[str]):
    ready = queue.add_job("greet")
    done = shop.kqueue("retry", ready, dead[0], NO_JOB, "--reason", "mended")
    assert (done.returncode, done.stdout) == (1, "retried 1\n")
    assert done.stderr == f"kqueue: not dead: {ready} {NO_JOB}\n"


def test_retry_puts_a_pointer(shop: Shop, dead: list[str], beanstalkd: Beanstalkd):
    assert shop.kqueue("retry", *dead[:2], "--reason", "mended", "--broker", beanstalkd.url).returncode == 0
    status = json.loads(shop.kqueue("status", "--json", "--broker", beanstalkd.url).stdout)
    assert status["types"]["greet"]["tube"]["ready"] in {1, 2}  # one entry may carry both


def test_delete_says_how_many_there_were(shop: Shop, queue: KQueue, dead: list[str]):
    done = shop.kqueue("delete", "--yes", dead[0], dead[1], dead[0])
    assert (done.returncode, done.stdout, done.stderr) == (0, "deleted 2\n", "")
    done = shop.kqueue("delete", "--yes", dead[0], dead[2])
    assert (done.returncode, done.stdout, done.stderr) == (1, "deleted 1\n", f"kqueue: not there: {dead[0]}\n")
    assert sum(queue.counts().values()) == 0


@pytest.mark.parametrize("stdin", ["</dev/null", "<&-"])
def test_delete_without_a_terminal_wants_yes(shop: Shop, queue: KQueue, dead: list[str], stdin: str):
    done = shop.shell(f"KQUEUE delete {dead[0]} {stdin}")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--yes" in done.stderr
    assert queue.counts()["dead"] == 3


@pytest.mark.parametrize(("answer", "status", "left"), [("y\n", 0, 1), ("n\n", 1, 3), ("\n", 1, 3)])
def test_delete_asks_on_a_terminal(shop: Shop, queue: KQueue, dead: list[str], answer: str, status: int, left: int):
    ours, theirs = pty.openpty()
    try:
        with shop.start("delete", *dead[:2], stdin=theirs) as process:
            os.write(ours, answer.encode())
            out, err = process.communicate(timeout=PATIENCE_S)
    finally:
        os.close(ours)
        os.close(theirs)
    assert (process.returncode, err) == (status, "")
    assert all(job_id in out for job_id in dead[:2])
    assert "Delete these 2 jobs? [y/N]:" in out
    assert out.endswith(f"deleted {3 - left}\n")
    assert queue.counts()["dead"] == left


@pytest.mark.parametrize("command", [["retry", "--reason", "mended"], ["delete", "--yes"]])
def test_a_malformed_id_is_refused_before_the_first_job_is_touched(
    shop: Shop, queue: KQueue, dead: list[str], command: list[str]
):
    assert "id: " in shop.refused(*command, dead[0], "' OR 1=1 --")
    assert queue.counts()["dead"] == 3


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["list", "--state", "asleep"], "--state"),
        (["list", "--limit", "0"], "--limit"),
        (["list", "--type", "two\nlines"], "type: "),
        (["list", "--after", "soon"], "job id"),
        (["show", "soon"], "id: "),
        (["show"], "ID"),
        (["retry", "--reason", "mended"], "ID"),
        (["delete", "--yes"], "ID"),
    ],
)
def test_looking_at_jobs_refuses_on_one_line(shop: Shop, queue: KQueue, args: list[str], said: str):
    assert said in shop.refused(*args)


def test_list_takes_the_filters_of_retry_and_shows_when(shop: Shop, queue: KQueue, dead: list[str]):
    listed = json.loads(shop.kqueue("list", "--type", "part", "--ended-since", "2020-01-01", "--json").stdout)
    assert [job["id"] for job in listed["jobs"]] == [dead[2]]
    none = shop.kqueue("list", "--containing", "no such thing")
    assert none.stdout == "no dead jobs\n"


def test_retry_runs_what_is_delayed_and_needs_no_reason(shop: Shop, queue: KQueue, dead: list[str]):
    with KQueue(store=queue.store) as workers:
        workers.add_handler("mail", fail)
        mail = queue.add_job("mail")
        assert workers.run_jobs().retried == 1
    done = shop.kqueue("retry", "--delayed", "--type", "mail", "--yes")
    assert (done.returncode, done.stdout) == (0, "retried 1\n")
    assert the_job(queue, mail).state == "ready"
    assert shop.kqueue("retry", dead[0]).stdout == "retried 1\n"
    assert the_job(queue, dead[0]).reason == "retried by an operator"
    assert shop.kqueue("retry", "--delayed", "--all-dead", "--yes").returncode == 2
