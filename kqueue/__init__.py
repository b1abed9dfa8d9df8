"""KQueue: a job queue and job runner on beanstalkd that loses no job."""

from kqueue.errors import (
    AddFailed,
    AlreadySettled,
    BrokerError,
    BrokerUnavailable,
    KQueueError,
    LeaseLost,
    StoreError,
    StoreUnavailable,
)
from kqueue.events import (
    Added,
    Died,
    Event,
    Finished,
    GivenBack,
    LostLease,
    Reconnected,
    Retried,
    Started,
    Swept,
)
from kqueue.job import Job, JobInHand, Priority, State
from kqueue.queue import KQueue
from kqueue.reports import Finding, Repair, RunReport, Stats, SweepReport, TypeStats

__version__ = "0.1.0"

__all__ = [
    "AddFailed",
    "Added",
    "AlreadySettled",
    "BrokerError",
    "BrokerUnavailable",
    "Died",
    "Event",
    "Finding",
    "Finished",
    "GivenBack",
    "Job",
    "JobInHand",
    "KQueue",
    "KQueueError",
    "LeaseLost",
    "LostLease",
    "Priority",
    "Reconnected",
    "Repair",
    "Retried",
    "RunReport",
    "Started",
    "State",
    "Stats",
    "StoreError",
    "StoreUnavailable",
    "SweepReport",
    "Swept",
    "TypeStats",
]
