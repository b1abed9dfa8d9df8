"""What all jobs of a loop work with."""

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from kqueue.contracts.settlements import (
    Delete,
    Die,
    Finish,
    Outcome,
    Retry,
    Settlement,
    Unget,
)
from kqueue.contracts.store import JobStore
from kqueue.dispatch.doorbell import Doorbell
from kqueue.dispatch.limiter import Limiter
from kqueue.execution.execute import INTERRUPTED, UNRUN, Decision
from kqueue.model.job import Row
from kqueue.model.options import Options
from kqueue.model.reasons import describe, reason_text
from kqueue.model.retry import jittered
from kqueue.system.clock import Clock
from kqueue.telemetry.outages import Outages
from kqueue.telemetry.telemetry import Telemetry


@dataclass(frozen=True, slots=True)
class LoopContext:
    """What all batches of a loop work with."""

    store: JobStore
    doorbell: Doorbell
    limiter: Limiter
    options: Options
    #: Seconds that an ended job may wait to be settled.
    settle_s: float
    clock: Clock
    logger: logging.Logger
    telemetry: Telemetry
    outages: Outages
    #: See :class:`kqueue.loops.registry.Registry`.
    blames_interrupts: bool = False
    #: How runs ended; written by one settle at a time.
    tally: Counter[Outcome] = field(default_factory=Counter)
    #: Where jitter comes from. One for each loop, so that forked children do not all draw the same.
    random: Random = field(default_factory=Random)

    def delete(self, row: Row, now: Callable[[], float] | None = None) -> Delete | Finish:
        """The settlement that finishes the job: its row goes, or is kept for a while if its type says so."""
        keep = self.options.kept.get(row.type)
        if keep is None:
            return Delete(row.id, row.fence)
        at = (now or self.store.now)()
        return Finish(row.id, row.fence, at + keep, at)

    def settlement(self, row: Row, decision: Decision, now: Callable[[], float] | None = None) -> Settlement:
        """What is to be written so that the run of ``row`` ends as decided. ``now()`` is the store's time, by
        default the store's own; but for it nothing is asked.
        """
        if decision.outcome is Outcome.DELETED:
            return self.delete(row, now)
        if decision == UNRUN and self.blames_interrupts:
            decision = INTERRUPTED
        reason = reason_text(decision.reason or "")
        if decision.outcome is Outcome.UNGOT:
            run_at, put_at, at = self._again(row, decision, now)
            if decision.error is not None:
                self.telemetry.log(logging.INFO, row, "given back: %s", reason)
            return Unget(row.id, row.fence, run_at, decision.priority, put_at, True, reason, at)
        if decision.outcome is Outcome.DEAD or self.options.of(row.type).retry.is_used_up(row.failures + 1):
            return Die(row.id, row.fence, reason)
        run_at, put_at, at = self._again(row, decision, now)
        return Retry(row.id, row.fence, run_at, reason, put_at, at)

    def retry_in(self, row: Row) -> float | None:
        """Seconds until the job runs again if this run is ended from outside; None if it is dead then. A delay
        function of the user's, which wants to see an error, is not asked: then it is the queue's ``retry_delay``.
        """
        policy = self.options.of(row.type).retry
        if policy.is_used_up(row.failures + 1):
            return None
        if callable(policy.delay):
            return self.options.default.retry.bare_delay(1)
        return self._delay(row, None)

    def _again(
        self, row: Row, decision: Decision, now: Callable[[], float] | None
    ) -> tuple[float, float | None, float]:
        """(``run_at``, ``put_at``, ``asked_at``) of a row that comes back."""
        seconds = self._delay(row, decision.error) if decision.seconds is None else decision.seconds
        at = (now or self.store.now)()
        return at + seconds, self.doorbell.put_at(at + seconds, at), at

    def _delay(self, row: Row, error: BaseException | None) -> float:
        """By the policy of the row's type. Whatever a delay function of the user's does, the job has its delay."""
        policy = self.options.of(row.type).retry
        try:
            return jittered(policy.bare_delay(row.failures + 1, error), policy.jitter, self.random)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as failure:
            seconds = self.options.default.retry.bare_delay(1)
            text = "its delay function failed, so it waits for the queue's retry_delay of %g s: %s"
            self.telemetry.log(logging.WARNING, row, text, seconds, describe(failure))
            return seconds
