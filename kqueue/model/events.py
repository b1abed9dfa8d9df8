"""What happens to jobs, servers and sweeps, as frozen values: the stream that ``queue.subscribe(function)`` gives.

Each event is told once it is durable, in the thread in which it happened. ``at`` is the store's time, in seconds
since 1970; of what was written together it is one time. ``tries`` and ``fence`` are those of the run: ``job.tries``
and ``job.fence``. ``seconds`` of a run are those from its start until its handler settled it, or ended.
"""

from dataclasses import dataclass, field

from kqueue.model.reports import SweepReport


@dataclass(frozen=True, slots=True)
class Event:
    """What all events have."""

    at: float


@dataclass(frozen=True, slots=True)
class Added(Event):
    """``add_job`` or ``add_jobs`` has a job in the store."""

    job_id: str
    type: str
    #: False where a unique key was taken: nothing was added, and ``job_id`` is the job that has the key.
    is_new: bool = True


@dataclass(frozen=True, slots=True)
class Started(Event):
    """A handler is about to be called. One of the next five follows, unless the process dies before."""

    job_id: str
    type: str
    tries: int
    fence: int


@dataclass(frozen=True, slots=True)
class Finished(Event):
    """The job was deleted by its run: it is done.

    On MongoDB, of several in a window some may have been deleted before by another, and nobody can tell which.
    """

    job_id: str
    type: str
    tries: int
    fence: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Retried(Event):
    """The run failed, and the job runs again at ``run_at`` (seconds since 1970)."""

    job_id: str
    type: str
    tries: int
    fence: int
    seconds: float
    reason: str
    run_at: float
    #: What the handler raised, with its traceback; None if it raised nothing.
    exception: BaseException | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Died(Event):
    """The run failed for the last time: the job is dead, and kept.

    Of one that has killed its worker too often the process tells it whose sweep finds it; ``seconds`` are 0 then.
    """

    job_id: str
    type: str
    tries: int
    fence: int
    seconds: float
    reason: str
    #: As of :class:`Retried`.
    exception: BaseException | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class GivenBack(Event):
    """A run was given back at no cost of a try, by its handler or an interrupt; ready at ``run_at``."""

    job_id: str
    type: str
    tries: int
    fence: int
    seconds: float
    reason: str | None
    run_at: float


@dataclass(frozen=True, slots=True)
class LostLease(Event):
    """A run ended after its lease was lost, so that what it settled changed nothing; or, if ``unknown``, nobody can
    tell whether it did.
    """

    job_id: str
    type: str
    tries: int
    fence: int
    seconds: float
    #: What it would have been: ``deleted``, ``retried``, ``ungot`` or ``dead``.
    outcome: str
    #: The first attempt to settle it, whose reply was lost, may have done it.
    unknown: bool = False


@dataclass(frozen=True, slots=True)
class Progressed(Event):
    """A run has told how far it is. Told where it runs, once it is written: the last of what it told meanwhile."""

    job_id: str
    type: str
    tries: int
    fence: int
    done: float
    total: float
    #: Any JSON value.
    note: object = None


@dataclass(frozen=True, slots=True)
class Logged(Event):
    """A run has added a line to its job's log. Told where it runs, once it is written."""

    job_id: str
    type: str
    tries: int
    fence: int
    text: str


@dataclass(frozen=True, slots=True)
class Swept(Event):
    """A sweep of this process has ended, or was cut short since the broker is down: then ``report`` is its part."""

    report: SweepReport


@dataclass(frozen=True, slots=True)
class Reconnected(Event):
    """A store or a broker answers again that this process could not reach."""

    #: Its address, as in messages.
    server: str
    #: From the first call that failed until now.
    seconds: float
