"""``kqueue status``: how many jobs stand where."""

import click

from kqueue import KQueue, KQueueError
from kqueue.commands.terminal import find_queue, json_option, print_columns, print_json, queue_options


@click.command()
@queue_options
@json_option
def status(store: str | None, broker: str | None, as_json: bool) -> None:
    """Show how many jobs stand where, and what the tubes hold."""
    with find_queue(store, broker) as queue:
        jobs = {type: queue.counts(type) for type in queue.store.types()}
        tubes, broker_error = _depths(queue, list(jobs))
        store_address = queue.store.address
        broker_address = queue.broker.address if queue.broker.carries_pointers else None
    if as_json:
        types = {type: {"jobs": counts, "tube": tubes.get(type)} for type, counts in jobs.items()}
        servers = {"store": store_address, "broker": broker_address, "broker_error": broker_error}
        print_json({**servers, "types": types})
        return
    click.echo(f"store   {store_address}\nbroker  {broker_address or 'none'}")
    if broker_error:
        click.echo(f"        unreachable: {broker_error}")
    if not jobs:
        click.echo("no jobs")
    _print_numbers("jobs", jobs)
    _print_numbers("tube", tubes)


def _depths(queue: KQueue, types: list[str]) -> tuple[dict[str, dict[str, int]], str | None]:
    """What the tubes hold, or why that cannot be said. The jobs are in the store all the same."""
    try:
        return queue.broker.depths(types), None
    except KQueueError as error:
        return {}, str(error)


def _print_numbers(title: str, rows: dict[str, dict[str, int]]) -> None:
    if rows:
        click.echo()
        heads = next(iter(rows.values()))
        print_columns([title, *heads], [[type, *numbers.values()] for type, numbers in rows.items()])
