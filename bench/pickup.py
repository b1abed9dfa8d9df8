"""How long from ``add_job`` to the start of its handler, in a worker that waits in another process?

    python -m bench.pickup [--jobs N] [--idle SECONDS] [--rounds N] [--json FILE]

One job at a time, each added when the worker waits again, after a random pause. The bare loop makes the same
commits and sends the same commands by hand: commit a row and put / reserve, commit the claim, and the clock stops.
Then it deletes the entry and the row, as KQueue does too. Then jobs with a delay, and some that are retried after
one: how long after their time they start. Last, what an idle worker costs: the share of one core that its process
takes while it waits and nothing comes.
"""

import logging
import random
import statistics
import time
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeAlias

import click

from bench import bare, queues, show
from bench.children import Child, Start, alone
from bench.figures import ROUNDS, Findings, Goal, Row, Table, interleaved, percentile, ratio, table
from kqueue import JobInHand, KQueue
from tests.beanstalkd import Beanstalkd

QUESTION = "How long from add_job to the start of its handler, in a worker that waits in another process?"

BARE = "bare: commit, put / reserve, commit"
WITH_BEANSTALKD = "KQueue, SQLite FULL + beanstalkd -b"
EMBEDDED = "KQueue, SQLite FULL alone"

#: Seconds between a job's start and the next add: long enough for a worker to wait again.
PAUSE_S = (0.005, 0.025)

#: Seconds of a job's delay, and of the one before its second run if it has one; and how it is called.
DELAYS = {
    "delay=0.05": (0.05, None),
    "delay=0.3": (0.3, None),
    "delay=1.3": (1.3, None),
    "retry after 0.1 s": (0.0, 0.1),
}

Add: TypeAlias = Callable[[str], object]
#: Carries the time at which each job starts.
Starts: TypeAlias = "Connection[Any, Any]"


def measure(add: Add, starts: Starts, jobs: int) -> list[float]:
    """Milliseconds from each add to its job's start."""
    pauses = random.Random(1)
    latencies = []
    for number in range(jobs):
        time.sleep(pauses.uniform(*PAUSE_S))
        added = queues.now()
        add(f"{number:028d}")
        latencies.append((starts.recv() - added) * 1000)
    return latencies


def pick_up(broker: str | None, jobs: int) -> list[float]:
    """KQueue's milliseconds."""
    ours, theirs = get_context("spawn").Pipe(duplex=False)
    with queues.folder() as data:
        store = queues.sqlite_url(data)
        with (
            KQueue(store, broker) as queue,
            Child(partial(_wait_for_jobs, store, broker, jobs + 1, theirs)) as worker,
        ):
            worker.await_ready()
            worker.start()
            measure(lambda _: queue.add_job(queues.NOOP, bare.PAYLOAD), ours, 1)  # connects
            latencies = measure(lambda _: queue.add_job(queues.NOOP, bare.PAYLOAD), ours, jobs)
            worker.result()
    return latencies


def pick_up_bare(server: Beanstalkd, jobs: int) -> list[float]:
    """The bare loop's milliseconds."""
    ours, theirs = get_context("spawn").Pipe(duplex=False)
    with queues.folder() as data, bare.client(server.port) as client:
        rows = bare.Rows(data / "bare.db")

        def add(id: str) -> None:
            rows.add([id])
            client.put(id.encode())

        with Child(partial(_wait_for_entries, data / "bare.db", server.port, jobs, theirs)) as worker:
            worker.await_ready()
            worker.start()
            latencies = measure(add, ours, jobs)
            worker.result()
        rows.close()
    return latencies


def lateness(broker: str | None, delay: float, retry: float | None, jobs: int) -> float:
    """Milliseconds from a job's time to its start, one after the other: the median."""
    ours, theirs = get_context("spawn").Pipe(duplex=False)
    with queues.folder() as data:
        store = queues.sqlite_url(data)
        with (
            KQueue(store, broker) as queue,
            Child(partial(_run_late, store, broker, jobs, retry, theirs)) as worker,
        ):
            worker.await_ready()
            worker.start()
            late = []
            for _ in range(jobs):
                queue.add_job(queues.NOOP, bare.PAYLOAD, delay=delay)
                late.append(ours.recv() * 1000)
            worker.result()
    return statistics.median(late)


def idle_share(broker: str | None, seconds: float) -> float:
    """Percent of one core that a waiting worker takes."""
    with queues.folder() as data:
        return float(alone(partial(_idle, queues.sqlite_url(data), broker, seconds)))


