"""What becomes of the others while some jobs kill their workers?

    python -m bench.killers [--killers N] [--good N] [--rounds N] [--json FILE]

A worker of 1, 2 and 4 processes with 2 threads each meets jobs that end in SIGSEGV, and behind them good ones of
the same type that take 50 ms, while every half second a job of another type is added. And once more, in 1 process,
while one job runs for minutes. On SQLite, with no broker.
Seconds from the worker's start until the last good one has run and until all killers are dead, and the longest time
without a run of the other type.
"""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import click

from bench import queues, show
from bench.figures import ROUNDS, Findings, Goal, Row, Table
from kqueue import KQueue

QUESTION = "What becomes of the others while some jobs kill their workers?"

PROCESSES = (1, 2, 4)
THREADS = 2
#: Seconds between two jobs of the other type.
OTHER_S = 0.5
#: Seconds between two looks.
LOOK_S = 0.02
PATIENCE_S = 240.0
#: Seconds that are wanted at most.
GOOD_S, DEAD_S, PAUSE_S = 10.0, 30.0, 5.0

APP = """
import os, signal, time
from kqueue import KQueue

queue = KQueue("sqlite:///jobs.db")

@queue.handler("t")
def handle(job):
    if job.payload == "killer":
        os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(600 if job.payload == "long" else 0.05)
    job.delete()

@queue.handler("other")
def other(job):
    with open("others", "a") as file:
        file.write(f"{time.time()}\\n")
    job.delete()
"""


class Outcome(NamedTuple):
    """Seconds of one round."""

    good: float
    dead: float
    pause: float


def trial(processes: int, killers: int, good: int, *, long: bool) -> Outcome:
    """One round, in a folder of its own. ``long``: with one more that does not end meanwhile."""
    with queues.folder() as folder:
        (folder / "app.py").write_text(APP)
        with KQueue(queues.sqlite_url(folder)) as queue:
            queue.add_jobs("t", ["long"] * long + ["killer"] * killers + ["good"] * good)
            began = time.time()
            worker = _started(folder, processes)
            try:
                done = _watch(queue, killers, killers + long, began)
            finally:
                worker.terminate()
                worker.wait()
            ended = time.time()
        runs = [float(line) for line in (folder / "others").read_text().splitlines()]
        return Outcome(*done, max(after - before for before, after in pairwise([began, *runs, max(ended, *runs)])))


def _started(folder: Path, processes: int) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "kqueue", "worker", "--app", "app:queue", "--log-level", "error"]
    command += ["--processes", str(processes), "--threads", str(THREADS), "--grace", "0"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.DEVNULL)


def _watch(queue: KQueue, killers: int, rest: int, began: float) -> tuple[float, float]:
    """(seconds until the good ones have run, until the killers are dead). ``rest``: jobs that are left then."""
    good_s = dead_s = None
    other_at = began
    while good_s is None or dead_s is None:
        now = time.time()
        if now - began > PATIENCE_S:
            raise RuntimeError(f"after {PATIENCE_S:g} s there are {queue.counts('t')}")
        counts = queue.counts("t")
        if good_s is None and sum(counts.values()) == rest:
            good_s = now - began
        if dead_s is None and counts["dead"] == killers:
            dead_s = now - began
        if now >= other_at:
            queue.add_job("other")
            other_at += OTHER_S
        time.sleep(LOOK_S)
    return good_s, dead_s


@click.command()
@click.option("--killers", default=4, show_default=True)
@click.option("--good", default=20, show_default=True)
@click.option("--processes", default=PROCESSES, show_default=True, multiple=True, type=int)
@click.option("--rounds", default=ROUNDS, show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(killers: int, good: int, processes: Sequence[int], rounds: int, json_file: Path | None) -> None:
    """Measure, and print the table."""
    about = show.begin(QUESTION, {})
    findings = Findings(QUESTION)
    rows, most = [], Outcome(0.0, 0.0, 0.0)
    for number, long in [*((one, False) for one in processes), (1, True)]:
        seen = [trial(number, killers, good, long=long) for _ in range(rounds)]
        name = f"{number} process{'es' if number > 1 else ''}{', beside one of minutes' if long else ''}"
        rows += [
            Row(f"{name}: all good ones have run", [one.good for one in seen]),
            Row(f"{name}: all killers are dead", [one.dead for one in seen]),
            Row(f"{name}: longest pause of another type", [one.pause for one in seen]),
        ]
        most = Outcome(*map(max, most, *seen))
    title = f"{killers} jobs that end in SIGSEGV and {good} good ones, {THREADS} threads a process"
    findings.tables.append(Table(title, "s", rows))
    wanted = {"all good ones have run": GOOD_S, "all killers are dead": DEAD_S, "a pause of another type": PAUSE_S}
    findings.goals += [
        Goal(f"at most, {what}", seconds, "<=", bound, "s")
        for (what, bound), seconds in zip(wanted.items(), most, strict=True)
    ]
    show.end(about, findings, json_file)


if __name__ == "__main__":
    main()
