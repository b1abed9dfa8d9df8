"""What befalls the file of a SQLite store in a torture. Each is what somebody does in an ordinary week.

copy        a process of the queue copies its own store, which drops its locks on it; then a foreign program opens
            and closes the file, and takes itself for the last one
foreign     a foreign program opens the file, reads and closes it
hard link   another process opens the file under a second name, and adds jobs there if it may
move        ``mv`` of the store to another folder while all run, and back again
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Protocol

from tests.torture.crowd import Crowd

#: Seconds that a store is gone.
AWAY_S = (0.0, 1.5)
#: Seconds after which a foreign program counts as hung.
PATIENCE_S = 240.0
#: Seconds that a process works under a second name.
LINKED_S = 1.0
#: As ``sqlite3 FILE "SELECT count(*) FROM kqueue_jobs"`` does.
FOREIGN = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=0.1)
try:
    connection.execute("SELECT count(*) FROM kqueue_jobs").fetchall()
except sqlite3.OperationalError:
    pass
connection.close()
"""


class StrikeStore(Protocol):
    """Of the referee."""

    def __call__(self, strike: Callable[[], None], rest: Callable[[], None]) -> None:
        """Do ``strike`` while no worker runs, and ``rest`` after it."""


def file_faults(path: Path, crowd: Crowd, random: Random, strike: StrikeStore) -> dict[str, Callable[[], None]]:
    """The faults by their names. ``path``: of the store, in a folder of its own."""
    elsewhere = path.parent.with_name("elsewhere")
    elsewhere.mkdir()

    def copy() -> None:
        child = random.choice([*crowd.producers, *crowd.workers])  # one that has only begun does it later
        what = random.choice(("copy", "copytree"))
        child.tell(f"{what} {elsewhere / f'copy-{random.randrange(10**9)}'}")
        foreign()

    def foreign() -> None:
        subprocess.run([sys.executable, "-c", FOREIGN, str(path)], timeout=PATIENCE_S, check=True)

    def hard_link() -> None:
        link = elsewhere / f"link-{random.randrange(10**9)}.db"
        os.link(path, link)
        stranger = crowd.stranger(f"sqlite:///{link}")
        time.sleep(random.uniform(0, LINKED_S))
        crowd.end([stranger])
        link.unlink()

    def move() -> None:
        # The file itself goes first and comes back last, so that nobody finds it without its log.
        names = [path.name, f"{path.name}-wal", f"{path.name}-shm"]

        def go() -> None:
            for name in names:
                _move(path.with_name(name), elsewhere / name)

        def come_back() -> None:
            time.sleep(random.uniform(*AWAY_S))
            for name in reversed(names):
                _move(elsewhere / name, path.with_name(name))

        strike(go, come_back)

    return {"copy": copy, "foreign": foreign, "hard link": hard_link, "move": move}


def _move(source: Path, target: Path) -> None:
    """Over what lies there, as ``mv`` does; nothing if it is not there."""
    if source.exists():
        os.replace(source, target)


def copy_store(command: str, path: Path) -> None:
    """In the process that has the store open: what :func:`file_faults` told it."""
    what, _, target = command.partition(" ")
    try:
        if what == "copytree":
            shutil.copytree(path.parent, target)
        else:
            shutil.copy(path, target)
        # So that a torture of an hour fills no disk.
        shutil.rmtree(target) if what == "copytree" else os.unlink(target)
    except (OSError, shutil.Error):
        pass  # it was moved meanwhile
