"""Checks of what users pass in, before anything is written or sent.

Each returns the checked value, or raises ``ValueError`` or ``TypeError`` that names the argument, what is
allowed and what came.
"""

import inspect
import logging
import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from kqueue.model.ids import is_job_id
from kqueue.model.job import JobInHand, Priority, State
from kqueue.model.wording import shown

#: Most types look so, and are their own tube's name: see :mod:`kqueue.model.tubes`.
_PLAIN_TYPE = re.compile(r"(?!-)[A-Za-z0-9_.\-/]{1,190}", re.ASCII)
#: Bytes of a type in UTF-8.
MAX_TYPE = 190
#: Of a pause: the whole queue.
NO_TYPE = "*"
PREFIX_FORM = re.compile(r"(?!-)[A-Za-z0-9_.\-/]{0,10}", re.ASCII)
MAX_PRIORITY = 2**32 - 1
#: Of any number of things: as far as floats and JSON count exactly, and as both databases can.
MOST = 2**53
#: Characters of a unique key and of a limit key.
MAX_KEY = 200

T = TypeVar("T")


def job_type(value: object) -> str:
    """Printable characters, 1 to 190 bytes of them in UTF-8; but not ``*`` alone, which stands for all types."""
    type = text("type", value)
    if _PLAIN_TYPE.fullmatch(type):
        return type
    if not type.isprintable() or not 1 <= len(type.encode()) <= MAX_TYPE:
        raise ValueError(f"type: printable characters, 1 to {MAX_TYPE} bytes of them in UTF-8, got {shown(value)}")
    if type == NO_TYPE:
        raise ValueError(f"type: not {NO_TYPE!r} alone, which stands for all types")
    return type


def job_types(values: Sequence[object]) -> None:
    """One type at least, none of them twice."""
    if not values:
        raise TypeError("type: expected at least one type")
    for value in values:
        job_type(value)
    if len(set(values)) < len(values):
        raise ValueError(f"type: each once, got {shown(values)}")


def prefix(value: object) -> str:
    """At most 10 characters of those of a type."""
    return _formed("prefix", value, PREFIX_FORM, "at most 10")


def priority(value: object) -> int:
    """A ``Priority``, its name in any case, or an integer 0..2**32-1."""
    if isinstance(value, str):
        if value.upper() in Priority.__members__:
            return Priority[value.upper()].value
        raise ValueError(f"priority: {_priorities()}, got {shown(value)}")
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"priority: {_priorities()}, got {shown(value)}")
    if not 0 <= value <= MAX_PRIORITY:
        raise ValueError(f"priority: 0..{MAX_PRIORITY}, got {shown(value)}")
    return int(value)


def number(name: str, value: object, at_least: float) -> float:
    """A finite number, not below ``at_least``."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}: expected a number, at least {at_least:g}, got {shown(value)}")
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    if not math.isfinite(result) or result < at_least:
        raise ValueError(f"{name}: a finite number, at least {at_least:g}, got {shown(value)}")
    return result


def part(name: str, value: object) -> float:
    """A number from 0 to 1."""
    result = number(name, value, 0)
    if result > 1:
        raise ValueError(f"{name}: from 0 to 1, got {shown(value)}")
    return result


def whole(name: str, value: object, at_least: int, at_most: int = MOST) -> int:
    """An integer, not below ``at_least``, nor above ``at_most``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: expected an integer, at least {at_least}, got {shown(value)}")
    if value < at_least:
        raise ValueError(f"{name}: at least {at_least}, got {shown(value)}")
    if value > at_most:
        raise ValueError(f"{name}: at most {at_most}, got {shown(value)}")
    return value


def job_id(value: object) -> str:
    """A job id, see :mod:`kqueue.model.ids`."""
    if not isinstance(value, str):
        raise TypeError(f"id: expected a job id (28 characters of 0-9 and a-v), got {shown(value)}")
    if not is_job_id(value):
        raise ValueError(f"id: a job id is 28 characters of 0-9 and a-v, got {shown(value)}")
    return value


def place(value: str | None) -> int:
    """A number that was given as a place to go on from; 0 for None."""
    if value is not None and not re.fullmatch("[0-9]{1,18}", value, re.ASCII):
        raise ValueError(f"after: expected what a former call gave, got {shown(value)}")
    return int(value or 0)


def ids(value: object) -> list[str]:
    """Several texts. One by itself is most likely a mistake."""
    if isinstance(value, str | bytes | bytearray) or not isinstance(value, Iterable):
        raise TypeError(f"ids: expected a list of job ids, got {shown(value)}")
    return [text(f"ids[{number}]", one) for number, one in enumerate(value)]


def key(name: str, value: object) -> str:
    """A str of 1 to 200 printable characters: they are shown to operators."""
    if not 1 <= len(text(name, value)) <= MAX_KEY or not str(value).isprintable():
        raise ValueError(f"{name}: 1 to {MAX_KEY} printable characters, got {shown(value)}")
    return str(value)


def text(name: str, value: object) -> str:
    """A str."""
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected a str, got {shown(value)}")
    return value


