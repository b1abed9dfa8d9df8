"""``kqueue stats``: what waits, since when, and how fast it is run, as far as that is known."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Final

import click

from kqueue import TypeStats
from kqueue.cli.looks.watching import show_each, watch_option
from kqueue.cli.terminal import columns, find_queue, json_option, queue_options
from kqueue.model.wording import counted, span
from kqueue.telemetry.rates import Rates, ToldRates, told_by

#: As they are named in the JSON.
_RATES: Final = [field.name for field in dataclasses.fields(Rates)]


@click.command()
@queue_options
@click.option("--type", "job_type", metavar="TYPE", help="Only this type.")
@watch_option
@json_option
def stats(store: str | None, broker: str | None, job_type: str | None, every: float | None, as_json: bool) -> None:
    """Show of each type how many jobs wait, since when the oldest does, and how fast they are run.

    Rates are of the last minute, as workers told them that are alive. What kqueue run has run for cron, and what a
    worker ran that has ended, is in none.
    """
    with find_queue(store, broker, rings=False) as queue:

        def look() -> list[str]:
            found, told = queue.stats(), told_by(queue.store.workers(), queue.store.now())
            types = sorted(found.types.keys() | told.types.keys()) if job_type is None else [job_type]
            waits = {type: found.types.get(type, TypeStats()) for type in types}
            return [_as_json(waits, told, found.at)] if as_json else _lines(waits, told)

        show_each(look, every)


def _as_json(waits: Mapping[str, TypeStats], told: ToldRates, at: float) -> str:
    types = {}
    for type, one in waits.items():
        # Nobody who is alive has told: the rates are not 0, but unknown.
        rates = dataclasses.asdict(told.types.get(type, Rates())) if told.workers else dict.fromkeys(_RATES)
        types[type] = {"waiting": one.waiting, "oldest_age": one.oldest_age, **rates}
    return json.dumps({"at": at, "types": types, "workers": told.workers, "seconds": told.seconds})


def _lines(waits: Mapping[str, TypeStats], told: ToldRates) -> list[str]:
    known = bool(told.workers)
    rows = [[type, *_waiting(one), *_rates(told.types.get(type, Rates()), known)] for type, one in waits.items()]
    heads = ["type", "waiting", "oldest", "run/s", "finished/s", "failed/s", "mean"]
    shown = [*columns(heads, rows)] if rows else ["no jobs"]
    if known:
        who = counted(told.workers, "worker")
        return [*shown, "", f"Rates are of the last {span(told.seconds)}, of {who}. What cron has run is in none."]
    return [*shown, "", "Rates are not known: no worker that is alive has told any. Those of cron tell none."]


def _waiting(one: TypeStats) -> list[object]:
    return [one.waiting, "" if one.oldest_age is None else span(one.oldest_age)]


def _rates(rates: Rates, known: bool) -> list[str]:
    if not known:
        return ["?"] * len(_RATES)
    mean = "" if rates.mean_s is None else f"{rates.mean_s * 1000:.3g} ms"
    return [f"{rates.run:.3g}", f"{rates.finished:.3g}", f"{rates.failed:.3g}", mean]
