"""``kqueue worker``: run jobs until a signal comes, in processes of their own."""

import logging
from typing import Any

import click

from kqueue.cli.exits import OK
from kqueue.cli.terminal import config_option, hand_on_config, worker_settings
from kqueue.worker import logs
from kqueue.worker.app import load_queue
from kqueue.worker.awaiting_store import await_store
from kqueue.worker.options import GRACE_S, LOG_LEVELS, WorkerOptions
from kqueue.worker.supervisor import Supervisor


@click.command()
@click.option("--app", metavar="MODULE:QUEUE", help="Where the KQueue and its handlers are.")
@click.option("--processes", type=int, metavar="N", help="Processes that run jobs. [default: 1]")
@click.option("--threads", type=int, metavar="N", help="Loops in each of them. [default: 1]")
@click.option(
    "--grace", type=float, metavar="SECONDS", help=f"What running handlers get at a stop. [default: {GRACE_S:g}]"
)
@click.option("--max-jobs", type=int, metavar="N", help="Replace a process after N jobs.")
@click.option("--max-rss", type=int, metavar="MIB", help="Replace a process that has so much memory.")
@click.option("--health-file", metavar="PATH", help="Write this file each second while all processes get on.")
@click.option(
    "--log-level",
    type=click.Choice(LOG_LEVELS),
    help="Of the lines on standard error, unless the app configures logging. [default: info]",
)
@config_option
def worker(**given: Any) -> int:
    """Run jobs until SIGTERM or SIGINT (Ctrl-C) comes.

    It ends once the running handlers have ended, or after --grace seconds; a second signal ends it now. Exit
    status 0 for a clean stop, 1 if it was cut short, 2 if it could not start. It makes no store, but waits until
    there is one. What is not given may be configured, in [worker] of kqueue.toml or as KQUEUE_WORKER_APP and so on.
    """
    settings = worker_settings(given)
    if settings["app"] is None:
        raise ValueError(
            "--app: there is none; give it, or set KQUEUE_WORKER_APP, or app in [worker] of kqueue.toml"
        )
    options = WorkerOptions(**settings)
    hand_on_config()
    queue = load_queue(options.app)
    logs.configure(options.log_level)
    if not await_store(queue, logging.getLogger("kqueue.worker")):
        return OK
    with queue:
        return Supervisor(queue, options).run()
