"""Turns: of those that claim jobs of a limited type, or admit some, one at a time, and no lock that the dead hold.

Theory of operation. Each limited type has a document among the jobs that holds the number of its turn: even between
two turns, odd within one. Who wants to change what the limits count reads the number, then all that is to be
counted, and decides. Then it sends one command. Its first write makes the number odd *if it still is as it was
read*; then come the changes; the last write makes it even again. The server does the writes of a command in order
and stops at the first that fails [1]_, and the first fails if another was faster: it would insert an ``_id`` that
is there. So nothing that was counted has changed when the changes are made; and who reads an even number, and the
rows after it, sees all that was done in the turns before.

A client that dies holds nothing: its command was not sent, or is done to its end by the server. Only a server that
dies within a command leaves an odd number. Who has seen the same one for :data:`UNFINISHED_S` takes the turn over.

What else is changed meanwhile (a settle, a lease that runs out) only frees places. A transaction would do the same,
but one whose client has died keeps all others out for a minute or more
(:mod:`kqueue.stores.mongo.server.transaction`).

The starts that limits count stand in the same document, so they are read with the turn and written with it.

.. [1] https://www.mongodb.com/docs/manual/reference/command/update/ (``ordered``)
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from pymongo import UpdateOne
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError
from pymongo.read_concern import ReadConcern

from kqueue.contracts.admission import Limit
from kqueue.model.errors import StoreUnavailable
from kqueue.stores.gates import counted_starts
from kqueue.stores.mongo.access import read, write
from kqueue.stores.mongo.commands import Write
from kqueue.stores.mongo.schema import Document
from kqueue.stores.mongo.server.patience import Patience
from kqueue.system.clock import awake

T = TypeVar("T")

#: Seconds for which an odd number is somebody's turn.
UNFINISHED_S = 2.0
#: Seconds that a call waits for its turn. Of many that want one each is somebody's, so the wait is long only where
#: they are very many.
_PATIENCE_S = 10.0
#: Starts that are remembered apart. Of more, those in the same 250th of the period are counted as one, at the later
#: time.
MOST_STARTS = 500

_DUPLICATE = 11000

#: (time, rows claimed)
Starts = list[list[float]]


class Change(NamedTuple):
    """What is to be written in a turn."""

    writes: Sequence[Write]
    #: Tells from what it leaves whether it is made: asked where a reply may have been lost.
    is_made: Callable[[], bool]


class NotOurTurn(Exception):
    """Another has it, or was faster."""


class Turns:
    """Those of some types, as one caller sees them."""

    def __init__(self, jobs: Collection[Document], types: Sequence[str]) -> None:
        #: For reads: what the primary has, and so whatever the last turn did. The write that follows waits for the
        #: majority, and so for all that was read.
        self.jobs = jobs.with_options(read_concern=ReadConcern("local"))
        self._ids = {f"limit {type}": type for type in types}
        self._documents: dict[str, Document] = {}
        #: Odd numbers by type, and since when each has been seen, by the monotonic clock.
        self._unfinished: dict[str, tuple[int, float]] = {}

    def look(self) -> None:
        """Read all anew. Before all that is to be counted."""
        found = read(self.jobs, {"_id": {"$in": list(self._ids)}}, None, len(self._ids))
        self._documents = {self._ids[document["_id"]]: document for document in found}
        odd = {type: document["turn"] for type, document in self._documents.items() if document["turn"] % 2}
        now = awake()
        before = self._unfinished
        self._unfinished = {
            type: before[type] if before.get(type, (0, 0))[0] == number else (number, now)
            for type, number in odd.items()
        }

    def check(self, type: str) -> None:
        """Raises :class:`NotOurTurn` while another has that of the type."""
        if type in self._unfinished and awake() - self._unfinished[type][1] < UNFINISHED_S:
            raise NotOurTurn

    def starts(self, limit: Limit, now: float) -> Starts:
        """Those in the limit's period, the oldest first."""
        since, until = counted_starts(limit, now)
        return [start for start in self._starts(limit.type) if since < start[0] <= until]

    def take(self, types: Sequence[str], change: Change, started: Mapping[Limit, int], now: float) -> int:
        """Make a change in the turns of ``types``; returns how many documents its writes matched, or 0 if that is
        not known.

        ``started``: so many rows are claimed under these limits. Raises :class:`NotOurTurn` if another was
        faster; then nothing was changed.
        """
        begins, ends = [], []
        for type in types:
            id, before = f"limit {type}", self._documents.get(type, {}).get("turn", 0)
            number = before + 1 + before % 2
            begins.append(UpdateOne({"_id": id, "turn": before}, {"$set": {"turn": number}}, upsert=True))
            ends.append(UpdateOne({"_id": id, "turn": number}, {"$set": {"turn": number + 1}}))
        starts = [self._start(limit, now, rows) for limit, rows in started.items()]
        try:
            written = write(self.jobs, [*begins, *starts, *change.writes, *ends], ordered=True)
        except BulkWriteError as error:
            failed = ((error.details or {}).get("writeErrors") or [{}])[0]
            if failed.get("code") != _DUPLICATE:
                raise
            if change.is_made():
                return 0  # its reply was lost, so it was sent twice
            # It may have begun the turns of other types before.
            write(self.jobs, ends[: failed["index"]])
            raise NotOurTurn from error
        return written.matched + written.inserted - len(begins) - len(starts) - len(ends)

    def _start(self, limit: Limit, now: float, rows: int) -> UpdateOne:
        starts = with_start(self._starts(limit.type), limit, now, rows)
        return UpdateOne({"_id": f"limit {limit.type}"}, {"$set": {"starts": starts, "dated_at": now}})

    def _starts(self, type: str) -> Starts:
        starts: Starts = self._documents.get(type, {}).get("starts", [])
        return starts


def with_start(starts: Starts, limit: Limit, now: float, rows: int) -> Starts:
    """``starts`` and one more, sorted; without those that the limit does not count any more."""
    kept = [start for start in starts if start[0] > now - limit.period]
    grown = sorted([*kept, [now, rows]])
    if len(grown) <= MOST_STARTS:
        return grown
    step = 2 * limit.period / MOST_STARTS
    merged: Starts = []
    for at, number in grown:
        if merged and merged[-1][0] // step == at // step:
            merged[-1] = [at, merged[-1][1] + number]
        else:
            merged.append([at, number])
    return merged


def in_turn(
    jobs: Collection[Document], types: Sequence[str], address: str, attempt: Callable[[Turns, float], T]
) -> T:
    """What ``attempt`` gives, called again after :class:`NotOurTurn`: with the turns, looked at, and the seconds
    that passed since the call if it had to wait. Raises ``StoreUnavailable`` if there is no end of it.
    """
    patience = Patience(_PATIENCE_S)
    turns = Turns(jobs, types)
    while True:
        turns.look()
        try:
            return attempt(turns, patience.waited)
        except NotOurTurn:
            if not patience.wait():
                raise StoreUnavailable(
                    f"{address}: others claim jobs of limited types all the time ({', '.join(types)}); try again"
                ) from None
