"""The command line as its users meet it: real processes, their exit statuses, and one line for each error."""

import json
import re
import signal
import subprocess

import pytest

import kqueue
from kqueue import KQueue
from tests.beanstalkd import Beanstalkd, free_port
from tests.cli.find_jobs import FIND_JOBS
from tests.shop import APP, PATIENCE_S, Shop, the_job

# -- the app -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("app", ["json:queue", "json.jobs:queue", "sys:queue"])
def test_an_app_of_a_name_that_another_module_has_says_which_was_found(shop: Shop, app: str) -> None:
    name = app.partition(":")[0].partition(".")[0]
    (shop.folder / f"{name}.py").write_text(APP)
    said = shop.refused("status", "--app", app)
    assert f"which has the name of {shop.folder}/{name}.py and was imported before that: give yours another" in said
    assert (json.__file__ if name == "json" else "built into Python") in said


# -- completion in a shell -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_told_how_to_complete(shop: Shop, shell: str) -> None:
    shop.environment["_KQUEUE_COMPLETE"] = f"{shell}_source"
    with shop.start() as process:
        out, _ = process.communicate(timeout=PATIENCE_S)
    assert f"_KQUEUE_COMPLETE={shell}_complete" in out


@pytest.mark.parametrize(
    ("typed", "completed"),
    [("kqueue li", "list"), ("kqueue list --sta", "--state"), ("kqueue list --state de", "dead")],
)
def test_commands_options_and_states_are_completed(shop: Shop, typed: str, completed: str) -> None:
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    shop.environment |= {"_KQUEUE_COMPLETE": "bash_complete", **words}
    with shop.start() as process:
        out, _ = process.communicate(timeout=PATIENCE_S)
    assert f"plain,{completed}" in out.split()


# -- run -----------------------------------------------------------------------------------------------------


def test_run_serves_the_types_that_it_is_told(shop: Shop, queue: KQueue) -> None:
    queue.add_job("greet", "Ann")
    assert "--except: no type is left of greet" in shop.refused("run", "--app", "shop:queue", "--except", "greet")
    done = shop.kqueue("run", "--app", "shop:queue", "--type", "greet")
    assert done.stdout.startswith("hello Ann")


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


def test_run_with_nothing_to_do_exits_0(shop: Shop, queue: KQueue):
    queue.open()  # what only runs jobs makes no store
    assert shop.kqueue("run", "--app", "shop:queue").returncode == 0


def test_run_stops_at_its_count_limit(shop: Shop, queue: KQueue):
    shop.ids("greet", *"123")
    assert shop.kqueue("run", "--app", "shop:queue", "--count-limit", "2").returncode == 0
    assert queue.counts("greet")["ready"] == 1


def test_run_that_waits_stops_at_its_time_limit(shop: Shop, queue: KQueue):
    queue.open()
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


ENDLESS = """
import signal, time

@queue.handler("endless")
def endless(job):
    print("begun", flush=True)
    while signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        time.sleep(0.01)
    print("asked to stop", flush=True)
    time.sleep(600)
"""


def test_a_second_ctrl_c_interrupts_the_running_job(shop: Shop, queue: KQueue):
    (shop.folder / "shop.py").write_text(APP + ENDLESS)
    (job_id,) = shop.ids("endless")
    with shop.start("run", "--app", "shop:queue") as process:
        assert process.stdout is not None
        for line in ["begun\n", "asked to stop\n"]:
            assert process.stdout.readline() == line
            process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err.split()) == (130, ["kqueue:", "interrupted"])
    assert the_job(queue, job_id).state == "ready"


QUITS = """
import sys

@queue.handler("quit")
def quit(job):
    sys.exit(job.payload)
"""


@pytest.mark.parametrize(
    ("payload", "code"), [("0", "0"), ("7", "7"), ("null", "None"), ('"two\\nlines"', "two lines")]
)
def test_a_handler_that_calls_sys_exit_is_said_and_exits_1(shop: Shop, queue: KQueue, payload: str, code: str):
    (shop.folder / "shop.py").write_text(APP + QUITS)
    (job_id,) = shop.ids("quit", payload)
    done = shop.kqueue("run", "--app", "shop:queue")
    assert (done.returncode, done.stdout) == (1, "")
    failure, end = done.stderr.splitlines()  # logging is not configured there: it prints warnings
    assert re.search(
        rf" WARNING \d+ job {job_id} \(quit\): try 1 failed, the next is in \d+ s: SystemExit", failure
    )
    assert end.startswith(f"kqueue: a handler ended the run with SystemExit: {code};")
    job = the_job(queue, job_id)
    assert (job.state, job.tries) == ("delayed", 1)
    assert "SystemExit" in str(job.reason)


