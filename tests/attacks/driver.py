"""Drives such processes, keeps the ledger of what they were told, and finds what is lost."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.process import serve


class Driven:
    """One of them."""

    def __init__(self, *urls: str, before: tuple[str, ...] = ()) -> None:
        """``before``: a command that starts the rest of its arguments; else it is a fork of this process, which has
        loaded all that it needs, and none of its files.
        """
        self.acknowledged: list[str] = []
        self.errors: list[str] = []
        self._asked = ""
        theirs, ours = os.pipe()
        mine, yours = os.pipe()
        if before:
            started = subprocess.Popen(
                [*before, sys.executable, "-m", "tests.attacks.process", *urls],
                stdin=theirs,
                stdout=yours,
                cwd=Path(__file__).parents[2],
            )
            self._pid = started.pid
            started.returncode = 0  # it is waited for below
        else:
            self._pid = os.fork()
        if self._pid == 0:
            try:
                os.close(ours)
                os.close(mine)
                with open(theirs) as commands, open(yours, "w") as answers:
                    serve(list(urls), commands, answers)
            finally:
                os._exit(0)
        os.close(theirs)
        os.close(yours)
        self._commands, self._answers = os.fdopen(ours, "w"), os.fdopen(mine)

    def ask(self, *command: Any) -> None:
        """Do not wait for its answer."""
        print(json.dumps(command), file=self._commands, flush=True)
        self._asked = command[0]

    def answer(self) -> Any:
        """Of what was asked."""
        line = self._answers.readline()
        assert line, f"it ended at {self._asked}"
        said = json.loads(line)
        if self._asked in {"add", "fork"}:
            self.acknowledged += said["taken"]
            self.errors += [said["error"]] if said["error"] else []
        return said

    def do(self, *command: Any) -> Any:
        """Ask, and wait for the answer."""
        self.ask(*command)
        return self.answer()

    def kill(self) -> None:
        """With SIGKILL: it closes nothing."""
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self._pid = 0
            self._commands.close()
            self._answers.close()


class Site:
    """A file, and who uses it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "jobs.db"
        self.wal = folder / "jobs.db-wal"
        self.shm = folder / "jobs.db-shm"
        self.url = url_of(self.path)
        self._driven: list[Driven] = []

    def start(self, *urls: str, before: tuple[str, ...] = ()) -> Driven:
        """By default with one queue, of the file."""
        self._driven.append(Driven(*(urls or (self.url,)), before=before))
        return self._driven[-1]

    def visit(self, path: Path | None = None) -> None:
        """Another program reads the file and closes it."""
        with closing(sqlite3.connect(path or self.path)) as connection:
            connection.execute("SELECT count(*) FROM kqueue_jobs").fetchone()

    def kill_all(self) -> None:
        """At once."""
        for driven in self._driven:
            driven.kill()

    def lost(self, path: Path | None = None) -> list[str]:
        """What was acknowledged and is not there, once all are killed; the file is sound."""
        self.kill_all()
        with closing(sqlite3.connect(path or self.path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            there = {id for (id,) in connection.execute("SELECT id FROM kqueue_jobs")}
        acknowledged = [id for driven in self._driven for id in driven.acknowledged]
        self._driven.clear()
        assert acknowledged
        return [id for id in acknowledged if id not in there]


@contextmanager
def site(folder: Path) -> Iterator[Site]:
    """Its processes end with it."""
    here = Site(folder)
    try:
        yield here
    finally:
        here.kill_all()


def url_of(path: Path) -> str:
    """Without waiting for the disk: it is processes that die here."""
    return f"sqlite:///{path}?synchronous=OFF"


def mounting(*command: str) -> tuple[str, ...]:
    """What starts the rest with ``command``, a mount, done in a mount namespace of its own."""
    if (
        shutil.which("unshare") is None
        or subprocess.run(
            ["unshare", "-m", "mount", "--bind", "/tmp", "/tmp"], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("needs unshare -m, and to be root")
    return ("unshare", "-m", "sh", "-c", f'{" ".join(command)} && exec "$@"', "sh")
