"""The demo, on files that are known here and on the standard library itself."""

import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from rich.console import Console

from kqueue import BrokerUnavailable, KQueue
from kqueue.cli import demo
from tests.beanstalkd import Beanstalkd, free_port

GOOD = {"one.py": "def f(): pass\nasync def g(): pass\n", "two.py": "class C:\n    def m(self): '\\d'\n"}
BAD = {"syntax.py": b"print 'hello'\n", "coding.py": b"# coding: uft-8\n"}


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    for name, text in GOOD.items():
        (tmp_path / name).write_text(text)
    for name, data in BAD.items():
        (tmp_path / name).write_bytes(data)
    return sorted(tmp_path.glob("*.py"))


@pytest.fixture
def temporary(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the demo's own store stands while it runs."""
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def run(files: list[Path], store: str | None, broker: str | None = None, terminal: bool = False) -> str:
    out = io.StringIO()
    demo.run(files, store, broker, Console(file=out, width=100, force_terminal=terminal))
    return out.getvalue()


def table(text: str) -> dict[str, int]:
    """The table without the jobs/s."""
    lines = text.splitlines()
    head = next(number for number, line in enumerate(lines) if "jobs added" in line)
    names = ["added", "run", "deleted", "retried", "dead"]
    return dict(zip(names, map(int, lines[head + 1].split()), strict=False))


def test_it_parses_what_it_can_and_the_rest_ends_dead_after_three_tries(files: list[Path], temporary: Path):
    text = run(files, None)
    assert table(text) == {"added": 4, "run": 8, "deleted": 2, "retried": 4, "dead": 2}
    assert "2 files parsed: 4 lines, 3 functions, 1 classes" in text
    assert f"{files[0].parent}/syntax.py: SyntaxError: " in text
    assert f"{files[0].parent}/coding.py: SyntaxError: " in text
    assert list(temporary.glob("kqueue-*")) == []


def test_each_failure_is_a_line(files: list[Path], capsys: pytest.CaptureFixture[str]):
    run(files, None)
    lines = capsys.readouterr().err.splitlines()
    failures = [line for line in lines if line.startswith("job ")]
    assert (len(failures), [line for line in failures if "SyntaxError: " not in line]) == (6, [])
    assert failures == lines


def test_a_store_of_ones_own_keeps_the_dead(files: list[Path], tmp_path: Path):
    store = f"sqlite:///{tmp_path}/demo.db"
    run(files, store)
    with KQueue(store=store) as queue:
        assert queue.counts(demo.JOB_TYPE) == {
            "delayed": 0,
            "ready": 0,
            "held": 0,
            "running": 0,
            "dead": 2,
            "done": 0,
        }
    assert table(run(files, store))["dead"] == 2


def test_through_a_beanstalkd_it_leaves_no_pointer_behind(
    files: list[Path], temporary: Path, beanstalkd: Beanstalkd
):
    text = run(files, None, beanstalkd.url)
    assert beanstalkd.url in text
    assert table(text)["dead"] == 2
    with beanstalkd.client() as client:
        stats = client.stats()
    assert stats["total-jobs"] > 0
    assert stats["current-jobs-ready"] == stats["current-jobs-delayed"] == stats["current-jobs-reserved"] == 0
    assert stats["current-jobs-buried"] == 0


def test_a_broker_that_is_not_there_ends_it_before_any_job_is_added(files: list[Path], tmp_path: Path):
    store = f"sqlite:///{tmp_path}/demo.db"
    address = f"beanstalk://127.0.0.1:{free_port()}"
    with pytest.raises(BrokerUnavailable, match=address):
        run(files, store, address)
    with KQueue(store=store) as queue:
        assert queue.store.overview() == []


def test_an_interrupt_leaves_nothing_behind(
    files: list[Path], temporary: Path, beanstalkd: Beanstalkd, monkeypatch: pytest.MonkeyPatch
):
    def interrupted(path: Path) -> demo.SyntaxCounts:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "count_syntax", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(files, None, beanstalkd.url)
    assert list(temporary.glob("kqueue-*")) == []
    with beanstalkd.client() as client:
        assert client.stats()["current-jobs-ready"] == 0


def test_on_a_terminal_it_shows_a_bar(files: list[Path], temporary: Path):
    text = run(files, None, terminal=True)
    assert "parsing" in text
    assert "4/4" in text


def test_without_a_terminal_it_shows_plain_lines(
    files: list[Path], temporary: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(demo, "LINE_INTERVAL_S", 0)
    text = run(files, None)
    assert "4 of 4 jobs ended" in text
    assert "\x1b" not in text


def test_no_files_at_all(temporary: Path):
    assert table(run([], None)) == {"added": 0, "run": 0, "deleted": 0, "retried": 0, "dead": 0}


def test_the_standard_library_is_python_files_and_nothing_installed():
    files = demo.standard_library()
    assert len(files) > 300
    assert {path.suffix for path in files} == {".py"}
    assert not any("site-packages" in path.parts for path in files)
    assert "ast.py" in {path.name for path in files}
    assert demo.standard_library(3) == files[:3]


def test_what_is_installed_beside_the_standard_library_is_not_walked_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("a.py", "b/c.py", "site-packages/big/d.py", "b/dist-packages/e.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    looked, scan = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: looked.append(str(path)) or scan(path))
    monkeypatch.setattr(demo.sysconfig, "get_path", lambda name: str(tmp_path))
    assert demo.standard_library() == [tmp_path / "a.py", tmp_path / "b" / "c.py"]
    assert looked == [str(tmp_path), str(tmp_path / "b")]


def test_the_command_runs_it(tmp_path: Path):
    command = [sys.executable, "-m", "kqueue", "demo", "--limit", "3"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert table(done.stdout)["added"] == 3
    assert list(tmp_path.iterdir()) == []


def test_the_command_without_its_broker_is_one_line(tmp_path: Path):
    address = f"beanstalk://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "kqueue", "demo", "--broker", address]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert address in done.stderr
    assert done.stderr.count("\n") == 1
