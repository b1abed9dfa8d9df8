"""Which jobs are meant: the same options for ``kqueue list``, ``retry`` and ``delete``."""

from typing import Any

import click

from kqueue import Filter
from kqueue.cli.terminal import Command
from kqueue.cli.times import instant_or_ago


def filter_options(command: Command) -> Command:
    """The options of :class:`~kqueue.Filter`."""
    for option in (
        click.option(
            "--ended-before", callback=instant_or_ago, metavar="TIME", help="Their last run ended before."
        ),
        click.option("--ended-since", callback=instant_or_ago, metavar="TIME", help="Their last run ended since."),
        click.option("--added-before", callback=instant_or_ago, metavar="TIME", help="Added before."),
        click.option("--added-since", callback=instant_or_ago, metavar="TIME", help="Added since."),
        click.option("--containing", metavar="TEXT", help="With this text in their reason."),
        click.option("--type", "job_type", metavar="TYPE", help="Of this type."),
    ):
        command = option(command)
    return command


def filter_of(given: dict[str, Any]) -> Filter:
    """The filter that they say; they are taken out of ``given``."""
    names = ("containing", "added_since", "added_before", "ended_since", "ended_before")
    return Filter(given.pop("job_type"), **{name: given.pop(name) for name in names})
