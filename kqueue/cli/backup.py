"""``kqueue backup`` and ``kqueue restore``."""

import os
from contextlib import closing

import click

from kqueue.cli.terminal import find_queue, json_option, make_queue, print_json, queue_options
from kqueue.model.reasons import storable

_replace_option = click.option("--replace", is_flag=True, help="Also where a file is there already.")


@click.command()
@queue_options
@click.argument("path", metavar="PATH")
@_replace_option
@json_option
def backup(*, store: str | None, broker: str | None, path: str, replace: bool, as_json: bool) -> None:
    """Save the store as the file PATH, while jobs are added and run.

    It is checked before it gets its name. A file that is there is kept, unless --replace is given.
    """
    with find_queue(store, broker, rings=False) as queue:
        queue.backup(path, replace=replace)
    size = os.stat(path).st_size
    if as_json:
        print_json({"path": path, "bytes": size})
        return
    click.echo(f"saved {storable(path)}, {size} bytes")


@click.command()
@queue_options
@click.argument("path", metavar="[BACKUP]", required=False)
@click.option(
    "--mark", is_flag=True, help="Restore nothing: that was done by other means, in the store's own place."
)
@_replace_option
@json_option
def restore(
    *, store: str | None, broker: str | None, path: str | None, mark: bool, replace: bool, as_json: bool
) -> None:
    """Make the store anew from BACKUP. Stop all that use it first.

    A store that is there is kept, or moved aside with --replace. Fences go on above any that were given since the
    backup was made, so nobody who still holds a job from then can finish it. With --mark, and no BACKUP, the
    same holds for a store that mongorestore, a snapshot or cp has put back where it was.
    """
    if mark == (path is not None) or (mark and replace):
        raise ValueError("restore: give either BACKUP, or --mark for a store that was restored by other means")
    aside: list[str] = []
    if path is None:
        with find_queue(store, broker, rings=False) as queue:
            queue.store.begin_anew()
    else:
        with closing(make_queue(store, broker)) as queue:
            aside = queue.restore(path, replace=replace)
    if as_json:
        print_json({"store": queue.store.address, "moved_aside": aside})
        return
    for name in aside:
        click.echo(f"moved aside: {name}")
    click.echo(f"{'marked' if mark else 'restored'} {queue.store.address}")
