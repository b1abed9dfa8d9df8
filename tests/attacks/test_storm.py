"""Several of these at once, by lot: what was acknowledged is there, and the file is sound."""

import random
import sqlite3
from contextlib import suppress
from pathlib import Path

import pytest

from tests.attacks.driver import Site, site

SOME = 15


def storm(here: Site, dice: random.Random, rounds: int) -> None:
    """Each round, all add at once while one of the acts goes on; some are killed then, and others begin."""
    driven = [here.start(here.url, here.url) for _ in range(3)]
    moved = here.folder / "moved.db"

    def visit() -> None:
        with suppress(sqlite3.Error):  # it may find a file without its log
            here.visit()

    def move() -> None:
        here.path.rename(moved)
        for one in asked:
            one.answer()
        asked.clear()
        moved.rename(here.path)

    acts = [visit, visit, move, lambda: here.wal.unlink(missing_ok=True), lambda: here.shm.unlink(missing_ok=True)]
    for number in range(rounds):
        asked = []
        for one in driven:
            what = dice.choice(["copy", "copytree", "add", "add", "close"])
            if what == "close":
                one.do("close", dice.randrange(2))
            elif what != "add":
                one.do(what, str(here.path))
            one.ask("add", dice.randrange(2), SOME)
            asked.append(one)
        dice.choice(acts)() if number % 2 else visit()
        for one in asked:
            one.answer()
        for one in driven:  # who has not noticed yet keeps the others out
            for queue in range(2):
                one.do("counts", queue)
        if dice.random() < 0.3:
            victim = dice.randrange(len(driven))
            driven[victim].kill()
            driven[victim] = here.start(here.url, here.url)


@pytest.mark.parametrize("rounds", [8, pytest.param(400, marks=pytest.mark.proof)])
def test_a_storm(tmp_path: Path, rounds: int) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    folder = tmp_path / "jobs"
    folder.mkdir()
    with site(folder) as here:
        storm(here, random.Random(seed), rounds)
        assert here.lost() == []
