"""A user's program in a folder of its own, and the command line run there."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kqueue import Job, KQueue
from tests.warm import warm_python

PATIENCE_S = 240

#: The form of an id, and no job's.
NO_JOB = "0" * 28

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
        # Unbuffered output would hide what is only seen when Python flushes it at exit.
        unset = {"PYTHONPATH", "PYTHONUNBUFFERED"}
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if name not in unset and not name.startswith("KQUEUE_")
        }
        self.environment["KQUEUE_STORE"] = self.store

    @contextmanager
    def start(self, *args: str, **options: object) -> Iterator["subprocess.Popen[str]"]:
        """Await its end; where the test has failed there may be none."""
        with subprocess.Popen(  # type: ignore[call-overload]
            [sys.executable, "-m", "kqueue", *args],
            cwd=self.folder,
            env=self.environment,
            text=True,
            **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        ) as process:
            try:
                yield process
            except BaseException:
                process.kill()
                raise

    def kqueue(self, *args: str, text: str | None = None) -> "subprocess.CompletedProcess[str]":
        warm = warm_python()
        if warm.fits(self.environment):
            return warm.kqueue(args, self.folder, self.environment, text, PATIENCE_S)
        stdin = subprocess.DEVNULL if text is None else subprocess.PIPE
        with self.start(*args, stdin=stdin) as process:
            out, err = process.communicate(text, timeout=PATIENCE_S)
        return subprocess.CompletedProcess(args, process.returncode, out, err)

    def ids(self, *args: str, text: str | None = None) -> list[str]:
        done = self.kqueue("add", *args, text=text)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.split()

    def shell(self, command: str) -> "subprocess.CompletedProcess[str]":
        """``KQUEUE`` in the command is the command line."""
        return subprocess.run(
            command.replace("KQUEUE", f"'{sys.executable}' -m kqueue"),
            check=False,
            shell=True,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )

    def refused(self, *args: str, text: str | None = None) -> str:
        """The one line that a command says when it could not be done."""
        done = self.kqueue(*args, text=text)
        assert (done.returncode, done.stdout) == (2, ""), done
        assert done.stderr.startswith("kqueue: ")
        assert done.stderr.endswith("\n")
        assert done.stderr.count("\n") == 1, done.stderr
        return done.stderr


def the_job(queue: KQueue, job_id: str) -> Job:
    job = queue.get_job(job_id)
    assert job is not None
    return job
