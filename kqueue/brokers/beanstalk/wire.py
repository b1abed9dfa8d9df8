"""The bytes: a pointer's body, and the commands that KQueue sends to beanstalkd. Pure.

A pointer is one readable line of ASCII, without a line end::

    KQ1 <type> <priority> <put_at> <id> <id> ...

A type is written as in the name of its tube, ``put_at`` has six decimals, ids have the form of
:mod:`kqueue.model.ids`. One strict expression over the whole body decides what a pointer is; all else is foreign.

Integers and names are checked here, before a byte is sent: a ``put`` line that the server refuses with
BAD_FORMAT does not skip its body, which is then read as commands. The words and replies are those of
https://github.com/beanstalkd/beanstalkd/blob/master/doc/protocol.txt (beanstalkd 1.12).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from kqueue.contracts.broker import Pointer
from kqueue.model import checks, tubes
from kqueue.model.ids import ID_FORM

#: Ids in one entry at most.
MAX_IDS = 100
#: Bytes that an entry stays under the server's max-job-size. The binlog's replay loses bodies of the last
#: two sizes below it, and every later record of that file with them.
SPARE_BYTES = 16
#: Bytes of one more id, with the space before it.
ID_BYTES = 29
#: Seconds that an entry may stay reserved. It is held only while its rows are claimed, and never touched.
ENTRY_TTR = 60
#: The largest and least urgent priority: 32 bits.
MAX_PRIORITY = 2**32 - 1
#: The largest number that the server counts to: 64 bits.
MAX_NUMBER = 2**64 - 1
#: Bytes of the longest entry that any server takes: the most that its -z allows
#: (https://github.com/beanstalkd/beanstalkd/blob/master/dat.h, JOB_DATA_SIZE_LIMIT_MAX).
MAX_JOB_SIZE = 2**30
#: Bytes of a list of tubes: more than 10,000 of the longest names.
MAX_LIST = 2**21 + 2**17
#: Seconds since 1970 that ``put_at`` stays below.
MAX_PUT_AT = 1e11
#: The tube that the server has every new connection watch.
DEFAULT_TUBE = "default"

_POINTER = re.compile(
    rb"KQ1"
    rb" ([A-Za-z0-9_./+][A-Za-z0-9_./+-]{0,569})"
    rb" (0|[1-9][0-9]{0,9})"
    rb" ((?:0|[1-9][0-9]{0,10})\.[0-9]{6})"
    rb"((?: %b){1,%d})" % (ID_FORM.pattern.encode(), MAX_IDS)
)
_MAX_DIGITS = len(str(MAX_NUMBER))
_TUBE = re.compile(r"[A-Za-z0-9+/;.$_()][A-Za-z0-9+/;.$_()-]{0,199}", re.ASCII)


class NoRoom(ValueError):
    """The server takes only entries that are too small for a pointer."""


def encode(pointer: Pointer) -> bytes:
    """The pointer as an entry's body. Raises ``ValueError`` for one that :func:`decode` would refuse."""
    body = b"%b %b" % (_start(pointer), " ".join(pointer.ids).encode())
    match = _POINTER.fullmatch(body)
    known = match is not None and _type(match[1].decode()) == pointer.type
    if not known or pointer.priority > MAX_PRIORITY or pointer.put_at >= MAX_PUT_AT:
        raise _no_pointer(body)
    return body


def decode(body: bytes) -> Pointer:
    """The pointer that a body holds. Raises ``ValueError``, and nothing else, if it holds none."""
    match = _POINTER.fullmatch(body)
    if match is not None:
        type, priority, put_at, ids = _type(match[1].decode()), int(match[2]), float(match[3]), match[4].decode()
        if type is not None and priority <= MAX_PRIORITY and put_at < MAX_PUT_AT:
            return Pointer(type, priority, put_at, tuple(ids.split()))
    raise _no_pointer(body)


