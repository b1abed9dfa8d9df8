"""What is told of each thing that happens: counted, logged, and published to those who listen.

Whoever makes something happen says so here, once it is durable and with no lock held, and for all that was written
together in one call. Where nobody listens and DEBUG is off (INFO, where each job is told there), finished jobs cost
nothing but their count.

Each record about a job has ``job_id``, ``job_type`` and ``job_try`` in its ``extra``, and one of a failed run
``job_reason``. A payload is in no record
unless the queue was made with ``log_payloads``.
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from kqueue.contracts.reporting import Report
from kqueue.contracts.settlements import Delete, Die, Outcome, Retry, Settlement, Unget, has_run, outcome
from kqueue.model.errors import KQueueError
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
from kqueue.model.history import read_progress
from kqueue.model.job import Row
from kqueue.model.reports import SweepReport
from kqueue.model.wording import span
from kqueue.system.clock import Clock
from kqueue.system.forks import PerProcess
from kqueue.telemetry.counters import Counters
from kqueue.telemetry.subscribers import Subscribers

#: Bytes of a payload that a record shows, where payloads are asked for.
SHOWN_BYTES = 1000

Ended: TypeAlias = tuple[Row, Settlement]
#: What handlers raised, by id and fence of the run.
Errors: TypeAlias = dict[tuple[str, int], BaseException]
#: How long runs took, by id and fence, in seconds.
Seconds: TypeAlias = dict[tuple[str, int], float]


class Settlings(NamedTuple):
    """What one settle wrote."""

    #: By the store's clock.
    now: float
    #: All that was asked for, in order.
    ended: Sequence[Ended]
    #: The ids of those that changed nothing, as far as is known.
    lost: frozenset[str]
    #: Those that are written and no deletes.
    others: Sequence[Ended]
    #: Those of ``lost`` that may have been written by an earlier attempt, whose reply was lost.
    unknown: frozenset[str] = frozenset()


class Telemetry:
    """Of one queue. Shared by threads."""

    def __init__(
        self,
        observers: Subscribers,
        clock: Clock,
        now: Callable[[], float],
        logger: logging.Logger,
        log_payloads: bool,
    ) -> None:
        """``now``: the store's time."""
        self._observers = observers
        self._now = now
        self._logger = logger
        self._log_payloads = log_payloads
        #: The names of handlers that were told of: see :meth:`left_unsettled`.
        self._unsettling: set[str] = set()
        #: Whether each start and each end is told at INFO, and not at DEBUG only.
        self.tells_jobs = False
        self._counters = PerProcess(lambda: Counters(clock))
        self._counters.get()

    @property
    def counters(self) -> Counters:
        """The counters of this process."""
        return self._counters.get()

    @property
    def _job_level(self) -> int:
        return logging.INFO if self.tells_jobs else logging.DEBUG

    def is_heard(self) -> bool:
        """Whether single starts and ends are of interest. To be asked once a window."""
        return self._observers.are_any() or self._logger.isEnabledFor(self._job_level)

    def tells_errors(self, error: BaseException) -> bool:
        """Whether what a handler raised is to be kept until its run is written, for a record or an event. Of a text
        that no file could take it would cost the whole record.
        """
        if isinstance(error, SystemExit) or not (
            self._observers.are_any() or self._logger.isEnabledFor(logging.ERROR)
        ):
            return False
        try:
            str(error).encode()
        except Exception:
            return False
        return True

    def added(self, type: str, ids: Sequence[str], now: float, *, is_new: bool = True) -> None:
        """Jobs are in the store since ``now``; or, if not ``is_new``, were there already."""
        if is_new:
            self._counters.get().added(type, len(ids))
        if self._observers.are_any():
            self._observers.publish(Added(now, id, type, is_new) for id in ids)

    def started(self, row: Row, at: float | None = None) -> None:
        """A handler is about to be called, ``at`` by the store's clock. Only where :meth:`is_heard`."""
        if self._logger.isEnabledFor(self._job_level):
            self.log(self._job_level, row, "starts, try %d, fence %d", row.tries, row.fence)
        if self._observers.are_any():
            self._observers.publish(
                (Started(self._now() if at is None else at, row.id, row.type, row.tries, row.fence),)
            )

    def raised(self, row: Row, error: BaseException) -> None:
        """A handler raised. What came of that is told once it is written."""
        if self._logger.isEnabledFor(logging.DEBUG):
            self.log(logging.DEBUG, row, "try %d raised %s", row.tries, type(error).__name__, error=error)

    def left_unsettled(self, row: Row, handler: str) -> None:
        """The handler of that name has returned and settled nothing. Told of once by a process: most likely it is a
        mistake, which would show only in a growing number of tries.
        """
        if handler in self._unsettling:
            return
        self._unsettling.add(handler)
        self.log(
            logging.WARNING,
            row,
            "its handler %s returned without having settled it, so it runs again: end it by job.delete(), or say"
            " delete_on_success=True",
            handler,
        )

    def goes_on(self, row: Row, seconds: float, ended: Outcome | None) -> None:
        """Its handler runs although its lease has been over for so long, or would be, had it not ``ended`` so."""
        text = (
            "its handler still runs in process %d, %s beyond its lease, and keeps its place there: it hangs, or its"
        )
        text += " ttr of %g s is too short"
        if ended is None:
            text += "; others may run the job meanwhile"
        else:
            text = f"was {ended}, and {text}"
        self.log(logging.WARNING, row, text, os.getpid(), span(seconds), row.ttr)

    def warn(self, row: Row, error: KQueueError) -> None:
        """Something befell a job that is in no settle."""
        self.log(logging.WARNING, row, "%s", error)

    def ran(self, spent: Mapping[str, Sequence[float]]) -> None:
        """The handlers of a window have ended: by type, the seconds of each."""
        self._counters.get().ran(spent)

    def settled(self, written: Settlings, seconds: Seconds, errors: Errors | None = None) -> None:
        """Runs have ended. ``seconds`` of each whose start was told, and ``errors`` that handlers raised are taken
        out of there.
        """
        raised = _taken(written, errors) if errors else {}
        self._count(written)
        if written.lost:
            self._log_lost(written)
        if written.others and self._logger.isEnabledFor(logging.ERROR):
            self._log_failed(written, raised)
        if written.others and self._observers.are_any():
            self._observers.publish(_told(_with_reports(written.others), written.now))
        if not seconds:
            return
        # Other threads take theirs; and the same job may have run again before this is told.
        popped = {row.id: seconds.pop((row.id, row.fence), None) for row, _ in written.ended}
        told = {id: spent for id, spent in popped.items() if spent is not None}
        if self._logger.isEnabledFor(self._job_level):
            self._log_ended(written, told)
        if self._observers.are_any():
            self._observers.publish(_events(written, told, raised))

    def reported(self, written: Sequence[tuple[Row, Report]], now: float) -> None:
        """Runs have told how far they are, and lines for their logs."""
        if self._observers.are_any():
            self._observers.publish(_told(written, now))

    def died(self, rows: Sequence[Row], now: float) -> None:
        """The sweep has found them dead, as they are in ``rows``: they have killed their worker once too often."""
        self._counters.get().settled([], [(row.type, Outcome.DEAD) for row in rows])
        for row in rows:
            reason = _line(row.reason or "")
            self.log(logging.ERROR, row, "try %d failed, it is dead: %s", row.tries, reason, reason=reason)
        if self._observers.are_any():
            self._observers.publish(
                Died(now, row.id, row.type, row.tries, row.fence, 0.0, row.reason or "") for row in rows
            )

    def log(
        self,
        level: int,
        row: Row,
        text: str,
        *values: object,
        error: BaseException | None = None,
        reason: str | None = None,
    ) -> None:
        """A record about a job: ``text`` with its ``values``, behind the job's id and type. ``reason``: why its run
        failed.
        """
        extra: dict[str, Any] = {"job_id": row.id, "job_type": row.type, "job_try": row.tries}
        if reason is not None:
            extra["job_reason"] = reason
        if self._log_payloads:
            extra["job_payload"] = shown = _shown(row)
            text, values = f"{text}; payload %s", (*values, shown)
        self._logger.log(level, f"job %s (%s): {text}", row.id, row.type, *values, extra=extra, exc_info=error)

    def swept(self, report: SweepReport) -> None:
        """A sweep has ended."""
        if self._observers.are_any():
            self._observers.publish((Swept(self._now(), report),))

    def reconnected(self, server: str, seconds: float) -> None:
        """A server is there again."""
        self._logger.info("%s is back after %.1f s", server, seconds)
        if self._observers.are_any():
            self._observers.publish((Reconnected(self._now(), server, seconds),))

    def _count(self, written: Settlings) -> None:
        ended, others, lost = written.ended, written.others, written.lost
        if not others and not lost:
            self._counters.get().settled([row.type for row, _ in ended], ())
            return
        finished = [row.type for row, one in ended if type(one) is Delete and one.id not in lost]
        rest = [(row.type, outcome(one)) for row, one in others if has_run(one)]
        for row, one in ended if lost else ():
            if one.id in lost and has_run(one):
                rest.append((row.type, Outcome.UNKNOWN if one.id in written.unknown else Outcome.LOST_LEASE))
        self._counters.get().settled(finished, rest)

    def _log_lost(self, written: Settlings) -> None:
        for row, settlement in written.ended:
            if row.id in written.lost and has_run(settlement):
                how = outcome(settlement)
                text = "the lease with fence %d was lost, so that it was %s changed nothing"
                if row.id in written.unknown:
                    text = "the lease with fence %d is over, and whether it was %s is unknown: a reply was lost"
                self.log(logging.WARNING, row, text, row.fence, how)

    def _log_failed(self, written: Settlings, raised: Mapping[str, BaseException]) -> None:
        """A record each, however many, with what was raised."""
        warns = self._logger.isEnabledFor(logging.WARNING)
        for row, settlement in written.others:
            error = raised.get(row.id)
            if isinstance(settlement, Die):
                text, reason = "try %d failed, it is dead: %s", _line(settlement.reason)
                self.log(logging.ERROR, row, text, row.tries, reason, error=error, reason=reason)
            elif warns and isinstance(settlement, Retry):
                wait = max(0.0, settlement.run_at - written.now)
                text, reason = "try %d failed, the next is in %.0f s: %s", _line(settlement.reason)
                self.log(logging.WARNING, row, text, row.tries, wait, reason, error=error, reason=reason)

    def _log_ended(self, written: Settlings, seconds: Mapping[str, float]) -> None:
        for row, settlement in written.ended:
            if row.id in seconds and row.id not in written.lost:
                how = outcome(settlement)
                self.log(self._job_level, row, "was %s after %.3f s, try %d", how, seconds[row.id], row.tries)


