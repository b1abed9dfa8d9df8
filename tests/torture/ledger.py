"""Ledgers: what a process has done, one line each, outside the queue. A line survives the death of its writer."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

#: ``what`` says of which kind it is; see the producer's and the worker's text.
Record: TypeAlias = dict[str, Any]
SUFFIX = ".ledger"


class Ledger:
    """Appends to one file. Shared by the threads of a process."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, what: str, **fields: Any) -> None:
        """With the system when it returns: one write, not buffered here."""
        line = json.dumps({"what": what, **fields}, separators=(",", ":")).encode() + b"\n"
        written = os.write(self._file, line)
        if written != len(line):
            raise OSError(f"ledger: {written} of {len(line)} bytes were written; is the disk full?")


def read(folder: Path) -> Iterator[Record]:
    """Every record of every ledger in ``folder``.

    A last line that is cut short is being written, or was when its writer was killed: what it says had not begun.
    To go on reading after it would take its rest for a line.
    """
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        *lines, _ = path.read_bytes().split(b"\n")
        yield from map(json.loads, lines)
