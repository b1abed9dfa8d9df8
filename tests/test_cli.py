"""The command line as its users meet it: real processes, their exit statuses, and one line for each error."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import kqueue
from kqueue import KQueue
from tests.beanstalkd import Beanstalkd, free_port

PATIENCE_S = 60

APP = """
from kqueue import KQueue

number = 3
empty = KQueue(store="sqlite:///jobs.db")
queue = KQueue(store="sqlite:///jobs.db", retry_delay=600)

@queue.handler("greet")
def greet(job):
    if job.payload == "fail":
        raise RuntimeError("two\\nlines")
    print("hello", job.payload, flush=True)
    job.delete()
"""


class Shop:
    """A folder with a user's program and its jobs, and the command line run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = f"sqlite:///{folder}/jobs.db"
        (folder / "shop.py").write_text(APP)
        unset = {"KQUEUE_STORE", "KQUEUE_BROKER", "PYTHONPATH"}
        self.environment = {name: value for name, value in os.environ.items() if name not in unset}
        self.environment["KQUEUE_STORE"] = self.store

    def start(self, *args: str, **options: object) -> "subprocess.Popen[str]":
        return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
            [sys.executable, "-m", "kqueue", *args],
            cwd=self.folder,
            env=self.environment,
            text=True,
            **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        )

    def kqueue(self, *args: str, text: str | None = None) -> "subprocess.CompletedProcess[str]":
        stdin = subprocess.DEVNULL if text is None else subprocess.PIPE
        with self.start(*args, stdin=stdin) as process:
            out, err = process.communicate(text, timeout=PATIENCE_S)
        return subprocess.CompletedProcess(args, process.returncode, out, err)

    def ids(self, *args: str, text: str | None = None) -> list[str]:
        done = self.kqueue("add", *args, text=text)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.split()

    def refused(self, *args: str, text: str | None = None) -> str:
        """The one line that a command says when it could not be done."""
        done = self.kqueue(*args, text=text)
        assert (done.returncode, done.stdout) == (2, ""), done
        assert done.stderr.startswith("kqueue: ")
        assert done.stderr.endswith("\n")
        assert done.stderr.count("\n") == 1, done.stderr
        return done.stderr


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


@pytest.fixture
def queue(shop: Shop):
    with KQueue(store=shop.store) as queue:
        yield queue


# -- add -----------------------------------------------------------------------------------------------------


def test_add_stores_each_payload_and_prints_its_id(shop: Shop, queue: KQueue):
    ids = shop.ids("greet", '{"a": [1, null]}', '"é"', "--priority", "high", "--delay", "60", "--ttr", "2.5")
    jobs = [queue.get_job(job_id) for job_id in ids]
    assert [job and job.payload for job in jobs] == [{"a": [1, None]}, "é"]
    assert {(job.priority, job.delay, job.ttr, job.state) for job in jobs if job} == {(2**14, 60, 2.5, "delayed")}


def test_add_without_a_payload_adds_null(shop: Shop, queue: KQueue):
    (job_id,) = shop.ids("greet")
    job = queue.get_job(job_id)
    assert job is not None
    assert job.payload is None


def test_add_takes_a_number_as_priority(shop: Shop, queue: KQueue):
    (job_id,) = shop.ids("greet", "--priority", "7")
    job = queue.get_job(job_id)
    assert job is not None
    assert job.priority == 7


def test_add_takes_a_negative_number_after_two_dashes(shop: Shop, queue: KQueue):
    (job_id,) = shop.ids("greet", "--", "-5")
    job = queue.get_job(job_id)
    assert job is not None
    assert job.payload == -5


@pytest.mark.parametrize("source", [["-"], ["--lines", "-"], ["--lines", "lines.jsonl"]])
def test_add_reads_one_payload_a_line(shop: Shop, queue: KQueue, source: list[str]):
    text = '{"n": 1}\n\n"two"\r\n3'
    (shop.folder / "lines.jsonl").write_text(text)
    jobs = [queue.get_job(job_id) for job_id in shop.ids("greet", *source, text=text)]
    assert [job and job.payload for job in jobs] == [{"n": 1}, "two", 3]


def test_add_counts_instead_of_printing_ids(shop: Shop, queue: KQueue):
    assert shop.ids("greet", "-", "--count", text="1\n" * 2_345) == ["2345"]
    assert queue.counts("greet")["ready"] == 2_345


def test_add_of_no_lines_adds_nothing(shop: Shop):
    assert shop.ids("greet", "-", "--count", text="") == ["0"]


def test_a_bad_line_is_named_and_nothing_of_its_batch_is_added(shop: Shop, queue: KQueue):
    line = shop.refused("add", "greet", "-", text="1\n2\n\nthree\n5\n")
    assert "standard input, line 4" in line
    assert "'three'" in line
    assert queue.counts()["ready"] == 0


