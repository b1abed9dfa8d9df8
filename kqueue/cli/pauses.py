"""``kqueue pause`` and ``kqueue resume``."""

import click

from kqueue import KQueue
from kqueue.cli.exits import OK, SOME_FAILED, complain
from kqueue.cli.terminal import find_queue, json_option, print_json, queue_options

_all_option = click.option("--all", "all_types", is_flag=True, help="The whole queue.")
_type_argument = click.argument("job_type", metavar="[TYPE]", required=False)


@click.command()
@queue_options
@_type_argument
@_all_option
@json_option
def pause(store: str | None, broker: str | None, job_type: str | None, all_types: bool, as_json: bool) -> int:
    """Let no worker start jobs of TYPE, or of any type with --all, until resume. Adding goes on.

    Every worker sees it within a second; jobs that run go on. Exit status 1 if it was paused already.
    """
    job_type = _one(job_type, all_types, "pause")
    with find_queue(store, broker, rings=False) as queue:
        is_known = job_type is None or _is_known(job_type, queue)
        changed = queue.pause(job_type)
        if not is_known:
            complain(f"{job_type} is a type of no job and of no worker so far; resume it if it is a slip")
    return _say(job_type, "paused", changed, "was paused already", as_json)


@click.command()
@queue_options
@_type_argument
@_all_option
@json_option
def resume(store: str | None, broker: str | None, job_type: str | None, all_types: bool, as_json: bool) -> int:
    """End the pause of TYPE or, with --all, that of the whole queue: types that were paused by name stay so.

    Exit status 1 if it was not paused.
    """
    job_type = _one(job_type, all_types, "resume")
    with find_queue(store, broker, rings=False) as queue:
        changed = queue.resume(job_type)
        still = sorted(type or "the whole queue" for type in queue.paused())
    status = _say(job_type, "resumed", changed, "was not paused", as_json)
    if still and not as_json:
        click.echo(f"still paused: {', '.join(still)}")
    return status


def _is_known(job_type: str, queue: KQueue) -> bool:
    is_served = job_type in queue.types() or any(job_type in worker.types for worker in queue.workers())
    return is_served or any(queue.counts(job_type).values())


def _one(job_type: str | None, all_types: bool, command: str) -> str | None:
    if all_types == (job_type is not None):
        raise ValueError(f"{command}: give either a TYPE or --all")
    return job_type


def _say(job_type: str | None, done: str, changed: bool, unchanged: str, as_json: bool) -> int:
    what = "the whole queue" if job_type is None else job_type
    if as_json:
        print_json({"type": job_type, "changed": changed})
    elif changed:
        click.echo(f"{done} {what}")
    if not changed:
        complain(f"{what} {unchanged}")
    return OK if changed else SOME_FAILED
