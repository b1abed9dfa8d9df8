"""How many instructions does a no-op job take?

    python -m bench.instructions [--jobs N] [--json FILE]

One process on SQLite alone adds jobs in lists, and runs them in windows, at a clock that stands still, under
callgrind (``apt install valgrind``). It counts every instruction of the process, and none of the kernel's. So the
figures say nothing of the disk, and are the same however busy the machine is. Next to it the same statements by
hand, with no queue around them: 50 rows in an insert, 500 in a claim and in a delete.
"""

import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from itertools import chain, islice
from pathlib import Path

import click

from bench import queues, show
from bench.bare import PAYLOAD
from bench.figures import Findings, Goal, Row, Table
from kqueue import JobInHand, KQueue
from kqueue.assembly import assemble
from kqueue.stores.sqlite import intake, schema
from kqueue.stores.sqlite import statements as sql
from kqueue.stores.sqlite.store import SqliteStore
from kqueue.system.clock import ManualClock
from kqueue.system.mint import IdMint

QUESTION = "How many instructions does a no-op job take?"

#: When the clock stands still, in seconds since 1970.
NOW = 1_800_000_000.0
#: Jobs of a claim by hand.
WINDOW = 500
#: Seconds after which a count that does not end counts as broken.
PATIENCE_S = 600
ADD, RUN = "add", "run"
KQUEUE, BY_HAND = "KQueue, SQLite alone", "the same statements by hand"


def by_kqueue(path: str, jobs: int) -> Iterator[str]:
    """Each step yields what the instructions since the one before were for."""
    clock = ManualClock(NOW)
    with KQueue.from_parts(assemble(SqliteStore(path, clock=clock), clock=clock)) as queue:
        queue.add_handler(queues.NOOP, JobInHand.delete)
        queue.add_jobs(queues.NOOP, [PAYLOAD])
        queue.run_jobs()
        yield ""  # all is open by now, and the statements are known
        for at in range(0, jobs, queues.LIST):
            queue.add_jobs(queues.NOOP, [PAYLOAD] * min(queues.LIST, jobs - at))
        yield ADD
        report = queue.run_jobs()
        yield RUN
        assert report.deleted == jobs, report


def by_hand(path: str, jobs: int) -> Iterator[str]:
    """As :func:`by_kqueue`. Whole statements only, so ``jobs`` is a multiple of those that an insert takes."""
    lease = {"owner": "o" * 28, "start": NOW, "fence_floor": 0, "alone": 0}
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        schema.migrate(connection)
        shared = (queues.NOOP, "bytes", 2**16, 0.0, NOW, 60.0, NOW, None, "ready")
        payload = bytearray(PAYLOAD)
        for counted in (intake.MANY, jobs):
            ids = IdMint().make(counted)
            lots = [ids[at : at + intake.MANY] for at in range(0, counted, intake.MANY)]
            yield ""  # of the first round
            connection.execute("BEGIN IMMEDIATE")
            rows = ((*shared, *chain.from_iterable((id, payload) for id in lot)) for lot in lots)
            connection.executemany(intake.INSERT_MANY_ALIKE, rows)
            connection.execute("COMMIT")
            yield ADD
            for _ in range(0, counted, WINDOW):
                connection.execute("BEGIN IMMEDIATE")
                with closing(connection.execute(sql.CANDIDATES_OF_TYPE, {"type": queues.NOOP})) as found:
                    window = [*islice(found, WINDOW)]
                connection.execute(sql.CLAIM_RANGE, {**lease, "first": window[0][0], "last": window[-1][0]})
                connection.execute("COMMIT")
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(sql.SETTLE_RANGE, (window[0][0], window[-1][0], lease["owner"], 1))
                connection.execute("COMMIT")
            yield RUN


WORK = {KQUEUE: by_kqueue, BY_HAND: by_hand}


def under_callgrind(name: str, path: str, jobs: int) -> None:
    """In a process of its own: do the work, and have each step counted."""
    for step in WORK[name](path, jobs):
        told = ["--dump=" + step] if step else ["--instr=on", "--zero"]
        for one in told:
            done = subprocess.run(
                ["callgrind_control", one, str(os.getpid())], check=False, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stdout + done.stderr


def count(name: str, jobs: int) -> dict[str, float]:
    """Instructions a job, by step."""
    with queues.folder() as data:
        arguments = ", ".join(map(repr, (name, str(data / "jobs.db"), jobs)))
        out = f"--callgrind-out-file={data / 'counted'}"
        call = f"from bench.instructions import under_callgrind as work; work({arguments})"
        done = subprocess.run(
            ["valgrind", "--tool=callgrind", "--instr-atstart=no", out, sys.executable, "-c", call],
            check=False,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            env={**os.environ, "PYTHONHASHSEED": "0"},
        )
        if done.returncode != 0:
            raise click.ClickException(f"valgrind ended with {done.returncode}:\n{done.stderr}")
        found: dict[str, float] = {}
        # Numbered in the order in which they were written: what was counted before the last "" does not matter.
        for file in sorted(data.glob("counted.*"), key=lambda one: int(one.suffix[1:])):
            text = file.read_text(errors="replace")
            step = re.search(r"^desc: Trigger: .*dump\W*(\w+)$", text, re.MULTILINE)
            total = re.search(r"^(?:totals|summary): (\d+)", text, re.MULTILINE)
            if step is not None and total is not None:
                found[step[1]] = int(total[1]) / jobs
        return found


@click.command()
@click.option("--jobs", default=2000, show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(jobs: int, json_file: Path | None) -> None:
    """Count, and print the table."""
    if shutil.which("valgrind") is None:
        raise queues.Missing("valgrind is not installed: apt install valgrind")
    about = show.begin(QUESTION, {"valgrind": ["valgrind", "--version"]})
    counted = {name: count(name, max(WINDOW, jobs - jobs % WINDOW)) for name in WORK}
    findings = Findings(QUESTION)
    for title, steps in (("add and run", (ADD, RUN)), ("add", (ADD,)), ("run", (RUN,))):
        rows = [Row(name, [sum(of[step] for step in steps)]) for name, of in counted.items()]
        findings.tables.append(Table(title, "instructions a job", rows))
    both = findings.tables[0].row(KQUEUE).median
    findings.goals.append(Goal("instructions for a no-op job, add and run", both, "<=", 100_000))
    show.end(about, findings, json_file)


if __name__ == "__main__":
    main()
