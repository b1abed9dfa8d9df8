"""A user's app in a folder of its own, real processes that run it, and what its handlers have written down.

A handler appends to a ledger what it begins and ends. Where a test has it wait, it waits for a file.
"""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kqueue import KQueue
from tests.torture.ledger import Record, read
from tests.tubes import await_true

PATIENCE_S = 240
#: Longer than any test: what runs again before this was not waited for.
TTR_S = 600

APP = """
import ctypes, os, sys, time
from pathlib import Path

from kqueue import KQueue
from tests.torture.ledger import Ledger

ledger = Ledger(Path("done.ledger"))
broker = os.environ.get("WORKS_BROKER")
queue = KQueue("sqlite:///jobs.db?busy_timeout=1", broker, sweep_interval=1, retry_delay=600)
memory = KQueue("memory:")
hoard = []


@memory.handler("t")
@queue.handler("renewed", delete_on_success=True, auto_renew=True)
@queue.handler("limited", delete_on_success=True)
@queue.handler("t", delete_on_success=True)
def handle(job):
    ledger.write("begin", id=job.id, fence=job.fence, tries=job.tries, pid=os.getpid(), do=job.payload)
    match job.payload:
        case "wait":
            while not Path("go").exists():
                time.sleep(0.005)
        case "hold the lock":
            ctypes.PyDLL(None).sleep(600)
        case "die":
            os.kill(os.getpid(), 9)
        case "exit":
            sys.exit(3)
        case "end the child":
            os._exit(0)
        case "stop":
            queue.stop()
        case "hoard":
            hoard.append(bytearray(os.urandom(2**20)) * 150)
        case "work":
            time.sleep(0.002)
        case "doze":
            time.sleep(0.05)
    ledger.write("end", id=job.id, fence=job.fence, pid=os.getpid())


queue.limit("limited", running=2)
if Path("broken").exists():
    raise RuntimeError("no way to start")
if Path("broken in children").exists() and "child" in sys.argv[0]:
    raise RuntimeError("not in a child")
"""


class Works:
    """The folder, a queue on the same store, and the processes."""

    def __init__(self, folder: Path, broker: str | None = None) -> None:
        self.folder = folder
        (folder / "app.py").write_text(APP)
        unset = {"KQUEUE_STORE", "KQUEUE_BROKER", "PYTHONUNBUFFERED", "WORKS_BROKER"}
        self.environment = {name: value for name, value in os.environ.items() if name not in unset}
        self.environment["PYTHONPATH"] = str(Path(__file__).parents[2])
        if broker is not None:
            self.environment["WORKS_BROKER"] = broker
        self.queue = KQueue(f"sqlite:///{folder}/jobs.db", broker)
        self.log = folder / "log"

    # -- workers -----------------------------------------------------------------------------------------

    @contextmanager
    def worker(self, *options: str, app: str = "app:queue", patch: str = "") -> "Iterator[Worker]":
        """A running one. ``patch``: Python that its parent runs before anything else."""
        if not (self.folder / "jobs.db").exists():
            self.queue.open()  # a worker waits for a store that is not there
        with self.log.open("a") as log:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    f"{patch}\nfrom kqueue.cli.main import main; main()",
                    "worker",
                    "--app",
                    app,
                    *options,
                ],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a process group of its own, as a terminal's
            )
        worker = Worker(process, self)
        try:
            yield worker
        finally:
            children = worker.children()
            process.kill()
            process.wait()
            for pid in children:
                if is_there(pid):
                    os.kill(pid, signal.SIGCONT)
                    os.kill(pid, signal.SIGKILL)

    def refused(self, *options: str, app: str = "app:queue") -> str:
        """The one line of a worker that could not start."""
        with self.worker(*options, app=app) as worker:
            assert worker.status() == 2, self.log.read_text()
        text = self.log.read_text()
        assert text.startswith("kqueue: "), text
        assert text.count("\n") == 1, text
        return text

    def await_line(self, text: str, times: int = 1) -> None:
        await_true(lambda: self.log.read_text().count(text) >= times)

    def let_go(self) -> None:
        """Those that wait end."""
        (self.folder / "go").touch()

    # -- jobs --------------------------------------------------------------------------------------------

    def add(self, *payloads: object, type: str = "t", ttr: float = TTR_S, **options: Any) -> list[str]:
        return self.queue.add_jobs(type, payloads, ttr=ttr, **options)

    def await_empty(self) -> None:
        await_true(lambda: not sum(self.queue.counts().values()))

    def ledger(self, what: str, **fields: object) -> list[Record]:
        """The records of one kind that have these fields."""
        return [
            one
            for one in read(self.folder)
            if one["what"] == what and all(one[name] == fields[name] for name in fields)
        ]

    def await_begun(self, *ids: str, times: int = 1) -> None:
        await_true(lambda: all(len(self.ledger("begin", id=id)) >= times for id in ids))

    def runs(self) -> Counter[str]:
        """Begun runs by id."""
        return Counter(one["id"] for one in self.ledger("begin"))


class Worker:
    """One ``kqueue worker``."""

    def __init__(self, process: "subprocess.Popen[bytes]", works: Works) -> None:
        self._process = process
        self._works = works

    @property
    def pid(self) -> int:
        return self._process.pid

    def tell(self, number: signal.Signals = signal.SIGTERM) -> None:
        self._process.send_signal(number)

    def status(self) -> int:
        return self._process.wait(PATIENCE_S)

    def stop(self) -> int:
        self.tell()
        return self.status()

    def is_running(self) -> bool:
        return self._process.poll() is None

    def children(self) -> list[int]:
        """All that it ever started and that run jobs, by its log."""
        lines = [line.split() for line in self._works.log.read_text().splitlines()]
        return [
            int(line[5]) for line in lines if line[3:5] == [str(self.pid), "child"] and line[6:] == ["runs", "jobs"]
        ]

    def await_children(self, count: int) -> list[int]:
        await_true(lambda: len(self.children()) >= count)
        return self.children()


def is_there(pid: int) -> bool:
    """Whether the process lives; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except (FileNotFoundError, ProcessLookupError):
        return False


def health(path: Path) -> dict[str, Any] | None:
    """What the health file says now, if it is there."""
    try:
        values: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return values
