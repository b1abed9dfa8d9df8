"""What can be configured: each key, its default, and what it takes.

A key stands at the top of the file, in its table ``[worker]``, or in a type's own table, as ``[types.resize]``.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kqueue.brokers import open_broker
from kqueue.model import checks
from kqueue.model.options import CHECKS
from kqueue.model.payload import MAX_RESULT
from kqueue.model.retry import exponential
from kqueue.model.wording import shown
from kqueue.stores import open_store

#: What a text says for None, for which neither TOML nor an environment has a word.
NONE: Final = "none"
#: Characters of an unknown name that are compared and shown.
SHOWN: Final = 60
#: What a text may say for True and False.
FLAGS: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
#: What a delay that grows has in its table.
GROWTH: Final = ("first", "factor", "most", "jitter")
LOG_LEVELS: Final = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True)
class Key:
    """One thing that can be configured."""

    #: Within its table.
    name: str
    #: The value where no layer has one. For a key of a type that stands for: as the queue has it.
    default: Any
    #: Returns the checked value. Raises ``ValueError`` or ``TypeError``: the key, what is allowed and what came.
    check: Callable[[Any], Any]
    #: What it is, in a few words.
    help: str
    #: What a text of the environment or the command line stands for; if for nothing, ``check`` gets the text.
    read: Callable[[str], object] = str
    #: Whether it may be None, for which a text says :data:`NONE`.
    optional: bool = False
    #: What stands for a value in the help of a command.
    metavar: str = "VALUE"
    #: Of one that is a list, for which a text has commas: the option that gives one of them, and may come again.
    option_of_one: str = ""
    #: Whether its option alone, with no value, says True.
    is_flag: bool = False

    @property
    def option(self) -> str:
        """As a command line names it."""
        return self.option_of_one or f"--{self.name.replace('_', '-')}"

    def value(self, given: object) -> Any:
        """``given``, checked."""
        return None if self.optional and given in (None, NONE) else self.check(given)


def nearest(name: str, known: Iterable[str]) -> str:
    """The one of ``known`` that ``name`` looks like most, in upper or lower case."""
    return str(near(name, known, 0.0))


def near(name: str, known: Iterable[str], alike: float = 0.8) -> str | None:
    """The one of ``known`` that ``name`` looks like most, in upper or lower case; None if none is so much ``alike``
    (0..1).
    """
    from difflib import get_close_matches  # noqa: PLC0415 (only for who mistyped)

    by_lower = {one.lower(): one for one in known}
    best = get_close_matches(name[:SHOWN].lower(), by_lower, n=1, cutoff=alike)
    return by_lower[best[0]] if best else None


def _whole(
    name: str, default: int | None, at_least: int, help: str, *, optional: bool = False, metavar: str = "N"
) -> Key:
    return Key(
        name, default, lambda value: checks.whole(name, value, at_least), help, _read_whole, optional, metavar
    )


def _number(name: str, default: float | None, at_least: float, help: str) -> Key:
    return Key(
        name, default, lambda value: checks.number(name, value, at_least), help, _read_number, metavar="SECONDS"
    )


def _flag(name: str, default: bool, help: str) -> Key:
    return Key(name, default, lambda value: checks.flag(name, value), help, _read_flag, is_flag=True)


def _text(name: str, help: str, metavar: str) -> Key:
    return Key(name, None, lambda value: checks.text(name, value), help, optional=True, metavar=metavar)


def _option(name: str, help: str, *, optional: bool = False) -> Key:
    """One that ``KQueue.options`` takes."""
    return Key(name, None, CHECKS[name], help, optional=optional)


def _types(name: str, option: str, help: str) -> Key:
    def check(value: object) -> list[str]:
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise TypeError(f"{name}: expected a list of types, got {shown(value)}")
        try:
            checks.job_types(value)
        except (ValueError, TypeError) as error:
            raise type(error)(str(error).replace("type", name, 1)) from None
        return list(value)

    return Key(name, None, check, help, _read_list, optional=True, metavar="TYPE", option_of_one=option)


def _read_list(text: str) -> object:
    """Words with commas; or JSON, for types that hold one."""
    if text.startswith("["):
        try:
            return json.loads(text)
        except ValueError:
            pass
    return [one.strip() for one in text.split(",")] if text != NONE else NONE


def _read_whole(text: str) -> object:
    try:
        return int(text)
    except ValueError:
        return text


def _read_number(text: str) -> object:
    try:
        return float(text)
    except ValueError:
        return text


def _read_flag(text: str) -> object:
    return FLAGS.get(text.lower(), text)


def _store(value: Any) -> Any:
    open_store(value)  # connects nowhere
    return value


def _broker(value: Any) -> Any:
    if value == "":
        return None
    open_broker(value)  # connects nowhere
    return value


def _log_level(value: object) -> str:
    return checks.one_of("log_level", checks.text("log_level", value).lower(), LOG_LEVELS)


def _retry_delay(value: Any) -> Any:
    """Seconds, a list of them, or a table with the arguments of :func:`~kqueue.model.retry.exponential`."""
    if not isinstance(value, dict):
        return CHECKS["retry_delay"](value)
    for name in value:
        checks.one_of("retry_delay", name, GROWTH)
    if "first" not in value:
        expected = "a table with first, and perhaps factor, most and jitter"
        raise ValueError(f"retry_delay: {expected}, got {shown(value)}")
    return exponential(**value)


#: Of the queue: at the top of the file, with the names and the defaults of ``KQueue``'s own arguments.
QUEUE: Final = (
    Key("store", None, _store, "Where the jobs are kept: a URL.", optional=True, metavar="URL"),
    Key(
        "broker", None, _broker, "The beanstalkd: a URL. None: the store dispatches.", optional=True, metavar="URL"
    ),
    _number("retry_delay", 30, 0, "Seconds until a failed job runs again: doubled each time, up to a day."),
    _whole("max_tries", 30, 1, "Failed runs until a job is dead. None: never.", optional=True),
    _flag("delete_on_success", False, "Whether a job is deleted when its handler returns."),
    Key(
        "max_age",
        None,
        CHECKS["max_age"],
        "Seconds after its add from which on a job whose run fails is dead. None: no end.",
        _read_number,
        optional=True,
        metavar="SECONDS",
    ),
    _whole("max_crashes", 3, 1, "Deaths of a worker that ran the job alone until it is dead."),
    _number("sweep_interval", 15, 0.01, "Seconds between two repairs."),
    _number("settle_ms", 20, 0, "Milliseconds that an ended job of a window may wait to be written."),
    _whole("max_payload", 15 * 2**20, 0, "Bytes of a payload, once encoded."),
    _whole("max_result", MAX_RESULT, 0, "Bytes of a result, once encoded."),
    Key("prefix", None, checks.prefix, "Of tube names. None: the store's own.", optional=True),
    _flag("create", True, "Whether to make a SQLite file that is missing."),
    _flag("log_payloads", False, "Whether log records show payloads."),
)
#: Of ``kqueue worker``: in the table ``[worker]``, with the names of its options, which are made of these.
WORKER: Final = (
    _text("app", "Where the KQueue and its handlers are.", "MODULE:QUEUE"),
    _whole("processes", 1, 1, "Processes that run jobs."),
    _whole("threads", 1, 1, "Jobs of plain functions that each runs at once."),
    _types("types", "--type", "Run jobs of this type only; may come again. None: all that have a handler."),
    _types("except_types", "--except", "Run no jobs of this type; may come again."),
    _number("grace", 30, 0, "What running handlers get at a stop."),
    _whole("max_jobs", None, 1, "Jobs after which a process is replaced. None: never.", optional=True),
    _whole(
        "max_rss",
        None,
        1,
        "Memory with which a process is replaced, looked at each second. None: never.",
        optional=True,
        metavar="MIB",
    ),
    _text("health_file", "A file that is written each second while all processes get on.", "PATH"),
    Key(
        "log_level",
        "info",
        _log_level,
        f"Which lines go to standard error, unless the app configures logging: one of {', '.join(LOG_LEVELS)}.",
        metavar="LEVEL",
    ),
    _flag("log_jobs", False, "Tell each start and each end of a job, at INFO."),
)
#: Of a type: in its table ``[types.NAME]``. What ``KQueue.options`` takes, and ...
OPTIONS: Final = (
    _option("priority", "URGENT, HIGH, NORMAL, LOW, BULK or a number."),
    _option("delay", "Seconds until a new job may run."),
    _option("ttr", "Seconds that a job may run before others may take it."),
    Key("retry_delay", None, _retry_delay, "Seconds until a failed job runs again: a number, a list or a table."),
    _option("max_tries", "Failed runs until a job is dead. None: never.", optional=True),
    _option("keep_done", "Seconds that a finished job is kept, with its result."),
    _option("tombstone", "The same, at least, for who waits for its end."),
    _option("unique_for", "Seconds that a unique key is taken at least."),
    _option("delete_on_success", "Whether a job is deleted when its handler returns."),
    _option(
        "max_age", "Seconds after its add from which on a job whose run fails is dead. None: no end.", optional=True
    ),
)
#: ... what ``KQueue.limit`` takes.
LIMITS: Final = (
    _whole("running", None, 1, "Jobs at once, over all workers."),
    _whole("running_per_key", None, 1, "Jobs of one key at once, over all workers."),
    _whole("starts", None, 1, "Jobs that start in each period, over all workers."),
    _number("period", None, 0.001, "Seconds of that period."),
)
