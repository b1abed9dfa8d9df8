"""What a test has left to the collector: an error, of the test or, where only a collection finds it, of its file.

Sockets, files and clients of MongoDB warn of it themselves, connections to SQLite from Python 3.13 on.
``PYTHONTRACEMALLOC=9`` in the environment tells where it was opened.
"""

import gc
import os
import sqlite3
import sys
import warnings
from typing import Any

#: Of the interpreter: what it has processes that the tests start make of it.
FILTER = "error::ResourceWarning"


class Connection(sqlite3.Connection):
    """Warns as those of Python 3.13 do."""

    def __init__(self, database: Any, *arguments: Any, **options: Any) -> None:
        self._database = database
        super().__init__(database, *arguments, **options)

    def __del__(self) -> None:
        try:
            _ = self.total_changes
        except sqlite3.ProgrammingError:
            return  # closed, or never open
        warnings.warn(f"unclosed database: {self._database}", ResourceWarning, source=self, stacklevel=1)


def watch() -> None:
    """From now on, in this process and those that it starts. In one that it forks nobody looks: that has copies of
    its parent's, which it must not close.
    """
    os.environ["PYTHONWARNINGS"] = FILTER
    if sys.version_info < (3, 13):
        connect = sqlite3.connect

        def watched(*arguments: Any, **options: Any) -> sqlite3.Connection:
            return connect(*arguments, **{"factory": Connection, **options})

        sqlite3.connect = watched  # type: ignore[assignment]


def set_aside() -> None:
    """All that there is now, for good: later collections pass over it, and so are cheap."""
    gc.collect()
    gc.freeze()


def collect() -> None:
    """Whatever is left warns now."""
    gc.collect()


def told_by_children(stderr: str) -> str | None:
    """What is wrong if processes that a test started have said so there."""
    lines = [line for line in stderr.splitlines() if "ResourceWarning" in line]
    return "\n".join(["a process that the test started left to the collector:", *lines]) if lines else None
