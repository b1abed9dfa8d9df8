"""KQueue: a job queue and job runner on beanstalkd that loses no job."""

from kqueue.dead import Filter
from kqueue.doctor import Severity, Symptom
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
from kqueue.history import Run
from kqueue.job import Job, JobInHand, Priority, State
from kqueue.options import TypeOptions
from kqueue.presence import Worker
from kqueue.queue import KQueue
from kqueue.reports import Finding, Repair, RunReport, Stats, SweepReport, TypeStats
from kqueue.results import Result, Snooze
from kqueue.retry import RetryPolicy, exponential, fixed
from kqueue.schedule import Missed
from kqueue.why import Answer, Cause

__version__ = "0.1.0"

__all__ = [
    "AddFailed",
    "Added",
    "AlreadySettled",
    "Answer",
    "BrokerError",
    "BrokerUnavailable",
    "Cause",
    "Died",
    "Event",
    "Filter",
    "Finding",
    "Finished",
    "GivenBack",
    "Job",
    "JobInHand",
    "KQueue",
    "KQueueError",
    "LeaseLost",
    "LostLease",
    "Missed",
    "Priority",
    "Reconnected",
    "Repair",
    "Result",
    "Retried",
    "RetryPolicy",
    "Run",
    "RunReport",
    "Severity",
    "Snooze",
    "Started",
    "State",
    "Stats",
    "StoreError",
    "StoreUnavailable",
    "SweepReport",
    "Swept",
    "Symptom",
    "TypeOptions",
    "TypeStats",
    "Worker",
    "exponential",
    "fixed",
]
