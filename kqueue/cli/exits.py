"""How a command ends: its exit status, and the line that says why."""

import click

from kqueue.model.urls import without_passwords

#: Exit statuses: done; done but for some jobs; not done at all; Ctrl-C.
OK, SOME_FAILED, COULD_NOT, INTERRUPTED = 0, 1, 2, 130


def complain(message: str) -> None:
    """One line on standard error, with no password of a URL in it, wherever that was given."""
    click.echo(f"kqueue: {without_passwords(' '.join(message.splitlines()))}", err=True)
