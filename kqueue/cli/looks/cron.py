"""``kqueue cron``: the schedules, when each ticked last, and when it ticks next."""

import dataclasses
import heapq
from itertools import islice

import click

from kqueue import ScheduleReport
from kqueue.cli.terminal import find_queue, json_option, print_columns, print_json, queue_options
from kqueue.model.schedule import MOST_TICKS
from kqueue.model.wording import moment


@click.command()
@queue_options
@click.option(
    "--next",
    "ticks",
    type=click.IntRange(1, MOST_TICKS),
    metavar="N",
    help="Also the next N ticks of all schedules, in the order in which they come.",
)
@json_option
def cron(store: str | None, broker: str | None, ticks: int | None, as_json: bool) -> None:
    """Show schedules, with their last ticks and their next ones.

    A schedule stands in a program, so --app is needed to tell when it ticks next. Without it: what the store knows,
    which is for which tick a job was added last.
    """
    with find_queue(store, broker, rings=False) as queue:
        reports = queue.schedules(ticks or 1)
    if as_json:
        print_json({"schedules": [dataclasses.asdict(report) for report in reports]})
        return
    if not reports:
        click.echo("no schedules")
        return
    heads = ["name", "type", "expression", "tz", "missed", "last", "next"]
    print_columns(heads, [_row(report) for report in reports])
    for report in reports:
        if report.due_since is not None:
            click.echo(
                f"{report.name}: its tick of {moment(report.due_since)} is due, and nobody has added a job for it:"
                " only workers that run this program do"
            )
    if ticks is not None:
        click.echo()
        each = ([(tick, report.name, report.type) for tick in report.next] for report in reports)
        rows = [[moment(tick), name, type] for tick, name, type in islice(heapq.merge(*each), ticks)]
        print_columns(["tick", "name", "type"], rows or [["none", "", ""]])
    if any(report.type is None for report in reports):
        click.echo(
            "\nOf those without a type the store alone knows: they are in another program, or in none any more."
        )


def _row(report: ScheduleReport) -> list[str]:
    what = [report.type, report.expression, report.tz, report.missed]
    last = "none yet" if report.last is None else moment(report.last)
    return [report.name, *(text or "" for text in what), last, moment(report.next[0]) if report.next else ""]
