"""``kqueue show ID --follow``: a job's log and progress as they come, until its end.

On a terminal the progress is a bar below the last line, drawn anew each time; elsewhere a line when it has changed.
"""

import sys
import time
from collections.abc import Callable, Iterator
from typing import Final

import click

from kqueue import Job, KQueue, LogLine, Progress, State
from kqueue.cli.exits import OK, SOME_FAILED
from kqueue.cli.terminal import harmless, one_line
from kqueue.model.wording import moment

#: Seconds between two looks.
EVERY_S: Final = 0.5
#: Lines that are read at once.
PAGE: Final = 1000
#: Characters of the bar.
WIDTH: Final = 30

_WIPE_LINE: Final = "\r\x1b[K"


def follow(queue: KQueue, job_id: str, wait: Callable[[float], object] = time.sleep) -> int:
    """Returns the exit status: whether it is done, or gone. ``wait(seconds)`` is called between two looks."""
    shown = _Shown(bar=sys.stdout.isatty())
    after: int | None = None
    while True:
        job = queue.get_job(job_id)
        while lines := queue.job_log(job_id, after, PAGE):
            shown.say(*(text for line in lines for text in log_lines(line)))
            after = lines[-1].number
        if job is None:
            shown.end("gone: it is finished and was not kept, or it was deleted")
            return OK
        shown.job(job)
        if job.state in {State.DONE, State.DEAD}:
            shown.end("" if job.reason is None else one_line(job.reason))
            return OK if job.state == State.DONE else SOME_FAILED
        wait(EVERY_S)


def log_lines(line: LogLine) -> Iterator[str]:
    """As they are shown, with when and in which try the first of them was told."""
    first, *others = map(harmless, line.text.split("\n"))
    yield f"{moment(line.at)}  try {line.tries}  {first}"
    yield from (f"    {other}" for other in others)


def progress_text(progress: Progress) -> str:
    """``4 of 10, 40 %, in try 1: note``."""
    note = "" if progress.note is None else f": {one_line(str(progress.note))}"
    return f"{progress.done:g} of {progress.total:g}, {progress.percent:.0f} %, in try {progress.tries}{note}"


class _Shown:
    """What stands on the output."""

    def __init__(self, *, bar: bool) -> None:
        self._has_bar = bar
        self._state = ""
        self._progress = ""
        self._is_drawn = False

    def say(self, *lines: str) -> None:
        """Above the bar."""
        if self._is_drawn:
            click.echo(_WIPE_LINE, nl=False)
            self._is_drawn = False
        for line in lines:
            click.echo(line)

    def job(self, job: Job) -> None:
        """As it is now."""
        if job.state != self._state:
            self._state = job.state.value
            self.say(f"{self._state}, try {job.tries}" if job.tries else self._state)
        text = "" if job.progress is None else progress_text(job.progress)
        if job.progress is not None and self._has_bar:
            full = int(WIDTH * job.progress.percent / 100)
            click.echo(f"{_WIPE_LINE}[{'#' * full}{'-' * (WIDTH - full)}] {text}", nl=False)
            self._is_drawn = True
        elif text != self._progress:
            self.say(text)
        self._progress = text

    def end(self, line: str) -> None:
        """The bar stays as it is."""
        if self._is_drawn:
            click.echo()
            self._is_drawn = False
        if line:
            click.echo(line)
