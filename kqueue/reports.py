"""What a run and a sweep did: frozen values."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RunReport:
    """What one ``run_jobs`` did."""

    #: Handlers run. Each ended as one of the next five.
    count: int = 0
    deleted: int = 0
    #: Failed, and to run again.
    retried: int = 0
    #: Given back by their handler.
    ungot: int = 0
    #: Failed for the last time.
    dead: int = 0
    #: Ended after the lease was lost: what they settled changed nothing.
    lost_lease: int = 0
    #: Wall time of the run.
    seconds: float = 0.0
    #: Tube entries deleted because their jobs were gone or leased.
    stale_pointers: int = 0
    #: Tube entries buried because they are not ours or malformed.
    foreign_pointers: int = 0


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What one ``sweep`` did."""

    #: Delayed jobs that fell due.
    promoted: int = 0
    #: Jobs whose lease had run out, ready again.
    recovered: int = 0
    #: Jobs that had killed their worker too often.
    dead: int = 0
    #: Jobs for which a new pointer was put.
    put: int = 0
    #: Tube entries buried because they are not ours or malformed.
    foreign_pointers: int = 0
    seconds: float = 0.0
