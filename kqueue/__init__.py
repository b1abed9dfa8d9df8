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
from kqueue.options import TypeOptions
from kqueue.queue import KQueue
from kqueue.reports import Finding, Repair, RunReport, SweepReport
from kqueue.results import Result, Snooze
from kqueue.retry import RetryPolicy, exponential, fixed

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
    "Result",
    "RetryPolicy",
    "RunReport",
    "Snooze",
    "State",
    "StoreError",
    "StoreUnavailable",
    "SweepReport",
    "TypeOptions",
    "exponential",
    "fixed",
]
