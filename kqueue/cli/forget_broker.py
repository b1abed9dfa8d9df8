"""``kqueue forget-broker``: for a beanstalkd that is no more."""

import click

from kqueue.cli.exits import OK, SOME_FAILED, complain
from kqueue.cli.terminal import find_queue, json_option, print_json, queue_options
from kqueue.dispatch.naming import forget_broker as forget_broker_of


@click.command("forget-broker")
@queue_options
@json_option
def forget_broker(store: str | None, broker: str | None, as_json: bool) -> int:
    """Let the store forget the broker that commands without --broker use.

    It remembers the one that it was opened with last. An app or a worker with a broker that is opened later has it
    remembered again. No job is lost by it. Exit status 1 if none was remembered.
    """
    with find_queue(store, broker, rings=False) as queue:
        known = forget_broker_of(queue.store)
    if as_json:
        print_json({"forgotten": known})
    elif known is not None:
        click.echo(f"forgot {known}")
    if known is None:
        complain("no broker was remembered")
    return SOME_FAILED if known is None else OK
