"""What there is to prove, in lots, and in which order a day takes them."""

import random
import re
import subprocess
import sys
from collections.abc import Sequence
from datetime import date
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from tests.torture.servers import STORES

ROOT = Path(__file__).parents[2]
#: Tests in a lot at most: they share the servers of their file. Of what proves by enumeration, ...
MOST = 8
#: ... and of what only runs at more places than without ``--proof``.
MOST_AT_PLACES = 50
#: Seconds of a torture in which faults strike; the drain comes after.
TORTURE_S = 60
#: Steps through the lots from a day to the next, as a share of them: by the golden ratio no part waits long.
STRIDE = 0.618
#: The lots lie as by this throw of the dice, so that each part of them is of all kinds.
SHUFFLE = 11


class Lot(NamedTuple):
    """One process."""

    name: str
    command: tuple[str, ...]


def tests_in(listing: str) -> list[str]:
    """The ids of tests in what ``pytest --collect-only -q`` prints."""
    return re.findall(r"^tests/\S+?\.py::.+$", listing, re.MULTILINE)


def collected(only: str) -> list[str]:
    """The ids of what ``--proof`` adds: with ``only`` "proof" what proves by enumeration, with "places" what runs
    at more places. Raises ``RuntimeError`` if they cannot be collected.
    """
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "--only", only, "--collect-only"]
    if only == "proof":
        marked = re.compile(r"\bmark\.(proof|sampled)\b")
        paths = sorted(ROOT.glob("tests/*/test_*.py"))
        command += [str(path.relative_to(ROOT)) for path in paths if marked.search(path.read_text())]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    tests = tests_in(listing.stdout)
    if listing.returncode or not tests:
        raise RuntimeError(f"what is to be proved cannot be collected: {listing.stdout[-2000:]}{listing.stderr}")
    return tests


def of_tests(ids: Sequence[str], most: int = MOST, upto: str = "[") -> list[Lot]:
    """Each in one lot, with others of its function; or of its file, with ``upto`` "::"."""
    lots = []
    for function, group in groupby(ids, key=lambda id: id.partition(upto)[0]):
        tests = list(group)
        for at in range(0, len(tests), most):
            part = tests[at : at + most]
            few = part[0] if len(part) == 1 else f"{function}, {at + 1} to {at + len(part)} of {len(tests)}"
            lots.append(Lot(few, (sys.executable, "-m", "pytest", "-q", "-n", "0", "--proof", *part)))
    return lots


def of_tortures(seed: int) -> list[Lot]:
    """Each store, on a beanstalkd with a binlog and without."""
    return [
        Lot(
            f"torture of {store}, {binlog}",
            (
                *(sys.executable, "-m", "tests.torture", "--seconds", str(TORTURE_S), "--seed", str(seed)),
                *("--store", store, binlog),
            ),
        )
        for store in STORES
        for binlog in ("--binlog", "--no-binlog")
    ]


def ordered(lots: Sequence[Lot], day: date) -> tuple[int, list[Lot]]:
    """(The place that the day begins at, from 0; all lots from there on.)"""
    mixed = list(lots)
    random.Random(SHUFFLE).shuffle(mixed)
    first = int(day.toordinal() * STRIDE * len(mixed)) % len(mixed)
    return first, mixed[first:] + mixed[:first]
