"""``--watch``: the same look again and again, until Ctrl-C.

On a terminal each look takes the place of the one before. It is written at once, over what stands there, and
nothing is wiped before: so it does not flicker. Elsewhere each is a block of lines, with an empty one behind it.
"""

import shutil
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

import click

from kqueue import StoreUnavailable
from kqueue.cli.terminal import Command, one_line
from kqueue.cli.times import duration
from kqueue.model.urls import without_passwords
from kqueue.model.wording import moment
from kqueue.system.clock import SystemClock

#: Seconds between two looks, if none are given, and at least.
EVERY: Final = "2"
LEAST_S: Final = 0.1
#: And at most: a day.
MOST_S: Final = 86_400.0

# https://man7.org/linux/man-pages/man4/console_codes.4.html
_WIPE: Final = "\x1b[2J"
_HOME: Final = "\x1b[H"
_WIPE_REST_OF_LINE: Final = "\x1b[K"
_WIPE_BELOW: Final = "\x1b[J"
_HIDE_CURSOR: Final = "\x1b[?25l"
_SHOW_CURSOR: Final = "\x1b[?25h"


def watch_option(command: Command) -> Command:
    """``--watch``, for :func:`show_each`: seconds, or None."""
    text = f"Look again each {EVERY} seconds, or each TIME, until Ctrl-C."
    return click.option(
        "--watch", "every", is_flag=False, flag_value=EVERY, callback=_every, metavar="[TIME]", help=text
    )(command)


def show_each(look: Callable[[], Sequence[str]], every: float | None) -> None:
    """Print the lines that ``look()`` returns: once, or again and again. Once it has worked, a store that does not
    answer is said, and looked at again.
    """
    lines = look()
    if every is None:
        _print_block(lines)
        return
    is_terminal = sys.stdout.isatty()
    try:
        if is_terminal:
            sys.stdout.write(_HIDE_CURSOR + _WIPE)
        while True:
            if is_terminal:
                sys.stdout.write(_frame(lines, every))
            else:
                _print_block([*lines, ""])
            sys.stdout.flush()
            time.sleep(every)
            lines = _look_again(look)
    except KeyboardInterrupt:
        pass  # this is how it ends
    finally:
        if is_terminal:
            sys.stdout.write(_SHOW_CURSOR)


def _every(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    seconds = duration(context, parameter, value)
    if seconds is not None and not LEAST_S <= seconds <= MOST_S:
        raise click.BadParameter(f"expected {LEAST_S:g} s to {MOST_S:g} s, got {value!r:.40}")
    return seconds


def _look_again(look: Callable[[], Sequence[str]]) -> Sequence[str]:
    try:
        return look()
    except StoreUnavailable as error:
        return [one_line(without_passwords(str(error)))]


def _print_block(lines: Sequence[str]) -> None:
    click.echo("\n".join(lines))


def _frame(lines: Sequence[str], every: float) -> str:
    """As much as the terminal holds, in one text."""
    width, height = shutil.get_terminal_size()
    # In the last line stands the cursor: to write to its end could scroll.
    room = max(1, height - 3)
    shown = list(lines) if len(lines) <= room else [*lines[: room - 1], f"... {len(lines) - room + 1} lines more"]
    heading = f"{moment(SystemClock().time())}, each {every:g} s until Ctrl-C"
    return _HOME + "".join(f"{line[:width]}{_WIPE_REST_OF_LINE}\n" for line in (heading, "", *shown)) + _WIPE_BELOW
