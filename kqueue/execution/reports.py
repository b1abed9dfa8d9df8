"""What runs tell of themselves: their progress and their logs, kept until it is written.

A handler never waits for it: it is noted under the loop's lock, and the watchdog's thread writes it when the first
that waits is a second old, all runs of the loop together. What has not been written by the end of a run goes with
its settlement; of a job that is deleted nothing is left that it could be read of.
"""

import json
import math
from collections.abc import Sequence

from kqueue.contracts.reporting import MOST_LINES, MOST_LOG_BYTES, Report
from kqueue.contracts.settlements import Delete, Settlement
from kqueue.execution.context import LoopContext
from kqueue.model import checks, payload
from kqueue.model.errors import StoreError
from kqueue.model.history import Progress
from kqueue.model.job import Row
from kqueue.model.reasons import storable
from kqueue.model.retry import backoff
from kqueue.model.wording import shown
from kqueue.system.locks import OwnLock

#: Seconds from what is told first until it is written.
EVERY_S = 1.0
#: Bytes of a progress's note at most, once encoded, and of a line of a log.
MAX_NOTE = 16 * 1024
MAX_LINE = 16 * 1024


class _Told:
    """By one run, and not written yet."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self.progress: str | None = None
        self.lines: list[tuple[float, str]] = []
        self.bytes = 0

    def add_line(self, line: tuple[float, str]) -> None:
        """A store would not keep more either."""
        self.lines.append(line)
        self.bytes += len(line[1].encode())
        while len(self.lines) > MOST_LINES or self.bytes > MOST_LOG_BYTES:
            self.bytes -= len(self.lines.pop(0)[1].encode())


class RunReports:
    """Of the runs of one loop. All but :meth:`write` is called under its lock."""

    def __init__(self, context: LoopContext, lock: OwnLock) -> None:
        """``lock``: the loop's, which is never held over I/O."""
        self._context = context
        self._lock = lock
        #: By id and fence.
        self._told: dict[tuple[str, int], _Told] = {}
        self._numbers: dict[tuple[str, int], int] = {}
        self._failures = 0
        #: When what waits is to be written, in monotonic seconds; infinity for never.
        self.due_at = math.inf
        #: Whether any run has ever told anything: nearly none does.
        self.is_used = False

    def progressed(self, row: Row, progress: str) -> None:
        """``progress`` by :func:`checked_progress`."""
        self._of(row).progress = progress

    def logged(self, row: Row, at: float, text: str) -> None:
        """``text`` by :func:`checked_line`."""
        self._of(row).add_line((at, text))

    def with_end(self, row: Row, settlement: Settlement) -> Settlement:
        """The settlement of its run, with what is not written yet."""
        key = row.id, row.fence
        told, number = self._told.pop(key, None), self._numbers.pop(key, 0)
        if not self._told:
            self.due_at = math.inf
        if told is None or isinstance(settlement, Delete):
            return settlement
        return settlement._replace(report=_report(told, number + 1))

    def write(self) -> None:
        """Write what waits, now. Raises ``StoreError``; then nothing is forgotten, and it is due again later."""
        with self._lock:
            waiting, self._told = self._told, {}
            self.due_at = math.inf
            for key in waiting:
                self._numbers[key] = self._numbers.get(key, 0) + 1
            reports = [_report(told, self._numbers[key]) for key, told in waiting.items()]
        if not reports:
            return
        try:
            now = self._context.store.now()
            lost = self._context.store.report(reports, now)
        except StoreError:
            self._failures += 1
            with self._lock:
                self._put_back(waiting)
            raise
        self._failures = 0
        told = [(waiting[one.id, one.fence].row, one) for one in reports if one.id not in lost]
        self._context.telemetry.reported(told, now)

    def _of(self, row: Row) -> _Told:
        key = row.id, row.fence
        self.is_used = True
        if key not in self._told:
            self._told[key] = _Told(row)
            self.due_at = min(self.due_at, self._context.clock.monotonic() + EVERY_S)
        return self._told[key]

    def _put_back(self, waiting: dict[tuple[str, int], _Told]) -> None:
        """Before what was told since. Where it was written although it failed, its lines will stand there twice."""
        for key, told in waiting.items():
            newer = self._told.get(key)
            if newer is not None:
                told.progress = newer.progress or told.progress
                for line in newer.lines:
                    told.add_line(line)
            self._told[key] = told
        self.due_at = self._context.clock.monotonic() + max(EVERY_S, backoff(self._failures))


def checked_progress(done: object, total: object, note: object, at: float, tries: int) -> str:
    """As a row has it. Raises ``ValueError`` or ``TypeError``."""
    if checks.number("total", total, 0) == 0:
        raise ValueError(f"total: more than 0, got {shown(total)}")
    if checks.number("done", done, 0) > checks.number("total", total, 0):
        raise ValueError(f"done: at most total, which is {shown(total)}, got {shown(done)}")
    if isinstance(note, bytes):
        raise TypeError("note: expected a JSON value, got bytes; give a text")
    data, _ = payload.encode(note, payload.UNBOUNDED, "note")
    if len(data) > MAX_NOTE:
        raise ValueError(f"note: {len(data)} bytes, and at most {MAX_NOTE} are allowed")
    return json.dumps(Progress(done, total, note, at, tries), separators=(",", ":"))  # type: ignore[arg-type]


def checked_line(text: object, args: Sequence[object]) -> str:
    """A line of a log. Raises ``ValueError`` or ``TypeError``."""
    line = checks.text("text", text)
    if args:
        try:
            line = line % tuple(args)
        except Exception as error:  # of a class of the user's too
            raise ValueError(f"text: {shown(text)} cannot be formatted with {len(args)} values: {error}") from error
    line = storable(line)
    if len(line.encode()) > MAX_LINE:
        raise ValueError(f"text: a line has at most {MAX_LINE} bytes, got {len(line.encode())}")
    return line


def _report(told: _Told, number: int) -> Report:
    row = told.row
    return Report(row.id, row.fence, number, row.tries, told.progress, tuple(told.lines))
