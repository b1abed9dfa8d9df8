"""``kqueue sweep``: repair now, or say what would be repaired."""

import dataclasses

import click

from kqueue import BrokerError, Finding, KQueue
from kqueue.cli.exits import COULD_NOT, OK, SOME_FAILED, complain
from kqueue.cli.terminal import find_queue, json_option, print_columns, print_json, print_report, queue_options


@click.command()
@queue_options
@click.option("--dry-run", is_flag=True, help="Do nothing; say what would be done and why, a line a finding.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    metavar="N",
    help="With --dry-run: findings of a kind.",
)
@json_option
def sweep(store: str | None, broker: str | None, dry_run: bool, limit: int, as_json: bool) -> int:
    """Repair now: make due jobs ready, take back expired leases, put lost pointers again."""
    with find_queue(store, broker) as queue:
        if dry_run:
            return _say_findings(queue, limit, as_json)
        print_report(queue.sweep(), as_json)
    return OK


@click.command("empty-tubes")
@queue_options
@click.argument("beginning", metavar="BEGINNING")
@json_option
def empty_tubes(store: str | None, broker: str | None, beginning: str, as_json: bool) -> int:
    """Empty the tubes that kqueue doctor says no store serves: those whose names begin with BEGINNING.

    They hold pointers to jobs, never jobs, so none is lost by it. What is watched is left alone. Exit status 1 if
    there was nothing.
    """
    with find_queue(store, broker) as queue:
        emptied = queue.empty_tubes(beginning)
    if as_json:
        print_json({"deleted": emptied})
    else:
        click.echo(f"deleted {emptied}")
    return OK if emptied else SOME_FAILED


def _say_findings(queue: KQueue, limit: int, as_json: bool) -> int:
    """What was found before the broker turned out to be down is said too."""
    findings: list[Finding] = []
    broker_error: str | None = None
    try:
        for finding in queue.findings(limit):
            findings.append(finding)
    except BrokerError as error:
        broker_error = str(error)
    if as_json:
        print_json({"findings": [dataclasses.asdict(one) for one in findings], "broker_error": broker_error})
    elif findings:
        print_columns(
            ["id", "type", "would", "why"],
            [[one.job_id or "-", one.type or "-", one.repair.value, one.why] for one in findings],
        )
    elif broker_error is None:
        click.echo("nothing to do")
    if broker_error is None:
        return OK
    complain(broker_error)
    return COULD_NOT
