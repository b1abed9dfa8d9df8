"""KQueue: a job queue and job runner on beanstalkd that loses no job."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
        StoreReadOnly,
        StoreUnavailable,
    )
    from kqueue.model.events import (
        Added,
        Died,
        Event,
        Finished,
        GivenBack,
        Logged,
        LostLease,
        Progressed,
        Reconnected,
        Retried,
        Started,
        Swept,
    )
    from kqueue.model.history import LogLine, Progress, Run
    from kqueue.model.job import EndedJobs, Job, JobInHand, Priority, State
    from kqueue.model.options import New, TypeOptions
    from kqueue.model.reports import End, Finding, Repair, RunReport, ScheduleReport, Stats, SweepReport, TypeStats
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
    "End",
    "EndedJobs",
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
    "LogLine",
    "Logged",
    "LostLease",
    "Missed",
    "New",
    "Priority",
    "Progress",
    "Progressed",
    "Reconnected",
    "Repair",
    "Retried",
    "RetryPolicy",
    "Run",
    "RunReport",
    "ScheduleReport",
    "Severity",
    "Snooze",
    "Started",
    "State",
    "Stats",
    "StoreError",
    "StoreReadOnly",
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

#: Where each public name is: a module, and its names. A test holds it against the imports above.
_HOMES = {
    "admin.dead_jobs": "Filter",
    "admin.doctor": "Severity Symptom",
    "admin.why": "Answer Cause",
    "model.answers": "Snooze Verdict",
    "model.errors": (
        "AddFailed AlreadySettled BrokerError BrokerUnavailable KQueueError LeaseLost StoreError StoreReadOnly"
        " StoreUnavailable"
    ),
    "model.events": (
        "Added Died Event Finished GivenBack Logged LostLease Progressed Reconnected Retried Started Swept"
    ),
    "model.history": "LogLine Progress Run",
    "model.job": "EndedJobs Job JobInHand Priority State",
    "model.options": "New TypeOptions",
    "model.reports": "End Finding Repair RunReport ScheduleReport Stats SweepReport TypeStats",
    "model.retry": "RetryPolicy exponential fixed",
    "model.schedule": "Missed",
    "queue": "KQueue",
    "upkeep.heartbeat": "Worker",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> object:
    """A public name, when it is first asked for: whoever wants an error alone does not pay for the queue."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