def _with_reports(others: Sequence[Ended]) -> list[tuple[Row, Report]]:
    return [(row, one.report) for row, one in others if not isinstance(one, Delete) and one.report is not None]


def _told(written: Sequence[tuple[Row, Report]], now: float) -> Iterator[Event]:
    for row, report in written:
        run = (now, row.id, row.type, row.tries, row.fence)
        yield from (Logged(*run, text) for _, text in report.lines)
        progress = read_progress(report.progress)
        if progress is not None:
            yield Progressed(*run, progress.done, progress.total, progress.note)


def _events(
    written: Settlings, seconds: Mapping[str, float], raised: Mapping[str, BaseException]
) -> Iterator[Event]:
    for row, settlement in written.ended:
        spent = seconds.get(row.id)
        if spent is not None:
            yield _event(row, settlement, written, spent, raised.get(row.id))


def _event(
    row: Row, settlement: Settlement, written: Settlings, seconds: float, error: BaseException | None
) -> Event:
    run = (written.now, row.id, row.type, row.tries, row.fence, seconds)
    if row.id in written.lost:
        return LostLease(*run, outcome(settlement).value, row.id in written.unknown)
    match settlement:
        case Retry():
            return Retried(*run, settlement.reason, settlement.run_at, error)
        case Die():
            return Died(*run, settlement.reason, error)
        case Unget():
            return GivenBack(*run, settlement.reason, settlement.run_at)
    return Finished(*run)


def _taken(written: Settlings, errors: Errors) -> dict[str, BaseException]:
    """Those of these runs, by the ids of their jobs."""
    popped = {row.id: errors.pop((row.id, row.fence), None) for row, _ in written.ended}
    return {id: error for id, error in popped.items() if error is not None}


def _line(reason: str) -> str:
    """On one line, so that a record is one line too."""
    return reason if reason.isprintable() else repr(reason)[1:-1]


def _shown(row: Row) -> str:
    """The beginning of the payload, as it is stored."""
    if row.encoding == "json":
        return row.payload[:SHOWN_BYTES].decode("utf-8", "replace")
    return repr(row.payload[:SHOWN_BYTES])
