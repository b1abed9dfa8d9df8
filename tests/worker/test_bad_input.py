"""What is wrong with the command is one clear line, and exit status 2, before any job runs."""

import pytest

from kqueue.cli.main import main
from kqueue.worker.options import WorkerOptions
from tests.worker.works import Works

WRONG = {
    "--processes 0": "--processes: at least 1, got 0",
    "--processes two": "--processes: expected an integer, at least 1, got 'two'",
    "--threads -1": "--threads: at least 1, got -1",
    "--grace -1": "--grace: a finite number, at least 0, got -1.0",
    "--grace nan": "--grace: a finite number, at least 0, got nan",
    "--grace inf": "--grace: a finite number, at least 0, got inf",
    "--max-jobs 0": "--max-jobs: at least 1, got 0",
    "--max-rss 0": "--max-rss: at least 1, got 0",
    "--log-level loud": "--log-level: no 'loud'; did you mean 'info'? There are debug, error, info, warning",
    "--forever": "No such option",
}


@pytest.mark.parametrize("options", WRONG)
def test_a_wrong_option_is_named(capsys: pytest.CaptureFixture[str], options: str) -> None:
    """Before the app is imported: it is not there."""
    with pytest.raises(SystemExit) as ended:
        main(["worker", "--app", "missing:queue", *options.split()])
    out, line = capsys.readouterr()
    assert (ended.value.code, out) == (2, "")
    assert line.startswith(f"kqueue: {WRONG[options]}")
    assert line.count("\n") == 1


APPS = {
    "missing:queue": "--app: cannot import missing: ModuleNotFoundError: No module named 'missing'",
    "app:handle": "--app: app:handle is no KQueue but of <class 'function'>; it has the KQueue queue and memory",
    "app:memory": "--app: the store of app:memory is memory:, which each process has for itself;",
}


@pytest.mark.parametrize("app", APPS)
def test_an_app_that_cannot_be_used_is_told_by_the_part_that_is_wrong(works: Works, app: str) -> None:
    works.add("quick")
    assert works.refused(app=app).startswith(f"kqueue: {APPS[app]}")
    assert not works.runs()


def test_an_app_that_raises_when_it_is_imported(works: Works) -> None:
    (works.folder / "broken").touch()
    assert works.refused().startswith("kqueue: --app: cannot import app: RuntimeError: no way to start (")


def test_a_store_that_cannot_be_opened(works: Works) -> None:
    (works.folder / "jobs.db").write_text("no database at all, but long enough to be looked at" * 100)
    assert str(works.folder / "jobs.db") in works.refused()


def test_a_limit_of_memory_that_is_less_than_a_process_needs(works: Works) -> None:
    works.add("quick")
    assert "--max-rss: 5 MiB, but a process has " in works.refused("--max-rss", "5")
    assert not works.runs()


def test_a_system_that_cannot_start_processes(works: Works) -> None:
    patch = "import sys; sys.executable = '/missing/python'"
    with works.worker(patch=patch) as worker:
        assert worker.status() == 2
    assert works.log.read_text() == "kqueue: a child could not start: No such file or directory\n"


def test_a_child_that_is_never_ready(works: Works) -> None:
    (works.folder / "app.py").write_text(
        f"import sys, time\nif 'child' in sys.argv[0]: time.sleep(600)\n{APP_HEAD}"
    )
    with works.worker(patch="import kqueue.worker.children as f; f.START_S = 0.1") as worker:
        assert worker.status() == 2
    assert works.log.read_text().startswith("kqueue: a child could not start: it was not ready after ")


APP_HEAD = "from kqueue import KQueue\nqueue = KQueue('sqlite:///jobs.db')\nqueue.add_handler('t', print)\n"


def test_options_come_back_from_their_text_as_they_were() -> None:
    options = WorkerOptions("app:queue", 2, 3, ["a"], ["b"], 1.5, 10, 100, "health", "debug", True, "/somewhere")
    assert WorkerOptions.of(options.to_text()) == options
    options = WorkerOptions("a:b", 1, 1, None, None, 0.0, None, None, None, "info", False)
    assert WorkerOptions.of(options.to_text()) == options
