"""Tubes that nobody serves any more: those of stores that were copied, restored, upgraded or removed.

A tube is one of ours if what it would serve next is a pointer of ours and its name ends in the pointer's type.
Nobody serves it if nobody watches it now and that pointer was put long ago: whoever comes by, if only by cron,
takes from the front. What stands in it is pointers and nothing else, so to empty it loses no job: should its store
be in use after all, the sweep puts them again.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from kqueue.brokers.beanstalk import health, wire
from kqueue.brokers.beanstalk.connection import Connection
from kqueue.brokers.beanstalk.wire import Reply
from kqueue.contracts.broker import Stray
from kqueue.model import tubes

#: Tubes that are asked for at once.
_PAGE: Final = 100
#: Tubes of a server that are looked at.
MOST_TUBES: Final = 10_000
#: What is asked of a tube.
_WATCHING: Final = "current-watching"


def find(connection: Connection, own: str, before: float) -> list[Stray]:
    """Those of others than ``own``, by what their names begin with; put ``before``, in seconds since 1970. Raises
    ``ValueError`` for an answer that is none.
    """
    found: dict[str, Stray] = {}
    for _, figures, beginning, put_at in _unwatched(connection, _names(connection)):
        if beginning != own and put_at < before:
            known = found.get(beginning, Stray(beginning, 0, 0, put_at))
            entries = sum(figures[name] for name in health.DEPTHS.values())
            oldest = min(known.put_at, put_at)
            found[beginning] = Stray(beginning, known.tubes + 1, known.entries + entries, oldest)
    return sorted(found.values())


def of(connection: Connection, beginning: str) -> list[str]:
    """The names of the tubes that begin so, are ours, and are watched by nobody."""
    return [tube for tube, _, found, _ in _unwatched(connection, _names(connection)) if found == beginning]


def _names(connection: Connection) -> list[str]:
    [server] = connection.exchange([wire.stats()])
    if wire.figure(wire.parse_stats(server.body), "current-tubes") > MOST_TUBES:
        return []
    [reply] = connection.exchange([wire.list_tubes()])
    return wire.parse_list(reply.body)


def _unwatched(connection: Connection, names: Sequence[str]) -> Iterator[tuple[str, Mapping[str, int], str, float]]:
    """Of each tube that nobody watches and that has a pointer of ours at its front: its name, its figures, what its
    name begins with, and when that pointer was put.
    """
    for first in range(0, len(names), _PAGE):
        page = names[first : first + _PAGE]
        replies = connection.exchange([wire.stats_tube(tube) for tube in page])
        of_tube = {tube: _figures(reply) for tube, reply in zip(page, replies, strict=True)}
        silent = [tube for tube in page if not of_tube[tube][_WATCHING] and of_tube[tube]["current-jobs-ready"]]
        if not silent:
            continue
        connection.using = None
        looks = connection.exchange([look for tube in silent for look in (wire.use(tube), wire.peek_ready())])
        connection.using = silent[-1]
        for tube, look in zip(silent, looks[1::2], strict=True):
            try:
                pointer = wire.decode(look.body)
            except ValueError:
                continue
            beginning = tubes.beginning_of(tube, pointer.type)
            if beginning is not None:
                yield tube, of_tube[tube], beginning, pointer.put_at


def _figures(reply: Reply) -> dict[str, int]:
    figures = wire.parse_stats(reply.body)
    return {name: wire.figure(figures, name) for name in (*health.DEPTHS.values(), _WATCHING)}
