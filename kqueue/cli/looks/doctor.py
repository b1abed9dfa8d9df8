"""``kqueue doctor``: what an operator should look at."""

import dataclasses

import click

from kqueue.cli.exits import OK, SOME_FAILED
from kqueue.cli.terminal import find_queue, json_option, print_columns, print_json, queue_options


@click.command()
@queue_options
@json_option
def doctor(store: str | None, broker: str | None, as_json: bool) -> int:
    """Look the store, the broker, the workers and the jobs over, and say what is not as it should be.

    Exit status 0 if all is well, 1 if there is something to look at.
    """
    with find_queue(store, broker) as queue:
        symptoms = queue.checkup()
    if as_json:
        print_json({"symptoms": [dataclasses.asdict(symptom) for symptom in symptoms]})
    elif symptoms:
        print_columns(["", "about", "what"], [[one.severity.value, one.about, one.text] for one in symptoms])
    else:
        click.echo("all is well")
    return SOME_FAILED if symptoms else OK
