"""How does KQueue compare with other Python job queues, on the same work and the same machine?

    python -m bench.peers --python .venv-peers/bin/python [--only NAME] [--jobs N] [--rounds N] [--json FILE]

No-op jobs of 100 bytes are added by the fastest way that each queue's documentation has; then one worker process
runs them all, and nothing of them is kept. The rate is jobs by the seconds of both. The worker's clock runs from
the start of its first job to the end of its last, so that no start-up counts; for KQueue it runs until the last
delete is durable. Then some jobs are added one by one, which is what most programs do.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import click

from bench import queues, show
from bench.figures import ROUNDS, Findings, Goal, Row, Table, interleaved, ratio
from bench.mongodb import mongod
from bench.peers import work
from bench.peers.contenders import DURABLE, Contender, contenders
from bench.peers.servers import postgres_folder, redis_path
from tests.mongod import executable as mongod_path

QUESTION = "How does KQueue compare with other Python job queues, on the same work and the same machine?"

ROOT = Path(__file__).parents[2]
#: Seconds for one step of one peer. RQ needs a while for many jobs.
PATIENCE_S = 600.0
#: Seconds between two looks at whether a worker is done. Its own clock says when it was.
LOOK_S = 0.02


class Step:
    """One contender in one round, with a folder of its own."""

    def __init__(self, contender: Contender, jobs: int, folder: Path) -> None:
        self._contender = contender
        self._jobs = jobs
        self._report = folder / "report.json"
        self._environment = os.environ | {
            work.URL: contender.url.format(folder=folder),
            work.JOBS: str(jobs),
            work.REPORT: str(self._report),
        }

    def call(self, step: str, jobs: int = 0) -> float:
        """The number that a step of the peer prints. Raises ``RuntimeError`` if it fails."""
        done = subprocess.run(
            self._command(step, jobs),
            check=False,
            cwd=ROOT,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{self._contender.name}: {step}: {done.stderr.strip()[-2000:]}")
        return float(done.stdout.split()[-1])

    def work(self) -> float:
        """Seconds that a worker ran jobs."""
        # In a session of its own: some workers have children, which are to end with it.
        worker = subprocess.Popen(
            self._command("work", 0),
            cwd=ROOT,
            env=self._environment,
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
            end_session(worker)
        return float(times["ended"] - times["started"])

    def _command(self, step: str, jobs: int) -> list[str]:
        child = ["-m", "bench.peers.child", self._contender.module, step, str(jobs)]
        return [str(self._contender.python), *child]


def end_session(worker: "subprocess.Popen[bytes]") -> None:
    """Ask it to end, and see that it and its children do."""
    try:
        worker.send_signal(signal.SIGTERM)
        worker.wait(10)
    except subprocess.TimeoutExpired:
        pass
    finally:
        with suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()


def rates(contender: Contender, jobs: int, singles: int) -> tuple[float, float]:
    """(jobs a second from add to delete, jobs a second added one by one)."""
    contender.empty()
    with queues.folder() as folder:
        folder.chmod(0o755)
        step = Step(contender, jobs, folder)
        assert step.call("left") == 0, f"{contender.name}: an earlier round left jobs"
        adding = step.call("add_in_bulk", jobs)
        running = step.work()
        left = step.call("left")
        assert left == 0, f"{contender.name}: {left:.0f} jobs are left"
        adding_singly = Step(contender, singles, folder).call("add_one_by_one", singles)
        (folder / "report.json").unlink()
        if not contender.url.startswith("sqlite"):  # its file goes with the folder
            Step(contender, singles, folder).work()
    return jobs / (adding + running), singles / adding_singly


def found(figures: dict[str, list[tuple[float, float]]], running: list[Contender]) -> Findings:
    """The tables and goals. KQueue with SQLite and beanstalkd stands first."""
    notes = {contender.name: contender.durability for contender in running}
    whole, singly = (
        [Row(name, [values[which] for values in of_rounds], notes[name]) for name, of_rounds in figures.items()]
        for which in (0, 1)
    )
    peers = [contender for contender in running if not contender.is_ours]
    durable = [contender for contender in peers if contender.durability == DURABLE]
    return Findings(
        QUESTION,
        [
            Table("add in bulk, run and delete; one worker process", "jobs/s", whole),
            Table("add one by one", "jobs/s", singly),
        ],
        [
            *_goal("add, run and delete: to the fastest peer", whole, peers, 10),
            *_goal("add, run and delete: to the fastest that is as durable", whole, durable, 12),
            *_goal("add one by one: to the fastest that is as durable", singly, durable, 1),
            *(
                goal
                for ours in running
                if "MongoDB" in ours.name
                for goal in _goal("KQueue on MongoDB: to the fastest peer", whole, peers, 1, ours.name)
            ),
        ],
    )


def _goal(what: str, rows: list[Row], peers: list[Contender], bound: float, ours: str | None = None) -> list[Goal]:
    by_name = {row.name: row for row in rows}
    here = [by_name[peer.name] for peer in peers]
    if not here or not rows[0].name.startswith("KQueue"):
        return []
    fastest = max(here, key=lambda row: row.median)
    reached = ratio(by_name[ours or rows[0].name].values, fastest.values)
    return [Goal(f"{what} ({fastest.name})", reached, ">=", bound)]


@click.command()
@click.option("--python", default=".venv-peers/bin/python", show_default=True, help="Of the peers' environment.")
@click.option("--only", multiple=True, help="Those whose name begins so; may be given more than once.")
@click.option("--jobs", default=3000, show_default=True, help="In each round.")
@click.option("--singles", default=1000, show_default=True, help="Jobs added one by one in each round.")
@click.option("--rounds", default=ROUNDS, show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(python: str, only: tuple[str, ...], jobs: int, singles: int, rounds: int, json_file: Path | None) -> None:
    """Measure, and print the tables."""
    peers = ROOT / python
    if not peers.exists():
        raise click.ClickException(f"--python: there is no {python}; `make bench-peers` makes it")
    postgres = postgres_folder()
    servers: dict[str, list[str | None]] = queues.servers() | {
        "mongod": [mongod_path(), "--version"],
        "redis-server": [redis_path(), "--version"],
        "PostgreSQL": [None if postgres is None else str(postgres / "postgres"), "--version"],
    }
    about = show.begin(QUESTION, servers)
    about["machine"] |= installed(peers)
    print(", ".join(f"{name} {version}" for name, version in installed(peers).items()), flush=True)
    with ExitStack() as stack:
        mongodb = None if mongod_path() is None else stack.enter_context(mongod()).url("bench")
        running, missing = stack.enter_context(contenders(peers, mongodb))
        running = [one for one in running if not only or one.name.startswith(only)]
        measure: dict[str, Callable[[], tuple[float, float]]] = {
            one.name: partial(rates, one, jobs, singles) for one in running
        }
        findings = found(interleaved(measure, rounds, show.tell), running)
    if mongodb is None:
        missing.append("mongod is not installed, so there are no figures of KQueue on MongoDB.")
    findings.notes += [*missing, f"{jobs:,} jobs in each round, {singles:,} of them added one by one."]
    show.end(about, findings, json_file)


def installed(python: Path) -> dict[str, str]:
    """The peers' versions."""
    names = ["rq", "celery", "dramatiq", "huey", "saq", "procrastinate", "redis", "psycopg"]
    script = f"from importlib.metadata import version; print(*[version(name) for name in {names}])"
    done = subprocess.run([str(python), "-c", script], check=True, capture_output=True, text=True)
    return dict(zip(names, done.stdout.split(), strict=True))


if __name__ == "__main__":
    main()
