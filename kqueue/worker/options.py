"""What ``kqueue worker`` was asked for."""

import dataclasses
import json
import os
from dataclasses import dataclass, field
from typing import Self


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """The values of :data:`kqueue.config.keys.WORKER`, as one worker has them. What each means, what it may be and
    its default stand there; a configuration has checked them.
    """

    app: str
    processes: int
    threads: int
    types: list[str] | None
    except_types: list[str] | None
    #: Seconds.
    grace: float
    max_jobs: int | None
    #: MiB.
    max_rss: int | None
    health_file: str | None
    log_level: str
    log_jobs: bool
    #: Where children start: an app may go elsewhere while it is imported. No option of the command.
    folder: str = field(default_factory=os.getcwd)

    def to_text(self) -> str:
        """For :meth:`of`, in another process."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def of(cls, text: str) -> Self:
        """What :meth:`to_text` wrote."""
        return cls(**json.loads(text))
