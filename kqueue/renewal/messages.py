"""What client and renewer say to each other: lines of JSON, pure. A line is a list: its name, then its fields.

The first line of a client comes with the file descriptor of its board.
"""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

from kqueue.contracts.renewer import Renewal, RenewalEnd
from kqueue.model.urls import showable

#: Of this format. A worker's parent may have been started before an upgrade, and its children after.
VERSION = 3
#: A line is at most this long. A window of 512 jobs that are all unlike takes some 60,000 bytes.
MAX_LINE = 2**20
#: Windows that a client may hold at once, over all threads of its process.
SLOTS = 2**16
#: Whole numbers are below this: stores keep them in 63 bits.
_BOUND = 2**63
#: Ids, see :mod:`kqueue.model.ids`, one after another.
_ID_CHARS = 28
_IDS = re.compile("[0-9a-v]*", re.ASCII)


class Hello(NamedTuple):
    """A client begins."""

    version: int
    pid: int
    #: Its store's URL.
    store: str

    def __repr__(self) -> str:
        return f"Hello({self.version}, {self.pid}, {showable(self.store)!r})"


class HandlerRun(NamedTuple):
    """Jobs that stand side by side in a window and differ in their ids only. See
    :class:`kqueue.contracts.renewer.Renewal`.
    """

    #: Of the first, in the window.
    position: int
    fence: int
    ttr: float
    max_runtime: float | None
    retry_in: float | None
    kill: bool
    ids: Sequence[str]


class RenewalWindow(NamedTuple):
    """Hold these jobs, and let go of those that had the slot before. The one at position ``n`` runs when the slot
    of the board says ``first + n``.
    """

    slot: int
    #: A serial number that the client gives to one window only.
    first: int
    #: Jobs in it, those that are not to be renewed too.
    size: int
    #: Seconds of the host's monotonic clock.
    leased_at: float
    runs: Sequence[HandlerRun]


class LetGo(NamedTuple):
    """All of the window in this slot is settled or given back."""

    slot: int


class Forget(NamedTuple):
    """Let go of all that this client has said."""


class ServerReady(NamedTuple):
    """The renewer is there."""


class Told(NamedTuple):
    """Of one job, and the window that it is in."""

    first: int
    id: str
    end: RenewalEnd
    #: Of one that is over: whether its end is in the store. If not, that is told by another message, once it is.
    is_written: bool = False


class Trouble(NamedTuple):
    """What the client is to log."""

    text: str


Request: TypeAlias = Hello | RenewalWindow | LetGo | Forget
Answer: TypeAlias = ServerReady | Told | Trouble

_WORDS: dict[type, str] = {
    Hello: "hello",
    RenewalWindow: "hold",
    LetGo: "let go",
    Forget: "forget",
    ServerReady: "ready",
    Told: "told",
    Trouble: "trouble",
}


def encode(message: Request | Answer) -> bytes:
    """``message`` as one line."""
    return json.dumps([_WORDS[type(message)], *message]).encode() + b"\n"


def request(line: bytes) -> Request:
    """What a client says. Raises ``ValueError`` for what no client of this version says."""
    match _fields(line):
        case ["hello", int(version), int(pid), str(store)] if version == VERSION and 0 < pid < 2**31:
            return Hello(version, pid, store)
        case ["hold", int(slot), int(first), int(size), leased_at, list(runs)] if (
            0 <= slot < SLOTS and min(first, size) >= 0 and max(first, size) < _BOUND
        ):
            return RenewalWindow(slot, first, size, _time(leased_at), [_run(run, size) for run in runs])
        case ["let go", int(slot)]:
            return LetGo(slot)
        case ["forget"]:
            return Forget()
    raise ValueError(f"no request: {line!r:.80}")


def answer(line: bytes) -> Answer:
    """What a renewer says. Raises ``ValueError`` for what no renewer says."""
    match _fields(line):
        case ["ready"]:
            return ServerReady()
        case ["told", int(first), str(id), str(end), bool(is_written)]:
            return Told(first, id, RenewalEnd(end), is_written)
        case ["trouble", str(text)]:
            return Trouble(text)
    raise ValueError(f"no answer: {line!r:.80}")


def runs(window: Iterable[Renewal | None]) -> list[HandlerRun]:
    """A window, jobs that are alike together."""
    found: list[HandlerRun] = []
    alike: object = None
    ids: list[str] = []
    for position, hold in enumerate(window):
        if hold is None:
            alike = None
            continue
        if hold[1:] != alike:
            alike, ids = hold[1:], []
            found.append(HandlerRun(position, *hold[1:], ids))
        ids.append(hold.id)
    return found


def holds(run: HandlerRun) -> list[tuple[int, Renewal]]:
    """Each of its jobs with its position."""
    return [
        (position, Renewal(id, run.fence, run.ttr, run.max_runtime, run.retry_in, run.kill))
        for position, id in enumerate(run.ids, run.position)
    ]


class Lines:
    """Cuts what comes over a socket into lines."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that ``data`` ends. Raises ``ValueError`` for one that is too long."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_LINE or any(len(line) > MAX_LINE for line in lines):
            raise ValueError(f"a line of more than {MAX_LINE} bytes")
        return lines


def _fields(line: bytes) -> Any:
    try:
        return json.loads(line, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _run(fields: object, size: int) -> HandlerRun:
    match fields:
        case [int(position), int(fence), ttr, max_runtime, retry_in, bool(kill), list(ids)] if (
            0 <= position <= size - len(ids) and 0 <= fence < _BOUND and _are_ids(ids)
        ):
            return HandlerRun(
                position,
                fence,
                _seconds(ttr),
                None if max_runtime is None else _seconds(max_runtime),
                None if retry_in is None else _seconds(retry_in),
                kill,
                ids,
            )
    raise ValueError(f"no run of jobs: {fields!r:.80}")


def _are_ids(values: list[Any]) -> bool:
    """A store must be able to take them, or one client would spoil what is done for all."""
    alike = all(type(one) is str and len(one) == _ID_CHARS for one in values)
    return alike and _IDS.fullmatch("".join(values)) is not None


def _seconds(value: object) -> float:
    seconds = _time(value)
    if seconds < 0:
        raise ValueError(f"no seconds: {value!r:.80}")
    return seconds


def _time(value: object) -> float:
    """Of a clock that may have begun a moment ago."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e18 < value < 1e18:
        raise ValueError(f"no time: {value!r:.80}")
    return float(value)


def _refuse(constant: str) -> None:
    raise ValueError(f"no number: {constant}")
