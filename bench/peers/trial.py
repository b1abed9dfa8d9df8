"""One contender in one round: its jobs are added, and a worker process runs them."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from bench.peers import work
from bench.peers.contenders import Contender

ROOT = Path(__file__).parents[2]
#: Seconds for one step of one peer. RQ needs a while for many jobs.
PATIENCE_S = 600.0
#: Seconds for a worker that is told to end.
ENDING_S = 10.0
#: Seconds between two looks at whether a worker is done. Its own clock says when it was.
LOOK_S = 0.02


class Trial:
    """So many jobs of one contender in one round: they are added and run, each in a process of its own."""

    def __init__(
        self, contender: Contender, jobs: int, report: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        """``report`` is a file that is not there yet, in the folder of this round. ``environment``: names
        of :mod:`bench.peers.work`, to have the jobs do something.
        """
        self._contender = contender
        self._jobs = jobs
        self._report = report
        self._environment = os.environ | dict(environment or {}) | {work.JOBS: str(jobs), work.REPORT: str(report)}

    def add(self, how: str, url: str | None = None) -> float:
        """Seconds that it took to add them by this function of the peer, at its own URL if there is no other."""
        return self._call(how, url)

    def left(self) -> int:
        """How many jobs are still there."""
        return int(self._call("left"))

    def work(self, *, gently: bool = True) -> float:
        """Seconds that a worker ran jobs. Then it is told to end, or killed at once if not ``gently``."""
        # In a session of its own: some workers have children, which are to end with it.
        worker = subprocess.Popen(
            self._command("work"),
            cwd=ROOT,
            env=self._at(None),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            deadline = time.monotonic() + PATIENCE_S
            while not self._report.exists():
                ended = worker.poll() not in (None, 0)
                if ended or time.monotonic() > deadline:
                    raise RuntimeError(
                        f"{self._contender.name}: its worker {'ended' if ended else 'took too long'}"
                    )
                time.sleep(LOOK_S)
            times = json.loads(self._report.read_text())
        finally:
            end_session(worker, patience_s=ENDING_S if gently else 0.0)
        return float(times["ended"] - times["started"])

    def _call(self, step: str, url: str | None = None) -> float:
        """The number that a step of the peer prints. Raises ``RuntimeError`` if it fails."""
        done = subprocess.run(
            self._command(step),
            check=False,
            cwd=ROOT,
            env=self._at(url),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{self._contender.name}: {step}: {done.stderr.strip()[-2000:]}")
        return float(done.stdout.split()[-1])

    def _command(self, step: str) -> list[str]:
        child = ["-m", "bench.peers.child", self._contender.module, step, str(self._jobs)]
        return [str(self._contender.python), *child]

    def _at(self, url: str | None) -> dict[str, str]:
        """The environment, with this URL or the contender's own."""
        return self._environment | {work.URL: (url or self._contender.url).format(folder=self._report.parent)}


def end_session(worker: "subprocess.Popen[bytes]", patience_s: float) -> None:
    """Ask it to end, and see that it and its children do, after so many seconds at the latest."""
    try:
        worker.send_signal(signal.SIGTERM)
        worker.wait(patience_s)
    except subprocess.TimeoutExpired:
        pass
    finally:
        with suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
