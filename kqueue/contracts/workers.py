"""Which processes run jobs, and which jobs each of them has."""

from typing import NamedTuple, Protocol

from kqueue.model.job import Row

#: Seconds between two heartbeats of a worker.
TELL_S = 5.0


#: Seconds that a run is past its lease before it counts as one that hangs.
HANGS_S = 3.0
#: Seconds after which one that was not heard of does not count as alive.
ALIVE_S = 3 * TELL_S


class WorkerRecord(NamedTuple):
    """A process that runs jobs, as it told the store."""

    #: Made as job ids are, so it names its host and process.
    id: str
    host: str
    pid: int
    #: Those that have a handler there, sorted.
    types: tuple[str, ...]
    started_at: float
    #: When it was last heard of. All times by the store's clock.
    seen_at: float
    #: What else it tells, as a JSON object.
    note: str = "{}"


class Workers(Protocol):
    """Which processes run jobs, and which jobs each of them has. See :mod:`kqueue.contracts.store` for what holds
    for every method.
    """

    def see_worker(self, worker: WorkerRecord) -> None:
        """Remember ``worker``, in the place of what was remembered of its id."""

    def forget_worker(self, id: str) -> None:
        """Forget the worker of this id: it has left. Does nothing if it is not known."""

    def workers(self) -> list[WorkerRecord]:
        """All that are remembered, by id (the order started)."""

    def claimed_by_process(self, tail: str) -> list[Row]:
        """The rows that run under claims of one process: those whose ``lease_owner`` ends so, as all do that it has
        made (:meth:`kqueue.system.mint.IdMint.tail`). Their leases may be over. It may read every row that runs.
        """


def is_alive(worker: WorkerRecord, now: float) -> bool:
    """Whether it was heard of lately, and not by a clock that is ahead. ``now`` by the store's clock."""
    return abs(now - worker.seen_at) < ALIVE_S
