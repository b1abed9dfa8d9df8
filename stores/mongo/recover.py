"""Leases that ran out in a MongoDB, and what a change of the primary does to all leases.

Theory of operation. A lease is granted by the primary's clock and judged by the primary's clock. When another
member takes over, with a clock that is ahead, the leases of jobs that run would all look over; with one that is
behind, they would look long. Nobody can tell by how much the clocks differ: the old primary is gone. So whoever
looks for abandoned rows first asks the server which election made it the primary, and at the first look after
another one gives every running row a whole TTR anew, by the new clock. A job that runs is so never started again
because of another clock; one whose worker is dead waits for one TTR more.
"""

from bson import ObjectId
from pymongo import UpdateMany
from pymongo.collection import Collection
from pymongo.database import Database

from kqueue.contracts.repair import Recovered
from kqueue.model.job import State
from kqueue.stores.mongo import schema
from kqueue.stores.mongo import settle as runs
from kqueue.stores.mongo import settle_writes as endings
from kqueue.stores.mongo.access import write
from kqueue.stores.mongo.schema import Document
from kqueue.stores.mongo.server.clock import look
from kqueue.stores.mongo.server.errors import suppress_read_only
from kqueue.stores.mongo.server.moment import Moment
from kqueue.system.clock import SystemClock

#: In ``kqueue_meta``: the election of the primary whose clock the leases follow.
_PRIMARY = "primary"


def recover(jobs: Collection[Document], moment: Moment, max_crashes: int, most: int, last: int) -> Recovered:
    """One read, a write for the ready, and one for each that is dead. ``moment`` is the server's clock, asked just
    now; ``last`` a place behind those of all that wait.
    """
    while found := runs.abandoned(jobs, moment.at, most):
        recovery = endings.recoveries(found, moment, max_crashes, last)
        ready = write(jobs, recovery.ready).matched
        # Each by itself: so it is known which are dead by this sweep, and each is told of once.
        died = [row for row, death in recovery.dead if write(jobs, [death]).matched]
        if ready or died:
            return Recovered(ready, tuple(died))
        if moment.by_server:
            break  # another has taken them; or another clock says that they are not over
    return Recovered(0)


def begin(database: Database[Document]) -> None:
    """Remember whose clock the leases of a new store follow."""
    meta = database[schema.META]
    if meta.find_one({"_id": _PRIMARY}) is not None:
        return
    election = look(database, SystemClock()).election
    if election is not None:
        first = {"$setOnInsert": {"election": election}}
        with suppress_read_only():
            meta.update_one({"_id": _PRIMARY}, first, upsert=True)


def follow(database: Database[Document], election: ObjectId) -> None:
    """Give all leases anew, if they were granted before this election of a primary."""
    meta = database[schema.META]
    stored = meta.find_one({"_id": _PRIMARY})
    if stored is not None and stored["election"] == election:
        return
    anew = [{"$set": {"lease_until": Moment(0.0, by_server=True).until("$ttr")}}]
    write(database[schema.JOBS], [UpdateMany({"state": State.RUNNING.value}, anew)])
    # Last: if it is not written, all is done once more.
    meta.update_one({"_id": _PRIMARY}, {"$set": {"election": election}}, upsert=True)
