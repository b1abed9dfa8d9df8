"""Job ids: made by the client, unique without asking anyone.

An id is 28 characters of ``0-9a-v`` (base 32, whose letters sort as their values do):

    =======  =====  ==========================================================
    chars    bits   what
    =======  =====  ==========================================================
    0-8      45     milliseconds since 1970, never going back in one process
    9-12     20     number within the millisecond
    13-16    20     where: a digest of the host's name
    17-21    25     where: the process id
    22-27    30     random, drawn once a process
    =======  =====  ==========================================================

So ids sort by the time they were made, two ids of one process never meet, and two processes meet only if
host digest, process id and 30 random bits are all the same.
"""

import hashlib
import os
import re
from typing import NamedTuple

#: The one form of a job id.
ID_FORM = re.compile(r"[0-9a-v]{28}", re.ASCII)

DIGITS = "0123456789abcdefghijklmnopqrstuv"


class Origin(NamedTuple):
    """When and where an id was made."""

    #: Seconds since 1970, to the millisecond.
    made_at: float
    #: Four characters that stand for the host's name; equal to :func:`host_tag` on that host.
    host: str
    #: The process id on that host.
    pid: int


def is_job_id(text: object) -> bool:
    """Whether ``text`` has the form of a job id."""
    return isinstance(text, str) and ID_FORM.fullmatch(text) is not None


def origin(job_id: str) -> Origin:
    """When and where ``job_id`` was made. Raises ``ValueError`` if it is no job id."""
    if not is_job_id(job_id):
        raise ValueError(f"id: expected 28 characters of 0-9 and a-v, got {job_id!r:.80}")
    return Origin(int(job_id[:9], 32) / 1000, job_id[13:17], int(job_id[17:22], 32))


def is_made_by(id: str | None, tail: str) -> bool:
    """Whether the process made it whose ids end so: see :meth:`kqueue.system.mint.IdMint.tail`. Also of a lease's
    owner, which is made as ids are; False for none.
    """
    return id is not None and id.endswith(tail)


def maker(id: str | None) -> str:
    """The process that made it, in words: ``process 4711 on this host``. Also of a lease's owner, which is made as
    ids are; ``its worker`` where that cannot be told.
    """
    if id is None or not is_job_id(id):
        return "its worker"
    made = origin(id)
    return f"process {made.pid} on {'this host' if made.host == host_tag() else 'another host'}"


def host_tag(name: str | None = None) -> str:
    """The four characters that stand for a host's name (this host's by default)."""
    name = os.uname().nodename if name is None else name
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    return base32(int.from_bytes(digest[:4], "big") & 0xFFFFF, 4)


def base32(value: int, width: int) -> str:
    """``value`` in ``width`` digits, the highest first."""
    text = ""
    while len(text) < width:
        value, digit = divmod(value, 32)
        text = DIGITS[digit] + text
    return text
