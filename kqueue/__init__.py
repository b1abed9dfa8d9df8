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
from kqueue.job import Job, JobInHand, Priority, State
from kqueue.queue import KQueue
from kqueue.reports import Finding, Repair, RunReport, SweepReport

__version__ = "0.1.0"

__all__ = [
    "AddFailed",
    "AlreadySettled",
    "BrokerError",
    "BrokerUnavailable",
    "Finding",
    "Job",
    "JobInHand",
    "KQueue",
    "KQueueError",
    "LeaseLost",
    "Priority",
    "Repair",
    "RunReport",
    "State",
    "StoreError",
    "StoreUnavailable",
    "SweepReport",
]
