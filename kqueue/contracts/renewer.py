"""The Renewer contract: who renews the leases of handlers that run for long.

A handler may hold the processor, or the interpreter's lock inside C code, so no thread beside it can be relied on.
So what is to be renewed is said *before* it starts, and renewing it is another process's work: see
:mod:`kqueue.renewal`. The jobs of a window are said together. Which of them runs is then a word in memory that both
sides see: it costs next to nothing, and what has not started never waits for the one that runs.
"""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import NamedTuple, Protocol


class Renewal(NamedTuple):
    """A job whose lease is to be renewed while its handler runs. Times in seconds."""

    id: str
    fence: int
    #: A third of it passes between two renewals.
    ttr: float
    #: How long the handler may run; None: without end.
    max_runtime: float | None = None
    #: When the job is to run again after a run that took longer; None: it is dead then.
    retry_in: float | None = None
    #: Whether the process is to be killed in which it runs for longer, by a renewer that can have this done. Then
    #: it is who kills that ends the run.
    kill: bool = False


class RenewalEnd(StrEnum):
    """What a renewer tells of a job."""

    #: Another has it, it is settled or deleted, or the store could not be reached until its lease was over.
    LOST = "lost"
    #: It ran for longer than ``max_runtime``; it is retried, or dead.
    OVER = "over"


class RenewalHold(Protocol):
    """The jobs of one window while a renewer holds them."""

    def start(self, id: str, now: float) -> None:
        """The handler of this job starts, and the one before has ended. ``now`` in seconds of the host's monotonic
        clock.

        What has ended is renewed too, until it is let go, since it may wait to be settled; only ``max_runtime``
        does not matter for it any more.
        """

    def rest(self) -> None:
        """No handler runs."""

    def let_go(self) -> None:
        """All is settled or given back: renew nothing. Idempotent."""

    def renews(self, id: str) -> bool:
        """Whether this job's lease follows its handler, and nothing else was told of it."""

    def end_of(self, id: str) -> RenewalEnd | None:
        """Why the renewer has stopped with this job; None while it has not."""

    def ended_at(self, id: str) -> float:
        """When it was heard that it has, in seconds of the host's monotonic clock; infinity while it has not."""


class Renewer(Protocol):
    """Renews leases. Shared by the threads of one process."""

    def prepare(self, ttr: float) -> None:
        """Have the renewer there before leases of ``ttr`` seconds at least begin. Waits only if it is new, and a
        third of such a lease might pass until it is there. Raises ``KQueueError`` if no renewer can be had; then no
        handler should start.
        """

    def hold(
        self,
        window: Mapping[str, Renewal | None],
        leased_at: float,
        keep: Callable[[RenewalHold], object] | None = None,
        over: Callable[[Renewal], object] | None = None,
    ) -> RenewalHold:
        """Renew each job of ``window`` once it has started: see :meth:`RenewalHold.start`. They are given by their
        ids, in the order in which they are to start; None stands for one whose lease does not follow its handler.
        One at least does.

        ``leased_at``: when their leases began, in seconds of the host's monotonic clock. ``keep`` is called with
        the hold before it holds anything: a signal handler may raise on the way out of here, and then the caller
        has what it is to let go. ``over`` is called with each whose end is written since it ran for too long, in
        another thread, unless it was let go by then. Never waits. Raises as :meth:`prepare` does.
        """
