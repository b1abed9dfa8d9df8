"""How does KQueue compare with other Python job queues, on the same work and the same machine?

    python -m bench.peers --work wait [--python FILE] [--only NAME] [--seconds N] [--rounds N] [--json FILE]
    python -m bench.peers --work noop [--python FILE] [--only NAME] [--jobs N] [--rounds N] [--json FILE]

``wait``: handlers that sleep 10 ms, 8 and 32 at once, in each queue's own threads, coroutines or processes; the
figure is the part of the ideal that was reached. ``noop``: jobs that do nothing are added by the fastest way that
each queue's documentation has, then one worker process runs them all, and nothing of them is kept; the rate is
jobs by the seconds of both. Then some jobs are added one by one, which is what most programs do.

A job carries 100 bytes. The worker's clock runs from the start of its first job to the end of its last, so that no
start-up counts; for KQueue it runs until the last delete is durable.
"""

import subprocess
from contextlib import ExitStack
from pathlib import Path

import click

from bench import queues, show
from bench.figures import ROUNDS
from bench.mongodb import mongod
from bench.peers import noops, waiting
from bench.peers.contenders import contenders
from bench.peers.servers import postgres_folder, redis_path
from bench.peers.trial import ROOT
from tests.mongod import executable as mongod_path


@click.command()
@click.option("--work", type=click.Choice(["wait", "noop"]), required=True, help="What each job does.")
@click.option("--python", default=".venv-peers/bin/python", show_default=True, help="Of the peers' environment.")
@click.option("--only", multiple=True, help="Those whose name begins so; may be given more than once.")
@click.option("--seconds", default=1.0, show_default=True, help="wait: of work in each round, at best.")
@click.option("--jobs", default=3000, show_default=True, help="noop: in each round.")
@click.option("--singles", default=1000, show_default=True, help="noop: jobs added one by one in each round.")
@click.option("--rounds", default=ROUNDS, show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(
    work: str,
    python: str,
    only: tuple[str, ...],
    seconds: float,
    jobs: int,
    singles: int,
    rounds: int,
    json_file: Path | None,
) -> None:
    """Measure, and print the tables."""
    peers = ROOT / python
    if not peers.exists():
        raise click.ClickException(f"--python: there is no {python}; `make bench-peers` makes it")
    about = show.begin(waiting.QUESTION if work == "wait" else noops.QUESTION, _servers())
    about["machine"] |= installed(peers)
    print(", ".join(f"{name} {version}" for name, version in installed(peers).items()), flush=True)
    with ExitStack() as stack:
        mongodb = None if mongod_path() is None else stack.enter_context(mongod()).url("bench")
        running, missing = stack.enter_context(contenders(peers, mongodb))
        running = [one for one in running if not only or one.name.startswith(only)]
        if work == "wait":
            findings = waiting.compare(running, rounds, seconds)
        else:
            findings = noops.compare(running, rounds, jobs, singles)
    findings.notes = [*missing, *findings.notes]
    show.end(about, findings, json_file)


def installed(python: Path) -> dict[str, str]:
    """The peers' versions."""
    names = ["rq", "celery", "gevent", "dramatiq", "huey", "saq", "procrastinate", "redis", "psycopg"]
    script = f"from importlib.metadata import version; print(*[version(name) for name in {names}])"
    done = subprocess.run([str(python), "-c", script], check=True, capture_output=True, text=True)
    return dict(zip(names, done.stdout.split(), strict=True))


def _servers() -> dict[str, list[str | None]]:
    postgres = postgres_folder()
    return queues.servers() | {
        "mongod": [mongod_path(), "--version"],
        "redis-server": [redis_path(), "--version"],
        "PostgreSQL": [None if postgres is None else str(postgres / "postgres"), "--version"],
    }


if __name__ == "__main__":
    main()
