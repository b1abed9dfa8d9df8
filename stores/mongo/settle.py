"""Renewing and settling runs in a MongoDB, and finding out which of them were lost."""

import heapq
import secrets
from collections.abc import Callable, Sequence
from itertools import islice

from pymongo.collection import Collection

from kqueue.contracts.repair import Abandoned
from kqueue.contracts.reporting import Report
from kqueue.contracts.runs import LeaseKey
from kqueue.contracts.settlements import Delete, Settled, Settlement, reports_of
from kqueue.model.history import LogLine
from kqueue.model.job import State
from kqueue.stores.mongo import commands, schema
from kqueue.stores.mongo import settle_writes as endings
from kqueue.stores.mongo.access import matching, read, write
from kqueue.stores.mongo.schema import Document
from kqueue.stores.mongo.server.moment import Moment

#: TTRs in one query at most: as with types, see :mod:`kqueue.stores.mongo.claim`.
TTRS_IN_QUERY = 100


def ttrs(jobs: Collection[Document]) -> list[list[float]]:
    """Those of all that runs, in lots for a query each. Walks from one to the next in an index."""
    found = sorted(jobs.distinct("ttr", {"state": State.RUNNING.value}))
    return [found[first : first + TTRS_IN_QUERY] for first in range(0, len(found), TTRS_IN_QUERY)]


def abandoned(jobs: Collection[Document], now: float, most: int) -> list[Abandoned]:
    """Running rows whose lease has run out, the longest ago first."""
    oldest, index = [("lease_until", 1)], schema.LEASES
    lots = [
        read(jobs, commands.abandoned(lot, now), commands.ABANDONED, most, sort=oldest, index=index)
        for lot in ttrs(jobs)
    ]
    found = heapq.merge(*lots, key=lambda row: row["lease_until"])
    return [commands.to_abandoned(row) for row in islice(found, most)]


def renew(
    jobs: Collection[Document], keys: Sequence[LeaseKey], moment: Moment, alone: bool | None
) -> frozenset[str]:
    """Give each lease another TTR; returns the ids whose leases were lost."""
    if not keys:
        return frozenset()
    matched = write(jobs, commands.renewals(keys, moment, alone)).matched
    if matched < len(keys):  # some leases ran out
        matched += write(jobs, commands.returns(keys, moment, alone)).matched
    if matched == len(keys):
        return frozenset()
    ids = [job.id for job in keys]
    running = {"_id": {"$in": ids}, "state": State.RUNNING.value}
    fences = {row["_id"]: row["fence"] for row in read(jobs, running, {"fence": True}, len(ids))}
    return frozenset(job.id for job in keys if fences.get(job.id) != job.fence)


def report(jobs: Collection[Document], reports: Sequence[Report]) -> frozenset[str]:
    """What runs tell; the ids lost."""
    if not reports or write(jobs, [endings.reporting(one) for one in reports]).matched == len(reports):
        return frozenset()
    found = read(jobs, {"_id": {"$in": [one.id for one in reports]}}, {"reported": True}, len(reports))
    written = {row["_id"]: row.get("reported") for row in found}
    return frozenset(one.id for one in reports if written.get(one.id) != [one.fence, one.number])


def job_log(jobs: Collection[Document], id: str, after: int | None, most: int) -> list[LogLine]:
    """Lines of a log, the oldest first."""
    found = jobs.find_one({"_id": id}, {"log": True}) or {}
    lines = [LogLine(*line[:4]) for line in found.get("log", ())]
    return [line for line in lines if after is None or line.number > after][:most]


def settle(
    jobs: Collection[Document], settlements: Sequence[Settlement], now: float, places: Callable[[int], range]
) -> Settled:
    """Deletes are not told apart where some found no row. ``places(count)``: behind those of all that wait."""
    if not settlements:
        return Settled()
    told = reports_of(settlements)
    if told:
        report(jobs, told)
    token = secrets.token_hex(8)
    deletes = [one for one in settlements if isinstance(one, Delete)]
    others = [one for one in settlements if not isinstance(one, Delete)]
    last = places(1).start if others else 0
    written = write(jobs, endings.settlements(settlements, token, now, last))
    lost: set[str] = set()
    if written.matched < len(others):
        ids = {one.id for one in others}
        lost |= ids - matching(jobs, ids, {"written_by": token})
    missing = len(deletes) - written.deleted
    if missing:
        there = matching(jobs, [one.id for one in deletes], {})
        lost |= there
        missing -= len(there)
    if missing and written.repeated:
        return Settled(frozenset(lost), unsure=frozenset(one.id for one in deletes if one.id not in lost))
    if missing and not written.deleted:
        return Settled(frozenset(lost.union(one.id for one in deletes)))
    return Settled(frozenset(lost), missing)