@pytest.mark.parametrize(
    ("app", "said"),
    [
        ("shop", "expected MODULE:QUEUE"),
        ("shop:", "expected MODULE:QUEUE"),
        ("nowhere:queue", "cannot import nowhere"),
        ("broken:queue", "ZeroDivisionError: division by zero"),
        ("broken:queue", "broken.py, line 2"),
        ("quits:queue", "cannot import quits: SystemExit"),
        ("half:queue", "half.py, line 2"),
        ("misused:queue", "misused.py, line 4)"),
        ("misnamed:queue", "misnamed.py, line 3)"),
        ("shop:other", "module shop has no 'other'; it has the KQueue empty and queue"),
        ("shop:number", "shop:number is no KQueue"),
        ("shop:empty", "shop:empty has no handler"),
        ("away:queue", "/no/such/folder"),
    ],
)
def test_run_that_cannot_run_says_which_part_failed(shop: Shop, app: str, said: str):
    (shop.folder / "broken.py").write_text("# first\n1 / 0\n")
    (shop.folder / "half.py").write_text("# first\nqueue = KQueue(\n")
    (shop.folder / "misused.py").write_text("from kqueue import KQueue\n\n\nqueue = KQueue(store='redis://here')\n")
    (shop.folder / "misnamed.py").write_text("import json\n\nqueue = json.loads('{')\n")
    (shop.folder / "quits.py").write_text("raise SystemExit(0)\n")
    (shop.folder / "away.py").write_text(APP.replace("///jobs.db", "////no/such/folder/jobs.db"))
    assert said in shop.refused("run", "--app", app)


def test_run_without_its_broker_runs_from_the_store_and_says_so(shop: Shop, queue: KQueue):
    address = f"beanstalk://127.0.0.1:{free_port()}"
    (shop.folder / "far.py").write_text(APP.replace('jobs.db", retry', f'jobs.db", broker="{address}", retry'))
    shop.ids("greet", '"Ada"')
    done = shop.kqueue("run", "--app", "far:queue")
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "hello Ada")
    assert f"jobs run from the store until the broker is back: {address}" in done.stderr
    assert queue.counts()["ready"] == 0


def test_run_says_when_and_at_which_level_unless_the_app_configures_logging(shop: Shop):
    shop.ids("greet", '"fail"')
    done = shop.kqueue("run", "--app", "shop:queue", "--quiet")
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} WARNING \d+ job \w+ \(greet\): try 1 f", done.stderr)
    shop.ids("greet", '"fail"')
    assert shop.kqueue("run", "--app", "shop:queue", "--log-level", "error").stderr == ""
    shop.ids("greet", '"Ada"')
    done = shop.kqueue("run", "--app", "shop:queue", "--log-level", "DEBUG")
    assert re.search(r" DEBUG \d+ job \w+ \(greet\): was deleted after ", done.stderr)
    assert "'loud' is not one of 'debug', 'info', 'warning', 'error'" in shop.refused("run", "--log-level", "loud")
    (shop.folder / "told.py").write_text(f"import logging\nlogging.basicConfig(format='mine %(message)s')\n{APP}")
    shop.ids("greet", '"fail"')
    done = shop.kqueue("run", "--app", "told:queue", "--log-level", "debug")
    assert done.stderr.startswith("mine job ")
    assert "DEBUG" not in done.stderr


def test_an_app_that_does_not_import_itself_has_no_line_of_ours(shop: Shop):
    assert "line" not in shop.refused("run", "--app", "nowhere:queue")


@pytest.mark.parametrize("limit", ["-1", "many"])
def test_run_refuses_a_bad_limit(shop: Shop, limit: str):
    assert "count" in shop.refused("run", "--app", "shop:queue", "--create", "--count-limit", limit)


# -- status and sweep ----------------------------------------------------------------------------------------