def _wait_for_jobs(store: str, broker: str | None, jobs: int, starts: Starts, start: Start) -> None:
    def note(job: JobInHand) -> None:
        starts.send(queues.now())
        job.delete()

    with KQueue(store, broker) as queue:
        queue.add_handler(queues.NOOP, note)
        start()
        queue.run_jobs(count_limit=jobs, time_limit_ms=queues.PATIENCE_S * 1000, wait=True)


def _run_late(store: str, broker: str | None, jobs: int, retry: float | None, late: Starts, start: Start) -> None:
    def note(job: JobInHand) -> None:
        if retry is not None and job.tries == 1:
            job.retry("later", delay=retry)
        else:
            late.send(time.time() - job.run_at)
            job.delete()

    logging.disable(logging.WARNING)  # of each retry
    with KQueue(store, broker) as queue:
        queue.add_handler(queues.NOOP, note)
        start()
        runs = jobs * (1 if retry is None else 2)
        queue.run_jobs(count_limit=runs, time_limit_ms=queues.PATIENCE_S * 1000, wait=True)


def _wait_for_entries(path: Path, port: int, jobs: int, starts: Starts, start: Start) -> None:
    rows = bare.Rows(path)
    with bare.client(port) as client:
        start()
        for _ in range(jobs):
            entry = client.reserve()
            rows.claim([entry.body.decode()])
            starts.send(queues.now())
            client.delete(entry)
            rows.delete([entry.body.decode()])
    rows.close()


def _idle(store: str, broker: str | None, seconds: float, start: Start) -> float:
    with KQueue(store, broker) as queue:
        queue.add_handler(queues.NOOP, JobInHand.delete)
        queue.run_jobs()  # connects, and makes the sweep that is due
        start()
        wall, cpu = time.monotonic(), time.process_time()
        queue.run_jobs(time_limit_ms=seconds * 1000, wait=True)
        return 100 * (time.process_time() - cpu) / (time.monotonic() - wall)


@click.command()
@click.option("--jobs", default=300, show_default=True, help="In each round.")
@click.option("--delayed", default=20, show_default=True, help="Jobs with each delay.")
@click.option("--idle", default=10.0, show_default=True, help="Seconds that an idle worker is watched.")
@click.option("--rounds", default=ROUNDS, show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(jobs: int, delayed: int, idle: float, rounds: int, json_file: Path | None) -> None:
    """Measure, and print the tables."""
    about = show.begin(QUESTION, queues.servers())
    with queues.beanstalkd() as server:
        latencies = interleaved(
            {
                BARE: lambda: pick_up_bare(server, jobs),
                WITH_BEANSTALKD: lambda: pick_up(server.url, jobs),
                EMBEDDED: lambda: pick_up(None, jobs),
            },
            rounds,
        )
        late = {
            name: [[lateness(broker, *DELAYS[name], delayed)] for broker in (server.url, None)] for name in DELAYS
        }
        shares = {WITH_BEANSTALKD: idle_share(server.url, idle), EMBEDDED: idle_share(None, idle)}
    p50, p99 = (
        {name: [percentile(values, share) for values in of_round] for name, of_round in latencies.items()}
        for share in (0.5, 0.99)
    )
    everything = [
        Row(name, [round(value, 3) for values in of_round for value in values])
        for name, of_round in latencies.items()
    ]
    findings = Findings(
        QUESTION,
        [
            table("half of the jobs start within (p50 of each round)", "ms", p50),
            table("99 of 100 start within (p99 of each round)", "ms", p99),
            *(
                table(
                    f"{name}: half start so long after their time",
                    "ms",
                    dict(zip((WITH_BEANSTALKD, EMBEDDED), medians, strict=True)),
                )
                for name, medians in late.items()
            ),
            table("an idle worker takes, of one core", "%", {name: [share] for name, share in shares.items()}),
        ],
        [
            Goal("p50: to the bare loop", ratio(p50[WITH_BEANSTALKD], p50[BARE]), "<=", 1.5),
            Goal("p99: to the bare loop", ratio(p99[WITH_BEANSTALKD], p99[BARE]), "<=", 3),
            Goal("p50 of SQLite alone", table("", "", p50).row(EMBEDDED).median, "<=", 20, "ms"),
            *(Goal(f"{name}: after its time", medians[0][0], "<=", 50, "ms") for name, medians in late.items()),
            *(Goal(f"idle worker: {name}", share, "<=", 1, "%") for name, share in shares.items()),
        ],
        details=[Table("latency of each job", "ms", everything)],
    )
    show.end(about, findings, json_file)


if __name__ == "__main__":
    main()
