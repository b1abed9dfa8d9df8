"""KQueue: a job queue and job runner on beanstalkd that loses no job."""

from kqueue.admin.dead_jobs import Filter
from kqueue.admin.doctor import Severity, Symptom
from kqueue.admin.why import Answer, Cause
from kqueue.model.answers import Snooze, Verdict
from kqueue.model.errors import (
    AddFailed,
    AlreadySettled,
    BrokerError,
    BrokerUnavailable,
    KQueueError,
    LeaseLost,
    StoreError,
    StoreUnavailable,
)
from kqueue.model.events import (
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
from kqueue.model.history import Run
from kqueue.model.job import Job, JobInHand, Priority, State
from kqueue.model.options import TypeOptions
from kqueue.model.reports import Finding, Repair, RunReport, Stats, SweepReport, TypeStats
from kqueue.model.retry import RetryPolicy, exponential, fixed
from kqueue.model.schedule import Missed
from kqueue.queue import KQueue
from kqueue.upkeep.heartbeat import Worker

__version__ = "0.2.0"

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
    "Verdict",
    "Worker",
    "exponential",
    "fixed",
]