def test_status_counts_by_type_and_state(shop: Shop, queue: KQueue):
    queue.add_jobs("greet", [1, 2])
    queue.add_job("part", delay=60)
    status = json.loads(shop.kqueue("status", "--json").stdout)
    assert status["store"] == queue.store.address
    assert status["broker"] is None
    assert {type: one["jobs"] for type, one in status["types"].items()} == {
        "greet": {"delayed": 0, "ready": 2, "held": 0, "running": 0, "dead": 0, "done": 0},
        "part": {"delayed": 1, "ready": 0, "held": 0, "running": 0, "dead": 0, "done": 0},
    }
    plain = shop.kqueue("status").stdout.splitlines()
    assert plain[0].split() == ["store", queue.store.address]
    assert ["greet", "0", "2", "0", "0", "0", "0"] in [line.split() for line in plain]


def test_status_of_many_types_shows_those_with_most_jobs_and_counts_the_rest(shop: Shop, queue: KQueue):
    for number in range(30):
        queue.add_jobs(f"t{number:02}", [None] * (1 + number))
    lines = [[word.strip() for word in line.split("  ")] for line in shop.kqueue("status").stdout.splitlines()]
    named = [line[0] for line in lines if line[0].startswith("t")]
    assert named == [f"t{number:02}" for number in range(29, 9, -1)]
    [rest] = [line for line in lines if line[0] == "and 10 more types"]
    assert str(sum(range(11))) in rest
    status = json.loads(shop.kqueue("status", "--json").stdout)
    assert list(status["types"]) == named
    assert (status["more_types"], status["more_jobs"]["ready"]) == (10, sum(range(11)))
    every = json.loads(shop.kqueue("status", "--json", "--all").stdout)
    assert (len(every["types"]), every["more_types"]) == (30, 0)
    one = json.loads(shop.kqueue("status", "--json", "--type", "t03").stdout)
    assert {type: counts["jobs"]["ready"] for type, counts in one["types"].items()} == {"t03": 4}


def test_status_of_an_empty_store(shop: Shop, queue: KQueue):
    done = shop.kqueue("status")
    assert done.returncode == 0
    assert done.stdout.splitlines()[2:] == ["no jobs"]


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
    assert ["greet", "0", "1", "0", "0", "0", "0"] in [line.split() for line in done.stdout.splitlines()]
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
    with KQueue(store=shop.store) as queue:
        queue.add_job("greet")
    assert address in shop.refused("sweep", "--broker", address)


def test_a_dry_run_says_what_a_sweep_would_do_and_does_nothing(shop: Shop, queue: KQueue, beanstalkd: Beanstalkd):
    ids = queue.add_jobs("greet", [1, 2])
    sweep = ["sweep", "--broker", beanstalkd.url]
    lines = []
    for _ in range(2):
        done = shop.kqueue(*sweep, "--dry-run")
        assert (done.returncode, done.stderr) == (0, "")
        head, *lines = done.stdout.splitlines()
        assert head.split() == ["id", "type", "would", "why"]
        assert {tuple(line.split()[:4]) for line in lines} == {(id, "greet", "put", "pointer") for id in ids}
    assert all("no pointer yet" in line for line in lines)
    with beanstalkd.client() as client:
        assert client.stats()["total-jobs"] == 0
    assert "put 2" in shop.kqueue(*sweep).stdout
    assert shop.kqueue(*sweep, "--dry-run").stdout == "nothing to do\n"


def test_a_dry_run_for_programs_is_one_json_value(shop: Shop, queue: KQueue, beanstalkd: Beanstalkd):
    sweep = ["sweep", "--dry-run", "--json", "--limit", "1", "--broker", beanstalkd.url]
    assert json.loads(shop.kqueue(*sweep).stdout) == {"findings": [], "broker_error": None}
    queue.add_jobs("greet", [1, 2])
    first, rest = json.loads(shop.kqueue(*sweep).stdout)["findings"]
    assert set(first) == {"repair", "why", "type", "job_id"}
    assert (first["repair"], first["type"]) == ("put pointer", "greet")
    assert queue.get_job(first["job_id"]) is not None
    assert rest == {
        "repair": "put pointer",
        "why": "there are more than 1; a higher limit shows them",
        "type": None,
        "job_id": None,
    }


@pytest.mark.parametrize("as_json", [False, True])
def test_a_dry_run_without_its_broker_says_what_the_store_knows_and_exits_2(
    shop: Shop, queue: KQueue, as_json: bool
):
    job_id = queue.add_job("greet")
    address = f"beanstalk://127.0.0.1:{free_port()}"
    done = shop.kqueue("sweep", "--dry-run", "--broker", address, *["--json"] * as_json)
    assert done.returncode == 2
    assert job_id in done.stdout
    assert done.stderr.startswith(f"kqueue: {address}")
    assert done.stderr.count("\n") == 1
    if as_json:
        assert address in json.loads(done.stdout)["broker_error"]


