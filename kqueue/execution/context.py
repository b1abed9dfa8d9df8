"""What all jobs of a loop work with."""

import json
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from kqueue.contracts.renewer import Renewal
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
from kqueue.model.payload import MAX_RESULT, encode_result
from kqueue.model.reasons import MAX_REASON, describe, reason_text, traceback_of
from kqueue.model.retry import RetryPolicy, jittered, policy_of
from kqueue.renewal import due
from kqueue.system.clock import Clock
from kqueue.telemetry.outages import Outages
from kqueue.telemetry.telemetry import Settlings, Telemetry


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
    #: Bytes of a result at most, once encoded.
    max_result: int = MAX_RESULT
    #: How runs ended; written by one settle at a time.
    tally: Counter[Outcome] = field(default_factory=Counter)
    #: Where jitter comes from. One for each loop, so that forked children do not all draw the same.
    random: Random = field(default_factory=Random)
    #: How runs were ended by their renewers since they took too long, by id and fence, as far as it is known. Each
    #: is told here once, whoever hears of it first.
    overruns: dict[tuple[str, int], Retry | Die] = field(default_factory=dict)

    def overran(self, row: Row, hold: Renewal) -> None:
        """Its renewer says that its run was ended. From any thread. Raises ``StoreError``."""
        now = self.store.now()
        self.tell_overrun(row, due.settlement(hold, now), hold.max_runtime or 0.0, now)

    def tell_overrun(self, row: Row, ended: Retry | Die, seconds: float, now: float) -> None:
        """A run that took ``seconds`` was ended so by its renewer: told as what any other settle wrote."""
        key = (row.id, row.fence)
        if self.overruns.setdefault(key, ended) is ended:
            spent = {key: seconds} if self.telemetry.is_heard() else {}
            self.telemetry.settled(Settlings(now, [(row, ended)], frozenset(), [(row, ended)]), spent)

    def policy(self, row: Row) -> RetryPolicy:
        """What its own add said of its retries, and else its type."""
        of_type = self.options.of(row.type).retry
        return of_type if row.own_options is None else policy_of(json.loads(row.own_options), of_type)

    def delete(self, row: Row, now: Callable[[], float] | None = None, result: object = None) -> Delete | Finish:
        """The settlement that finishes the job: its row goes, or is kept for a while, with its result, if its add
        or its type says so. Raises ``ValueError`` or ``TypeError`` for a result that cannot be kept.
        """
        if result is None and row.own_options is None and row.type not in self.options.kept:
            return tuple.__new__(Delete, (row.id, row.fence))  # the class would call Python: one for each job
        encoded = None if result is None else encode_result(result, self.max_result)
        return self._finish(row, now, encoded)

    def _returned(self, row: Row, now: Callable[[], float] | None, result: object) -> Delete | Finish:
        """The same, of a job whose handler has returned: it is done, whatever that has returned."""
        if result is None or not self.options.keeps(row.type, row.own_options):
            return self.delete(row, now)
        try:
            encoded = encode_result(result, self.max_result)
        except Exception as error:  # of a class of the user's too
            missing = reason_text(f"its result is missing: {describe(error)}")
            self.telemetry.log(logging.WARNING, row, "done, but %s", missing)
            return self._finish(row, now, missing=missing)
        return self._finish(row, now, encoded)

    def _finish(
        self,
        row: Row,
        now: Callable[[], float] | None,
        result: bytes | None = None,
        missing: str | None = None,
    ) -> Delete | Finish:
        keep = self.options.keeps(row.type, row.own_options)
        if not keep:
            return Delete(row.id, row.fence)
        at = (now or self.store.now)()
        return Finish(row.id, row.fence, at + keep, at, result, missing)

    def settlement(self, row: Row, decision: Decision, now: Callable[[], float] | None = None) -> Settlement:
        """What is to be written so that the run of ``row`` ends as decided. ``now()`` is the store's time, by
        default the store's own; but for it nothing is asked.
        """
        if decision.outcome is Outcome.DELETED:
            return self._returned(row, now, decision.result)
        if decision == UNRUN and self.blames_interrupts:
            decision = INTERRUPTED
        reason = reason_text(decision.reason or "")
        has_failed = decision.outcome is not Outcome.UNGOT or decision.error is not None
        max_age = self.options.of(row.type).max_age if has_failed else None
        if max_age is not None and _is_older(row, max_age, (now or self.store.now)()):
            given_up = f"; given up, since it is older than max_age ({max_age:g} s)"
            reason = reason_text(reason, MAX_REASON - len(given_up)) + given_up
            return Die(row.id, row.fence, reason, _traceback(decision))
        if decision.outcome is Outcome.UNGOT:
            run_at, put_at, at = self._again(row, decision, now)
            if decision.error is not None:
                self.telemetry.log(logging.INFO, row, "given back: %s", reason)
            return Unget(row.id, row.fence, run_at, decision.priority, put_at, True, reason, at)
        if decision.outcome is Outcome.DEAD or self.policy(row).is_used_up(row.failures + 1):
            return Die(row.id, row.fence, reason, _traceback(decision))
        run_at, put_at, at = self._again(row, decision, now)
        return Retry(row.id, row.fence, run_at, reason, put_at, at, _traceback(decision))

    def retry_in(self, row: Row) -> float | None:
        """Seconds until the job runs again if this run is ended from outside; None if it is dead then. A delay
        function of the user's, which wants to see an error, is not asked: then it is the queue's ``retry_delay``.
        """
        policy, max_age = self.policy(row), self.options.of(row.type).max_age
        claimed_at = (row.lease_until or 0.0) - row.ttr
        if policy.is_used_up(row.failures + 1) or (max_age is not None and _is_older(row, max_age, claimed_at)):
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
        """By the policy of the row. Whatever a delay function of the user's does, the job has its delay."""
        policy = self.policy(row)
        try:
            return jittered(policy.bare_delay(row.failures + 1, error), policy.jitter, self.random)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as failure:
            seconds = self.options.default.retry.bare_delay(1)
            text = "its delay function failed, so it waits for the queue's retry_delay of %g s: %s"
            self.telemetry.log(logging.WARNING, row, text, seconds, describe(failure))
            return seconds


def _traceback(decision: Decision) -> str | None:
    return None if decision.error is None else traceback_of(decision.error)


def _is_older(row: Row, seconds: float, now: float) -> bool:
    """Than ``seconds``, since it was added, or was to run at first if that came later."""
    first = row.created_at + row.delay if row.scheduled_for is None else row.scheduled_for
    return now - max(row.created_at, first) >= seconds
