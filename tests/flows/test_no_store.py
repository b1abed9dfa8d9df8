"""Only what adds jobs makes a store. Whoever looks for jobs, or runs them, where there is none, makes none."""

import logging
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kqueue import KQueue, StoreUnavailable
from kqueue.cli.main import main
from tests.tubes import await_true

APP = """
from pathlib import Path
from kqueue import KQueue
queue = KQueue("sqlite:///jobs.db")

@queue.handler("t", delete_on_success=True)
def note(job):
    Path("done").write_text(job.payload)
"""
#: Whatever is there to be looked at or changed.
COMMANDS = [
    "status", "workers", "doctor", "list", "sweep", "sweep --dry-run", "show ID", "why ID", "retry ID --reason x",
    "delete ID --yes", "pause t", "resume t", "backup copy", "restore --mark",
]  # fmt: skip


def kqueue(command: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(command.replace("ID", "1k818mlne0000t67n00eaefk6pij").split())
    assert end.value.code is None or isinstance(end.value.code, int)
    return end.value.code or 0


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "no_store_app.py").write_text(APP)
    monkeypatch.delitem(sys.modules, "no_store_app", raising=False)
    return tmp_path


def assert_none_was_made(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} <= {"no_store_app.py", "__pycache__"}


@pytest.mark.parametrize(
    "command", [*COMMANDS, *(f"{command} --app no_store_app:queue" for command in COMMANDS[:1])]
)
def test_a_command_that_looks_for_jobs_names_the_file_that_is_not_there(
    command: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if "--app" not in command:
        monkeypatch.setenv("KQUEUE_STORE", "sqlite:///jobs.db")
    assert kqueue(command) == 2
    assert f"there is no store of KQueue at sqlite:///{folder}/jobs.db" in capsys.readouterr().err
    assert_none_was_made(folder)


def test_a_database_without_a_store_stays_so(
    mongod: object, new_mongo_database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = mongod.url(new_mongo_database)  # type: ignore[attr-defined]
    monkeypatch.setenv("KQUEUE_STORE", url)
    assert kqueue("status") == 2
    assert f"/{new_mongo_database}, which environment KQUEUE_STORE names" in capsys.readouterr().err
    with mongod.client() as client:  # type: ignore[attr-defined]
        assert new_mongo_database not in client.list_database_names()
    assert kqueue("add t") == 0
    assert kqueue("status") == 0


def test_a_run_makes_a_store_only_if_it_is_told_to(folder: Path) -> None:
    def run(*args: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "kqueue", "run", "--app", "no_store_app:queue", *args]
        return subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)

    refused = run()
    assert refused.returncode == 2
    assert f"there is no store of KQueue at sqlite:///{folder}/jobs.db, which the app names" in refused.stderr
    assert_none_was_made(folder)
    assert run("--create").returncode == 0
    assert (folder / "jobs.db").exists()
    assert run().returncode == 0


def test_a_worker_waits_for_its_store_and_says_so(folder: Path) -> None:
    command = [sys.executable, "-m", "kqueue", "worker", "--app", "no_store_app:queue"]
    with (folder / "said").open("w") as said:
        workers = [subprocess.Popen(command, cwd=folder, stderr=said) for _ in range(2)]
        try:
            await_true(lambda: (folder / "said").read_text().count("waiting for the store") == 2)
            assert not (folder / "jobs.db").exists()
            workers[0].send_signal(signal.SIGTERM)
            assert workers[0].wait(120) == 0
            assert not (folder / "jobs.db").exists()
            with KQueue("sqlite:///jobs.db") as producer:
                producer.add_job("t", "now there is one")
                await_true(lambda: producer.counts()["ready"] == producer.counts()["running"] == 0)
            assert (folder / "done").read_text() == "now there is one"
            workers[1].send_signal(signal.SIGTERM)
            assert workers[1].wait(120) == 0
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()


def test_a_producer_makes_it_where_it_may_and_says_so(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(StoreUnavailable, match="jobs.db: there is no such file"):
        KQueue("sqlite:///jobs.db", create=False).add_job("t")
    assert_none_was_made(folder)
    with caplog.at_level(logging.INFO, "kqueue"), KQueue("sqlite:///jobs.db") as queue:
        queue.add_job("t")
        queue.add_job("t")
    assert [record.message for record in caplog.records if "made a new store" in record.message] == [
        f"sqlite:///{folder}/jobs.db: made a new store"
    ]
    with KQueue("sqlite:///jobs.db", create=False) as queue:
        assert queue.counts()["ready"] == 2
    with pytest.raises(TypeError, match="create: expected True or False"):
        KQueue("memory:", create=1)  # type: ignore[arg-type]