def test_a_bad_line_far_down_says_how_many_were_added_before(shop: Shop, queue: KQueue):
    line = shop.refused("add", "greet", "-", "--count", text="1\n" * 1_500 + "oops\n")
    assert "line 1501" in line
    assert "1000 jobs before were added" in line
    assert queue.counts("greet")["ready"] == 1_000


def test_closed_standard_input_is_said(shop: Shop):
    command = f"'{sys.executable}' -m kqueue add greet - <&-"
    done = subprocess.run(
        command,
        check=False,
        shell=True,
        cwd=shop.folder,
        env=shop.environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("kqueue: standard input: ")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["greet", "abc"], "payload 1: expected JSON, got 'abc'"),
        (["greet", "1", "NaN"], "payload 2: expected JSON, got 'NaN'"),
        (["greet", "[" * 100_000], "payload 1: expected JSON"),
        (["greet", "1", "--lines", "f"], "not both"),
        (["greet", "--lines", "missing.jsonl"], "missing.jsonl: No such file"),
        (["two words"], "type: "),
        (["greet", "--priority", "asap"], "priority: "),
        (["greet", "--priority", "4294967296"], "priority: "),
        (["greet", "--delay", "-1"], "delay: "),
        (["greet", "--delay", "nan"], "delay: "),
        (["greet", "--ttr", "0"], "ttr: "),
        (["greet", "--ttr", "soon"], "--ttr"),
        (["greet", "--store", "redis://localhost"], "store: "),
        (["greet", "--store", "memory:"], "such as sqlite:///jobs.db"),
        (["greet", "--store", "sqlite:////no/such/folder/jobs.db"], "sqlite:////no/such/folder/jobs.db"),
        (["greet", "--broker", "amqp://localhost"], "broker: "),
        (["greet", "--speed", "9"], "--speed"),
        ([], "TYPE"),
    ],
)
def test_add_refuses_on_one_line_and_adds_nothing(shop: Shop, queue: KQueue, args: list[str], said: str):
    assert said in shop.refused("add", *args)
    assert queue.store.types() == []


def test_add_while_the_broker_is_down_keeps_the_job(shop: Shop, queue: KQueue):
    done = shop.kqueue("add", "greet", "--broker", f"beanstalk://127.0.0.1:{free_port()}")
    assert done.returncode == 0
    assert queue.get_job(done.stdout.strip()) is not None


# -- run -----------------------------------------------------------------------------------------------------


def test_run_runs_what_is_ready_and_exits_0(shop: Shop, queue: KQueue):
    shop.ids("greet", '"Ada"', '"Bob"')
    done = shop.kqueue("run", "--app", "shop:queue")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[:2] == ["hello Ada", "hello Bob"]
    assert "deleted 2" in done.stdout.splitlines()[2]
    assert sum(queue.counts().values()) == 0


def test_run_exits_1_when_a_job_failed(shop: Shop, queue: KQueue):
    (bad, _) = shop.ids("greet", '"fail"', '"Ada"')
    done = shop.kqueue("run", "--app", "shop:queue", "--json")
    assert done.returncode == 1
    report = json.loads(done.stdout.splitlines()[-1])
    assert (report["count"], report["deleted"], report["retried"]) == (2, 1, 1)
    job = queue.get_job(bad)
    assert job is not None
    assert job.reason is not None
    assert "RuntimeError" in job.reason


def test_run_with_nothing_to_do_exits_0(shop: Shop):
    assert shop.kqueue("run", "--app", "shop:queue").returncode == 0


def test_run_stops_at_its_count_limit(shop: Shop, queue: KQueue):
    shop.ids("greet", *"123")
    assert shop.kqueue("run", "--app", "shop:queue", "--count-limit", "2").returncode == 0
    assert queue.counts("greet")["ready"] == 1


def test_run_that_waits_stops_at_its_time_limit(shop: Shop):
    assert shop.kqueue("run", "--app", "shop:queue", "--wait", "--time-limit-ms", "50").returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_waiting_run_cleanly(shop: Shop, number: signal.Signals):
    shop.ids("greet", '"Ada"')
    with shop.start("run", "--app", "shop:queue", "--wait") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "hello Ada\n"
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (0, "")
    assert "deleted 1" in out


@pytest.mark.parametrize(
    ("app", "said"),
    [
        ("shop", "expected MODULE:QUEUE"),
        ("shop:", "expected MODULE:QUEUE"),
        ("nowhere:queue", "cannot import nowhere"),
        ("broken:queue", "ZeroDivisionError: division by zero"),
        ("broken:queue", "broken.py, line 2"),
        ("quits:queue", "cannot import quits: SystemExit"),
        ("shop:other", "module shop has no 'other'; it has the KQueue empty and queue"),
        ("shop:number", "shop:number is no KQueue"),
        ("shop:empty", "shop:empty has no handler"),
        ("away:queue", "/no/such/folder"),
    ],
)
def test_run_that_cannot_run_says_which_part_failed(shop: Shop, app: str, said: str):
    (shop.folder / "broken.py").write_text("# first\n1 / 0\n")
    (shop.folder / "quits.py").write_text("raise SystemExit(0)\n")
    (shop.folder / "away.py").write_text(APP.replace("///jobs.db", "////no/such/folder/jobs.db"))
    assert said in shop.refused("run", "--app", app)


