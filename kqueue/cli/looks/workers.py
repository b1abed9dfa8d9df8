"""``kqueue workers``: who waits for jobs."""

import dataclasses

import click

from kqueue.cli.terminal import find_queue, json_option, print_columns, print_json, queue_options
from kqueue.model.wording import moment, span


@click.command()
@queue_options
@click.option("--all", "with_dead", is_flag=True, help="Also those that were not heard of for 15 s.")
@json_option
def workers(store: str | None, broker: str | None, with_dead: bool, as_json: bool) -> None:
    """List the processes that wait for jobs, the types that each has handlers for, and when it was heard of."""
    with find_queue(store, broker, rings=False) as queue:
        found = [worker for worker in queue.workers() if with_dead or worker.alive]
    if as_json:
        print_json({"workers": [dataclasses.asdict(worker) for worker in found]})
        return
    if not found:
        click.echo("no worker waits for jobs")
        return
    print_columns(
        ["host", "pid", "since", "heard of", "types"],
        [
            [one.host, one.pid, moment(one.started_at), f"{span(one.silent_s)} ago", " ".join(one.types)]
            for one in found
        ],
    )
    for one in found:
        for hung in one.hanging:
            where = f"process {one.pid} on {one.host}"
            runs = "has ended, and its handler still runs" if hung.is_settled else "still runs"
            click.echo(f"job {hung.job_id} of {hung.type} {runs} in {where}, {span(hung.seconds)} beyond its lease")