def test_a_dry_run_with_nothing_known_and_no_broker_does_not_say_that_there_is_nothing_to_do(
    shop: Shop, queue: KQueue, beanstalkd: Beanstalkd
):
    shop.ids("greet", "1", "--broker", beanstalkd.url)
    beanstalkd.kill()
    done = shop.kqueue("sweep", "--dry-run", "--broker", beanstalkd.url)
    assert (done.returncode, done.stdout) == (2, "")
    assert beanstalkd.url in done.stderr


@pytest.mark.parametrize("command", [["add", "greet"], *FIND_JOBS])
def test_a_command_without_a_store_says_how_to_give_one(shop: Shop, command: list[str]):
    del shop.environment["KQUEUE_STORE"]
    line = shop.refused(*command)
    assert "--store" in line
    assert "KQUEUE_STORE" in line


@pytest.mark.parametrize("command", FIND_JOBS, ids=" ".join)
@pytest.mark.parametrize(
    "url", ["sqlite:///no%3Fsuch.db", "sqlite:///no%3Fsuch.db?synchronous=NORMAL", "sqlite:///shop.py/j.db"]
)
def test_a_mistyped_sqlite_path_is_said_and_makes_no_file(shop: Shop, command: list[str], url: str):
    before = sorted(shop.folder.iterdir())
    line = shop.refused(*command, "--store", url)
    assert str(shop.folder / "no%3Fsuch.db") in line or str(shop.folder / "shop.py/j.db") in line
    assert sorted(shop.folder.iterdir()) == before


def test_an_escaped_sqlite_path_is_found(shop: Shop):
    url = "sqlite:///what%3F.db?synchronous=NORMAL"
    shop.ids("greet", "--store", url)
    assert "greet" in shop.kqueue("status", "--store", url).stdout


# -- all of it -----------------------------------------------------------------------------------------------


def test_version(shop: Shop):
    assert shop.kqueue("--version").stdout == f"kqueue {kqueue.__version__}\n"


def test_no_command_shows_help(shop: Shop):
    done = shop.kqueue()
    assert done.returncode == 0
    assert all(
        command in done.stdout
        for command in ["add", "config", "delete", "demo", "list", "retry", "run", "show", "status", "sweep"]
    )


def test_an_unknown_command_is_one_line(shop: Shop):
    assert "nonsense" in shop.refused("nonsense")


@pytest.mark.parametrize("command", ["status", "add greet 1", "run --app shop:queue", "list"])
def test_closed_standard_output_stops_no_command(shop: Shop, queue: KQueue, command: str):
    done = shop.shell(f"KQUEUE {command} >&-")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_full_disk_below_standard_output_is_one_line(shop: Shop, queue: KQueue):
    done = shop.shell("KQUEUE status >/dev/full")
    assert done.returncode == 2
    assert done.stderr.startswith("kqueue: ")
    assert done.stderr.count("\n") == 1
    assert "No space left" in done.stderr


def test_output_that_nobody_reads_to_its_end_is_no_traceback(shop: Shop):
    with shop.start("add", "greet", "-", stdin=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        process.stdout = None
        _, err = process.communicate("1\n" * 5_000, timeout=PATIENCE_S)
    assert "Traceback" not in err
    assert "Exception" not in err
    assert process.returncode == 1


def test_a_quiet_run_tells_only_of_failures_and_takes_its_app_from_the_configuration(shop: Shop, queue: KQueue):
    (shop.folder / "quiet.py").write_text(QUIET)
    (shop.folder / "kqueue.toml").write_text('[worker]\napp = "quiet:queue"\n')
    shop.ids("works", "1")
    done = shop.kqueue("run", "--quiet")
    assert (done.returncode, done.stdout) == (0, "")
    shop.ids("fails", "1")
    done = shop.kqueue("run", "--quiet")
    assert (done.returncode, done.stdout.startswith("count 1, deleted 0, retried 1")) == (1, True)
    (shop.folder / "kqueue.toml").unlink()
    assert "--app: there is none" in shop.refused("run")


QUIET = """
from kqueue import KQueue

queue = KQueue(store="sqlite:///jobs.db")
queue.add_handler("works", lambda job: job.delete())
queue.add_handler("fails", lambda job: 1 / 0)
"""
