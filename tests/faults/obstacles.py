"""What comes between a queue and its SQLite file: another process's lock, and a disk without room."""

import errno
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import pytest

#: Bytes of the disk that is filled. A database with the jobs of one test takes a part of it.
DISK_BYTES = 4 * 2**20
#: Takes the write lock of the file that it is given, says so, and holds it until its standard input ends.
_LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""


class Obstacle(Protocol):
    """Lets no write through while it is there. Reads go on."""

    #: What an error says of it.
    said: str

    def begin(self) -> None: ...

    def end(self) -> None:
        """Idempotent."""


class Lock:
    """Another process that holds the write lock."""

    #: By another process, or, to whoever comes second, by the thread of ours that waits for it.
    said = r"jobs\.db: (locked by another process|used by other threads of this process) for more than"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._process: subprocess.Popen[str] | None = None

    def begin(self) -> None:
        command = [sys.executable, "-c", _LOCK, str(self._path)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "locked\n"

    def end(self) -> None:
        if self._process is not None:
            self._process.communicate()
            self._process = None


class FullDisk:
    """Another program that has written all that there was room for."""

    said = r"jobs\.db: has no room left on its disk"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ballast = path.with_name("ballast")
        self._reader: sqlite3.Connection | None = None

    def begin(self) -> None:
        # While somebody reads an older state, the write-ahead log only grows, so that every write needs room.
        self._reader = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        self._reader.execute("BEGIN")
        self._reader.execute("SELECT count(*) FROM kqueue_jobs").fetchone()
        with self._ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError as error:
                assert error.errno == errno.ENOSPC

    def end(self) -> None:
        self._ballast.unlink(missing_ok=True)
        if self._reader is not None:
            self._reader.close()
            self._reader = None


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """Mount a small file system on ``folder``. Skips the test where that is forbidden, in CI too: a container
    without the right to mount lacks nothing that this project's commands could install.
    """
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)],
        check=False,
        capture_output=True,
        text=True,
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted: be root, where mounts are allowed ({mounted.stderr})")
    try:
        yield
    finally:
        # Lazily, so that none is left behind where a test that failed has a file open there.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
