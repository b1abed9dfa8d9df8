"""What ``kqueue worker`` was asked for."""

import dataclasses
import json
import os
from dataclasses import dataclass, field
from typing import Self

from kqueue.model import checks

#: Seconds that running handlers get at a stop.
GRACE_S = 30.0
LOG_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """Checked when it is made: raises ``ValueError`` or ``TypeError`` that names the option as users write it."""

    #: ``MODULE:QUEUE``, see :func:`kqueue.worker.app.load_queue`.
    app: str
    #: Children that run jobs.
    processes: int = 1
    #: Loops in each child.
    threads: int = 1
    #: Seconds that running handlers get at a stop.
    grace: float = GRACE_S
    #: Jobs after which a child is replaced; None for never.
    max_jobs: int | None = None
    #: MiB of resident memory from which on a child is replaced; None for never.
    max_rss: int | None = None
    #: Where the parent writes while all is well; None for nowhere.
    health_file: str | None = None
    #: Of the lines on standard error, where the app does not configure its logging: one of :data:`LOG_LEVELS`.
    log_level: str = "info"
    #: Where children start: an app may go elsewhere while it is imported.
    folder: str = field(default_factory=os.getcwd)

    def __post_init__(self) -> None:
        checks.whole("--processes", self.processes, 1)
        checks.whole("--threads", self.threads, 1)
        checks.number("--grace", self.grace, 0)
        if self.max_jobs is not None:
            checks.whole("--max-jobs", self.max_jobs, 1)
        if self.max_rss is not None:
            checks.whole("--max-rss", self.max_rss, 1)
        if self.log_level not in LOG_LEVELS:
            raise ValueError(f"--log-level: one of {', '.join(LOG_LEVELS)}, got {self.log_level!r}")

    def to_text(self) -> str:
        """For :meth:`of`, in another process."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def of(cls, text: str) -> Self:
        """What :meth:`to_text` wrote."""
        return cls(**json.loads(text))