def encode_all(pointer: Pointer, max_job_size: int) -> Iterator[bytes]:
    """The pointer as the bodies of as many entries as it takes for a server with this ``max-job-size``.

    Raises :class:`NoRoom` if not even one id fits.
    """
    room = max_job_size - SPARE_BYTES - len(_start(pointer))
    size = min(MAX_IDS, room // ID_BYTES)
    if size < 1:
        raise NoRoom(f"no pointer of type {pointer.type!r} fits a max-job-size of {max_job_size} bytes")
    for first in range(0, len(pointer.ids), size):
        yield encode(pointer._replace(ids=pointer.ids[first : first + size]))


def _no_pointer(body: bytes) -> ValueError:
    return ValueError(f"expected a pointer 'KQ1 <type> <priority> <put_at> <id> ...', got {body[:80]!r}")


def _start(pointer: Pointer) -> bytes:
    return f"KQ1 {tubes.escaped(pointer.type)} {pointer.priority} {pointer.put_at:.6f}".encode()


def _type(text: str) -> str | None:
    """The type that stands so in a body; None if none does."""
    if "+" not in text and len(text) <= checks.MAX_TYPE:  # as nearly all
        return text
    try:
        return checks.job_type(tubes.unescaped(text))
    except ValueError:
        return None


class Command(NamedTuple):
    """What to send, and the replies after which the conversation goes on."""

    data: bytes
    replies: frozenset[bytes]
    #: Bytes that the body of an ``OK`` has at most; None for what all but a list have.
    longest: int | None = None


class Reply(NamedTuple):
    """One reply: ``RESERVED 7 64`` with its body, ``DELETED``, ..."""

    status: bytes
    #: What follows the status, without the size of a body.
    values: tuple[int, ...] = ()
    body: bytes = b""


#: Replies that are one word, by their line: most of all replies.
PLAIN = {
    status + b"\r\n": Reply(status)
    for status in (b"DELETED", b"TIMED_OUT", b"RELEASED", b"NOT_FOUND", b"BURIED", b"PAUSED")
}
#: Replies that a body follows; its size in bytes is the last word of the line.
WITH_BODY = frozenset({b"RESERVED", b"FOUND", b"OK"})

#: How many numbers follow a status where any is used; a body's size is one of them.
NUMBERS = {b"RESERVED": 2, b"FOUND": 2, b"OK": 1, b"KICKED": 1}

_PUT = frozenset({b"INSERTED", b"BURIED", b"OUT_OF_MEMORY", b"DRAINING", b"JOB_TOO_BIG"})
_RESERVE = frozenset({b"RESERVED", b"TIMED_OUT", b"DEADLINE_SOON"})
_RESERVE_JOB = frozenset({b"RESERVED", b"NOT_FOUND"})
_DELETE = frozenset({b"DELETED", b"NOT_FOUND"})
# On a full disk a delayed release answers OUT_OF_MEMORY and a bury INTERNAL_ERROR; the line ends as usual.
_RELEASE = frozenset({b"RELEASED", b"NOT_FOUND", b"BURIED", b"OUT_OF_MEMORY", b"INTERNAL_ERROR"})
_BURY = frozenset({b"BURIED", b"NOT_FOUND", b"INTERNAL_ERROR"})
_KICK = frozenset({b"KICKED"})
_PEEK = frozenset({b"FOUND", b"NOT_FOUND"})
_USE = frozenset({b"USING"})
_WATCH = frozenset({b"WATCHING"})
_PAUSE = frozenset({b"PAUSED", b"NOT_FOUND"})
_STATS = frozenset({b"OK"})
_STATS_TUBE = frozenset({b"OK", b"NOT_FOUND"})


def put(priority: int, delay: int, body: bytes) -> Command:
    """Insert an entry into the tube in use. All its replies skip the body."""
    numbers = (_u32("priority", priority), _u32("delay", delay), ENTRY_TTR, len(body))
    return Command(b"put %d %d %d %d\r\n%b\r\n" % (*numbers, body), _PUT)


def reserve(seconds: int) -> Command:
    """Take the next ready entry of the watched tubes; waits up to whole ``seconds``."""
    return Command(b"reserve-with-timeout %d\r\n" % _u32("timeout", seconds), _RESERVE)


def reserve_job(entry: int) -> Command:
    """Take this entry, whatever its tube (beanstalkd 1.12 or newer)."""
    return Command(b"reserve-job %d\r\n" % entry, _RESERVE_JOB)


def delete(entry: int) -> Command:
    """Remove an entry."""
    return Command(b"delete %d\r\n" % entry, _DELETE)


def release(entry: int, priority: int, delay: int) -> Command:
    """Give a reserved entry back."""
    numbers = (entry, _u32("priority", priority), _u32("delay", delay))
    return Command(b"release %d %d %d\r\n" % numbers, _RELEASE)


def bury(entry: int) -> Command:
    """Put a reserved entry aside. Should someone kick it, it comes after everything else."""
    return Command(b"bury %d %d\r\n" % (entry, MAX_PRIORITY), _BURY)


def kick(bound: int) -> Command:
    """Make up to ``bound`` buried entries of the tube in use ready or, if there are none, delayed ones."""
    return Command(b"kick %d\r\n" % _u32("bound", bound), _KICK)


def peek_ready() -> Command:
    """Show what the tube in use would serve next, also while it is paused."""
    return Command(b"peek-ready\r\n", _PEEK)


def use(tube: str) -> Command:
    """Put into this tube from now on."""
    return Command(b"use %b\r\n" % _name(tube), _USE)


def watch_only(tubes: Sequence[str]) -> list[Command]:
    """Make a new connection reserve from these tubes and no other."""
    commands = [watch(tube) for tube in tubes]
    if DEFAULT_TUBE not in tubes:
        commands.append(ignore(DEFAULT_TUBE))
    return commands


def watch(tube: str) -> Command:
    """Reserve from this tube too."""
    return Command(b"watch %b\r\n" % _name(tube), _WATCH)


def ignore(tube: str) -> Command:
    """Reserve from this tube no more. It must not be the last one."""
    return Command(b"ignore %b\r\n" % _name(tube), _WATCH)


def resume(tube: str) -> Command:
    """End a pause of the tube, whoever made it."""
    return Command(b"pause-tube %b 0\r\n" % _name(tube), _PAUSE)


def stats() -> Command:
    """Ask for the server's figures; see :func:`parse_stats`."""
    return Command(b"stats\r\n", _STATS)


def stats_tube(tube: str) -> Command:
    """Ask for a tube's figures; see :func:`parse_stats`."""
    return Command(b"stats-tube %b\r\n" % _name(tube), _STATS_TUBE)


def list_tubes() -> Command:
    """Ask for the names of all tubes; see :func:`parse_list`."""
    return Command(b"list-tubes\r\n", _STATS, MAX_LIST)


def parse_list(body: bytes) -> list[str]:
    """The names of tubes. See :func:`parse_stats`."""
    return [line.removeprefix("- ") for line in body.decode("ascii", "replace").splitlines() if line[:2] == "- "]


def parse_stats(body: bytes) -> dict[str, str]:
    """Figures by name. The server's text only looks like YAML (it does not quote a tube named ``null``)."""
    lines = body.decode("ascii", "replace").splitlines()
    return {name: value for name, colon, value in (line.partition(": ") for line in lines) if colon}


def number(word: bytes | str) -> int:
    """What a server means by a number. Raises ``ValueError`` for what is none, or more than it can count to."""
    # Python itself refuses some thousand digits, and takes digits of other scripts.
    if word.isdigit() and word.isascii() and len(word) <= _MAX_DIGITS:
        value = int(word)
        if value <= MAX_NUMBER:
            return value
    raise ValueError(f"the server answered {word[:80]!r} where a number belongs")


def figure(figures: Mapping[str, str], name: str) -> int:
    """One of :func:`parse_stats`; 0 where it is not there. Raises ``ValueError`` as :func:`number` does."""
    return number(figures.get(name, "0"))


def _u32(argument: str, number: int) -> int:
    if not 0 <= number <= MAX_PRIORITY:
        raise ValueError(f"{argument}: expected an integer from 0 to 2**32-1, got {number!r}")
    return number


def _name(tube: str) -> bytes:
    if _TUBE.fullmatch(tube) is None:
        raise ValueError(
            f"tube: expected 1 to 200 of A-Z a-z 0-9 - + / ; . $ _ ( ), not starting with -, got {tube!r:.220}"
        )
    return tube.encode("ascii")