def test_run_without_its_broker_exits_2(shop: Shop):
    address = f"beanstalk://127.0.0.1:{free_port()}"
    (shop.folder / "far.py").write_text(APP.replace('jobs.db", retry', f'jobs.db", broker="{address}", retry'))
    assert address in shop.refused("run", "--app", "far:queue")


@pytest.mark.parametrize("limit", ["-1", "many"])
def test_run_refuses_a_bad_limit(shop: Shop, limit: str):
    assert "count" in shop.refused("run", "--app", "shop:queue", "--count-limit", limit)


# -- status and sweep ----------------------------------------------------------------------------------------


def test_status_counts_by_type_and_state(shop: Shop, queue: KQueue):
    queue.add_jobs("greet", [1, 2])
    queue.add_job("part", delay=60)
    status = json.loads(shop.kqueue("status", "--json").stdout)
    assert status["store"] == queue.store.address
    assert status["broker"] is None
    assert {type: one["jobs"] for type, one in status["types"].items()} == {
        "greet": {"delayed": 0, "ready": 2, "running": 0, "dead": 0, "done": 0},
        "part": {"delayed": 1, "ready": 0, "running": 0, "dead": 0, "done": 0},
    }
    plain = shop.kqueue("status").stdout.splitlines()
    assert plain[0].split() == ["store", queue.store.address]
    assert ["greet", "0", "2", "0", "0", "0"] in [line.split() for line in plain]


def test_status_of_an_empty_store(shop: Shop):
    done = shop.kqueue("status")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 2)


def test_status_shows_what_the_tubes_hold(shop: Shop, beanstalkd: Beanstalkd):
    shop.ids("greet", "1", "--broker", beanstalkd.url)
    shop.environment["KQUEUE_BROKER"] = beanstalkd.url
    status = json.loads(shop.kqueue("status", "--json").stdout)
    assert status["broker"] == beanstalkd.url
    assert status["types"]["greet"]["tube"] == {"ready": 1, "delayed": 0, "reserved": 0, "buried": 0}
    assert ["greet", "1", "0", "0", "0"] in [line.split() for line in shop.kqueue("status").stdout.splitlines()]


def test_status_says_plainly_that_the_broker_is_not_there(shop: Shop, queue: KQueue):
    queue.add_job("greet")
    address = f"beanstalk://127.0.0.1:{free_port()}"
    done = shop.kqueue("status", "--broker", address)
    assert (done.returncode, done.stderr) == (0, "")
    assert "unreachable" in done.stdout
    assert ["greet", "0", "1", "0", "0", "0"] in [line.split() for line in done.stdout.splitlines()]
    status = json.loads(shop.kqueue("status", "--broker", address, "--json").stdout)
    assert address in status["broker_error"]
    assert status["types"]["greet"]["tube"] is None


def test_sweep_puts_what_was_not_put(shop: Shop, queue: KQueue, beanstalkd: Beanstalkd):
    queue.add_jobs("greet", [1, 2])
    done = shop.kqueue("sweep", "--broker", beanstalkd.url, "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["put"] == 2
    assert "put 0" in shop.kqueue("sweep", "--broker", beanstalkd.url).stdout


def test_sweep_without_its_broker_exits_2(shop: Shop):
    address = f"beanstalk://127.0.0.1:{free_port()}"
    KQueue(store=shop.store).add_job("greet")
    assert address in shop.refused("sweep", "--broker", address)


@pytest.mark.parametrize("command", [["add", "greet"], ["status"], ["sweep"]])
def test_a_command_without_a_store_says_how_to_give_one(shop: Shop, command: list[str]):
    del shop.environment["KQUEUE_STORE"]
    line = shop.refused(*command)
    assert "--store" in line
    assert "KQUEUE_STORE" in line


# -- all of it -----------------------------------------------------------------------------------------------


def test_version(shop: Shop):
    assert shop.kqueue("--version").stdout == f"kqueue {kqueue.__version__}\n"


def test_no_command_shows_help(shop: Shop):
    done = shop.kqueue()
    assert done.returncode == 0
    assert all(command in done.stdout for command in ["add", "demo", "run", "status", "sweep"])


def test_an_unknown_command_is_one_line(shop: Shop):
    assert "nonsense" in shop.refused("nonsense")


def test_output_that_nobody_reads_to_its_end_is_no_traceback(shop: Shop):
    with shop.start("add", "greet", "-", stdin=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        process.stdout = None
        _, err = process.communicate("1\n" * 5_000, timeout=PATIENCE_S)
    assert "Traceback" not in err
    assert "Exception" not in err
    assert process.returncode == 1
