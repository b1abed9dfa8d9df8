"""What a parent and its children say to each other: lines on two pipes, each a JSON object.

The reader never blocks, and a writer never waits for one who does not read: a line is shorter than ``PIPE_BUF``, so
that it is written whole or not at all (https://man7.org/linux/man-pages/man7/pipe.7.html).
"""

import dataclasses
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

#: Characters of what is told in plain text: in JSON each takes 6 bytes at most, and ``PIPE_BUF`` is 4096 on Linux.
MAX_WHY = 600
#: Bytes read at a time.
CHUNK = 64 * 1024


class ChildCommand(StrEnum):
    """What the parent tells a child to do."""

    #: Begin to take jobs.
    GO = "go"
    #: Take nothing new, and end when the running handlers have ended, or their grace is over.
    STOP = "stop"
    #: End without waiting for handlers.
    NOW = "now"
    #: Take nothing new, and end when the running handlers have ended, however long that is.
    LEAVE = "leave"


@dataclass(frozen=True, slots=True)
class ChildReady:
    """The app is imported and its store open."""

    #: How the child's lease owners end; see :meth:`kqueue.system.mint.IdMint.tail`.
    tail: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The child cannot start."""

    why: str


@dataclass(frozen=True, slots=True)
class Pulse:
    """How a child gets on, said each second."""

    #: Started so far.
    jobs: int
    #: Seconds since that loop made progress which has made none for the longest time.
    quiet: float


@dataclass(frozen=True, slots=True)
class Leaving:
    """It takes no more jobs, and ends when the running ones have: another may take its place."""

    why: str


@dataclass(frozen=True, slots=True)
class Crowded:
    """A job that is to run alone waits for others, or they for it: another process would do all of them good."""


@dataclass(frozen=True, slots=True)
class Done:
    """The child's loops are over."""

    jobs: int
    #: Whether all handlers have ended and all is settled; else what it had in hand is given back.
    clean: bool


Report: TypeAlias = ChildReady | Failed | Pulse | Leaving | Crowded | Done
_REPORTS: dict[str, type[Report]] = {
    kind.__name__: kind for kind in (ChildReady, Failed, Pulse, Leaving, Crowded, Done)
}


def encode(message: ChildCommand | Report) -> bytes:
    """``message`` as a line."""
    if isinstance(message, ChildCommand):
        return _line({"order": message.value})
    fields = dataclasses.asdict(message)
    if "why" in fields:
        fields["why"] = fields["why"][:MAX_WHY]
    return _line({"report": type(message).__name__, **fields})


def _line(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def order(line: bytes) -> ChildCommand:
    """The command that ``line`` holds."""
    return ChildCommand(json.loads(line)["order"])


def report(line: bytes) -> Report:
    """The report that ``line`` holds."""
    fields = json.loads(line)
    return _REPORTS[fields.pop("report")](**fields)


class MessageWriter:
    """The writing end of a pipe."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        os.set_blocking(descriptor, False)

    def say(self, message: ChildCommand | Report) -> None:
        """Lost if the other is gone or does not read."""
        with suppress(BlockingIOError, BrokenPipeError):
            os.write(self._descriptor, encode(message))

    def close(self) -> None:
        """Say nothing any more."""
        os.close(self._descriptor)


class MessageReader:
    """The reading end of a pipe."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._rest = b""
        #: Whether the other end is closed and all was read.
        self.is_over = False
        os.set_blocking(descriptor, False)

    def fileno(self) -> int:
        """What to poll for reading."""
        return self._descriptor

    def lines(self) -> list[bytes]:
        """What was said since the last call. A line that is cut off by the end is dropped."""
        while not self.is_over:
            try:
                chunk = os.read(self._descriptor, CHUNK)
            except BlockingIOError:
                break
            self._rest += chunk
            self.is_over = not chunk
        *lines, self._rest = self._rest.split(b"\n")
        return lines

    def close(self) -> None:
        """Hear nothing any more."""
        os.close(self._descriptor)
