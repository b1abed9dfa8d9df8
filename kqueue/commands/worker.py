"""``kqueue worker``: run jobs until a signal comes, in processes of their own."""

from typing import Any

import click

from kqueue.app import load_queue
from kqueue.worker import logs
from kqueue.worker.options import GRACE_S, LOG_LEVELS, WorkerOptions
from kqueue.worker.supervisor import Supervisor


@click.command()
@click.option("--app", required=True, metavar="MODULE:QUEUE", help="Where the KQueue and its handlers are.")
@click.option("--processes", type=int, default=1, show_default=True, metavar="N", help="Processes that run jobs.")
@click.option("--threads", type=int, default=1, show_default=True, metavar="N", help="Loops in each of them.")
@click.option(
    "--grace",
    type=float,
    default=GRACE_S,
    show_default=True,
    metavar="SECONDS",
    help="What running handlers get at a stop.",
)
@click.option("--max-jobs", type=int, metavar="N", help="Replace a process after N jobs.")
@click.option("--max-rss", type=int, metavar="MIB", help="Replace a process that has so much memory.")
@click.option("--health-file", metavar="PATH", help="Write this file each second while all processes get on.")
@click.option(
    "--log-level",
    type=click.Choice(LOG_LEVELS),
    default="info",
    show_default=True,
    help="Of the lines on standard error, unless the app configures logging.",
)
def worker(app: str, log_level: str, **given: Any) -> int:
    """Run jobs until SIGTERM or SIGINT (Ctrl-C) comes.

    It ends once the running handlers have ended, or after --grace seconds; a second signal ends it now. Exit
    status 0 for a clean stop, 1 if it was cut short, 2 if it could not start.
    """
    options = WorkerOptions(app, log_level=log_level, **given)
    queue = load_queue(app)
    logs.configure(log_level)
    with queue:
        return Supervisor(queue, options).run()
