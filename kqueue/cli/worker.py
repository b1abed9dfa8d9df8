"""``kqueue worker``: run jobs until a signal comes, in processes of their own."""

import logging
from typing import Any

import click

from kqueue.cli.exits import OK
from kqueue.cli.terminal import config_option, configured, hand_on_config, key_options
from kqueue.config.keys import WORKER
from kqueue.worker import logs
from kqueue.worker.app import load_queue, serve
from kqueue.worker.awaiting_store import await_store
from kqueue.worker.options import WorkerOptions
from kqueue.worker.supervisor import Supervisor


@click.command()
@key_options(WORKER)
@config_option
def worker(**given: str | tuple[str, ...] | None) -> int:
    """Run jobs until SIGTERM or SIGINT (Ctrl-C) comes.

    It ends once the running handlers have ended, or after --grace seconds; a second signal ends it now. Exit
    status 0 for a clean stop, 1 if it was cut short, 2 if it could not start. It makes no store, but waits until
    there is one. What is not given may be configured, in [worker] of kqueue.toml or as KQUEUE_WORKER_APP and so on.
    """
    settings: dict[str, Any] = configured(given).worker()
    if settings["app"] is None:
        raise ValueError(
            "--app: there is none; give it, or set KQUEUE_WORKER_APP, or app in [worker] of kqueue.toml"
        )
    options = WorkerOptions(**settings)
    hand_on_config()
    queue = load_queue(options.app)
    serve(queue, options.types, options.except_types)
    logs.configure(options.log_level)
    silenced = logs.silenced([queue.parts.logger, logging.getLogger("kqueue.worker")])
    if silenced is not None:
        click.echo(f"kqueue: {silenced}", err=True)  # once, and not by its children too
    if not await_store(queue, logging.getLogger("kqueue.worker")):
        return OK
    with queue:
        return Supervisor(queue, options).run()
