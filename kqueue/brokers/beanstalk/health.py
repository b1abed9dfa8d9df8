"""What beanstalkd's figures of itself and of its tubes tell an operator: pure."""

import heapq
from collections.abc import Iterator, Mapping

#: Figures of a server that somebody should look at, with what they mean. Without a binlog its index stays 0.
WARNINGS = (
    ("draining", "true", "the server is in drain mode (SIGUSR1) and takes no put: restart it"),
    (
        "binlog-current-index",
        "0",
        "the server has no binlog (-b): when it restarts, workers ask the store, and the sweep puts all jobs again",
    ),
)
#: Of tubes, where they are not 0: what is said of one, and of those that are not named.
TUBE_WARNINGS = (
    (
        "pause-time-left",
        "the tube of type {type} is paused by somebody for another {number} s; KQueue never does",
        "and the tubes of {number:,} more types are paused",
    ),
    (
        "current-jobs-buried",
        "{number} entries that are not ours were buried in the tube of type {type}",
        "and entries that are not ours were buried in the tubes of {number:,} more types",
    ),
)
#: Figures of a server that are 0 while no tube of it has any of that.
TOUCHED = ("cmd-pause-tube", "current-jobs-buried")
#: Tubes that are looked at for warnings, and those that are named for one reason: the worst.
MOST_TUBES = 1000
MOST_NAMED = 10
#: Where beanstalkd's figures for a tube stand, by our name.
DEPTHS = {
    "ready": "current-jobs-ready",
    "delayed": "current-jobs-delayed",
    "reserved": "current-jobs-reserved",
    "buried": "current-jobs-buried",
}

#: What is asked of a tube.
FIGURES = (*DEPTHS.values(), "pause-time-left")


def warnings(figures: Mapping[str, str], tubes: Mapping[str, Mapping[str, int]], left_out: int) -> Iterator[str]:
    """A sentence each. ``figures``: the server's. ``tubes``: those of tubes, by type; ``left_out``: types that were
    not looked at.
    """
    yield from (warning for name, value, warning in WARNINGS if figures.get(name) == value)
    for name, warning, rest in TUBE_WARNINGS:
        numbers = {type: number for type, of_tube in tubes.items() if (number := of_tube[name])}
        for type in heapq.nlargest(MOST_NAMED, numbers, key=numbers.__getitem__):
            yield warning.format(number=numbers[type], type=type)
        if len(numbers) > MOST_NAMED:
            yield rest.format(number=len(numbers) - MOST_NAMED)
    if left_out:
        yield f"the tubes of {left_out:,} more types were not looked at"


def depths(of_tube: Mapping[str, int]) -> dict[str, int]:
    """Entries by state."""
    return {name: of_tube[figure] for name, figure in DEPTHS.items()}
