"""``kqueue status``: how many jobs stand where."""

import heapq
from collections.abc import Collection, Mapping

import click

from kqueue import KQueue, KQueueError, State
from kqueue.cli.terminal import find_queue, json_option, print_columns, print_json, queue_options

#: Types that are shown unless all are asked for.
MOST_TYPES = 20


@click.command()
@queue_options
@click.option("--type", "job_type", metavar="TYPE", help="Only jobs of this type.")
@click.option("--all", "all_types", is_flag=True, help=f"Every type, and not only the {MOST_TYPES} with most jobs.")
@json_option
def status(store: str | None, broker: str | None, job_type: str | None, all_types: bool, as_json: bool) -> None:
    """Show how many jobs stand where, and what the tubes hold."""
    with find_queue(store, broker) as queue:
        jobs = _by_type(queue) if job_type is None else {job_type: queue.counts(job_type)}
        shown = {type: jobs[type] for type in (jobs if all_types else _most(jobs))}
        tubes, broker_error = _depths(queue, list(shown))
        store_address = queue.store.address
        broker_address = queue.broker.address if queue.broker.carries_pointers else None
    rest = jobs.keys() - shown.keys()
    more = {state.value: sum(jobs[type][state] for type in rest) for state in State}
    if as_json:
        types = {type: {"jobs": counts, "tube": tubes.get(type)} for type, counts in shown.items()}
        servers = {"store": store_address, "broker": broker_address, "broker_error": broker_error}
        print_json({**servers, "types": types, "more_types": len(rest), "more_jobs": more})
        return
    click.echo(f"store   {store_address}\nbroker  {broker_address or 'none'}")
    if broker_error:
        click.echo(f"        unreachable: {broker_error}")
    if not jobs:
        click.echo("no jobs")
    _print_numbers("jobs", shown | ({f"and {len(rest):,} more types": more} if rest else {}))
    _print_numbers("tube", tubes)
    if rest:
        click.echo(f"\nThe {len(shown)} types with most jobs are shown. --all shows every one, --type one of them.")


def _by_type(queue: KQueue) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for standing in queue.store.overview():
        found.setdefault(standing.type, {state.value: 0 for state in State})[standing.state] = standing.rows
    return found


def _most(jobs: Mapping[str, Mapping[str, int]]) -> Collection[str]:
    """All types if they are few, else those with most jobs."""
    if len(jobs) <= MOST_TYPES:
        return jobs
    return heapq.nlargest(MOST_TYPES, jobs, key=lambda type: sum(jobs[type].values()))


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
