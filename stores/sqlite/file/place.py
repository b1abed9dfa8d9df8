"""Where an SQLite file is: the identities of the file, of its write-ahead log and of that log's index."""

import os
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

#: Tells a file from one that takes its name: (device, inode).
Identity: TypeAlias = tuple[int, int]
#: A log and its index: those of both.
Log: TypeAlias = tuple[int, int, int, int]


class FilePlace(NamedTuple):
    """What is found under three names; None for what is not there."""

    file: Identity | None
    #: ``-wal``: the log.
    log: Identity | None
    #: ``-shm``: the log's index.
    shm: Identity | None

    @property
    def log_and_shm(self) -> "Log | None":
        """None if one of them is missing."""
        return None if self.log is None or self.shm is None else (*self.log, *self.shm)

    def change(self, now: "FilePlace") -> str | None:
        """What stands under its name no longer, for a message; None if all does."""
        if now == self:
            return None
        if now.file != self.file:
            return "was removed or replaced"
        return f"its {'-wal' if now.log != self.log else '-shm'} was removed or replaced"


def url(path: str) -> str:
    """The store's URL of ``path``, which is absolute, without options."""
    return f"sqlite:///{path.replace('%', '%25').replace('?', '%3F')}"


def look(path: str, real: str) -> FilePlace:
    """``real`` is ``path`` with its links followed: SQLite keeps the log beside the file that a link leads to."""
    return FilePlace(identity(path), identity(f"{real}-wal"), identity(f"{real}-shm"))


def identity(path: str) -> Identity | None:
    """None if nothing is found there."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def size(path: str) -> int | None:
    """In bytes; None if there is no such file. Raises ``OSError`` where that cannot be told."""
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return None


def is_mount_point(path: str) -> bool:
    """Whether another file of the host was mounted over this one: the log then stays behind in the folder."""
    try:
        return _mount_of(path) != _mount_of(os.path.dirname(path))
    except (OSError, AttributeError):
        return False  # no Linux, or no /proc


def opened_here() -> Iterator[tuple[int, Identity]]:
    """The number and identity of each file that this process has open. Raises ``OSError`` without ``/proc``."""
    for name in os.listdir("/proc/self/fd"):
        found = identity(f"/proc/self/fd/{name}")
        if found is not None:
            yield int(name), found


def _mount_of(path: str) -> str:
    # To open with O_PATH opens nothing of the file, and to close that drops no lock.
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        with open(f"/proc/self/fdinfo/{descriptor}") as lines:
            return next((line for line in lines if line.startswith("mnt_id:")), "")
    finally:
        os.close(descriptor)
