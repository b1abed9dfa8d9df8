"""How many jobs each type has run lately, as processes have told it with their heartbeats.

Only processes that wait for jobs have a heartbeat. What ``kqueue run`` has run for cron, and what a process ran
that is gone, nobody knows.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kqueue.contracts.workers import WorkerRecord, is_alive
from kqueue.telemetry.counters import LATELY, Ended


@dataclass(frozen=True, slots=True)
class Rates:
    """Of one type, over all processes that told of it."""

    #: A second each: runs that ended; of these, jobs that were finished, and runs that failed.
    run: float = 0.0
    finished: float = 0.0
    failed: float = 0.0
    #: Seconds that a run took, on average; None if none ended.
    mean_s: float | None = None


@dataclass(frozen=True, slots=True)
class ToldRates:
    """What all told."""

    types: Mapping[str, Rates]
    #: Processes that are alive and told.
    workers: int
    #: Seconds of the longest time that one told of.
    seconds: float


def told_by(workers: Iterable[WorkerRecord], now: float) -> ToldRates:
    """What those that are alive tell of the last minute. One of another version tells nothing."""
    notes = [note for worker in workers if is_alive(worker, now) and (note := _lately_of(worker)) is not None]
    runs: dict[str, list[tuple[Ended, float]]] = {}
    for seconds, types in notes:
        for type, ended in types.items():
            runs.setdefault(type, []).append((ended, seconds))
    rates = {type: _rates(told) for type, told in runs.items()}
    return ToldRates(rates, len(notes), max((seconds for seconds, _ in notes), default=0.0))


def _rates(told: list[tuple[Ended, float]]) -> Rates:
    took, runs = sum(ended.seconds for ended, _ in told), sum(ended.runs for ended, _ in told)
    return Rates(
        sum(ended.runs / seconds for ended, seconds in told),
        sum(ended.finished / seconds for ended, seconds in told),
        sum(ended.failed / seconds for ended, seconds in told),
        took / runs if runs else None,
    )


def _lately_of(worker: WorkerRecord) -> tuple[float, dict[str, Ended]] | None:
    try:
        lately = json.loads(worker.note)[LATELY]
        seconds = float(lately["seconds"])
        types = {str(type): Ended(*map(float, ended)) for type, ended in lately["types"].items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return (seconds, types) if seconds > 0 else None