def path(name: str, value: object) -> str:
    """The name of a file, not empty."""
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name}: expected the name of a file, got {shown(value)}")
    found = os.fspath(value)
    if not isinstance(found, str) or not found or "\0" in found or not _is_encodable(found):
        raise ValueError(f"{name}: expected the name of a file, got {shown(value)}")
    return found


def _is_encodable(path: str) -> bool:
    try:
        os.fsencode(path)
    except UnicodeError:
        return False
    return True


def flag(name: str, value: object) -> bool:
    """True or False, and nothing that merely passes for one."""
    if not isinstance(value, bool):
        raise TypeError(f"{name}: expected True or False, got {shown(value)}")
    return value


def state(value: object) -> State:
    """A ``State`` or its name."""
    try:
        return State(text("state", value))
    except ValueError:
        raise ValueError(f"state: one of {', '.join(State)}, got {shown(value)}") from None


def logger(value: object) -> logging.Logger:
    """A ``logging.Logger``."""
    if not isinstance(value, logging.Logger):
        raise TypeError(f"logger: expected a logging.Logger, got {shown(value)}")
    return value


def handler_function(name: str, value: object) -> bool:
    """Something that can be called and is no generator function. Returns whether it is a coroutine function."""
    if not callable(value):
        raise TypeError(f"{name}: expected something to call, got {shown(value)}")
    # A class is called to make an instance, whatever calling that would do.
    forms = [value] if isinstance(value, type) else [value, getattr(value, "__call__", None)]  # noqa: B004
    if any(inspect.isgeneratorfunction(one) or inspect.isasyncgenfunction(one) for one in forms):
        raise TypeError(
            f"{name}: a generator function does nothing when it is called; give a function or an async def"
        )
    return any(inspect.iscoroutinefunction(one) for one in forms)


def plain_function(name: str, value: object) -> None:
    """Something that can be called and does its work in the call: no coroutine or generator function."""
    if handler_function(name, value):
        raise TypeError(f"{name}: an async def does nothing when it is called; give a plain function")


def takes(name: str, value: Callable[..., object], what: str, sample: tuple[object, ...]) -> None:
    """A plain function that can be called with as many arguments as ``sample``; ``what`` says which these are."""
    plain_function(name, value)
    try:
        signature = inspect.signature(value)
    except ValueError:
        return  # of a function that is not written in Python and does not tell
    try:
        signature.bind(*sample)
    except TypeError as error:
        raise TypeError(f"{name}: the function is called with {what}; {shown(value)} cannot be: {error}") from None


def error_classes(name: str, value: object) -> tuple[type[BaseException], ...]:
    """A class of exceptions, or several, as ``except`` takes them."""
    classes = tuple(value) if isinstance(value, tuple | list) else (value,)
    for one in classes:
        if not (isinstance(one, type) and issubclass(one, BaseException)):
            raise TypeError(f"{name}: expected classes of exceptions, got {shown(one)}")
    return classes


def one_of(name: str, value: str, allowed: Iterable[str]) -> str:
    """One of the names that are ``allowed``; the error says which comes nearest."""
    names = sorted(allowed)
    if value not in names:
        from difflib import get_close_matches  # noqa: PLC0415 (only for who mistyped)

        nearest = get_close_matches(value, names, n=1, cutoff=0.0)[0]
        raise ValueError(f"{name}: no {shown(value)}; did you mean {nearest!r}? There are {', '.join(names)}")
    return value


def in_hand(value: object) -> JobInHand:
    """The job that a handler was given."""
    if not isinstance(value, JobInHand):
        raise TypeError(f"job: expected the job that a handler was given, got {shown(value)}")
    return value


def instance(name: str, value: T, method: str) -> T:
    """Something that has ``method``: a store or a broker of the user's own."""
    if isinstance(value, type) or not callable(getattr(value, method, None)):
        # Not its repr: of a URL in bytes, or of a parsed one, that holds the password.
        raise TypeError(f"{name}: expected a URL or a {name}, got {type(value).__name__}")
    return value


def is_a(name: str, value: object, kind: type[T]) -> T:
    """An instance of ``kind``."""
    if not isinstance(value, kind):
        raise TypeError(f"{name}: expected a {kind.__name__}, got {shown(value)}")
    return value


def payloads(value: object) -> list[object]:
    """Several payloads. One payload by itself is most likely a mistake, so it is refused."""
    if isinstance(value, str | bytes | dict) or not isinstance(value, Iterable):
        raise TypeError(f"payloads: expected a list of payloads, got {shown(value)}; for one use add_job")
    return list(value)


def _formed(name: str, value: object, form: re.Pattern[str], length: str) -> str:
    if not form.fullmatch(text(name, value)):
        raise ValueError(
            f"{name}: {length} characters of A-Z a-z 0-9 _ . - / that do not start with -, got {shown(value)}"
        )
    return str(value)


def _priorities() -> str:
    return f"one of {', '.join(one.name for one in Priority)} or an integer 0..{MAX_PRIORITY}"
